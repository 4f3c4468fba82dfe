"""How requests are judged that ran while a part of the deployment died."""

from inferlab.load.samples import RequestSample, Status
from inferlab.measure.pd_faults import Outcome, judge


def sample(status: Status, text: str | None, first_s: float | None, end_s: float) -> RequestSample:
    chunks = () if first_s is None else (first_s,)
    return RequestSample(0, 0.0, 0.5, end_s, status, chunks, (1,) * len(chunks), text=text)


def test_every_end_is_counted_as_what_the_client_saw() -> None:
    samples = [
        sample(Status.OK, "right", 1.0, 2.0),
        sample(Status.OK, "wring", 1.0, 2.0),
        sample(Status.HTTP_ERROR, None, None, 1.0),
        sample(Status.ERROR_EVENT, "ri", 1.0, 9.5),
        sample(Status.ERROR_EVENT, "wro", 1.0, 3.0),
        sample(Status.CUT, "rig", 1.0, 2.0),
        sample(Status.TIMEOUT, None, None, 4.0),
    ]
    assert judge(samples, ["right"] * len(samples)) == Outcome(
        answered=2, lost=1, broken_off=2, silent=2, wrong=2, slowest_s=9.0
    )
