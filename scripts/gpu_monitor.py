#!/usr/bin/env python3
"""GPU monitor: live table, CSV/Parquet/JSONL, Prometheus. See `--help`; the code is
`inferlab.hardware.monitor`."""

from inferlab.hardware.monitor import main

if __name__ == "__main__":
    raise SystemExit(main())
