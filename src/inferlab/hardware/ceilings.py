"""Measured ceilings of this machine: matrix products, device memory, host-device copies.

Datasheets give rates that no program reaches; what torch reaches is the ceiling that an engine on
the same machine may fairly be held against. Run by `./lab record`, in an interpreter that has
torch:

python -m inferlab.hardware.ceilings --out ceilings.json
"""

from collections.abc import Iterator
from math import inf
from typing import Any

from inferlab.hardware.experiment import run
from inferlab.hardware.timing import Series, free_bytes, load_torch, seconds_per_run

GIB = 1 << 30
MIB = 1 << 20
MATMUL_SIZES = {
    "cuda": (256, 512, 1024, 2048, 4096, 6144, 8192, 12288, 16384),
    "cpu": (256, 512, 1024, 2048),
}
SLOWEST_PRODUCT_S = 1.0
MATMUL_DTYPES = {"cuda": ("bf16", "fp16", "fp8", "tf32"), "cpu": ("fp32", "bf16")}
COPY_MIB = {
    "cuda": (1, 4, 16, 32, 64, 128, 256, 1024, 4096, 8192),
    "cpu": (1, 4, 16, 64, 256, 512),
}
HOST_DEVICE_MIB = (1, 16, 256, 1024)


def matmul(size: int, dtype: str, device: str, repeats: int) -> Series | None:
    """FLOP/s of an n×n×n product on random data (2·n³ operations); None where the dtype is not
    supported.

    Random data because products of zeros draw less power and run faster. FP8 is e4m3 with one scale
    a tensor (`torch._scaled_mm`), output in bf16; TF32 is float32 input through the tensor cores.
    """
    torch = load_torch()

    try:
        work = _matmul_work(torch, size, dtype, device)
        seconds = seconds_per_run(work, device, repeats=repeats, budget_s=_budget(device))
    except (RuntimeError, NotImplementedError, AttributeError):
        return None
    values = [2 * size**3 / second for second in seconds]
    return Series("matmul", "flop/s", values, {"dtype": dtype, "size": size})


def _matmul_work(torch: Any, size: int, dtype: str, device: str):
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    if dtype == "fp8":
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16)
    if dtype in ("bf16", "fp16"):
        kind = torch.bfloat16 if dtype == "bf16" else torch.float16
        a, b = a.to(kind), b.to(kind)
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    out = torch.empty_like(a)
    return lambda: torch.matmul(a, b, out=out)


def device_copy(mib: int, device: str, repeats: int) -> Series:
    """Byte/s of copying `mib` MiB within device memory, bytes read plus bytes written.

    Sizes that fit the last-level cache show the cache, not the memory: that is why several are
    measured.
    """
    torch = load_torch()

    source = torch.randint(0, 127, (mib * MIB,), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    seconds = seconds_per_run(
        lambda: target.copy_(source), device, repeats=repeats, budget_s=_budget(device)
    )
    values = [2 * mib * MIB / second for second in seconds]
    return Series("device_copy", "byte/s", values, {"mib": mib})


def device_read(mib: int, device: str, repeats: int) -> Series:
    """Byte/s of reading `mib` MiB once (a sum): the access pattern of decode, which writes next to
    nothing."""
    torch = load_torch()

    source = torch.randn(mib * MIB // 4, device=device)
    seconds = seconds_per_run(source.sum, device, repeats=repeats, budget_s=_budget(device))
    return Series("device_read", "byte/s", [mib * MIB / second for second in seconds], {"mib": mib})


def host_device_copy(mib: int, direction: str, pinned: bool, repeats: int) -> Series:
    """Byte/s of one copy between host and GPU over PCIe (or NVLink-C2C), from pinned or pageable
    host memory."""
    torch = load_torch()

    host = torch.randint(0, 127, (mib * MIB,), dtype=torch.int8)
    host = host.pin_memory() if pinned else host
    gpu = torch.empty(mib * MIB, dtype=torch.int8, device="cuda")
    source, target = (host, gpu) if direction == "h2d" else (gpu, host)
    seconds = seconds_per_run(
        lambda: target.copy_(source, non_blocking=pinned), "cuda", repeats=repeats
    )
    labels = {"mib": mib, "direction": direction, "host_memory": "pinned" if pinned else "pageable"}
    return Series("host_device_copy", "byte/s", [mib * MIB / second for second in seconds], labels)


def _budget(device: str) -> float:
    return 0.06 if device == "cuda" else 0.25


def measure(device: str, repeats: int = 5) -> Iterator[Series]:
    """All ceilings of `device`, quickest kind first; sizes that do not fit in free memory are left
    out."""
    fitting = [mib for mib in COPY_MIB[device] if 3 * mib * MIB < free_bytes(device)]
    for mib in fitting:
        yield device_copy(mib, device, repeats)
    for mib in fitting[-2:]:
        yield device_read(mib, device, repeats)
    if device == "cuda":
        for mib in HOST_DEVICE_MIB:
            for direction in ("h2d", "d2h"):
                for pinned in (True, False):
                    yield host_device_copy(mib, direction, pinned, repeats)
    for dtype in MATMUL_DTYPES[device]:
        yield from products(dtype, device, repeats)


def products(dtype: str, device: str, repeats: int) -> Iterator[Series]:
    """Products of growing size, as long as one takes a second at most: a CPU without instructions
    for a dtype is hundreds of times slower in it."""
    flops_per_s = inf
    for size in MATMUL_SIZES[device]:
        if 2 * size**3 / flops_per_s > SLOWEST_PRODUCT_S or 16 * size**2 >= free_bytes(device):
            return
        series = matmul(size, dtype, device, repeats)
        if series is not None:
            flops_per_s = max(series.values)
            yield series


if __name__ == "__main__":
    run(__doc__, lambda device, repeats, _: measure(device, repeats))
