"""Columns over time from `/metrics`: a real page of vLLM's, a small server, and a real engine."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inferlab.errors import LabError
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.measure.metrics_watch import cache_config, parse, watch

PAGE = (Path(__file__).parent / "pages" / "vllm-0.32.0-metrics.txt").read_text(encoding="utf-8")


@pytest.fixture
def server() -> Iterator[str]:
    """Answers `/metrics` with a page whose generation counter grows by 5 a request."""
    asked = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[0] += 1
            total = f'vllm:generation_tokens_total{{engine="0"}} {5.0 * asked[0]}\n'
            body = (total + "vllm:num_requests_running 1.0\n").encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def test_a_page_of_vllm() -> None:
    row = parse(PAGE)
    assert row["prompt_tokens"] == 260.0
    assert row["generation_tokens"] == 265.0
    assert row["prefix_queries"] == 260.0
    assert (row["running"], row["waiting"], row["preemptions"]) == (0.0, 0.0, 0.0)


def test_counters_count_from_the_first_row_and_gauges_stand(server: str) -> None:
    with watch(server, every_s=0.01) as seen:
        while len(seen.rows) < 4:
            threading.Event().wait(0.01)
    table = seen.table()
    assert table.columns["generation_tokens"][:3] == [0.0, 5.0, 10.0]
    assert table.total("generation_tokens") == 5.0 * (len(table) - 1)
    assert table.peak("running") == 1.0
    assert all(rate > 0 for rate in table.per_s("generation_tokens"))
    assert table.hit_ratio() == 0.0


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(LabError, match="读不到"), watch("http://127.0.0.1:9"):
        pass


@pytest.mark.engine
def test_a_request_passes_through_a_real_engine(embedded_engine: str) -> None:
    endpoint = Endpoint(url=embedded_engine)
    with watch(embedded_engine, every_s=0.02) as seen:
        run_closed_loop(endpoint, [RequestSpec(list(range(300, 500)), 40, ignore_eos=True)], 1)
    table = seen.table()
    assert table.total("prompt_tokens") >= 200  # the probe's own request may be among them
    assert 40 <= table.total("generation_tokens") <= 42
    assert table.peak("running") == 1.0
    assert 0 < table.peak("kv_usage") < 0.01
    config = cache_config(embedded_engine)
    assert (config["block_size"], config["num_gpu_blocks"]) == ("128", "512")
