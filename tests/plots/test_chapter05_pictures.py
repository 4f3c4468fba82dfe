"""Chapter 5's pictures render with every glyph, and show what they were given."""

from dataclasses import replace

import chapter05_data as data
import pytest
from rendering import rendered

from inferlab.plots.chunked import chunk_tradeoff
from inferlab.plots.decode_grid import decode_grid
from inferlab.plots.decode_knee import decode_knee
from inferlab.plots.metrics import metrics_over_time
from inferlab.plots.paging import fragmentation
from inferlab.plots.pareto import pareto_with_ceilings
from inferlab.plots.slots import slot_timelines
from inferlab.plots.step_profile import part_times, step_attribution
from inferlab.plots.tuning import tuning_steps

PICTURES = {
    "metrics": lambda: metrics_over_time(data.metrics(), note="注"),
    "fragmentation": lambda: fragmentation(data.slot_uses(), note="注"),
    "slots": lambda: slot_timelines(data.timelines(), 4, note="注"),
    "chunked": lambda: chunk_tradeoff(data.chunks(), note="注"),
    "decode_grid": lambda: decode_grid(data.grid(), note="注"),
    "decode_knee": lambda: decode_knee(data.bent_grid(), 173, note="注"),
    "step_profile": lambda: step_attribution({"默认": data.profile()}, {"默认": 3.5}, note="注"),
    "tuning": lambda: tuning_steps(data.tuning(), note="注"),
    "pareto": lambda: pareto_with_ceilings(data.operated(), data.service(), slo_ms=50, note="注"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_renders_with_every_glyph(name) -> None:
    figure = PICTURES[name]()
    assert 10_000 < len(rendered(figure)) < 150_000
    assert all(axes.get_title(loc="left") for axes in figure.axes)


def texts(figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    legends = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return "\n".join(found + titles + legends)


def test_the_grid_shows_the_error_of_each_point() -> None:
    shown = texts(decode_grid(data.grid()))
    assert shown.count("%") == 12
    assert "-58%" in shown  # batch 1, context 128: 0.4 of the time, and 0.1 ms


def test_the_knee_is_said_with_its_range_and_the_prediction() -> None:
    legend = decode_knee(data.bent_grid(), 173).axes[0].get_legend()
    said = "\n".join(text.get_text() for text in legend.get_texts())
    assert "上下文 128：拐点 batch 110（去掉一点 110–110）" in said
    assert "10 → 40 µs" in said and "batch 173" in said


def test_a_profiles_bar_adds_up_and_has_the_floor() -> None:
    shown = texts(step_attribution({"默认": data.profile()}, {"默认": 3.5}))
    assert "5.16 ms" in shown and "4.10" in shown and "roofline 下限" in shown


def test_a_kernel_understood_later_is_moved() -> None:
    product, cut = "triton_red_fused_mm_t_view_0", "void argmax_of_a_name_that_was_cut" + 170 * "x"
    kernels = [
        data.figure("kernel_time", "s", 2e-4, part="elementwise", full=product),
        data.figure("kernel_time", "s", 1e-5, part="matmul", full="nvjet_x"),
        data.figure("kernel_time", "s", 1e-5, part="elementwise", full=cut),
    ]
    before, after = part_times(data.profile()), part_times([*data.profile(), *kernels])
    assert after["matmul"] == pytest.approx(before["matmul"] + 2e-4)
    assert after["elementwise"] == pytest.approx(before["elementwise"] - 2e-4)
    assert {p: after[p] for p in ("sampling", "gaps")} == {
        p: before[p] for p in ("sampling", "gaps")
    }


def test_slots_say_how_much_was_taken() -> None:
    shown = texts(slot_timelines(data.timelines(), 4))
    assert "静态 batch" in shown and "slot 占用 65%" in shown and "slot 占用 85%" in shown


def test_only_a_sure_gain_is_kept() -> None:
    shown = texts(tuning_steps(data.tuning()))
    assert shown.count("保留") == 1 and "退回：看不出差别" in shown


def test_a_comparison_keeps_nothing() -> None:
    figure = tuning_steps(data.tuning(), tuning=False)
    shown = texts(figure)
    assert "更高" in shown and "更低" in shown and "看不出差别" in shown
    assert "保留" not in shown and "退回" not in shown
    assert "后者 ÷ 前者" in figure.axes[0].get_xlabel()


def test_a_gain_that_another_start_would_give_is_not_kept() -> None:
    first, *others = data.tuning()  # 1.11 (1.06–1.17)
    shown = texts(tuning_steps([replace(first, between_starts=0.05), *others]))
    assert shown.count("保留") == 1
    shown = texts(tuning_steps([replace(first, between_starts=0.08), *others]))
    assert "保留" not in shown and shown.count("1.11×  一次启动分不出来") == 1
    slower = replace(others[-1], between_starts=0.08)  # 0.9 (0.86–0.95)
    assert slower.verdict == "as starts differ"
    assert replace(others[0], between_starts=0.01).verdict == "no difference"


def test_the_ceilings_are_the_arithmetics() -> None:
    service = data.service()
    speed, ms = service.bandwidth_roof([1, 64])
    assert ms[0] == pytest.approx(3.55, rel=0.02)  # weights and one sequence's KV
    assert speed[1] > 20 * speed[0]
    # 6.95 G weights in the layers, 0.62 G in the head; attention adds 2 % and 5 %
    layers, head = 2 * 6.946e9, 2 * 0.622e9
    flops = 1.022 * 1024 * layers + head + 255 * (1.05 * layers + head)
    assert service.compute_limit() == pytest.approx(256 / (flops / 7.8e14), rel=0.01)
