"""Where CUDA's compiler and the runtime library to link with lie together.

SGLang compiles some kernels when it starts (sglang/kernels/jit/utils/compile/toolchain.py). It
takes the folder above the `nvcc` of `PATH` for the toolkit, which is wrong where that is a link or
a wrapper in `/usr/local/bin`: compiling works then and linking does not.
"""

import os
import shutil
from pathlib import Path

from inferlab.errors import LabError

VARIABLE = "CUDA_HOME"
USUAL = Path("/usr/local/cuda")


def cuda_toolkit() -> Path | None:
    """The toolkit that `CUDA_HOME` or `CUDA_PATH` names, else the one of `nvcc`, else the usual
    one; None where none is whole."""
    if named := os.environ.get(VARIABLE) or os.environ.get("CUDA_PATH"):
        return Path(named) if _is_whole(Path(named)) else None
    compiler = shutil.which("nvcc")
    found = [Path(compiler).resolve().parents[1]] if compiler else []
    return next((folder for folder in (*found, USUAL) if _is_whole(folder)), None)


def require_cuda_toolkit(engine: str) -> None:
    """Raise a LabError where there is none."""
    if not cuda_toolkit():
        raise LabError(
            f"{engine} 启动时要用 nvcc 现编内核，没有找到 CUDA toolkit",
            remedy=f"安装 CUDA toolkit 13，装在别处就设 {VARIABLE}",
        )


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("bin/nvcc", "lib64/libcudart.so"))
