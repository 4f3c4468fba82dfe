"""An engine's metrics over time: who runs and waits, how full the KV cache is, what comes out."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.measure.metrics_watch import MetricsTable
from inferlab.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, source_note


def metrics_over_time(
    table: MetricsTable, *, title: str = "/metrics 随时间的变化", note: str = ""
) -> Figure:
    """Three panels over seconds: requests running and waiting, KV blocks in use, tokens a second.

    Preemptions are marked where the counter grew.
    """
    figure, panels = new_figure(1, 3, width=9.0, height=5.6)
    queue, cache, tokens = panels
    _steps(queue, table.at_s, table.columns["running"], BLUE, "num_requests_running")
    _steps(queue, table.at_s, table.columns["waiting"], ORANGE, "num_requests_waiting")
    usage = [100 * share for share in table.columns["kv_usage"]]
    _steps(cache, table.at_s, usage, GREEN, "kv_cache_usage_perc")
    _preemptions(cache, table)
    _rate(tokens, table, "generation_tokens", BLUE, "generation_tokens_total 的增速（左）")
    prompts = tokens.twinx()  # a prefill brings hundreds of tokens in one poll
    prompts.grid(visible=False)
    _rate(prompts, table, "prompt_tokens", PURPLE, "prompt_tokens_total 的增速（右）")
    prompts.set_ylim(0, max(1.0, 1.3 * prompts.dataLim.y1))
    prompts.legend(fontsize=8, loc="upper right")
    prompts.set_title(" ", loc="left", fontsize=3)
    for axes, label in ((queue, "请求"), (cache, "% 的 KV block"), (tokens, "token/s")):
        axes.set_ylabel(label)
        axes.set_xlim(0, table.at_s[-1])
        axes.set_ylim(0, max(1.0, 1.3 * axes.dataLim.y1))
        axes.legend(fontsize=8, loc="upper left", ncols=2)
    queue.set_title(title, loc="left", fontsize=10)
    cache.set_title(" ", loc="left", fontsize=3)
    tokens.set_title(" ", loc="left", fontsize=3)
    tokens.set_xlabel("秒")
    source_note(figure, note)
    return figure


def _steps(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str
) -> None:  # fmt: skip
    axes.step(x, y, where="post", color=colour, linewidth=1.3, label=label)
    axes.fill_between(x, y, step="post", color=colour, alpha=0.12, linewidth=0)


def _rate(axes: Axes, table: MetricsTable, name: str, colour: str, label: str) -> None:
    axes.step(table.at_s[1:], table.per_s(name), where="pre", color=colour, linewidth=1.1,
              label=label)  # fmt: skip


def _preemptions(axes: Axes, table: MetricsTable) -> None:
    counts = table.columns["preemptions"]
    at = [table.at_s[i] for i in range(1, len(table)) if counts[i] > counts[i - 1]]
    for place, moment in enumerate(at):
        label = f"preemption（共 {counts[-1]:.0f} 次）" if place == 0 else None
        axes.axvline(moment, color=RED, linewidth=0.8, alpha=0.7, label=label)
    if not at:
        axes.plot([], [], color=GREY, linewidth=0.8, label="没有 preemption")
