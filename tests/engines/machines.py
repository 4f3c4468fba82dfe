"""Machines as the choice of an engine sees them."""

from inferlab.engines.machine import Docker, Gpu, Machine

GIB = 2**30
DOCKER = Docker("29.0.1", "29.0.1", "", ("docker", "compose"), "2.40.3", nvidia_runtime=False)
DOCKER_GPU = Docker("29.0.1", "29.0.1", "", ("docker", "compose"), "2.40.3", nvidia_runtime=True)
DAEMON_DOWN = Docker("29.0.1", "", "permission denied", ("docker", "compose"), "2.40.3")
H100 = Gpu("NVIDIA H100 80GB HBM3", 81_559 * 2**20)


def machine(**changes) -> Machine:
    """A Linux laptop without GPU and Docker, changed as told."""
    facts = {
        "system": "Linux",
        "architecture": "x86_64",
        "cpu_flags": frozenset({"avx2"}),
        "cpu_count": 8,
        "memory_total_bytes": 16 * GIB,
        "memory_available_bytes": 10 * GIB,
        "disk_free_bytes": 100 * GIB,
        "python_version": (3, 12),
    }
    return Machine(**{**facts, **changes})


LAPTOP = machine()
LAPTOP_DOCKER = machine(docker=DOCKER)
MAC_DOCKER = machine(system="Darwin", architecture="arm64", cpu_flags=frozenset(), docker=DOCKER)
SERVER = machine(gpus=(H100,), driver="580.95.05")
SERVER_DOCKER = machine(gpus=(H100,), driver="580.95.05", docker=DOCKER_GPU)
OLD_DRIVER = machine(gpus=(H100,), driver="535.161.08", docker=DOCKER_GPU)
