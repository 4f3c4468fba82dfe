"""Amounts of work, and what the hardware's two ceilings make of them (Williams et al. 2009)."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ceilings:
    """What the hardware can do at best, from a datasheet or measured (decimal FLOP/s and B/s)."""

    flops_per_s: float
    bytes_per_s: float

    @property
    def ridge(self) -> float:
        """FLOP/B from which on compute is the limit (Williams et al. 2009)."""
        return self.flops_per_s / self.bytes_per_s


@dataclass(frozen=True)
class RooflinePoint:
    """A piece of work against two ceilings.

    Attributes:
        compute_s, memory_s: the time each ceiling alone would need.
    """

    flops: float
    bytes: float
    compute_s: float
    memory_s: float

    @property
    def intensity(self) -> float:
        """FLOP/B."""
        return self.flops / self.bytes

    @property
    def bound(self) -> Literal["compute", "memory"]:
        return "compute" if self.compute_s >= self.memory_s else "memory"

    @property
    def floor_s(self) -> float:
        """No step can be faster: the larger of the two times."""
        return max(self.compute_s, self.memory_s)

    @property
    def attainable_flops_per_s(self) -> float:
        """FLOP/s at `floor_s`: the roof above this intensity."""
        return self.flops / self.floor_s


@dataclass(frozen=True)
class Work:
    """FLOPs and the bytes they must move, by what the bytes are."""

    flops: float = 0.0
    weight_bytes: float = 0.0
    cache_bytes: float = 0.0
    activation_bytes: float = 0.0

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.cache_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """FLOP/B; 0 when nothing is moved."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.cache_bytes + other.cache_bytes,
            self.activation_bytes + other.activation_bytes,
        )

    def against(self, ceilings: Ceilings) -> RooflinePoint:
        """The two times of this work under these ceilings."""
        compute_s = self.flops / ceilings.flops_per_s
        return RooflinePoint(self.flops, self.bytes, compute_s, self.bytes / ceilings.bytes_per_s)


@dataclass(frozen=True)
class LayerWork:
    """One layer's work: `projections` and `attention` make up the mixer's half."""

    projections: Work = Work()
    attention: Work = Work()
    mlp: Work = Work()

    @property
    def mixer(self) -> Work:
        return self.projections + self.attention

    @property
    def total(self) -> Work:
        return self.mixer + self.mlp

    def __add__(self, other: "LayerWork") -> "LayerWork":
        return LayerWork(
            self.projections + other.projections,
            self.attention + other.attention,
            self.mlp + other.mlp,
        )


@dataclass(frozen=True)
class StepWork:
    """A whole step: all layers, and the head for the tokens that need logits."""

    layers: LayerWork
    head: Work

    @property
    def linear(self) -> Work:
        """All matrix products with weights except the head's."""
        return self.layers.projections + self.layers.mlp

    @property
    def attention(self) -> Work:
        """Scores, values and the cache's traffic; a recurrence's state too."""
        return self.layers.attention

    @property
    def total(self) -> Work:
        return self.layers.total + self.head
