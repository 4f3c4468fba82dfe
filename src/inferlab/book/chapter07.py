"""Chapter 7, section 7.7: what separation of prefill and decode should cost and win, computed
before it is measured; and the exercises."""

from inferlab.arithmetic.separation import (
    best_split,
    colocated_requests_per_s,
    handover_bytes,
    handover_pieces,
    rates,
)
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter03 import known_shape
from inferlab.book.exercise import Exercise
from inferlab.errors import LabError
from inferlab.records import store
from inferlab.records.rooflines import measured_ceilings

LAB = "chapter07/pd"
# What the H200 records of chapters 3 and 5 reach of the roofline, prefill and decode, roughly.
EFFICIENCY = 0.7
ETHERNET_25G_BYTES_PER_S = 25e9 / 8


def predicted_gain(
    shape: ModelShape, ceilings: Ceilings, prompt: int, output: int, tpot_s: float, gpus: int = 2
) -> float:
    """Requests a second of the best split of `gpus` GPUs ÷ those of as many colocated replicas; 0
    where neither holds the TPOT."""
    try:
        known = rates(shape, ceilings, prompt=prompt, output=output, tpot_s=tpot_s,
                      efficiency=EFFICIENCY)  # fmt: skip
    except LabError:
        return 0.0
    rival = colocated_requests_per_s(
        known, shape, ceilings, prompt=prompt, tpot_s=tpot_s, efficiency=EFFICIENCY
    )
    return best_split(known, gpus).requests_per_s / (gpus * rival) if rival else 0.0


def h200_ceilings() -> Ceilings:
    """The H200's measured ceilings, of chapter 3's record."""
    return measured_ceilings(store.find("chapter03", "ceilings", "h200"))


def _qwen() -> ModelShape:
    return known_shape("qwen3-8b")


def _megabytes_of_a_handover() -> float:
    return handover_bytes(_qwen(), 10_000, 128) / 1e6


def _seconds_over_ethernet() -> float:
    return handover_bytes(_qwen(), 8192, 128) / ETHERNET_25G_BYTES_PER_S


def _pieces_of_small_blocks() -> float:
    return handover_pieces(_qwen(), 8192, 16)


def _prefill_workers_of_four() -> float:
    known = rates(_qwen(), h200_ceilings(), prompt=8192, output=128, tpot_s=0.025,
                  efficiency=EFFICIENCY)  # fmt: skip
    return best_split(known, 4).prefill


EXERCISES = (
    Exercise(
        "ch07-1", "Qwen3-8B，10,000 token 的 prompt，block 128：从 P 搬到 D 多少 MB（1e6 字节）？",
        _megabytes_of_a_handover, "整块地搬：10,000 先取整到 128 的倍数，再乘每 token 的 KV 字节",
    ),
    Exercise(
        "ch07-2", "8,192 token 的 KV 走 25 Gb/s 以太网（跑满），至少要几秒？",
        _seconds_over_ethernet, "25 Gb/s 是 3.125 GB/s；handover_bytes 算出字节",
    ),
    Exercise(
        "ch07-3", "8,192 token，block 16，Qwen3-8B 有 36 层：KV cache 由多少片显存组成？",
        _pieces_of_small_blocks, "每层每块一片", tolerance=0,
    ),
    Exercise(
        "ch07-4", "4 块 H200，8,192 进 128 出，TPOT ≤ 25 ms：预测几块做 prefill 最好？",
        _prefill_workers_of_four, "rates(…, efficiency=0.7) 再 best_split(known, 4)", tolerance=0,
    ),
)  # fmt: skip
