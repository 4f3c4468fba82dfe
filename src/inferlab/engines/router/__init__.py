"""An HTTP router for OpenAI-compatible engines: prefill and decode apart, or plain replicas.

    python -m inferlab.engines.router --prefill URL --decode URL      # NIXL, any number of each
    python -m inferlab.engines.router --serve URL --serve URL         # replicas, the same path

Needs the standard library and aiohttp only, so that it also runs inside an engine's own image.
Read it in this order: `handover` (the protocol), `exchange` (what is said to a worker), `attempts`
(when to try again), `stream` (what reaches the client), `workers` (who is alive), `app` (the
routes), `service` (all of it put together).
"""
