"""Slots reserved, used and wasted; the paper's example and properties that hold for any load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.arithmetic.paging import (
    POLICIES,
    Lengths,
    SlotUse,
    fit,
    reserve_blocks,
    reserve_power_of_two,
    slot_use,
)
from inferlab.errors import LabError


@st.composite
def loads(draw) -> list[Lengths]:
    max_len = draw(st.integers(2, 600))

    def one() -> Lengths:
        prompt = draw(st.integers(1, max_len - 1))
        return Lengths(prompt, draw(st.integers(1, max_len - prompt)), max_len)

    return [one() for _ in range(draw(st.integers(1, 5)))]


def test_one_request_by_hand() -> None:
    request = Lengths(prompt=3, output=2, max_len=8)
    # steps hold 4 and 5 tokens; of 8 slots the first step will fill one later, 3 stay empty
    assert slot_use([request], POLICIES["max"]) == SlotUse(used=9, later=1, never=6)
    assert slot_use([request], POLICIES["pow2"]) == SlotUse(used=9, later=1, never=6)
    assert slot_use([request], reserve_blocks(4)) == SlotUse(used=9, later=0, never=3)


def test_the_papers_request() -> None:
    """Figure 3 of the paper: 7 prompt tokens, 3 generated, 2,048 reserved: 2,038 never used."""
    request = Lengths(prompt=7, output=3, max_len=2048)
    assert POLICIES["max"](request, 10) - request.total == 2038


def test_a_power_of_two_never_exceeds_the_limit() -> None:
    assert reserve_power_of_two(Lengths(100, 28, 1000), 1) == 128
    assert reserve_power_of_two(Lengths(100, 29, 1000), 1) == 256
    assert reserve_power_of_two(Lengths(500, 400, 1000), 1) == 1000


@given(loads())
def test_every_policy_holds_the_same_tokens_and_accounts_for_every_slot(requests) -> None:
    used = {slot_use(requests, policy).used for policy in POLICIES.values()}
    assert len(used) == 1
    for policy in POLICIES.values():
        use = slot_use(requests, policy)
        assert min(use.used, use.later, use.never) >= 0
        assert use.reserved == use.used + use.wasted
        assert 0 < use.share_used <= 1


@given(loads(), st.integers(1, 64))
def test_paged_waste_is_less_than_a_block_a_request_and_step(requests, block) -> None:
    use = slot_use(requests, reserve_blocks(block))
    steps = sum(request.output for request in requests)
    assert use.wasted <= steps * (block - 1)
    assert slot_use(requests, reserve_blocks(1)).wasted == 0


@given(loads(), st.integers(0, 3000))
def test_a_pool_holds_no_fewer_requests_paged_than_at_the_maximum(requests, slots) -> None:
    # Whole blocks of a length that is no multiple of 16 may exceed max_len: allow for it.
    assert fit(requests, slots + 15 * len(requests), POLICIES["paged"]) >= fit(
        requests, slots, POLICIES["max"]
    )
    assert fit(requests, slots, POLICIES["pow2"]) >= fit(requests, slots, POLICIES["max"])


def test_impossible_requests_are_named() -> None:
    with pytest.raises(LabError, match="prompt 0"):
        Lengths(0, 1, 8)
    with pytest.raises(LabError, match="上限 8"):
        Lengths(5, 4, 8)
    with pytest.raises(LabError, match="block_size=0"):
        reserve_blocks(0)
