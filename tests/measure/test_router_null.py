"""The router before a null server: what is measured, and that a failed load is no measurement."""

import psutil
import pytest

from inferlab.errors import LabError
from inferlab.measure.router_null import RouterLoad, _router_before, measure


def test_the_pairs_differences_are_the_routers() -> None:
    load = RouterLoad("small", 48, 4, 32, {"ttft_ms": 10, "itl_ms": 2})
    found = {(each.name, each.labels.get("path")): each for each in measure(2, [load])}
    direct, routed = found["ttft_ms", "direct"].values, found["ttft_ms", "router"].values
    assert all(value > 10 for value in direct + routed)
    added = found["ttft_added_ms", None].values
    assert added == [b - a for a, b in zip(direct, routed, strict=True)]
    assert max(map(abs, added)) < 100
    fast, slow = (found["output_tokens_per_s", path].values for path in ("direct", "router"))
    ratio = found["throughput_ratio", None].values
    assert ratio == [b / a for a, b in zip(fast, slow, strict=True)]
    assert all(100 < each < 4 * 500 for each in fast)  # four streams of a token in 2 ms
    assert 0.2 < min(ratio) <= max(ratio) < 5  # either may be held up on a busy machine
    assert all(0 < each < 50 for each in found["router_cpu_ms_per_token", "router"].values)
    assert all(each.labels["load"] == "small" for each in found.values())


def test_a_load_that_is_not_answered_gives_no_figure_and_leaves_no_process() -> None:
    load = RouterLoad("cut", 4, 2, 8, {"ttft_ms": 5, "itl_ms": 1, "cut": 1.0})
    with pytest.raises(LabError, match="4 个请求没有答完"):
        list(measure(1, [load]))
    left = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [each for each in left if "router" in each or "null_server" in each]


def test_a_router_that_does_not_start_is_named() -> None:
    with pytest.raises(LabError, match="路由没有启动"), _router_before("nowhere"):
        pass
