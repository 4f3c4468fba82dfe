"""Chapter 7's records of the KV cache's way from prefill to decode, as its notebook shows them."""

from collections.abc import Iterable, Sequence

from IPython.display import Markdown
from matplotlib.figure import Figure as Drawing

from inferlab.arithmetic.roofline import prefill
from inferlab.arithmetic.separation import handover_bytes
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter07 import ETHERNET_25G_BYTES_PER_S, LAB
from inferlab.book.shown_records import ShownRecords
from inferlab.plots.handover import STATES
from inferlab.plots.handover import handover as handover_picture
from inferlab.plots.tables import table
from inferlab.records.rooflines import describe
from inferlab.records.schema import Figure, Record

# The KV cache's order in memory and its blocks: experiment → name for the reader.
ORDERS = {
    "handover": "block 128，各层并排（BHLNC）",
    "handover_layers": "block 128，各层分开",
    "handover_layers_blocks16": "block 16，各层分开",
}
_H200 = ShownRecords(LAB)


def handover(record: Record) -> Drawing:
    """The handover over the prompt's length, beside a plain copy over the same link."""
    return handover_picture(
        record.figures, link_bytes_per_s=link_bytes_per_s(), note=describe(record)
    )


def link_bytes_per_s() -> float | None:
    """Of the largest copy between the two GPUs; None without a record."""
    link = _H200.find("link")
    return max(each.mean for each in link.select("device_to_device")) if link else None


def over_links(shape: ModelShape, ceilings: Ceilings, prompts: Sequence[int]) -> Markdown:
    """Milliseconds at least that a handover takes over several links, beside those of prefill."""
    links = {
        "NVLink（实测拷贝）": link_bytes_per_s(),
        "400 Gb/s 网卡": 50e9,
        "25 Gb/s 网卡": ETHERNET_25G_BYTES_PER_S,
    }
    known = {name: rate for name, rate in links.items() if rate}
    rows = []
    for prompt in prompts:
        size = handover_bytes(shape, prompt, 128)
        floor_s = prefill(shape, 1, prompt).total.against(ceilings).floor_s
        times = (1e3 * size / rate for rate in known.values())
        rows.append((prompt, size / 1e6, *times, 1e3 * floor_s))
    return table(["prompt", "MB", *(f"{name} ms" for name in known), "prefill 至少 ms"], rows)


def against_the_link(record: Record) -> Markdown:
    """Bytes, pieces and rate of each prompt's handover, as a share of the link's."""
    link = link_bytes_per_s()
    rows = []
    for rate in record.select("handover_bytes_per_s"):
        moved, predicted, ms = (
            record.one(name, **rate.labels).mean
            for name in ("handover_bytes", "predicted_bytes", "handover_ms")
        )
        share = f"{rate.mean / link:.0%}" if link else "—"
        rows.append((_prompt(rate), moved / 1e6, f"{moved / predicted - 1:+.1%}", ms,
                     min(rate.values) / 1e9, max(rate.values) / 1e9, share))  # fmt: skip
    heads = ["prompt", "搬了 MB", "与预测差", "ms（均值）", "最慢 GB/s", "最快 GB/s", "均值占链路"]
    return table(heads, rows)


def nixl_against_the_link(record: Record) -> Markdown:
    """The rate of NIXL's reads without the engines, and of the handover, as shares of the link's.

    In one piece, with GPUs that were idle or at work before; with every block a piece of its own.
    """
    link, engines = link_bytes_per_s(), _H200.find("handover")
    if not link or not engines:
        return _H200.missing(["link", "handover"])
    alone = {(f.labels["bytes"], f.labels["pieces"], f.labels["before"]): f.mean / link
             for f in record.select("nixl_read")}  # fmt: skip
    rows = []
    for moved in engines.select("handover_bytes", cache="fresh"):
        size, prompt = int(moved.mean), moved.labels["prompt"]
        most = max(pieces for read, pieces, _ in alone if read == size)
        reads = (alone[size, 1, "idle"], alone[size, 1, "work"], alone[size, most, "work"])
        handed = (engines.one("handover_bytes_per_s", prompt=prompt, cache=cache).mean / link
                  for cache in STATES)  # fmt: skip
        rows.append((f"{prompt:,}", size / 1e6, *(f"{share:.0%}" for share in (*reads, *handed))))
    heads = ["prompt", "MB", "NIXL，一片，GPU 闲着", "NIXL，一片，GPU 刚忙过", "NIXL，每块一片",
             *(f"引擎里{told}" for told in STATES.values())]  # fmt: skip
    return table(heads, rows)


def _prompt(figure: Figure) -> str:
    return f"{figure.labels['prompt']:,}{STATES.get(str(figure.labels.get('cache')), '')}"


def pieces(figures: Iterable[Figure]) -> Markdown:
    """In how many pieces each KV cache was read, from a fresh and from a used cache."""
    by = {(f.labels["prompt"], f.labels["cache"], f.name): f for f in figures}
    names = ("handover_descriptors", "handover_ms", "post_ms")
    prompts = sorted({prompt for prompt, _, _ in by})
    rows = [(prompt, *(by[prompt, cache, name].mean for name in names for cache in STATES))
            for prompt in prompts]  # fmt: skip
    heads = [
        f"{name}{STATES[cache]}" for name in ("片数", "交接 ms", "提交 ms") for cache in STATES
    ]
    return table(["prompt", *heads], rows)


def orders(prompts: Sequence[int], cache: str = "used") -> Markdown:
    """What the KV cache's order in memory does to the handover, in a cache of one state."""
    link = link_bytes_per_s()
    known = {label: record for name, label in ORDERS.items() if (record := _H200.find(name))}
    names = ("handover_descriptors", "post_ms", "handover_ms", "handover_bytes_per_s")
    rows = []
    for label, record in known.items():
        for prompt in prompts:
            found, post, ms, rate = (record.one(n, prompt=prompt, cache=cache) for n in names)
            share = f"{rate.mean / link:.0%}" if link else "—"
            rows.append((label, f"{prompt:,}", f"{max(found.values):,.0f}", max(post.values),
                         ms.mean, max(ms.values), share))  # fmt: skip
    if not rows:
        return _H200.missing(ORDERS)
    heads = ["KV cache", "prompt", "片数（最多）", "提交 ms（最慢）", "交接 ms（均值）",
             "交接 ms（最慢）", "均值占链路"]  # fmt: skip
    return table(heads, rows)


def moved_by(record: Record) -> Markdown:
    """How many KV caches were moved, by what, and how many answers went on rightly from them."""
    counts = (int(record.one(name).mean) for name in ("requests", "kv_moved", "same_answers"))
    transports = "、".join(record.parameters["transports"]) or "日志里没有"
    heads = ["请求", "搬了 KV", "与 P 自己的答案相同", "走的是"]
    return table(heads, [(*counts, transports)])
