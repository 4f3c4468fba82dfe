"""The check behind `scripts/kv_transfer_check.py`: is KV cache really moved, and by what.

A prompt that nobody has asked before goes through the router; the workers' counters before and
after tell what happened (`kv_transfer`). By what it was moved only UCX says, in tables in the log
of a decode worker that was started with UCX_PROTO_INFO=y and UCX_LOG_LEVEL=info.

Behind containers only the lab's container reaches the workers: there it is run.

`./lab record` does the same (`measure`), and asks the prefill worker for the whole answers: the
decode worker must go on from what was moved as the prefill worker does from what it computed.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from inferlab.engines import session
from inferlab.engines.deployment import RunningDeployment
from inferlab.engines.router.client import workers
from inferlab.errors import LabError, UsageError
from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.workloads import Lengths, Source, random_requests
from inferlab.measure.kv_transfer import Transfers
from inferlab.measure.under_test import UnderTest

_TABLE = re.compile(r"remote memory read by ucp_get")
_BORDER = re.compile(r"^.*\+-.*$", re.MULTILINE)
_ROW = re.compile(r"\|\s*\d+\.\.\w+\s*\|\s*(?P<how>[^|]+?)\s*\|\s*(?P<what>[^|]+?)\s*\|")


@dataclass(frozen=True)
class Transport:
    """One line of UCX's table of remote reads.

    Attributes:
        how: `zero-copy`, `software emulation`, …
        what: `cuda_ipc/cuda`, `cma/memory`, `tcp/lo`, …
    """

    how: str
    what: str

    @property
    def fallback(self) -> bool:
        """Whether the bytes go through sockets."""
        return "software emulation" in self.how or self.what.startswith("tcp")


def transports(log: str) -> list[Transport]:
    """What remote memory was read with, in order, from the log of a process that uses UCX.

    Only the tables of remote reads count: those of active messages name TCP when all is well.
    """
    found: list[Transport] = []
    for table in _TABLE.split(log)[1:]:
        # Borders stand below the title, below the heads, and below the lines that count.
        lines = _BORDER.split(table)[2:3]
        found += [Transport(row["how"], row["what"]) for row in _ROW.finditer("".join(lines))]
    return list(dict.fromkeys(found))


def check(url: str, *, prompt: int, requests: int) -> tuple[Transfers, str]:
    """Send unseen prompts through a router, and tell what its decode workers counted.

    Args:
        prompt: tokens of each.

    Returns:
        the counters, and why not every KV cache was moved (empty when each was).

    Raises:
        LabError: there is no router at the address, its workers cannot be reached from here, or a
            request failed.
    """
    decode = workers(url)["decode"]
    try:
        before = Transfers.read(decode)
    except OSError as error:
        raise LabError(
            f"够不到 {'、'.join(decode)} 的 /metrics（{error}）",
            remedy="引擎在容器里时，在 lab 容器里运行：docker-compose exec -T lab "
            "python scripts/kv_transfer_check.py",
        ) from None
    specs = random_requests(requests, Lengths(prompt), Lengths(8), Random(time.time_ns()))
    # No probe before: its KV cache would be counted too.
    all_answered(run_closed_loop(Endpoint(url), specs, 1, check=False))
    moved = Transfers.read(decode).since(before)
    return moved, moved.problem(requests, requests * prompt)


def measure(
    engine: UnderTest, deployment: RunningDeployment, given: dict[str, Any]
) -> Iterator[Series]:
    """The check on a deployment with one prefill worker; by what was moved goes into the notes.

    Equal answers need kernels whose sums do not depend on the batch, and prompts of a whole number
    of blocks and one token: then both workers compute the last prompt token alone.

    Args:
        given: `requests`; `prompt` and `output` (tokens of each).

    Yields:
        `requests`, `kv_moved` (requests), `same_answers` (requests), `handover_bytes_per_s`.

    Raises:
        LabError: not every KV cache was moved, or the prefill worker did not answer.
    """
    number, prompt = int(given["requests"]), int(given["prompt"])
    drawn = random_requests(
        number, Lengths(prompt), Lengths(int(given["output"])),
        Random(f"{engine.seed}/transfer-check"), source=Source(engine.vocabulary),
    )  # fmt: skip
    specs = [replace(spec, keep_text=True) for spec in drawn]
    before = Transfers.read(engine.workers["decode"])
    moved_on = all_answered(run_closed_loop(engine.endpoint, specs, 1, check=False))
    moved = Transfers.read(engine.workers["decode"]).since(before)
    if why := moved.problem(number, number * prompt):
        raise LabError(why, remedy="看 decode worker 的日志")
    whole = Endpoint(engine.workers["prefill"][0], timeout_s=engine.endpoint.timeout_s)
    own = all_answered(run_closed_loop(whole, specs, 1, check=False))
    same = sum(a.text == b.text for a, b in zip(moved_on, own, strict=True))
    found = transports(deployment.log_text())
    engine.notes["transports"] = [f"{each.what} ({each.how})" for each in found]
    # Without a table nothing is known of it.
    engine.notes["sockets"] = any(each.fallback for each in found) if found else None
    yield Series("requests", "", [number])
    yield Series("kv_moved", "", [moved.reads])
    yield Series("same_answers", "", [same])
    yield Series("handover_bytes_per_s", "byte/s", [moved.bytes_per_s])


def main(words: Sequence[str] | None = None) -> int:
    """The command; 0 when each KV cache was moved and not through sockets, else 1, 2 if misused."""
    parser = argparse.ArgumentParser(description="检查 PD 分离是否真的在传 KV，走的是什么")
    parser.add_argument("--url", default="", help="路由的地址；缺省为正在运行的实验")
    parser.add_argument("--prompt", type=int, default=1024, help="每个 prompt 的 token 数")
    parser.add_argument("--requests", type=int, default=5, help="请求数")
    parser.add_argument("--log", type=Path, help="decode worker 的日志；缺省为正在运行的实验的")
    given = parser.parse_args(words)
    try:
        if min(given.prompt, given.requests) < 1:
            raise UsageError("--prompt 和 --requests 至少为 1", remedy="例如 --prompt 1024")
        moved, problem = check(
            given.url or session.api_url(), prompt=given.prompt, requests=given.requests
        )
        log = _log(given.log)
    except LabError as error:
        print(f"错误: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"{given.requests} 个请求，各 {given.prompt} token：传了 {moved.reads:.0f} 次 KV，"
          f"{moved.bytes / 1e6:.1f} MB，{1e3 * moved.seconds:.1f} ms，"
          f"{moved.bytes_per_s / 1e9:.2f} GB/s")  # fmt: skip
    print(f"✗ {problem}" if problem else "✓ 每个请求的 KV 都传了")
    return int(bool(problem) | _tell(transports(log)))


def _tell(found: Sequence[Transport]) -> bool:
    """Print what the bytes went by; whether that is a fallback to sockets."""
    if not found:
        print("？ 走什么看不出来：启动前设 UCX_PROTO_INFO=y 和 UCX_LOG_LEVEL=info")
    for each in found:
        sign = "✗ 退回套接字了" if each.fallback else "✓"
        print(f"{sign} 读远端内存：{each.what}（{each.how}）")
    return any(each.fallback for each in found)


def _log(path: Path | None) -> str:
    running = session.load()
    known = [path] if path else running.logs if running else []
    try:
        return "\n".join(each.read_text(encoding="utf-8", errors="replace") for each in known)
    except OSError as error:
        if path:
            raise UsageError(f"读不到 {path}（{error.strerror}）", remedy="检查 --log") from None
        return ""
