"""Where PD separation pays: predicted gain over prompt and answer length."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from inferlab.plots.style import new_figure, source_note

Lengths = tuple[int, int]  # prompt, output


def separation_map(
    gains: Mapping[Lengths, float],
    *,
    measured: Mapping[Lengths, float] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """A field a pair of lengths, with the ratio of requests a second, PD ÷ colocated; from 1 on
    separation pays. Measured ratios stand in brackets below the predicted ones.

    Args:
        gains: (prompt, output) in tokens → predicted ratio; 0 where neither can hold the SLO.
        measured: the same, of records.
    """
    prompts, outputs = (sorted({key[i] for key in gains}) for i in (0, 1))
    table = np.array([[gains[prompt, output] for prompt in prompts] for output in outputs])
    figure, axes = new_figure(width=1.6 + 0.95 * len(prompts), height=1.5 + 0.55 * len(outputs))
    shown = axes.imshow(np.log2(np.clip(table, 0.25, 4)), cmap="PuOr", vmin=-1.2, vmax=1.2,
                        origin="lower", aspect="auto")  # fmt: skip
    for row, output in enumerate(outputs):
        for column, prompt in enumerate(prompts):
            text = _cell(table[row][column], (measured or {}).get((prompt, output)))
            axes.text(column, row, text, ha="center", va="center", fontsize=8.5)
    _ticks(axes.set_xticks, prompts)
    _ticks(axes.set_yticks, outputs)
    axes.set_xlabel("prompt（token）")
    axes.set_ylabel("输出（token）")
    axes.grid(visible=False)
    axes.set_title(title or "PD ÷ 同样多的普通副本：每秒请求数", loc="left")
    bar = figure.colorbar(shown, ax=axes, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["½", "1", "2"])
    source_note(figure, note)
    return figure


def _cell(predicted: float, measured: float | None) -> str:
    text = f"{predicted:.2f}" if predicted else "—"
    return text + (f"\n[{measured:.2f}]" if measured else "")


def _ticks(put, values: Sequence[int]) -> None:
    put(range(len(values)), [f"{value:,}" for value in values])
