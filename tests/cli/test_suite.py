"""`./lab test`: what is left out where, and the tally that CI reads."""

from pathlib import Path

import pytest

from inferlab.cli.suite import Tally, left_out, not_allowed_in_ci, read_report
from inferlab.engines.machine import Docker, Gpu, Machine

BARE = Machine(
    system="Linux",
    architecture="x86_64",
    cpu_flags=frozenset({"avx2"}),
    cpu_count=2,
    memory_total_bytes=2**34,
    memory_available_bytes=2**33,
    disk_free_bytes=2**36,
    python_version=(3, 11),
)
DOCKER = Docker("20.10", "20.10", "", ("docker-compose",), "1.29.2")

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_bad"><failure message="no"/></testcase>
<testcase classname="tests.test_a" name="test_broken"><error message="no"/></testcase>
<testcase classname="tests.test_b" name="test_skipped"><skipped message="no torch"/></testcase>
</testsuite></testsuites>"""


def machine(**changes) -> Machine:
    return Machine(**{**BARE.__dict__, **changes})


@pytest.mark.parametrize(
    ("on", "omitted"),
    [
        (machine(), {"gpu", "docker"}),
        (machine(docker=DOCKER), {"gpu"}),
        (machine(docker=DOCKER, gpus=(Gpu("H200", 2**37),)), set()),
        (machine(system="Darwin", architecture="arm64"), {"gpu", "docker", "engine"}),
    ],
)
def test_the_machine_decides_what_is_left_out(on: Machine, omitted: set[str]):
    found = left_out(on, quick=False)
    assert set(found) == omitted
    assert all(found.values())


def test_quick_leaves_out_all_that_takes_long():
    assert {"docker", "engine", "slow"} <= set(left_out(machine(docker=DOCKER), quick=True))


def test_ci_may_leave_out_only_what_needs_a_gpu():
    omitted = {"gpu": "没有找到 NVIDIA GPU", "docker": "没有可用的 Docker"}
    skipped = {"tests::a": "no torch", "tests::b": "needs a GPU"}
    assert not_allowed_in_ci(omitted, skipped) == [
        "docker：没有可用的 Docker",
        "tests::a：no torch",
    ]


def test_the_tally_counts_tests_and_checks_together(tmp_path: Path):
    report = tmp_path / "report.xml"
    report.write_text(JUNIT)
    tally = Tally()
    tally.add("ruff", True)
    read_report(tally, report)
    assert tally.closing_line() == "2 passed, 2 failed, 1 skipped"
    assert tally.failures == ["tests.test_a::test_bad", "tests.test_a::test_broken"]
    assert tally.skipped == {"tests.test_b::test_skipped": "no torch"}
