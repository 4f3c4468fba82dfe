"""Which products are measured; the measuring itself runs in tests/records and on a GPU."""

import pytest

from inferlab.hardware import ceilings
from inferlab.hardware.timing import Series


@pytest.mark.parametrize(("flops_per_s", "measured"), [
    (7e10, [256, 512, 1024, 2048]),
    (1.2e9, [256, 512]),  # bf16 without instructions for it: 1,024 would take 1.8 s
    (1e7, [256]),
])  # fmt: skip
def test_products_end_where_one_would_take_longer_than_a_second(
    flops_per_s: float, measured: list[int], monkeypatch: pytest.MonkeyPatch
):
    def product(size: int, dtype: str, device: str, repeats: int) -> Series:
        return Series("matmul", "flop/s", [flops_per_s] * repeats, {"dtype": dtype, "size": size})

    monkeypatch.setattr(ceilings, "matmul", product)
    found = list(ceilings.products("bf16", "cpu", 2))
    assert [series.labels["size"] for series in found] == measured
