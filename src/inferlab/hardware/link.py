"""The link between two GPUs of one host: byte/s of copies from device to device, over their size.

What NVLink (or PCIe, where there is none) gives to a plain copy is the ceiling that a KV handover
may fairly be held against. Run by `./lab record`, in an interpreter that has torch:

python -m inferlab.hardware.link --out link.json
"""

from collections.abc import Iterator

from inferlab.errors import LabError
from inferlab.hardware.experiment import run
from inferlab.hardware.timing import Series, load_torch, seconds_per_run

KIB = 1 << 10
COPY_KIB = (64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)


def device_to_device(kib: int, repeats: int, source: int = 0, target: int = 1) -> Series:
    """Byte/s of one copy of `kib` KiB from one GPU's memory into another's."""
    torch = load_torch()
    here = torch.randint(0, 127, (kib * KIB,), dtype=torch.int8, device=f"cuda:{source}")
    there = torch.empty_like(here, device=f"cuda:{target}")
    with torch.cuda.device(source):
        seconds = seconds_per_run(
            lambda: there.copy_(here, non_blocking=True), "cuda", repeats=repeats
        )
    labels = {"kib": kib, "from": source, "to": target}
    return Series("device_to_device", "byte/s", [kib * KIB / each for each in seconds], labels)


def require_two_gpus(device: str) -> None:
    """Raise a LabError when there are not two GPUs, or they cannot reach each other's memory."""
    torch = load_torch()
    if device != "cuda" or torch.cuda.device_count() < 2:
        raise LabError("只有一块 GPU，量不了 GPU 之间的链路", remedy="在有两块 GPU 的机器上测")
    if not torch.cuda.can_device_access_peer(0, 1):
        raise LabError("两块 GPU 不能互访显存", remedy="nvidia-smi topo -p2p r 看原因")


def measure(device: str, repeats: int = 5) -> Iterator[Series]:
    """All sizes, in both directions.

    Raises:
        LabError: as `require_two_gpus`.
    """
    require_two_gpus(device)
    for kib in COPY_KIB:
        yield device_to_device(kib, repeats)
        yield device_to_device(kib, repeats, 1, 0)


if __name__ == "__main__":
    run(__doc__, lambda device, repeats, _: measure(device, repeats))
