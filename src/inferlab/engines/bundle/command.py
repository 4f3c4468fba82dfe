"""The command line of `scripts/offline_bundle.py`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from inferlab.engines.bundle.target import Target, describe_this_host
from inferlab.errors import LabError

MIB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step; the exit code is 0, 1 (failed) or 2 (wrong use)."""
    asked = _parser().parse_args(arguments)
    try:
        asked.step(asked)
    except LabError as error:
        print(f"错误: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("已中断；再运行一次会接着做", file=sys.stderr)
        return 130
    return 0


def _describe(_: argparse.Namespace) -> None:
    print(json.dumps(asdict(describe_this_host()), indent=1))


def _build(asked: argparse.Namespace) -> None:
    # Not at the top: building needs the lab's packages, which a bare host does not have.
    from inferlab.engines.bundle.build import build

    target = Target.load(asked.host) if asked.host else Target(python=asked.python)
    build(
        asked.engine,
        target,
        asked.out,
        part_bytes=round(asked.part_size * MIB),
        accept=asked.accept,
    )


def _install(asked: argparse.Namespace) -> None:
    from inferlab.engines.bundle.install import VARIABLES, install, installed

    into = install(asked.parts, asked.into)
    variable = VARIABLES[installed(into).about["engine"]]
    print(f"装好了。运行下面这一行，之后 ./lab 的命令都用它：\nexport {variable}={into}")


def _verify(asked: argparse.Namespace) -> None:
    from inferlab.engines.bundle.verify import verify

    verify(asked.into)
    print("可以用了。")


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} 不是数字（单位 MiB）") from None
    if size < 17:
        raise argparse.ArgumentTypeError(f"{text} MiB 太小，至少 17")
    return size


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="为没有网络的 GPU 主机准备引擎：在主机上 describe，"
        "在有网络的机器上 build，把分卷带过去，再 install、verify。"
    )
    steps = parser.add_subparsers(required=True, metavar="步骤")
    step = steps.add_parser(
        "describe", help="在目标主机上：打印它的 Python、GPU 和已有的包（JSON）"
    )
    step.set_defaults(step=_describe)
    step = steps.add_parser(
        "build", help="在有网络的机器上：取齐、裁剪、分卷；中断后再运行会接着做"
    )
    step.add_argument("--engine", default="vllm", help="vllm（默认）或 sglang")
    step.add_argument("--host", type=Path, help="目标主机 describe 的输出；不给则什么都带")
    step.add_argument("--python", default="3.12", help="没有 --host 时，目标的 Python 版本")
    step.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="包名",
        help="这个包用主机自己的版本即可，可多次给出",
    )
    step.add_argument(
        "--part-size", type=_size, default=40, metavar="MiB", help="每卷的上限，默认 40"
    )
    step.add_argument(
        "--out", type=Path, default=Path(".bundle"), help="分卷放在哪里，默认 .bundle/"
    )
    step.set_defaults(step=_build)
    step = steps.add_parser("install", help="在目标主机上：逐卷核对，解到一个目录")
    step.add_argument("parts", type=Path, help="分卷所在的目录")
    step.add_argument("--into", type=Path, default=Path.home() / "inferlab-engine", help="装到哪里")
    step.set_defaults(step=_install)
    step = steps.add_parser("verify", help="在目标主机上：导入引擎，在每块 GPU 上算一次")
    step.add_argument("--into", type=Path, default=Path.home() / "inferlab-engine", help="装在哪里")
    step.set_defaults(step=_verify)
    return parser
