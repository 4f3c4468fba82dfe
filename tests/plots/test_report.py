"""The report: what its page holds, that it stands alone, and what bad input gives."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench_records import comparison, record
from rendering import rendered

from inferlab.errors import LabError
from inferlab.plots import benchmark
from inferlab.plots.report import write_report
from inferlab.plots.timeline import timeline
from inferlab.repository import root

CHAPTER_3 = root() / "results" / "h200" / "chapter03"


@pytest.fixture(scope="module")
def sweep():
    return record()


@pytest.fixture(scope="module")
def sweep_file(sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "sweep.json"
    path.write_text(sweep.model_dump_json(), encoding="utf-8")
    return path


def drawn(figure) -> None:
    assert len(rendered(figure)) > 10_000


def test_pictures_of_a_benchmark_render_with_every_glyph(sweep) -> None:
    for make in (benchmark.latency_cdfs, timeline, lambda one: benchmark.pareto([one])):
        drawn(make(sweep))
    drawn(benchmark.ab_ratios(sweep.model_copy(update={"comparisons": comparison()})))


def test_the_cdf_holds_whole_answers_inside_the_window_only(sweep) -> None:
    figure = benchmark.latency_cdfs(sweep)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert {"8 req/s", "40 req/s", "120 req/s"} <= set(lines)
    ok = sum(run.summary.ok for run in sweep.runs if run.labels == {"rate_per_s": 8.0})
    x, y = (np.asarray(values, float) for values in lines["8 req/s"].get_data())
    assert (len(x), y[-1]) == (ok, 1.0)
    assert list(x) == sorted(x)
    assert 65.9 <= x[0] <= x[-1] <= 76.1  # 50 ms + 2 ms a req/s + up to 10 ms


def test_the_roofline_is_weights_at_batch_1_and_stays_below_what_was_measured(sweep) -> None:
    tokens_per_s, itl_ms = benchmark.decode_roof(sweep)
    assert itl_ms[0] == pytest.approx(3.5, rel=0.05)  # 15.1 GB of weights at 4.3 TB/s
    assert tokens_per_s[0] == pytest.approx(1e3 / itl_ms[0])
    assert (np.diff(itl_ms) >= 0).all()
    labels = [line.get_label() for line in benchmark.pareto([sweep]).axes[0].get_lines()]
    assert "decode roofline（灰色：达不到）" in labels


def test_no_roofline_without_a_known_shape(sweep) -> None:
    unknown = sweep.model.model_copy(update={"name": "lab"})
    assert benchmark.decode_roof(sweep.model_copy(update={"model": unknown})) is None


def test_two_records_share_one_pareto(sweep) -> None:
    figure = benchmark.pareto([sweep, sweep.model_copy(update={"experiment": "tuned"})])
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert {"NVIDIA H200 sweep", "NVIDIA H200 tuned"} <= set(names)


def test_a_record_without_single_requests_has_no_cdf_and_no_timeline(sweep) -> None:
    bare = [run.model_copy(update={"requests": None}) for run in sweep.runs]
    imported = sweep.model_copy(update={"runs": bare})
    assert benchmark.latency_cdfs(imported) is None
    assert timeline(imported) is None
    assert benchmark.ab_ratios(imported) is None


def test_the_page_stands_alone(sweep_file: Path, tmp_path: Path) -> None:
    written = write_report([sweep_file], tmp_path / "out")
    assert [path.name for path in written] == [
        "report.html", "latency_cdf.png", "pareto.png", "timeline.png",
    ]  # fmt: skip
    page = written[0].read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 3
    assert not re.search(r'(src|href)="(?!data:)|<script|<link|url\(', page)
    assert all(path.stat().st_size > 10_000 for path in written)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_the_page_has_figures_with_intervals_and_provenance(sweep_file, tmp_path) -> None:
    page = write_report([sweep_file], tmp_path)[0].read_text(encoding="utf-8")
    for expected in ("NVIDIA H200", "580.159.04", "vLLM 0.32.0", "随机权重", "b76c65d83d1e",
                     "95 % 区间", "http_error 12", "输出 tok/s"):  # fmt: skip
        assert expected in page


def test_a_partial_or_single_run_is_said_first_and_text_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "partial.json"
    short = record(rates=(8.0,), repeats=1, partial="server <died>")
    path.write_text(short.model_dump_json(), encoding="utf-8")
    page = write_report([path], tmp_path)[0].read_text(encoding="utf-8")
    assert "记录不完整：server &lt;died&gt;" in page
    assert "只测了一次：没有区间" in page
    assert '<td class="number">—</td>' in page


def test_chapter_3s_records_bring_their_own_pictures(tmp_path: Path) -> None:
    written = write_report(sorted(CHAPTER_3.glob("*.json")), tmp_path)
    assert [path.stem for path in written[1:]] == [
        "1-ceilings", "2-gpu_load", "3-layer_roofline", "3-decode", "3-prefill",
    ]  # fmt: skip


def test_a_layer_alone_takes_the_ceilings_beside_it(tmp_path: Path) -> None:
    assert len(write_report([CHAPTER_3 / "layer.json"], tmp_path)) == 4


def test_a_file_that_is_no_record_leaves_nothing_behind(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"lab": 1}')
    with pytest.raises(LabError, match="不是有效的记录"):
        write_report([bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def lab_report(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from inferlab.cli import main; main()"
    command = [sys.executable, "-c", code, "report", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command(sweep_file: Path, tmp_path: Path) -> None:
    done = lab_report(str(sweep_file), "--out", str(tmp_path / "page"))
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.splitlines()[0]).read_text(encoding="utf-8").startswith("<!DOCTYPE")


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    done = lab_report(str(tmp_path / "none.json"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("错误: 没有文件 ")
