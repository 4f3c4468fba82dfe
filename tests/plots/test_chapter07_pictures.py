"""Chapter 7's pictures render with every glyph, and show what they were given."""

import chapter05_data as data
import pytest
from rendering import rendered

from inferlab.plots.handover import handover
from inferlab.plots.interference import FIGURES as INTERFERENCE
from inferlab.plots.interference import interference
from inferlab.plots.request_paths import request_paths
from inferlab.plots.separation import separation_map

FIGURES = [
    data.figure(name, unit, value * prompt, prompt=prompt)
    for prompt in (1024, 8192, 30000)
    for name, unit, value in (
        ("ttft_ms", "ms", 0.03), ("handover_ms", "ms", 0.001), ("handover_bytes_per_s", "", 8e6))
]  # fmt: skip
LINES = [
    {"at": 100.0 + 0.3 * i, "prefill": f"http://p:{i % 2}", "decode": "http://d:1",
     "attempts": 1 + i // 3, "prefill_ms": 40.0, "first_event_ms": 60.0, "total_ms": 900.0,
     "outcome": "cut" if i == 4 else "ok"}
    for i in range(5)
]  # fmt: skip
GAINS = {(p, o): (p / o) ** 0.2 for p in (256, 1024, 4096) for o in (64, 256)} | {(256, 64): 0.0}
BOTH = [
    each.model_copy(update={"labels": each.labels | {"cache": cache}})
    for cache in ("fresh", "used")
    for each in FIGURES
]
SIDES = {
    side: [data.figure(name, "ms", scale * ms, request=request, part=part)
           for ms, (name, part, request) in enumerate(INTERFERENCE, 5)]
    for side, scale in (("PD", 1), ("副本", 30))
}  # fmt: skip
PICTURES = {
    "handover": lambda: handover(FIGURES, link_bytes_per_s=3.8e11, note="注"),
    "handover, both caches": lambda: handover(BOTH, link_bytes_per_s=3.8e11, note="注"),
    "interference": lambda: interference(SIDES, note="注"),
    "request_paths": lambda: request_paths(LINES, note="注"),
    "separation": lambda: separation_map(GAINS, measured={(4096, 64): 1.31}, note="注"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_renders_with_every_glyph(name: str) -> None:
    figure = PICTURES[name]()
    assert 10_000 < len(rendered(figure)) < 150_000
    assert figure.axes[0].get_title(loc="left")


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_path_names_the_workers_and_what_went_wrong() -> None:
    shown = texts(request_paths(LINES))
    assert shown[0].strip() == "P0 → D0"
    assert shown[3].strip() == "P1 → D0，第 2 次"
    assert shown[4].strip() == "P0 → D0，第 2 次：cut"


def test_the_map_shows_the_prediction_and_what_was_measured() -> None:
    shown = texts(separation_map(GAINS, measured={(4096, 64): 1.31}))
    assert "—" in shown
    assert any("[1.31]" in text for text in shown)


def test_interference_says_each_mean() -> None:
    shown = texts(interference(SIDES))
    assert shown == ["5", "6", "7", "8", "9", "10", "150", "180", "210", "240", "270", "300"]


def test_each_state_of_the_cache_has_its_line() -> None:
    left, _ = handover(BOTH).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "TTFT", "KV 交接，缓存还新", "KV 交接，缓存跑过一圈"]  # fmt: skip
