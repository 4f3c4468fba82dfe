"""KV slots that requests reserve, use and waste: contiguous allocation against paged blocks.

A slot holds one token's K and V in all layers. Waste is counted as in the PagedAttention paper
(Kwon et al., SOSP 2023, section 3.1 and figure 2): slots that the request will fill only later
(`later`), and slots that it never fills (`never`). Sums run over the request's decode steps, in
slot-steps, because memory is held for the whole time. External fragmentation, which contiguous
allocation has too, is not counted: it depends on the allocator.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from inferlab.errors import LabError

BLOCK_SIZE = 16


@dataclass(frozen=True)
class Lengths:
    """One request: tokens of its prompt and of its answer, and the longest that is allowed."""

    prompt: int
    output: int
    max_len: int

    def __post_init__(self) -> None:
        if self.prompt < 1 or self.output < 1 or self.total > self.max_len:
            raise LabError(
                f"请求长度不成立：prompt {self.prompt}、output {self.output}、上限 {self.max_len}",
                remedy="prompt 与 output 至少为 1，且两者之和不超过上限",
            )

    @property
    def total(self) -> int:
        return self.prompt + self.output


@dataclass(frozen=True)
class SlotUse:
    """Slot-steps over all decode steps of all requests.

    Attributes:
        used: slots with a token in them.
        later: reserved now, filled in a later step.
        never: reserved, and never filled.
    """

    used: int = 0
    later: int = 0
    never: int = 0

    @property
    def reserved(self) -> int:
        return self.used + self.later + self.never

    @property
    def wasted(self) -> int:
        return self.later + self.never

    @property
    def share_used(self) -> float:
        """Used ÷ reserved; 0 when nothing is reserved."""
        return self.used / self.reserved if self.reserved else 0.0

    def __add__(self, other: "SlotUse") -> "SlotUse":
        return SlotUse(self.used + other.used, self.later + other.later, self.never + other.never)


# From a request and the tokens it holds now to the slots reserved for it.
Policy = Callable[[Lengths, int], int]


def reserve_max(request: Lengths, tokens: int) -> int:
    """Contiguous: the longest allowed, from the start, whatever the request needs."""
    return request.max_len


def reserve_power_of_two(request: Lengths, tokens: int) -> int:
    """Contiguous: the request's own length, known beforehand, rounded up to a power of two.

    Generous to contiguous allocation: no server knows an answer's length. The paper's `Pow2`.
    """
    return min(request.max_len, 1 << (request.total - 1).bit_length())


def reserve_blocks(block_size: int = BLOCK_SIZE) -> Policy:
    """Paged: as many whole blocks as the tokens at hand fill, one more when they do."""
    if block_size < 1:
        raise LabError(f"block_size={block_size} 不成立", remedy="至少为 1")
    return lambda request, tokens: -(-tokens // block_size) * block_size


POLICIES: dict[str, Policy] = {
    "max": reserve_max,
    "pow2": reserve_power_of_two,
    "paged": reserve_blocks(),
}


def slot_use(requests: Iterable[Lengths], policy: Policy) -> SlotUse:
    """Slot-steps of requests under a policy: step i of a request holds prompt + i tokens, i from 1
    to `output`."""
    return sum((_one(request, policy) for request in requests), SlotUse())


def fit(requests: Sequence[Lengths], slots: int, policy: Policy) -> int:
    """How many requests, in order, a pool of `slots` holds at once when each is at its end."""
    left = slots
    for number, request in enumerate(requests):
        left -= policy(request, request.total)
        if left < 0:
            return number
    return len(requests)


def _one(request: Lengths, policy: Policy) -> SlotUse:
    use = SlotUse()
    for tokens in range(request.prompt + 1, request.total + 1):
        reserved = policy(request, tokens)
        later = min(reserved, request.total) - tokens
        use += SlotUse(tokens, later, reserved - tokens - later)
    return use
