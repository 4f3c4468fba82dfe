"""The lab's compose files: the same engine and JupyterLab in containers, Compose v2 or 1.29."""

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from inferlab.errors import LabError
from inferlab.repository import lab_dir, root, versions
from inferlab.settings import Settings, read_env_file

ENGINE_SERVICE = "engine"
LAB_SERVICE = "lab"
# The image that `engine-image` in docker-compose.cpu.yml builds where none can be pulled.
BUILT_CPU_IMAGE = "inferlab/engine-cpu"


def command(compose: Sequence[str], lab: str, engine: str, override: str = "") -> tuple[str, ...]:
    """`docker compose -f … [-f …]` for a lab; a further file, and that for the CPU, come after."""
    files = [lab_dir(lab) / "docker-compose.yml"]
    files += [lab_dir(lab) / override] if override else []
    if engine == "cpu":
        files.append(lab_dir(lab) / "docker-compose.cpu.yml")
    return (*compose, *(part for file in files for part in ("-f", str(file))))


def environment(engine: str, model: str, settings: Settings) -> dict[str, str]:
    """What the compose files read: `.env`, the environment, and the choice made."""
    name = "LAB_MODEL" if engine == "gpu" else "LAB_CPU_MODEL"
    chosen = {name: model_in_container(model)}
    if not settings.vllm_cpu_image and os.uname().machine in {"arm64", "aarch64"}:
        chosen["LAB_VLLM_CPU_IMAGE"] = versions()["images"]["vllm-cpu-arm64"]
    return {**read_env_file(root() / ".env"), **os.environ, **chosen}


def model_in_container(model: str) -> str:
    """The model as the engine's container sees it: `models/` of the clone is mounted at `/models`.

    Raises:
        LabError: a folder elsewhere, which the container does not see.
    """
    path = Path(model)
    if not path.is_dir():
        return model
    inside = root() / "models"
    if not path.is_relative_to(inside):
        raise LabError(
            f"容器只看得到 {inside} 下的模型，看不到 {model}",
            remedy="把模型放进 models/，或用 --no-docker",
        )
    return f"/models/{path.relative_to(inside).as_posix()}"


def start_engine(compose: tuple[str, ...], variables: dict[str, str]) -> None:
    """Create and start the engine's container; pulls (or builds) a missing image, visibly.

    Raises:
        LabError: Compose failed; its own words are on the terminal above.
    """
    image = variables.get("LAB_VLLM_CPU_IMAGE", "")
    if image.startswith(BUILT_CPU_IMAGE) and not _output(["docker", "images", "-q", image]):
        _run([*compose, "--profile", "build", "build", "engine-image"], variables, "构建引擎镜像")
    _run([*compose, "up", "-d", ENGINE_SERVICE], variables, "启动引擎容器")


def start_lab(compose: tuple[str, ...], variables: dict[str, str]) -> None:
    """Build and start JupyterLab's container; the engine must be up."""
    _run(
        [*compose, "up", "-d", "--build", "--no-deps", LAB_SERVICE],
        variables,
        "启动 JupyterLab 容器",
    )


def down(compose: tuple[str, ...]) -> None:
    """Remove the containers and their network; named volumes (downloaded models) stay."""
    _run([*compose, "down", "--remove-orphans"], plain_environment(), "停止容器")


@cache
def engine_services(compose: tuple[str, ...]) -> tuple[str, ...]:
    """All services but JupyterLab: the engine, or the router called so and the workers behind."""
    found = _output([*compose, "config", "--services"]).split()
    return tuple(each for each in found if each != LAB_SERVICE)


def engine_logs(compose: tuple[str, ...]) -> list[str]:
    """The whole log of each of the engine's containers."""
    return [_log(each) for each in _containers(compose, engine_services(compose))]


def engine_exit_code(compose: tuple[str, ...]) -> int | None:
    """The engine container's exit code; None while it runs, 1 when it does not exist."""
    return _exit_code(compose, ENGINE_SERVICE)


def first_exit_code(compose: tuple[str, ...]) -> int | None:
    """Of the engine's containers that failed, the first one's; None where none did.

    One that Docker has started again counts as failed, with 1 while it runs.
    """
    found = _containers(compose, engine_services(compose))
    return next((code for code in map(_failed_with, found) if code), None)


def _failed_with(container: str) -> int | None:
    restarts = _output(["docker", "inspect", "--format", "{{.RestartCount}}", container])
    return _ended_with(container) or (1 if restarts not in ("", "0") else None)


def problem(compose: tuple[str, ...], service: str) -> str:
    """Why a service's container has ended; empty while it runs."""
    code = _exit_code(compose, service)
    return "" if code is None else f"{service} 容器已退出（exit code {code}）"


def is_running(compose: tuple[str, ...]) -> bool:
    """Whether the engine's container runs."""
    return engine_exit_code(compose) is None


def logs_command(compose: tuple[str, ...], services: Sequence[str], *, follow: bool) -> list[str]:
    """The command that shows the services' logs."""
    return [*compose, "logs", "--tail", "200", *(["-f"] if follow else []), *services]


def plain_environment() -> dict[str, str]:
    """`.env` and the environment, as `docker-compose` in the lab's folder would see them."""
    return {**read_env_file(root() / ".env"), **os.environ}


def _exit_code(compose: tuple[str, ...], service: str) -> int | None:
    found = _containers(compose, (service,))
    return _ended_with(found[-1]) if found else 1


def _ended_with(container: str) -> int | None:
    """A container's exit code; None while it runs."""
    form = "{{.State.Running}} {{.State.OOMKilled}} {{.State.ExitCode}}"
    state = _output(["docker", "inspect", "--format", form, container]).split()
    if len(state) != 3 or state[0] == "true":
        return None
    return 137 if state[1] == "true" else int(state[2])


def _log(container: str) -> str:
    done = subprocess.run(
        ["docker", "logs", container], capture_output=True, text=True, errors="replace"
    )
    return done.stdout + done.stderr


def _containers(compose: tuple[str, ...], services: Sequence[str]) -> list[str]:
    """Ids of the services' containers, also of those that have ended."""
    return _output([*compose, "ps", "-a", "-q", *services]).split()


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment())
    return done.stdout.strip()


def _run(command: list[str], variables: dict[str, str], purpose: str) -> None:
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(
            f"{purpose}失败（{command[0]} 退出码 {done.returncode}，原因见上文）",
            remedy="拉不到镜像时在 .env 中设置 LAB_IMAGE_PREFIX（加速前缀），或用 --no-docker",
        )
