"""Offline bundles: an engine with all it needs, as numbered parts for a host without a network.

`target` describes the host, `contents` decides what travels, `fatbin` drops GPU code that the host
cannot use, `parts` cuts and joins the archive, `build`, `install` and `verify` are the three steps.
`target`, `parts`, `install` and `verify` run on the host: they need the standard library alone.
"""
