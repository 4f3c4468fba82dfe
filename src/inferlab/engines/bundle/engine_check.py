"""Run by `verify` in its own process, the bundle first on the path: import the engine, compute on
every GPU, print one line of JSON.

A product against float64, and the engine's own RMSNorm: both use GPU code of pruned libraries.
"""

import importlib
import json
import sys
import time
from types import ModuleType
from typing import Any


def main(package: str) -> None:
    """Print versions, import seconds, and relative errors for each GPU."""
    started = time.monotonic()
    engine = importlib.import_module(package)
    torch = importlib.import_module("torch")
    import_s = round(time.monotonic() - started, 1)
    gpus = [_gpu(torch, package, index) for index in range(torch.cuda.device_count())]
    versions = {"engine": engine.__version__, "torch": torch.__version__}
    versions["cuda"] = torch.version.cuda
    print(json.dumps(versions | {"import_s": import_s, "gpus": gpus}))


def _gpu(torch: ModuleType, package: str, index: int) -> dict[str, Any]:
    torch.cuda.set_device(index)
    torch.manual_seed(0)
    a, b = (torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    errors = {"矩阵乘": _relative_error(a @ b, a.double() @ b.double())}
    if package == "vllm":
        errors["vLLM 的 RMSNorm"] = _rms_norm_error(torch)
    return {"name": torch.cuda.get_device_name(index), "errors": errors}


def _rms_norm_error(torch: ModuleType) -> float:
    operations = importlib.import_module("vllm._custom_ops")
    x = torch.randn(64, 4096, device="cuda", dtype=torch.bfloat16)
    out, weight = torch.full_like(x, float("nan")), torch.ones_like(x[0])
    operations.rms_norm(out, x, weight, 1e-6)
    return _relative_error(out, x.double() / (x.double().pow(2).mean(-1, True) + 1e-6).sqrt())


def _relative_error(found: Any, exact: Any) -> float:
    return float((found.double() - exact).norm() / exact.norm())


if __name__ == "__main__":
    main(sys.argv[1])
