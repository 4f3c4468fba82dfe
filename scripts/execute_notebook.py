"""Run notebooks against the engine that is up and save them with their outputs, in canonical form.

./lab up chapter03
.venv/bin/python scripts/execute_notebook.py notebooks/chapter03_gpu_basics.ipynb
"""

import argparse
from pathlib import Path

from inferlab.book.notebooks import execute


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", type=Path, nargs="+")
    for path in parser.parse_args().notebooks:
        execute(path, path)
        print(path)


if __name__ == "__main__":
    main()
