"""Every picture is drawn from a real record, and every Chinese glyph is in the font."""

import bench_records
import pytest
from rendering import rendered

from inferlab.arithmetic.ledger import memory_ledger
from inferlab.book.chapter03 import gpu, known_shape
from inferlab.measure.engine_sweep import SweepPoint
from inferlab.measure.statistics import mean_interval
from inferlab.plots.benchmark import decode_roof
from inferlab.plots.ceilings import ceilings
from inferlab.plots.counters import gpu_counters
from inferlab.plots.layer import layer_roofline, layer_shares
from inferlab.plots.ledger import memory_ledgers
from inferlab.plots.style import new_figure, source_note
from inferlab.plots.sweep import engine_sweeps
from inferlab.plots.tables import table
from inferlab.records import store
from inferlab.records.rooflines import describe, measured_ceilings
from inferlab.records.schema import EngineInfo

SHAPE = known_shape("qwen3-8b")


def h200(experiment: str):
    return store.find("chapter03", experiment, "h200")


def ledgers():
    cards = {name: gpu(f"NVIDIA {name}").memory_bytes for name in ("H200", "GeForce RTX 4090")}
    return {
        name: memory_ledger(SHAPE, memory_bytes=size, max_model_len=8192)
        for name, size in cards.items()
    }


def sweeps():
    points = [SweepPoint(size, size, mean_interval([0.01, 0.012, 0.011])) for size in (1, 4, 16)]
    return engine_sweeps(points, points, SHAPE, measured_ceilings(h200("ceilings")), "注")


PICTURES = {
    "ceilings": lambda: ceilings(h200("ceilings")),
    "layer_roofline": lambda: layer_roofline(h200("layer"), h200("ceilings"), SHAPE),
    "decode": lambda: layer_shares(h200("layer"), h200("ceilings"), SHAPE, "decode"),
    "prefill": lambda: layer_shares(h200("layer"), h200("ceilings"), SHAPE, "prefill"),
    "counters": lambda: gpu_counters(h200("gpu_load")),
    "ledger": lambda: memory_ledgers(ledgers()),
    "sweeps": sweeps,
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_renders_with_every_glyph(name):
    figure = PICTURES[name]()
    assert 10_000 < len(rendered(figure)) < 150_000
    assert all(axes.get_title(loc="left") for axes in figure.axes)


def test_a_long_note_goes_on_in_further_lines():
    records = [store.find("chapter05", each, "h200") for each in ("kv_capacity", "knob_pdl")]
    records.append(store.find("chapter07/pd", "link", "h200"))
    note = describe(*records)
    figure, _ = new_figure(width=4)
    source_note(figure, note)
    rendered(figure)
    told = figure._supxlabel
    assert told.get_text().count("\n") >= 2 and told.get_text().replace("\n", "") == note
    assert told.get_window_extent().x0 >= 0
    source_note(figure, "短注")
    assert figure._supxlabel.get_text() == "短注"


def test_numbers_in_a_table_are_right_aligned_and_short():
    text = table(["名", "数"], [("a", 1234.5), ("b", 0.123456)]).data
    assert text.splitlines()[1] == "| :-- | --: |"
    assert "1,234" in text and "0.123" in text and "0.1234" not in text


def test_the_decode_roof_follows_the_engines_dtype():
    fp32 = EngineInfo(name="vLLM", version="0.32.0", config={"dtype": "float32"})
    roofs = decode_roof(bench_records.record()), decode_roof(bench_records.record(engine=fp32))
    assert roofs[0] and roofs[1]
    assert roofs[1][1] == pytest.approx(2 * roofs[0][1], rel=0.01)
