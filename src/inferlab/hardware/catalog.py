"""Datasheet peaks of GPUs, with their sources: the roofline's upper bounds, never measured
values."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from inferlab.errors import UsageError

Dtype = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4"]
CATALOG_PATH = Path(__file__).with_name("gpus.yaml")
GIB = 2**30
PCIE_GIGATRANSFERS = {3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}


class Source(BaseModel):
    """Where a figure is printed: the document's title, and the page that leads to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    page: str


class GpuSpec(BaseModel):
    """One GPU as its datasheet describes it.

    Attributes:
        aliases: names as NVML (`nvidia-smi -L`) prints them.
        memory_bytes_per_s: peak bandwidth of device memory (HBM or GDDR).
        dense_flops_per_s: peak without sparsity by dtype; operations per second for int8. Tensor
            Core peaks accumulate in FP32; fp64 and fp32 are the vector units'. A dtype that is
            missing is unsupported or unpublished.
        sparse_flops_per_s: what the datasheet prints with 2:4 sparsity; for checking, never for a
            roofline.
        datasheet_prints: whether the datasheet prints dense figures, sparse ones, or both.
        nvlink_bytes_per_s: one direction, all links together; `None` without NVLink.
        pcie: generation and lanes, such as `5.0 x16`.
        estimated: some figure is not from a public datasheet; `estimated_reason` says which and
            why.
        made_for_china: a variant made for the Chinese market.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    vendor: str = "NVIDIA"
    aliases: Annotated[tuple[str, ...], Field(min_length=1)]
    architecture: str
    compute_capability: str
    release_year: int
    memory_gib: PositiveInt
    memory_type: str
    memory_bytes_per_s: PositiveFloat
    dense_flops_per_s: dict[Dtype, PositiveFloat]
    sparse_flops_per_s: dict[Dtype, PositiveFloat] = {}
    datasheet_prints: Literal["dense", "sparse", "both"]
    nvlink_bytes_per_s: PositiveFloat | None = None
    pcie: str
    power_w: PositiveFloat
    estimated: bool = False
    estimated_reason: str = ""
    notes: str = ""
    made_for_china: bool = False
    china_note: str
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _explains_its_estimate(self) -> "GpuSpec":
        if self.estimated != bool(self.estimated_reason):
            raise ValueError(f"{self.name}: estimated and estimated_reason go together")
        return self

    @property
    def memory_bytes(self) -> int:
        """Nominal device memory; the driver reports a few per cent less."""
        return self.memory_gib * GIB

    @property
    def pcie_bytes_per_s(self) -> float:
        """PCIe peak in one direction after line coding; packet headers take a few per cent more."""
        generation, lanes = re.findall(r"\d+(?:\.\d+)?", self.pcie)
        number = int(float(generation))
        coding = 236 / 256 if number >= 6 else 128 / 130
        return PCIE_GIGATRANSFERS[number] * 1e9 * int(lanes) * coding / 8

    def peak(self, dtype: Dtype) -> float:
        """Dense peak of a dtype in FLOP/s (int8: operations/s).

        Raises:
            UsageError: this GPU has no such peak, or it is not published.
        """
        if dtype not in self.dense_flops_per_s:
            known = "、".join(self.dense_flops_per_s)
            raise UsageError(f"{self.name} 没有 {dtype} 的公开峰值", remedy=f"可选：{known}")
        return self.dense_flops_per_s[dtype]

    def ridge(self, dtype: Dtype) -> float:
        """Arithmetic intensity in FLOP/byte above which the roofline is bound by compute.

        Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.

        Raises:
            UsageError: see `peak`.
        """
        return self.peak(dtype) / self.memory_bytes_per_s


@cache
def catalog() -> tuple[GpuSpec, ...]:
    """Every GPU of `gpus.yaml`, in the file's order."""
    entries = yaml.safe_load(CATALOG_PATH.read_text(encoding="utf-8"))
    return tuple(GpuSpec.model_validate(entry) for entry in entries)


def find_gpu(nvml_name: str) -> GpuSpec | None:
    """The GPU that NVML calls `nvml_name`, or that the catalog calls so; `None` when it is not in
    the catalog.

    Only whole names match, since a longer name is another product (`H200` and `H200 NVL`). Case,
    spaces, hyphens and a leading vendor do not matter.
    """
    return _by_name().get(_normalize(nvml_name))


@cache
def _by_name() -> dict[str, GpuSpec]:
    return {_normalize(name): spec for spec in catalog() for name in (spec.name, *spec.aliases)}


def _normalize(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    return "".join(word for word in words if word not in {"nvidia", "amd", "tesla", "geforce"})
