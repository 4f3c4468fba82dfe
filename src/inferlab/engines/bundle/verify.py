"""Try an installed bundle: import the engine, and compute on every GPU with it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferlab.engines.bundle.install import installed
from inferlab.errors import LabError

LARGEST_ERROR = 1e-2  # bf16 products of this size lie near 2e-3
Say = Callable[[str], None]


def verify(into: Path, *, say: Say = print) -> None:
    """Import the engine from the bundle and compute on each GPU.

    Raises:
        LabError: there is no bundle, it does not load, there is no GPU, or a result is wrong.
    """
    into = into.resolve()
    package = installed(into).about["package"]
    found = _check(into, package)
    versions = f"{package} {found['engine']}，torch {found['torch']}（CUDA {found['cuda']}）"
    say(f"{versions}，导入 {found['import_s']} s")
    if not found["gpus"]:
        raise LabError("torch 看不到 GPU", remedy="用 nvidia-smi 检查驱动")
    for index, gpu in enumerate(found["gpus"]):
        errors = "，".join(f"{name} {error:.1e}" for name, error in gpu["errors"].items())
        say(f"GPU {index} {gpu['name']}：相对误差 {errors}")
        if not all(error < LARGEST_ERROR for error in gpu["errors"].values()):
            raise LabError(f"GPU {index} 算得不对", remedy="重新 build，不要手工删文件")


def _check(into: Path, package: str) -> dict[str, Any]:
    script = Path(__file__).with_name("engine_check.py")
    environment = {**os.environ, "PYTHONPATH": str(into)}
    done = subprocess.run(
        [sys.executable, "-P", str(script), package],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["没有输出"])[-1]
        raise LabError(
            f"{package} 加载或计算失败（{last}）", remedy="按这台主机的 describe 重新 build"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])
