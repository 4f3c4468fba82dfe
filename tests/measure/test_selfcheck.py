"""The client against the null server's log. Bars here are wide enough for a busy machine; the real
ones are those of `python -m inferlab.measure.selfcheck`, which the slow test runs."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from inferlab.load.null_process import null_server
from inferlab.load.worker import WorkerPlan, run_in_process
from inferlab.measure.selfcheck.checks import chunks, failures, omission, scheduled_times, start_up
from inferlab.measure.selfcheck.truth import Row, itl_errors_ms, truth_of
from inferlab.measure.summary import summarise


def test_times_agree_with_the_servers_log() -> None:
    with null_server(ttft_ms=100, itl_ms=10, ttft_jitter=0.3) as server:
        plan = WorkerPlan(server.url, 40, rate_per_s=20, output_tokens=32)
        run = run_in_process(plan).run
        truth = truth_of(server)
    late = [
        stamp + run.origin_s - written
        for sample in run.samples
        for stamp, written in zip(sample.chunk_s, truth[str(sample.index)].chunks, strict=True)
    ]
    assert min(late) > 0
    assert np.median(late) < 0.005
    assert np.median(np.abs(itl_errors_ms(run, truth))) < 2
    assert all(sample.ok for sample in run.samples)


def test_queueing_is_never_hidden() -> None:
    with null_server(ttft_ms=50, itl_ms=10, slots=4) as server:
        plan = WorkerPlan(server.url, 120, rate_per_s=40, output_tokens=16, max_in_flight=8, seed=1)
        run = run_in_process(plan).run
        truth = truth_of(server)
    true = [
        (truth[str(index)].ended - run.origin_s - due) * 1e3
        for index, due in enumerate(scheduled_times(plan))
    ]
    summary, hidden = summarise(run.samples), summarise(run.samples, from_schedule=False)
    assert summary.e2e_ms is not None and hidden.e2e_ms is not None
    assert summary.e2e_ms.p99 == pytest.approx(np.percentile(true, 99), rel=0.02)
    assert hidden.e2e_ms.p99 < 0.5 * summary.e2e_ms.p99


@pytest.mark.parametrize("continuous", [True, False])
def test_four_tokens_a_chunk_have_no_bias(continuous: bool) -> None:
    with null_server(ttft_ms=50, itl_ms=20, chunk_tokens=4) as server:
        plan = WorkerPlan(server.url, 16, concurrency=8, continuous_usage=continuous)
        run = run_in_process(plan).run
        truth = truth_of(server)
    true = np.mean([gap / 4 for entry in truth.values() for gap in entry.gaps_ms])
    summary = summarise(run.samples)
    assert summary.itl_ms is not None and summary.tpot_ms is not None
    assert summary.itl_ms.mean == pytest.approx(true, rel=0.02)
    assert summary.tpot_ms.mean == pytest.approx(true, rel=0.02)


def test_every_failure_is_counted_as_one() -> None:
    rows = failures(requests=100)
    assert len(rows) == 5
    assert [row.name for row in rows if not row.ok] == []


def test_start_up_is_light() -> None:
    assert start_up()[0].ok


def test_the_client_imports_nothing_heavy() -> None:
    code = "import sys, inferlab.load.worker; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    heavy = {"numpy", "scipy", "pydantic", "aiohttp", "typer", "rich", "transformers", "torch"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("check", [chunks, partial(omission, requests=80)])
def test_the_self_check_passes(check: Callable[[], list[Row]]) -> None:
    assert [row.name for row in check() if not row.ok] == []
