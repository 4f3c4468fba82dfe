"""The path of each request through a PD deployment: which worker did what, when."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from inferlab.plots.style import BLUE, GREY, ORANGE, RED, new_figure, source_note

Line = Mapping[str, Any]


def request_paths(lines: Sequence[Line], *, note: str = "") -> Figure:
    """A row a request, from its arrival: prefill, then waiting for and reading its KV cache up to
    the first event, then the answer; at the end the workers, in red what did not end well.

    Args:
        lines: what the router logs of each streamed request (`engines.router.trace`).
    """
    figure, axes = new_figure(width=9.6, height=1.1 + 0.26 * len(lines))
    begin = min(line["at"] for line in lines)
    names = _short_names(lines)
    for row, line in enumerate(sorted(lines, key=lambda line: line["at"])):
        start, end = line["at"] - begin, line["at"] - begin + line["total_ms"] / 1e3
        marks = [start]
        marks += [start + line[key] / 1e3 for key in ("prefill_ms", "first_event_ms") if line[key]]
        marks += [end] * (4 - len(marks))
        for left, right, color in zip(marks, marks[1:], (ORANGE, GREY, BLUE), strict=False):
            axes.barh(row, right - left, left=left, height=0.7, color=color)
        workers = " → ".join(names[url] for url in (line["prefill"], line["decode"]) if url)
        again = f"，第 {line['attempts']} 次" if line["attempts"] > 1 else ""
        well = line["outcome"] == "ok"
        axes.text(end, row, f"  {workers}{again}{'' if well else '：' + line['outcome']}",
                  va="center", fontsize=7.5, color="black" if well else RED)  # fmt: skip
    for color, label in ((ORANGE, "prefill"), (GREY, "读 KV 到首个 token"), (BLUE, "decode")):
        axes.barh(0, 0, color=color, label=label)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel("秒")
    axes.set_title("每个请求走过的路", loc="left")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper right", ncols=3, fontsize=8.5)
    source_note(figure, note)
    return figure


def _short_names(lines: Sequence[Line]) -> dict[str, str]:
    """Address → `P0`, `D1` or `R0` (a replica), in the order of the addresses."""
    prefill = sorted({line["prefill"] for line in lines if line["prefill"]})
    decode = sorted({line["decode"] for line in lines if line["decode"]})
    names = {url: f"P{number}" for number, url in enumerate(prefill)}
    letter = "D" if prefill else "R"
    return names | {url: f"{letter}{number}" for number, url in enumerate(decode)}
