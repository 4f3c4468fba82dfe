"""`./lab bench` and `./lab ab`: measure a running engine, or two against each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from inferlab.records.one_run import Bench
    from inferlab.records.schema import Record

Url = Annotated[str, typer.Option(help="服务地址；默认是正在运行的实验")]
Model = Annotated[str, typer.Option(help="模型名；默认取服务唯一的那个")]
Key = Annotated[str, typer.Option(envvar="LAB_API_KEY", help="API key，不会写进记录")]
Api = Annotated[str, typer.Option(help="completions 或 chat")]
Kind = Annotated[str, typer.Option(help="random、prefix（共享前缀）或 chat（多轮对话）")]
InputLen = Annotated[str, typer.Option(help="prompt 长度：128、64-256 或 512~0.8（均值~CV）")]
OutputLen = Annotated[str, typer.Option(help="输出长度，写法同上")]
PrefixLen = Annotated[int, typer.Option(min=0, help="prompt 中共享的前缀长度（prefix）")]
HitRatio = Annotated[float, typer.Option(min=0, help="想要的前缀缓存命中率（prefix）")]
Groups = Annotated[int, typer.Option(min=1, help="有几种不同的前缀（prefix）")]
Turns = Annotated[str, typer.Option(help="每段对话几轮（chat）")]
Think = Annotated[float, typer.Option(min=0, help="两轮之间平均停几秒（chat）")]
Dataset = Annotated[
    Path | None, typer.Option(help="用文件里的请求（JSONL、Azure、BurstGPT、Mooncake）")
]
Trace = Annotated[Path | None, typer.Option(help="同上，并按文件里的时刻发送")]
Speed = Annotated[float, typer.Option(help="trace 放快几倍")]
Vocabulary = Annotated[int, typer.Option(min=32, help="随机 token id 的上限")]
Rate = Annotated[str, typer.Option(help="到达率 req/s，可写多个：1,2,4")]
Concurrency = Annotated[str, typer.Option(help="闭环并发数，可写多个：1,4,16")]
Arrival = Annotated[
    str, typer.Option(help="poisson、binomial（个数固定的 Poisson）、constant 或 gamma")
]
Cv = Annotated[float, typer.Option(help="gamma 到达间隔的变异系数")]
Duration = Annotated[float, typer.Option(min=0, help="每次测几秒；默认 30")]
Ramp = Annotated[
    float, typer.Option(min=0, help="每次先预热几秒，不计入；默认一成；要长过一个请求的 E2E")
]
Requests = Annotated[int, typer.Option(min=0, help="每次发几个请求，代替 --duration")]
Repeats = Annotated[int, typer.Option(min=1, help="每个负载重复几次")]
Seed = Annotated[int, typer.Option(help="随机种子")]
SloText = Annotated[str, typer.Option("--slo", help="例如 ttft=500ms,tpot=50ms")]
Share = Annotated[float, typer.Option(min=0, max=1, help="达到 SLO 的请求占比下限")]
Find = Annotated[bool, typer.Option("--find-capacity", help="搜索满足 SLO 的最高到达率")]
Out = Annotated[Path | None, typer.Option(help="记录写到这个 .json 文件或文件夹")]
Name = Annotated[str, typer.Option(help="记录的名字；默认带时间")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(bench)
    app.command()(ab)


def bench(
    url: Url = "", model: Model = "", api_key: Key = "", api: Api = "completions",
    workload: Kind = "random", input_len: InputLen = "128", output_len: OutputLen = "64",
    prefix_len: PrefixLen = 0, hit_ratio: HitRatio = 0.0, prefix_groups: Groups = 1,
    turns: Turns = "3", think: Think = 0.0, dataset: Dataset = None, trace: Trace = None,
    speed: Speed = 1.0, vocabulary: Vocabulary = 2048, rate: Rate = "",
    concurrency: Concurrency = "", arrival: Arrival = "poisson", cv: Cv = 2.0,
    duration: Duration = 0.0, ramp: Ramp = 0.0, requests: Requests = 0, repeats: Repeats = 5,
    seed: Seed = 0,
    slo: SloText = "", slo_share: Share = 0.99,
    find_capacity: Find = False, out: Out = None, name: Name = "",
) -> None:  # fmt: skip
    """测量正在运行的引擎：延迟、吞吐、goodput，重复多次并给出区间。"""
    from inferlab.cli.bench_options import endpoint_of, levels_of, plan_of, recorded_command
    from inferlab.measure.goodput import Slo
    from inferlab.records.benchmark import as_record, run_bench, run_capacity
    from inferlab.records.one_run import Bench
    from inferlab.records.served_by import lab_of

    plan = plan_of(locals())
    levels = levels_of(rate, concurrency, trace=trace is not None)
    target = Slo.parse(slo) if slo else None
    endpoint = endpoint_of(url, model, api_key, api)
    ready = Bench(
        endpoint, plan, levels, repeats, seed, target, slo_share, name=name or _dated("bench"),
        lab=lab_of(endpoint), command=recorded_command(),
    )  # fmt: skip
    _measure(ready, run_capacity if find_capacity else run_bench, as_record, out)


def ab(
    a: Annotated[str, typer.Argument(help="地址，或 url=…,model=…[,key=…][,api=chat]")],
    b: Annotated[str, typer.Argument(help="另一个，写法同上")],
    api: Api = "completions", workload: Kind = "random", input_len: InputLen = "128",
    output_len: OutputLen = "64", prefix_len: PrefixLen = 0, hit_ratio: HitRatio = 0.0,
    prefix_groups: Groups = 1, turns: Turns = "3", think: Think = 0.0, dataset: Dataset = None,
    trace: Trace = None, speed: Speed = 1.0, vocabulary: Vocabulary = 2048, rate: Rate = "",
    concurrency: Concurrency = "", arrival: Arrival = "poisson", cv: Cv = 2.0,
    duration: Duration = 0.0, ramp: Ramp = 0.0, requests: Requests = 0, repeats: Repeats = 5,
    seed: Seed = 0,
    slo: SloText = "", out: Out = None, name: Name = "",
) -> None:  # fmt: skip
    """交替测量 A 与 B，给出每个指标的比值、区间和结论。"""
    from inferlab.cli import bench_options as options
    from inferlab.errors import UsageError
    from inferlab.measure.goodput import Slo
    from inferlab.records.ab import Ab, both_grounds
    from inferlab.records.one_run import Bench
    from inferlab.records.served_by import lab_of

    plan = options.plan_of(locals())
    levels = options.levels_of(rate, concurrency, trace=trace is not None)
    if len(levels) != 1 or repeats < 2:
        raise UsageError(f"ab 只比较一个负载、至少 2 轮（现在 {len(levels)} 个、{repeats} 轮）",
                         remedy="给出一个 --rate 或 --concurrency，--repeats 5")  # fmt: skip
    target = Slo.parse(slo) if slo else None
    first, second = options.endpoint_from(a, api), options.endpoint_from(b, api)
    common: dict[str, Any] = {"plan": plan, "levels": levels, "repeats": repeats, "seed": seed,
                              "slo": target, "name": name or _dated("ab"), "lab": lab_of(first),
                              "command": options.recorded_command()}  # fmt: skip
    pair = Ab(Bench(first, **common), Bench(second, **common))
    _compare(pair, both_grounds(pair), out)


def _measure(ready: "Bench", run: Any, as_record: Any, out: Path | None) -> None:
    from inferlab.cli.bench_view import LiveWatch, capacity_lines, show_record, wide_console
    from inferlab.records.one_run import Ground

    console = wide_console()
    ground = Ground.of(ready.endpoint)
    try:
        with LiveWatch(console) as watch:
            outcome = run(ready, ground, watch)
    except KeyboardInterrupt:
        _nothing(console)
    record = as_record(ready, ground, outcome)
    show_record(console, record)
    if outcome.capacity:
        for line in capacity_lines(outcome, ready.share):
            console.print(line, markup=False, soft_wrap=True)
    _finish(console, record, out)


def _compare(pair: Any, grounds: Any, out: Path | None) -> None:
    from inferlab.cli.bench_view import (
        VERDICTS,
        LiveWatch,
        show_comparisons,
        show_record,
        wide_console,
    )
    from inferlab.records.ab import ab_record, overall, run_ab

    console = wide_console()
    try:
        with LiveWatch(console) as watch:
            outcome = run_ab(pair, grounds, watch)
    except KeyboardInterrupt:
        _nothing(console)
    record = ab_record(pair, grounds, outcome)
    show_record(console, record)
    if record.comparisons:
        show_comparisons(console, record.comparisons)
        verdict = overall(record.comparisons)
        console.print(f"结论：{VERDICTS.get(verdict, '各有胜负，看上表')}")
    else:
        console.print("结论：完整的轮次不足 2 轮，不能比较")
    _finish(console, record, out)


def _nothing(console: "Console") -> NoReturn:
    console.print("已中断，还没有测到数据，没有写记录。")
    raise typer.Exit(130) from None


def _finish(console: "Console", record: "Record", out: Path | None) -> None:
    """Keep the record, say where, and end with the code that fits."""
    from inferlab.errors import LabError
    from inferlab.load.runner import INTERRUPTED
    from inferlab.records import store

    try:
        path, problem = store.keep(record, _target(record, out))
    except LabError:
        console.print(
            store.as_text(record.model_copy(update={"runs": []})), markup=False, soft_wrap=True
        )
        raise
    if record.partial:
        console.print(
            f"没有做完：{record.partial}。已测到的部分保留，记录标为不完整。", markup=False
        )
    console.print(f"记录：{path}", markup=False, soft_wrap=True)
    if problem:
        raise LabError(problem, remedy=f"记录改写到 {path}，并标为不完整")
    if record.partial:
        raise typer.Exit(130 if record.partial == INTERRUPTED else 1)


def _target(record: "Record", out: Path | None) -> Path:
    from inferlab.records import store
    from inferlab.repository import state_dir

    if out is not None and out.suffix == ".json":
        return out
    return store.path_of(record, out or state_dir() / "records")


def _dated(word: str) -> str:
    from datetime import datetime

    return f"{word}-{datetime.now():%Y%m%d-%H%M%S}"
