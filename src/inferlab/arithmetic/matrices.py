"""The atom of all counting here: one weight matrix, and the number format it is stored in.

Everything a model costs follows from its list of matrices: parameters (inputs x outputs), FLOPs
(two a weight and token), bytes read (one pass over the weights a step). Matrices are merged the way
vLLM merges them (`qkv_proj`, `gate_up_proj`), so an input is counted as read once.
"""

from dataclasses import dataclass
from math import ceil

from inferlab.errors import LabError


@dataclass(frozen=True)
class Matrix:
    """One weight matrix of `inputs` x `outputs`, stored `copies` times (experts).

    Attributes:
        used: how many of the copies one token goes through (an expert layer's top-k).
        quantizable: false for what engines keep in the model's own dtype (routers).
        expert: a routed expert's matrix; some formats quantise only these (gpt-oss' MXFP4).
    """

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    copies: int = 1
    used: int = 1
    quantizable: bool = True
    expert: bool = False

    @property
    def weights(self) -> int:
        """Weights of one copy, without bias."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Parameters of all copies, bias included."""
        return self.copies * (self.weights + self.biases)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token goes through."""
        return self.used * (self.weights + self.biases)

    @property
    def biases(self) -> int:
        return self.outputs if self.bias else 0

    @property
    def flops_per_token(self) -> int:
        """A multiplication and an addition for each weight used; a bias adds one more."""
        return self.used * (2 * self.weights + self.biases)

    @property
    def activations_per_token(self) -> int:
        """Elements read (the input, once) and written (the output) for one token."""
        return self.used * (self.inputs + self.outputs)

    def expected_copies(self, tokens: float) -> float:
        """Distinct copies that `tokens` tokens touch: E * (1 - (1 - k/E)^tokens).

        Assumes uniform and independent routing, which is the most spread-out case; real routers are
        skewed and touch fewer.
        """
        if self.used == self.copies:
            return self.copies
        return self.copies * (1 - (1 - self.used / self.copies) ** tokens)


@dataclass(frozen=True)
class WeightFormat:
    """How weights lie in memory.

    Attributes:
        bits: bits a weight.
        scale_bytes: bytes of one scale.
        group_inputs, group_outputs: the block of weights that shares a scale; 0 is the whole side.
            A per-output-channel scale is (0, 1); a group of 128 along the input is (128, 1).
        experts_only: only the routed experts are quantised.
    """

    name: str
    bits: float
    scale_bytes: float = 0
    group_inputs: int = 0
    group_outputs: int = 1
    experts_only: bool = False

    def bytes_of(self, matrix: Matrix, dtype_bytes: int) -> float:
        """Bytes of one copy of `matrix`; what the format leaves alone takes `dtype_bytes` each."""
        if self.bits >= 16:
            return (matrix.weights + matrix.biases) * self.bits / 8
        if not matrix.quantizable or (self.experts_only and not matrix.expert):
            return (matrix.weights + matrix.biases) * dtype_bytes
        scales = ceil(matrix.inputs / (self.group_inputs or matrix.inputs))
        scales *= ceil(matrix.outputs / (self.group_outputs or matrix.outputs))
        return (
            matrix.weights * self.bits / 8 + scales * self.scale_bytes + matrix.biases * dtype_bytes
        )


# Scales as vLLM 0.32 stores them: fp32 for FP8 and INT8, the model's dtype for INT4 groups,
# one E8M0 byte for each 32 weights of MXFP4 (OCP Microscaling specification 1.0).
WEIGHT_FORMATS = {
    item.name: item
    for item in (
        WeightFormat("fp32", 32),
        WeightFormat("bf16", 16),
        WeightFormat("fp16", 16),
        WeightFormat("fp8", 8, scale_bytes=4),
        WeightFormat("fp8_block128", 8, scale_bytes=4, group_inputs=128, group_outputs=128),
        WeightFormat("int8", 8, scale_bytes=4),
        WeightFormat("int4", 4, scale_bytes=2, group_inputs=128),
        WeightFormat("mxfp4", 4, scale_bytes=1, group_inputs=32),
        WeightFormat("mxfp4_experts", 4, scale_bytes=1, group_inputs=32, experts_only=True),
    )
}

_DTYPE_ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
}
DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


def dtype_name(name: str) -> str:
    """The short name of a dtype: `torch.bfloat16`, `bfloat16` and `bf16` are all `bf16`."""
    short = name.removeprefix("torch.")
    return _DTYPE_ALIASES.get(short, short)


def dtype_bytes(name: str) -> int:
    """Bytes of one element of a plain dtype.

    Raises:
        LabError: the name is not fp32, bf16, fp16 or fp8 (or one of their usual spellings).
    """
    short = dtype_name(name)
    if short not in DTYPE_BYTES:
        raise LabError(f"不认识数据类型 {name!r}", remedy=f"可选：{'、'.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[short]


def weight_format(name: str) -> WeightFormat:
    """The weight format of that name.

    Raises:
        LabError: there is no such format.
    """
    short = dtype_name(name)
    if short not in WEIGHT_FORMATS:
        raise LabError(f"不认识权重格式 {name!r}", remedy=f"可选：{'、'.join(WEIGHT_FORMATS)}")
    return WEIGHT_FORMATS[short]
