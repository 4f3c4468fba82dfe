"""Chapter 7's prefill/decode compose files, as each Compose here reads them: nothing is started.

What is written twice must agree: roles and ports, between compose files, engine files and lab.yaml.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import yaml
from compose_lab import BUILT_HERE, CPU_FILES, GPU_FILES, Lab, published

from inferlab.engines.compose import command
from inferlab.engines.layout import layouts_of
from inferlab.engines.router.options import parse
from inferlab.repository import root

pytestmark = pytest.mark.docker
LAB = root() / "code" / "chapter07" / "pd"
ONE_GPU_FILES = ("docker-compose.yml", "docker-compose.one-gpu.yml")
COLOCATED_FILES = ("docker-compose.colocated.yml",)
SPLIT = {"gpu": GPU_FILES, "one-gpu": ONE_GPU_FILES, "cpu": CPU_FILES}
every_split = pytest.mark.parametrize("files", SPLIT.values(), ids=SPLIT)
ALL = {**SPLIT, "colocated": COLOCATED_FILES}
every_file = pytest.mark.parametrize("files", ALL.values(), ids=ALL)

ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}


@cache
def configuration(compose: tuple[str, ...], files: tuple[str, ...]) -> dict:
    return Lab(compose, files, chapter=LAB, api_port=8000, jupyter_port=8888).config()


def services(compose: tuple[str, ...], files: tuple[str, ...]) -> dict:
    found = deepcopy(configuration(compose, files)["services"])
    for service in found.values():  # 1.29 gives them in an order that changes
        service["volumes"] = sorted(service.get("volumes", ()), key=str)
    return found


def flag(service: dict, name: str) -> list[str]:
    """The values that a flag is given."""
    words = service["command"]
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def options(service: dict) -> dict:
    """The engine file that a worker reads."""
    (path,) = flag(service, "--config")
    return yaml.safe_load((LAB / "engine" / Path(path).name).read_text(encoding="utf-8"))


def places(deployment: str) -> dict[str, tuple[int, ...]]:
    """role → GPUs or cores, of lab.yaml."""
    return layouts_of("chapter07/pd")[deployment].places


def gpus(service: dict) -> list[str]:
    return service["environment"]["NVIDIA_VISIBLE_DEVICES"].split(",")


@every_file
def test_only_router_and_jupyterlab_are_published_and_on_loopback(
    compose: tuple[str, ...], files: tuple[str, ...]
) -> None:
    found = services(compose, files)
    assert published(found.pop("engine")) == [("127.0.0.1", 8000)]
    if "lab" in found:
        assert published(found.pop("lab")) == [("127.0.0.1", 8888)]
    assert not [name for name, service in found.items() if service.get("ports")]


@every_file
def test_health_checks_are_requests(compose: tuple[str, ...], files: tuple[str, ...]) -> None:
    found = services(compose, files)
    for name in found.keys() - {"lab", "namespaces", "engine-image"}:
        assert found[name]["healthcheck"]["test"][-1] == "/lab/engine_health.py", name


@every_split
def test_each_worker_reads_the_file_of_its_role(
    compose: tuple[str, ...], files: tuple[str, ...]
) -> None:
    found = services(compose, files)
    for service, role in ROLES.items():
        assert options(found[service])["kv-transfer-config"]["kv_role"] == role


@every_split
def test_the_router_sends_to_where_the_workers_listen(
    compose: tuple[str, ...], files: tuple[str, ...]
) -> None:
    found = services(compose, files)
    router = parse(found["engine"]["command"])
    assert (router.host, router.port) == ("0.0.0.0", 8000)
    for role in ROLES:
        (port,) = flag(found[role], "--port")
        assert getattr(router, role) == (f"http://{role}:{port}",)
        assert found["engine"]["depends_on"][role]["condition"] == "service_healthy"


@every_split
def test_workers_find_each_other_at_their_own_addresses(
    compose: tuple[str, ...], files: tuple[str, ...]
) -> None:
    found = services(compose, files)
    told = [found[role]["environment"] for role in ROLES]
    assert [each["VLLM_NIXL_SIDE_CHANNEL_HOST"] for each in told] == list(ROLES)
    assert len({each["VLLM_NIXL_SIDE_CHANNEL_PORT"] for each in told}) == len(ROLES)
    assert len({found[role]["command"][0] for role in ROLES}) == 1, "the handshake compares models"


@every_split
def test_workers_share_namespaces_but_not_the_hosts(
    compose: tuple[str, ...], files: tuple[str, ...]
) -> None:
    found = services(compose, files)
    for role in ROLES:
        assert found[role]["pid"] == found[role]["ipc"] == "service:namespaces"
        assert not found[role].get("init"), "Docker has no process 1 for them to be"
    assert found["namespaces"]["ipc"] == "shareable"
    assert found["namespaces"]["init"]


def test_both_workers_see_both_gpus_and_compute_on_their_own(compose: tuple[str, ...]) -> None:
    found = services(compose, GPU_FILES)
    for role, (gpu,) in places("pd").items():
        assert found[role]["environment"]["CUDA_VISIBLE_DEVICES"] == str(gpu)
        assert gpus(found[role]) == ["0", "1"]
        assert found[role]["runtime"] == "nvidia"


def test_kv_caches_are_laid_out_as_in_the_lab(compose: tuple[str, ...]) -> None:
    wanted = layouts_of("chapter07/pd")["pd"].variables("cuda")
    assert layouts_of("chapter07/pd")["pd_one_gpu"].variables("cuda") == wanted
    for files in (GPU_FILES, ONE_GPU_FILES):
        found = services(compose, files)
        for role in ROLES:
            assert wanted.items() <= found[role]["environment"].items()
    on_cpu = services(compose, CPU_FILES)
    told = {on_cpu[role]["environment"]["VLLM_KV_CACHE_LAYOUT"] for role in ROLES}
    assert told == {"LBHNC"}, "the CPU's attention kernels know no other"


def test_up_on_one_gpu_takes_these_files(compose: tuple[str, ...]) -> None:
    override = layouts_of("chapter07/pd")["pd_one_gpu"].compose
    taken = command(compose, "chapter07/pd", "gpu", override)
    assert [Path(word).name for word in taken if word.endswith(".yml")] == list(ONE_GPU_FILES)


def test_on_one_gpu_each_gets_half(compose: tuple[str, ...]) -> None:
    both, one = services(compose, GPU_FILES), services(compose, ONE_GPU_FILES)
    layout = layouts_of("chapter07/pd")["pd_one_gpu"]
    assert layout.places == dict.fromkeys(ROLES, (0,))
    shares = [float(*flag(one[role], "--gpu-memory-utilization")) for role in ROLES]
    assert shares[0] == shares[1]
    assert sum(shares) <= 0.92, "vLLM's default for one"
    for role in ROLES:
        own = 2 * len(layout.flags)
        assert one[role]["command"][:-own] == both[role]["command"]
        for name, value in layout.flags.items():
            assert flag(one[role], f"--{name}") == [str(value)]
        assert one[role]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
        assert gpus(one[role]) == ["0"]
    assert one["engine"] == both["engine"]
    assert one["decode"]["depends_on"]["prefill"]["condition"] == "service_healthy"


def test_without_a_gpu_nixl_stays_real(compose: tuple[str, ...]) -> None:
    found = services(compose, CPU_FILES)
    for role, (core,) in places("pd").items():
        worker = found[role]
        assert flag(worker, "--config") == [f"/lab/engine/{role}-cpu.yaml"]
        assert worker["command"][0] == "/models/lab-python-8m"
        assert worker["environment"]["VLLM_CPU_OMP_THREADS_BIND"] == str(core)
        assert worker["cap_add"] == ["SYS_PTRACE"]
        module = options(worker)["kv-transfer-config"]["kv_connector_module_path"]
        assert worker["environment"]["PYTHONPATH"] == "/lab/engine"
        assert (LAB / "engine" / f"{module}.py").is_file()
    for name in ("namespaces", *ROLES, "engine"):
        assert found[name]["image"] == BUILT_HERE
        assert found[name]["runtime"] == "runc"


def test_the_rival_has_as_many_replicas_and_the_same_gpus(compose: tuple[str, ...]) -> None:
    found = services(compose, COLOCATED_FILES)
    router = found.pop("engine")
    assert parse(router["command"]).serve == tuple(
        f"http://{name}:{flag(service, '--port')[0]}" for name, service in sorted(found.items())
    )
    used = [gpu for service in found.values() for gpu in gpus(service)]
    assert tuple(sorted(map(int, used))) == places("replicas")["colocated"]
    assert len(used) == sum(map(len, places("pd").values()))
    for service in found.values():
        assert "kv-transfer-config" not in options(service)
        assert flag(service, "--config") == ["/lab/engine/colocated.yaml"]


def test_both_routers_differ_only_in_whom_they_send_to(compose: tuple[str, ...]) -> None:
    routers = [services(compose, files)["engine"] for files in (GPU_FILES, COLOCATED_FILES)]
    for router in routers:
        router["command"] = router["command"][:4]
        del router["depends_on"]
    assert routers[0] == routers[1]
