"""A load in a process of its own: what the client alone costs, and load beside a busy caller.

    python -m inferlab.load.worker '{"url": "http://127.0.0.1:8100", "requests": 512, ...}'

Writes a pickled tuple, the fields of `WorkerResult`, to standard output.
"""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from random import Random

from inferlab.errors import LabError
from inferlab.load.arrivals import TimedRequest, poisson, schedule
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import RunResult, closed_loop, open_loop
from inferlab.load.samples import RequestSpec
from inferlab.load.workloads import Lengths, random_requests


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """A load of random requests: closed loop with `concurrency`, or Poisson with `rate_per_s`.

    Request number i carries `user` = i, so that it is found again in a null server's log.
    `output_tokens` is a number, or a distribution as `Lengths.parse` reads it.
    """

    url: str
    requests: int
    prompt_tokens: int = 32
    output_tokens: int | str = 64
    concurrency: int = 0
    rate_per_s: float = 0.0
    max_in_flight: int = 0
    continuous_usage: bool = True
    seed: int = 0
    check: bool = True

    def specs(self, random: Random) -> list[RequestSpec]:
        """The requests."""
        outputs = Lengths.parse(str(self.output_tokens))
        specs = random_requests(self.requests, Lengths(self.prompt_tokens), outputs, random)
        return [replace(spec, extra={"user": str(i)}) for i, spec in enumerate(specs)]

    def timed(self, random: Random, specs: list[RequestSpec]) -> list[TimedRequest]:
        """The requests with Poisson times, drawn from the same generator."""
        return schedule(poisson(self.rate_per_s, random), specs)


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """The run, and the CPU seconds of the whole process up to its end, start-up included."""

    run: RunResult
    cpu_s: float
    rss_bytes: int


def run_plan(plan: WorkerPlan) -> RunResult:
    """Runs the plan in this process."""
    random = Random(plan.seed)
    specs = plan.specs(random)
    endpoint = Endpoint(plan.url, continuous_usage=plan.continuous_usage)
    if plan.concurrency:
        return closed_loop(endpoint, specs, plan.concurrency, check=plan.check)
    timed = plan.timed(random, specs)
    return open_loop(endpoint, timed, max_in_flight=plan.max_in_flight, check=plan.check)


def run_in_process(plan: WorkerPlan) -> WorkerResult:
    """Runs the plan in a new process.

    Raises:
        LabError: the process failed; the message is its last line.
    """
    command = [sys.executable, "-m", "inferlab.load.worker", json.dumps(asdict(plan))]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise LabError(f"负载进程失败（{''.join(last)}）", remedy=f"单独运行：{' '.join(command)}")
    return WorkerResult(*pickle.loads(done.stdout))


def main() -> None:
    """Command line: one JSON argument with the fields of `WorkerPlan`."""
    plan = WorkerPlan(**json.loads(sys.argv[1]))
    run = run_plan(plan)
    times = os.times()
    # A plain tuple: this module is `__main__` here, so its own class would not be found again.
    sys.stdout.buffer.write(pickle.dumps((run, times.user + times.system, _rss_bytes())))


def _rss_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
