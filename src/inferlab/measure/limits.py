"""Measured ÷ limit: MBU and MFU. Bytes and FLOPs come from `arithmetic`, peaks from `hardware`."""

from collections.abc import Sequence
from dataclasses import dataclass

from inferlab.load.samples import RequestSample
from inferlab.measure.window import Window, whole_window


@dataclass(frozen=True, slots=True)
class Share:
    """An achieved rate beside its ceiling, both in the same unit (bytes/s or FLOP/s)."""

    achieved_per_s: float
    ceiling_per_s: float

    @property
    def fraction(self) -> float:
        """Achieved ÷ ceiling; above 1 means that one of the two is wrong."""
        return self.achieved_per_s / self.ceiling_per_s


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What was decoding, on average over a window.

    Args:
        sequences: sequences between first and last token.
        context_tokens: tokens in the KV cache per such sequence (prompt and generated so far).
    """

    sequences: float
    context_tokens: float


def mbu(bytes_per_step: float, step_s: float, bytes_per_s: float, devices: int = 1) -> Share:
    """Model bandwidth utilisation of decoding: bytes that a step must read, per second.

    Args:
        bytes_per_step: weights once, and the KV cache of every sequence in the batch.
        step_s: time of one decode step: the inter-token latency.
        bytes_per_s: memory bandwidth of one device, measured or from its datasheet.
        devices: how many share the model.
    """
    return Share(bytes_per_step / step_s, bytes_per_s * devices)


def mfu(flops_per_token: float, tokens_per_s: float, flops_per_s: float, devices: int = 1) -> Share:
    """Model FLOPs utilisation: FLOPs that the tokens need, per second.

    Args:
        flops_per_token: of the tokens counted, attention included.
        tokens_per_s: tokens *computed* per second; prompt tokens from a cache are not.
        flops_per_s: peak of one device at the dtype used, dense.
        devices: all devices that took part.
    """
    return Share(flops_per_token * tokens_per_s, flops_per_s * devices)


def decode_bytes_per_step(
    weight_bytes: float, kv_bytes_per_token: float, occupancy: Occupancy
) -> float:
    """Bytes one decode step reads: all weights once, and each running sequence's KV cache.

    For mixture-of-experts models `weight_bytes` are those of the experts that the batch touches.
    """
    cached = occupancy.sequences * occupancy.context_tokens
    return weight_bytes + kv_bytes_per_token * cached


def occupancy(samples: Sequence[RequestSample], window: Window | None = None) -> Occupancy:
    """Mean number of decoding sequences and their mean context, from the samples' own times."""
    window = window or whole_window(samples)
    sequence_s = token_s = 0.0
    for sample in samples:
        if not sample.chunk_s:
            continue
        start = max(sample.chunk_s[0], window.start_s)
        end = min(sample.chunk_s[-1], window.end_s)
        if end > start:
            sequence_s += end - start
            token_s += (end - start) * (sample.prompt_tokens + sample.output_tokens / 2)
    if not sequence_s:
        return Occupancy(0.0, 0.0)
    return Occupancy(sequence_s / window.duration_s, token_s / sequence_s)
