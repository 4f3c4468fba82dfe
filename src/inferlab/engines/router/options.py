"""The command line: what it accepts, and one clear line when it does not."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from inferlab.engines.router.limits import Limits
from inferlab.errors import UsageError

_TRANSLATED = (
    (r"unrecognized arguments: (.+)", r"不认识的参数 \1"),
    (r"argument (\S+): expected one argument", r"\1 后面缺少取值"),
    (r"argument (\S+): (.+)", r"\1：\2"),
    (r"ambiguous option: (\S+).*", r"\1 不完整"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """Where to listen, and whom to send to; `serve` or `prefill` with `decode`."""

    host: str
    port: int
    prefill: tuple[str, ...]
    decode: tuple[str, ...]
    serve: tuple[str, ...]
    limits: Limits


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        for pattern, chinese in _TRANSLATED:
            if match := re.fullmatch(pattern, message):
                raise UsageError(match.expand(chinese), remedy="用 --help 看全部选项")
        raise UsageError(message, remedy="用 --help 看全部选项")


def parse(arguments: Sequence[str] | None) -> Options:
    """Reads the command line.

    Raises:
        UsageError: something is missing or wrong.
    """
    asked = _parser().parse_args(arguments)
    options = Options(
        asked.host,
        asked.port,
        tuple(asked.prefill),
        tuple(asked.decode),
        tuple(asked.serve),
        Limits(
            asked.tries,
            asked.prefill_timeout,
            asked.first_token_timeout,
            asked.deadline,
            asked.kv_lease,
            asked.health_interval,
        ),
    )
    _check_workers(options)
    return options


def _check_workers(options: Options) -> None:
    if options.serve and (options.prefill or options.decode):
        raise UsageError("--serve 不能与 --prefill、--decode 同用", remedy="只留一种")
    if not options.serve and not (options.prefill and options.decode):
        raise UsageError(
            "没有给全 worker 的地址",
            remedy="P/D 分离用 --prefill URL --decode URL，普通副本用 --serve URL",
        )
    urls = options.prefill + options.decode + options.serve
    if twice := {url for url in urls if urls.count(url) > 1}:
        raise UsageError(f"地址重复：{'，'.join(sorted(twice))}", remedy="每个 worker 只写一次")


def _parser() -> _Parser:
    parser = _Parser(prog="python -m inferlab.engines.router", description="推理引擎前的路由器")
    base = Limits()
    parser.add_argument("--host", default="127.0.0.1", help="监听地址，默认 127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000, help="监听端口，默认 8000；0 任选")
    for name, what in (("prefill", "prefill"), ("decode", "decode"), ("serve", "普通副本")):
        text = f"{what} worker 的地址，可重复"
        parser.add_argument(f"--{name}", type=_url, action="append", default=[], help=text)
    parser.add_argument("--tries", type=_count, default=base.tries, help="首 token 前最多试几次")
    for name, value, what in (
        ("prefill-timeout", base.prefill_s, "prefill 的时限"),
        ("first-token-timeout", base.first_token_s, "decode 出首个事件的时限，另受 KV 租约约束"),
        ("deadline", base.deadline_s, "一个请求的总时限"),
        ("kv-lease", base.kv_lease_s, "引擎的 kv_lease_duration"),
        ("health-interval", base.health_s, "健康检查的间隔"),
    ):
        text = f"{what}，秒，默认 {value:g}"
        parser.add_argument(f"--{name}", type=_seconds, default=value, help=text)
    return parser


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.path.strip("/") or parts.query or parts.username:
        raise argparse.ArgumentTypeError(f"{text!r} 应形如 http://127.0.0.1:8100")
    return text.rstrip("/")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} 应是 0 到 65535 的整数")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} 应是正整数")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} 应是大于 0 的秒数")
    return value
