"""Command line of the self-check: runs the checks asked for and prints the table."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from inferlab.errors import LabError
from inferlab.measure.selfcheck.against_vllm import VllmBench, against_vllm, agreement
from inferlab.measure.selfcheck.checks import CHECKS
from inferlab.measure.selfcheck.null_ab import null_ab
from inferlab.measure.selfcheck.truth import OtherLoad, Row


def main() -> int:
    """Runs the checks; exit code 1 when one missed its bar."""
    parser = argparse.ArgumentParser(prog="selfcheck", description="客户端对空服务器的自检")
    parser.add_argument(
        "checks", nargs="*", help=f"{' '.join(CHECKS)} ab against agreement；默认全部"
    )
    parser.add_argument(
        "--vllm", type=Path, help="装有 vLLM 的 Python，用于与 vllm bench serve 比开销"
    )
    parser.add_argument("--tokenizer", type=Path, help="vllm bench serve 需要的模型目录")
    parser.add_argument("--url", default="", help="运行中的真实引擎，供 agreement 与 ab 使用")
    options = parser.parse_args()
    checks: dict[str, Callable[[], list[Row]]] = {**CHECKS, "ab": lambda: null_ab(options.url)}
    if options.vllm and options.tokenizer:
        bench = VllmBench(options.vllm, options.tokenizer)
        checks["against"] = lambda: against_vllm(bench)
        if options.url:
            checks["agreement"] = lambda: agreement(bench, options.url)
    wanted = options.checks or list(checks)
    if unknown := [name for name in wanted if name not in checks]:
        parser.error(f"没有或缺参数：{' '.join(unknown)}；可选：{' '.join(checks)}")
    results = [_run(name, checks[name]) for name in wanted]
    return 0 if all(results) else 1


def _run(name: str, check: Callable[[], list[Row]]) -> bool:
    other, start = OtherLoad(), time.perf_counter()
    try:
        rows = check()
    except LabError as error:
        rows = [Row(name, str(error), "能运行", False)]
    wall_s = time.perf_counter() - start
    cores = other.cores(wall_s)
    busy = "未知" if cores is None else f"{cores:.2f} 核"
    print(f"\n[{name}] {wall_s:.0f} s，同时其他进程占用 {busy}")
    for row in rows:
        print(
            f"  {'通过' if row.ok else '未过'}  {row.name}：{row.value}（要求 {row.bar}）",
            flush=True,
        )
    return all(row.ok for row in rows)


if __name__ == "__main__":
    sys.exit(main())
