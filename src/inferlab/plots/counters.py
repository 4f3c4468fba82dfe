"""GPU counters side by side: what GPU-Util says and what the chip really did."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from inferlab.plots.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, source_note

BARS = {"GPU-Util": GREY, "SM active": BLUE, "Tensor active": GREEN, "DRAM active": ORANGE}


def gpu_counters(
    phases: Mapping[str, Mapping[str, float]], power_w: Mapping[str, float], *, note: str = ""
) -> Figure:
    """Grouped bars a phase, in percent, and the mean power written above.

    Args:
        phases: phase → counter (a key of `BARS`) → share 0-1.
        power_w: phase → mean power in W.
    """
    figure, axes = new_figure(width=8.6, height=4.2)
    width = 0.8 / len(BARS)
    for place, (name, colour) in enumerate(BARS.items()):
        x = [index + (place - 1.5) * width for index in range(len(phases))]
        values = [100 * counters[name] for counters in phases.values()]
        axes.bar(x, values, width, color=colour, label=name)
    for index, phase in enumerate(phases):
        axes.text(index, 104, f"{power_w[phase]:.0f} W", ha="center", fontsize=8.5, color=RED)
    axes.set_xticks(range(len(phases)), list(phases), fontsize=8.5)
    axes.set_ylabel("%")
    axes.set_ylim(0, 112)
    axes.set_title("GPU-Util 与真实计数器（红字：平均功率）", loc="left")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)
    if note:
        source_note(figure, note)
    return figure
