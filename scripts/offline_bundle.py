#!/usr/bin/env python3
"""Offline bundles: an engine for a GPU host without a network. See docs/offline.md; the code is
`inferlab.engines.bundle`. On the host it needs nothing but Python."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from inferlab.engines.bundle.command import main

if __name__ == "__main__":
    raise SystemExit(main())
