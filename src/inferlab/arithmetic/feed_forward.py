"""The per-token half of a layer: a dense MLP, or routed experts with or without shared ones."""

from dataclasses import dataclass
from typing import Protocol

from inferlab.arithmetic.matrices import Matrix


class FeedForward(Protocol):
    """The per-token half of a layer."""

    @property
    def kind(self) -> str: ...

    @property
    def matrices(self) -> tuple[Matrix, ...]: ...


@dataclass(frozen=True)
class DenseMlp:
    """Two matrices, or three when gated (SwiGLU, GeGLU); gate and up are merged as engines do."""

    hidden_size: int
    intermediate_size: int
    gated: bool = True
    bias: bool = False

    @property
    def kind(self) -> str:
        return "门控 MLP" if self.gated else "MLP"

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        name, width = ("gate_up_proj", 2) if self.gated else ("up_proj", 1)
        return (
            Matrix(name, self.hidden_size, width * self.intermediate_size, self.bias),
            Matrix("down_proj", self.intermediate_size, self.hidden_size, self.bias),
        )


@dataclass(frozen=True)
class MoeMlp:
    """A router, routed experts of which a token takes `experts_per_token`, and shared experts.

    Attributes:
        shared: the experts that every token takes, as one MLP; None when there are none.
        shared_gate: a single learned gate on the shared expert's output (Qwen).
        expert_hidden: what the experts read and write when it is not the hidden size (latent MoE).
    """

    hidden_size: int
    intermediate_size: int
    experts: int
    experts_per_token: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    shared: DenseMlp | None = None
    shared_gate: bool = False
    expert_hidden: int | None = None

    @property
    def kind(self) -> str:
        shared = "＋共享专家" if self.shared else ""
        return f"MoE {self.experts_per_token}/{self.experts}{shared}"

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        router = Matrix(
            "router", self.hidden_size, self.experts, self.router_bias, quantizable=False
        )
        gate = Matrix("shared_gate", self.hidden_size, 1, quantizable=False)
        return (
            router,
            *self._latent,
            *self._experts,
            *(self.shared.matrices if self.shared else ()),
            *((gate,) if self.shared_gate else ()),
        )

    @property
    def _experts(self) -> tuple[Matrix, ...]:
        return tuple(
            Matrix(
                f"experts.{matrix.name}",
                matrix.inputs,
                matrix.outputs,
                matrix.bias,
                copies=self.experts,
                used=self.experts_per_token,
                expert=True,
            )
            for matrix in DenseMlp(
                self.expert_hidden or self.hidden_size,
                self.intermediate_size,
                self.gated,
                self.bias,
            ).matrices
        )

    @property
    def _latent(self) -> tuple[Matrix, ...]:
        if self.expert_hidden is None:
            return ()
        return (
            Matrix("latent_in", self.hidden_size, self.expert_hidden),
            Matrix("latent_out", self.expert_hidden, self.hidden_size),
        )
