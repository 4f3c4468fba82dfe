#!/usr/bin/env python3
"""Whether PD separation really moves KV cache, and by what. See `--help`; the code is
`inferlab.measure.kv_transfer_check`."""

from inferlab.measure.kv_transfer_check import main

if __name__ == "__main__":
    raise SystemExit(main())
