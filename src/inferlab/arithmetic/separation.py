"""How many prefill and decode workers a load wants, and what colocated replicas would do with it.

Two rates a GPU carry everything: prompts prefilled a second, and, at a TPOT that the SLO allows,
answers decoded a second. They may be measured, or predicted from the roofline. The load is steady,
queues are left out, and the handover costs nothing: what is predicted is what separation can win at
most.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from inferlab.arithmetic.kv_cache import kv_bytes_per_token
from inferlab.arithmetic.roofline import decode, prefill
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.errors import LabError

MOST_SEQUENCES = 1024


@dataclass(frozen=True)
class Rates:
    """What one GPU does of a load's requests, each alone.

    Attributes:
        prefill_s: seconds of one prompt's prefill.
        batch: sequences that decode together within the TPOT.
        step_s: seconds of a decode step with so many.
        output: tokens of an answer.
    """

    prefill_s: float
    batch: int
    step_s: float
    output: int

    @property
    def prompts_per_s(self) -> float:
        """Of a GPU that only prefills."""
        return 1 / self.prefill_s

    @property
    def answers_per_s(self) -> float:
        """Of a GPU that only decodes; the first token comes from prefill."""
        return self.batch / (self.step_s * max(self.output - 1, 1))


@dataclass(frozen=True)
class Split:
    """GPUs by role, and the requests a second that they can answer within the TPOT."""

    prefill: int
    decode: int
    requests_per_s: float


def rates(
    shape: ModelShape,
    ceilings: Ceilings,
    *,
    prompt: int,
    output: int,
    tpot_s: float,
    efficiency: float = 1.0,
    kv_tokens: int | None = None,
) -> Rates:
    """The rates that the roofline predicts.

    Args:
        efficiency: share of the roofline that is reached, for both phases.
        kv_tokens: that the cache holds; bounds the batch.

    Raises:
        LabError: not even one sequence decodes within the TPOT.
    """  # fmt: skip
    prefill_s = prefill(shape, 1, prompt).total.against(ceilings).floor_s / efficiency
    context = prompt + output // 2
    most = min(MOST_SEQUENCES, kv_tokens // (prompt + output) if kv_tokens else MOST_SEQUENCES)

    def step_s(batch: int) -> float:
        return decode(shape, batch, context).total.against(ceilings).floor_s / efficiency

    batch = _largest(most, lambda batch: step_s(batch) <= tpot_s)
    if not batch:
        raise LabError(
            f"TPOT {1e3 * tpot_s:g} ms 太短：一个序列的一步就要 {1e3 * step_s(1):.1f} ms",
            remedy="放宽 TPOT，或换更小的模型",
        )
    return Rates(prefill_s, batch, step_s(batch), output)


def splits(known: Rates, gpus: int) -> list[Split]:
    """Every way to give `gpus` GPUs to the two phases, few prefill workers first."""
    return [
        Split(p, gpus - p, min(p * known.prompts_per_s, (gpus - p) * known.answers_per_s))
        for p in range(1, gpus)
    ]


def best_split(known: Rates, gpus: int) -> Split:
    """The split that answers most requests.

    Raises:
        LabError: there are fewer than two GPUs.
    """
    if gpus < 2:
        raise LabError("PD 分离至少要两个 worker", remedy="gpus 取 2 或更多")
    return max(splits(known, gpus), key=lambda split: split.requests_per_s)


def colocated_requests_per_s(
    known: Rates,
    shape: ModelShape,
    ceilings: Ceilings,
    *,
    prompt: int,
    tpot_s: float,
    efficiency: float = 1.0,
) -> float:
    """Requests a second of one GPU that does both, at the same TPOT.

    Prefill takes a share of the time, evenly (fine chunks): in what is left, steps of a batch must
    still come every `tpot_s`.
    """  # fmt: skip
    context, steps = prompt + known.output // 2, max(known.output - 1, 1)

    def answers_s(batch: int) -> float:
        """A batch of answers: its steps, and a prefill for each sequence."""
        step = decode(shape, batch, context).total.against(ceilings).floor_s / efficiency
        return step * steps + batch * known.prefill_s

    batch = _largest(known.batch, lambda batch: answers_s(batch) / steps <= tpot_s)
    return batch / answers_s(batch) if batch else 0.0


def handover_bytes(shape: ModelShape, prompt: int, block_size: int) -> int:
    """Bytes of KV cache that go from P to D for a prompt: whole blocks."""
    return int(kv_bytes_per_token(shape)) * block_size * ceil(prompt / block_size)


def handover_pieces(shape: ModelShape, prompt: int, block_size: int) -> int:
    """Pieces of memory that the KV cache of a prompt consists of: one a block and layer."""
    return len(shape.layers) * ceil(prompt / block_size)


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest batch up to `most` that fits, 0 when none does; a step grows with its batch."""
    return bisect_left(range(1, most + 1), True, key=lambda batch: not fits(batch))
