"""How every picture looks: a Chinese font that comes with the environment, few colours, light
grid."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from inferlab.records.schema import Figure as Measured

# Okabe and Ito 2008: told apart by readers with any colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#6E6E6E",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
NOTE_SIZE = 7.5
NOTE_COLUMN_IN = NOTE_SIZE / 72 * 0.55  # a Latin letter or a digit; half a Chinese character


@cache
def chinese_font() -> str:
    """Name of a font with Chinese glyphs, taken from the package `mplfonts`, so none need be
    installed.

    Falls back to matplotlib's default where the package is missing (labels then show boxes).
    """
    spec = find_spec("mplfonts")
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place) / "fonts" / "NotoSansCJKsc-Regular.otf"
        if file.is_file():
            font_manager.fontManager.addfont(str(file))
            return font_manager.FontProperties(fname=str(file)).get_name()
    return matplotlib.rcParamsDefault["font.sans-serif"][0]


def style() -> dict[Any, Any]:
    """Matplotlib settings shared by all pictures."""
    return {
        "font.sans-serif": [chinese_font(), "DejaVu Sans"],
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.unicode_minus": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "figure.dpi": 110,
        "savefig.dpi": 110,
        "figure.constrained_layout.use": True,
    }


class Picture(Figure):
    """A figure that a notebook shows as PNG where it is a cell's value, whatever the backend."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(
    columns: int = 1, rows: int = 1, *, width: float = 7.2, height: float = 4.2
) -> tuple[Figure, Any]:
    """A figure and its axes (an array when there are several), in the shared style.

    Made without pyplot: it is shown once, where it is returned, and no open figure stays behind.
    """
    # Text takes its font when it is made, later than this: a context manager would end too soon.
    matplotlib.rcParams.update(style())
    figure = Picture(figsize=(width, height))
    return figure, figure.subplots(rows, columns)


def log2_axis(axes: Axes) -> None:
    """A base-2 x axis whose ticks are plain numbers: readers know 4,096, not 2¹²."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="x", labelsize=8.5)


def plain_log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, … as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def interval_bars(figures: Sequence[Measured]) -> np.ndarray:
    """How far the intervals reach below and above the means, as `errorbar` takes them."""
    return np.maximum([[f.mean - f.low for f in figures], [f.high - f.mean for f in figures]], 0)


def source_note(figure: Figure, text: str) -> None:
    """What stands under a picture and says where its figures come from, in as many lines as its
    width needs; nothing for an empty text."""
    if text:
        lines = _filled(text, figure.get_figwidth() / NOTE_COLUMN_IN)
        figure.supxlabel("\n".join(lines), fontsize=NOTE_SIZE, color=GREY, x=0.99, ha="right")


def _filled(text: str, columns: float) -> list[str]:
    """Lines broken after commas and enumeration commas, each of at most so many columns where its
    pieces allow; a Chinese character is two columns wide."""
    lines = [""]
    for piece in re.findall("[^，、]*[，、]|[^，、]+", text):
        full = sum(2 if east_asian_width(each) in "WF" else 1 for each in lines[-1] + piece)
        if lines[-1] and full > columns:
            lines.append("")
        lines[-1] += piece
    return lines
