"""One self-contained page from records: pictures, figures with intervals, provenance."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from inferlab.errors import LabError
from inferlab.plots import benchmark, report_tables
from inferlab.plots.ceilings import ceilings as ceilings_picture
from inferlab.plots.counters import gpu_counters
from inferlab.plots.layer import layer_roofline, layer_shares
from inferlab.plots.timeline import timeline
from inferlab.records import store
from inferlab.records.schema import Record


@dataclass(frozen=True)
class Loaded:
    """A record and the file it came from."""

    path: Path
    record: Record


@dataclass(frozen=True)
class Picture:
    """A picture of a report: `name` is its PNG's, without ending."""

    name: str
    title: str
    png: bytes


def write_report(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write `report.html` and its pictures as PNG into `folder`, whole files only.

    Returns:
        what was written, the page first.

    Raises:
        LabError: a record cannot be read, or the folder cannot be written.
    """
    loaded = [Loaded(path, store.load(path)) for path in dict.fromkeys(paths)]
    sections, drawn = [], _overview(loaded)
    if drawn:
        sections.append("<h2>并排比较</h2>" + "".join(map(_image, drawn)))
    for place, each in enumerate(loaded):
        pictures = list(_pictures(each, f"{place + 1}-" if len(loaded) > 1 else "", loaded))
        sections.append(_section(each, pictures))
        drawn += pictures
    title = "测量报告：" + "、".join(dict.fromkeys(each.record.experiment for each in loaded))
    template = Template((Path(__file__).parent / "report_template.html").read_text("utf-8"))
    page = template.substitute(title=escape(title), body="\n".join(sections))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [(folder / "report.html", page.encode())]
        files += [(folder / f"{each.name}.png", each.png) for each in drawn]
        return [_write(path, content) for path, content in files]
    except OSError as error:
        raise LabError(
            f"写不了报告 {folder}（{error.strerror}）", remedy="检查磁盘空间与权限，或换 --out"
        ) from error


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _overview(loaded: Sequence[Loaded]) -> list[Picture]:
    measured = [each.record for each in loaded if each.record.runs]
    figure = benchmark.pareto(measured) if len(measured) > 1 else None
    return [_drawn("pareto", "吞吐与延迟", figure)] if figure else []


def _pictures(each: Loaded, prefix: str, loaded: Sequence[Loaded]) -> Iterator[Picture]:
    record = each.record
    makers = [
        ("latency_cdf", "延迟分布", lambda: benchmark.latency_cdfs(record)),
        ("pareto", "吞吐与延迟", lambda: benchmark.pareto([record])),
        ("ab", "A/B", lambda: benchmark.ab_ratios(record)),
        ("timeline", "时间线", lambda: timeline(record)),
    ]
    if not record.runs and record.kind == "experiment":
        makers = _experiment(each, loaded)
    for name, title, make in makers:
        figure = make()
        if figure is not None:
            yield _drawn(prefix + name, title, figure)


def _experiment(each: Loaded, loaded: Sequence[Loaded]) -> list:
    """The pictures of a lab's experiment, by what its figures are."""
    record, names = each.record, {figure.name for figure in each.record.figures}
    if "matmul" in names:
        return [("ceilings", "实测上限", lambda: ceilings_picture(record))]
    if "gpu_util_percent" in names:
        return [("gpu_load", "GPU 计数器", lambda: gpu_counters(record))]
    shape, ceilings = benchmark.shape_of(record), _ceilings_for(each, loaded)
    if "layer_time" not in names or shape is None or ceilings is None:
        return []
    return [
        ("layer_roofline", "一层的 roofline", lambda: layer_roofline(record, ceilings, shape)),
        ("decode", "decode", lambda: layer_shares(record, ceilings, shape, "decode")),
        ("prefill", "prefill", lambda: layer_shares(record, ceilings, shape, "prefill")),
    ]


def _ceilings_for(each: Loaded, loaded: Sequence[Loaded]) -> Record | None:
    """The same device's ceilings: among the report's records, else beside this one."""
    for other in loaded:
        same = other.record.device == each.record.device
        if same and other.record.experiment == "ceilings":
            return other.record
    beside = each.path.with_name("ceilings.json")
    return store.load(beside) if beside.is_file() else None


def _drawn(name: str, title: str, figure: Figure) -> Picture:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(re.sub(r"[^\w.-]+", "-", name), title, buffer.getvalue())


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    return (
        f"<h3>{escape(picture.title)}</h3>"
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'
    )


def _section(each: Loaded, pictures: Sequence[Picture]) -> str:
    record = each.record
    parts = [f"<h2>{escape(f'{record.lab} · {record.experiment} · {record.device}')}</h2>"]
    parts += [f'<p class="warning">{escape(text)}</p>' for text in report_tables.warnings(record)]
    parts.append(report_tables.provenance(each.path, record))
    if record.runs:
        parts.append("<h3>各负载</h3>" + report_tables.conditions(record))
    parts += map(_image, pictures)
    parts.append(report_tables.figures(record))
    return "\n".join(parts)
