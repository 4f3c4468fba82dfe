"""The command line that all measuring modules share, so that `./lab record` can run any."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from inferlab.hardware.timing import Series, device_name

Measure = Callable[[str, int, dict[str, Any]], Iterable[Series]]


def run(description: str | None, measure: Measure) -> None:
    """Parse `--out FILE --repeats N [--config CONFIG_JSON]`, measure, print and write the series.

    Args:
        measure: gives the series for a device (`cuda` or `cpu`), a number of repeats, and the
            content of the model's `config.json` (empty when none is given).
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text(encoding="utf-8")) if arguments.config else {}
    device, found = device_name(), []
    for series in measure(device, arguments.repeats, config):
        middle = sorted(series.values)[len(series.values) // 2]
        labels = " ".join(f"{name}={value}" for name, value in series.labels.items())
        print(f"{series.name} {labels}: {middle:.4g} {series.unit}", flush=True)
        found.append(series.as_dict())
    arguments.out.write_text(json.dumps({"device": device, "series": found}), encoding="utf-8")
