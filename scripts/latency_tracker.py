#!/usr/bin/env python3
"""Latency tracker for a live service: CSV, Prometheus. See `--help`; the code is
`inferlab.load.tracker`."""

from inferlab.load.tracker import main

if __name__ == "__main__":
    raise SystemExit(main())
