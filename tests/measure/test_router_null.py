"""The router before a null server: what is measured, and that a failed load is no measurement."""

import time

import psutil
import pytest

from inferlab.engines.router.client import paths
from inferlab.errors import LabError
from inferlab.load.null_process import null_server
from inferlab.load.worker import run_in_process
from inferlab.measure.router_null import RouterLoad, _router, measure

Figures = dict[tuple[str, str], list[float]]


@pytest.fixture(scope="module")
def measured() -> Figures:
    load = RouterLoad("small", 48, 4, "24-40", {"ttft_ms": 10, "itl_ms": 2})
    found = list(measure(2, [load]))
    assert all(each.labels["load"] == "small" for each in found)
    return {(each.name, each.labels["path"]): each.values for each in found}


@pytest.mark.parametrize("path", ["router", "pd"])
def test_the_pairs_differences_are_the_routers(measured: Figures, path: str) -> None:
    direct, routed = measured["ttft_ms", "direct"], measured["ttft_ms", path]
    assert all(value > 10 for value in direct + routed)
    added = measured["ttft_added_ms", path]
    assert added == [b - a for a, b in zip(direct, routed, strict=True)]
    assert max(map(abs, added)) < 100
    fast, slow = (measured["output_tokens_per_s", each] for each in ("direct", path))
    ratio = measured["throughput_ratio", path]
    assert ratio == [b / a for a, b in zip(fast, slow, strict=True)]
    assert all(100 < each < 4 * 500 for each in fast)  # four streams of a token in 2 ms
    assert 0.2 < min(ratio) <= max(ratio) < 5  # either may be held up on a busy machine
    assert all(0 < each < 50 for each in measured["router_cpu_ms_per_token", path])


def test_between_prefill_and_decode_it_asks_both() -> None:
    with (
        null_server(ttft_ms=1) as prefill,
        null_server(ttft_ms=1) as decode,
        _router("--prefill", prefill.url, "--decode", decode.url) as (url, _),
    ):
        plan = RouterLoad("few", 6, 2, 4, {}).plan(url, 0)
        assert all(sample.ok for sample in run_in_process(plan).run.samples)
        deadline = time.monotonic() + 30
        while len(seen := paths(url, 6)) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)  # the router logs a request once its answer is sent
    assert [each["prefill"] for each in seen] == [prefill.url] * 6
    assert [each["decode"] for each in seen] == [decode.url] * 6
    assert all(each["attempts"] == 1 for each in seen)


def test_a_load_that_is_not_answered_gives_no_figure_and_leaves_no_process() -> None:
    load = RouterLoad("cut", 4, 2, 8, {"ttft_ms": 5, "itl_ms": 1, "cut": 1.0})
    with pytest.raises(LabError, match="4 个请求没有答完"):
        list(measure(1, [load]))
    left = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [each for each in left if "router" in each or "null_server" in each]


def test_a_router_that_does_not_start_is_named() -> None:
    with pytest.raises(LabError, match="路由没有启动"), _router("--serve", "nowhere"):
        pass
