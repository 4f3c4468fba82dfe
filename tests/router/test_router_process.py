"""The router as a process, in front of the null server: command line, signals, restart."""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from inferlab.load import Endpoint, RequestSpec, Status, run_closed_loop
from inferlab.load.null_process import null_server

COMMAND = [sys.executable, "-m", "inferlab.engines.router"]
SPEC = RequestSpec([1, 2, 3], max_tokens=8)


@contextmanager
def router(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running router and its address."""
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["listening"], process
        finally:
            process.kill()


@contextmanager
def routed(**script: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A router in front of one null server."""
    with null_server(**script) as server, router("--port", "0", "--serve", server.url) as running:
        yield running


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)


def open_stream(url: str, tokens: int) -> http.client.HTTPResponse:
    """Sends a streamed completion; returns at its first event."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    body = {"model": "lab", "prompt": "a", "max_tokens": tokens, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    return connection.getresponse()


def test_sigterm_lets_streams_end_and_a_restart_takes_the_same_port() -> None:
    with null_server(ttft_ms=1, itl_ms=50) as server:
        with router("--port", "0", "--serve", server.url) as (url, process):
            stream = open_stream(url, 20)
            process.send_signal(signal.SIGTERM)
            text = stream.read().decode()
            assert text.count("data: ") == 22 and text.endswith("data: [DONE]\n\n")
            assert process.wait(timeout=30) == 0
            assert process.stdout is not None
            assert json.loads(process.stdout.read())["outcome"] == "ok"
        port = str(urlsplit(url).port)
        with router("--port", port, "--serve", server.url) as (again, _):
            assert again == url
            assert open_stream(url, 2).read().endswith(b"data: [DONE]\n\n")


def test_a_second_signal_ends_it_at_once() -> None:
    with routed(ttft_ms=1, itl_ms=1000) as (url, process):
        stream = open_stream(url, 100)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == -signal.SIGTERM
        stream.close()


def test_a_load_keeps_its_tokens_and_errors_are_made_good() -> None:
    with null_server(ttft_ms=5, itl_ms=1, fail_500=0.5) as bad, null_server(ttft_ms=5) as good:
        options = ("--port", "0", "--serve", bad.url, "--serve", good.url)
        with router(*options) as (url, _):
            samples = run_closed_loop(Endpoint(url), [SPEC] * 100, 10)
        assert {sample.status for sample in samples} == {Status.OK}
        assert {sample.output_tokens for sample in samples} == {8}
        assert len(bad.log()) > 5 and len(good.log()) > 5


@pytest.mark.parametrize("fault", ["cut", "truncated"])
def test_the_client_hears_of_a_lost_stream(fault: str) -> None:
    with routed(ttft_ms=1, itl_ms=1, **{fault: 1.0}) as (url, _):
        (sample,) = run_closed_loop(Endpoint(url), [SPEC], 1, check=False)
    assert sample.status is Status.ERROR_EVENT and "无法接着生成" in sample.error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "没有给全 worker 的地址"),
        (["--prefill", "http://a:1"], "没有给全 worker 的地址"),
        (["--serve", "http://a:1", "--decode", "http://b:1"], "不能与"),
        (["--serve", "http://a:1", "--serve", "http://a:1/"], "地址重复"),
        (["--serve", "a:1"], "http://127.0.0.1:8100"),
        (["--serve", "http://a:99999"], "http://127.0.0.1:8100"),
        (["--serve", "http://a:1", "--tries", "0"], "正整数"),
        (["--serve", "http://a:1", "--deadline", "nan"], "秒数"),
        (["--serve", "http://a:1", "--port", "70000"], "65535"),
        (["--serve", "http://a:1", "--nonsense"], "不认识的参数 --nonsense"),
        (["--serve"], "--serve 后面缺少取值"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from inferlab.engines.router.__main__ import main

    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and "usage" not in told


def test_a_taken_port_is_said() -> None:
    with null_server() as server:
        done = run(["--port", str(server.port), "--serve", server.url])
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--port" in done.stderr


def test_it_needs_nothing_beyond_aiohttp() -> None:
    script = (
        "import sys, inferlab.engines.router.__main__;"
        "print([m for m in ('typer', 'pydantic', 'numpy', 'yaml', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
