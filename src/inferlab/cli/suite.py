"""The test suite as steps: what this machine can run, what it leaves out and why, the tally."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from inferlab.engines.choose import native_cpu_problem
from inferlab.engines.machine import Machine
from inferlab.repository import root, state_dir

BIN = Path(sys.executable).parent
CHECKS = (
    ("ruff format", [str(BIN / "ruff"), "format", "--check", "."]),
    ("ruff check", [str(BIN / "ruff"), "check", "."]),
    ("pyright", [str(BIN / "pyright")]),
)


@dataclass
class Tally:
    """What ran: counts, the skipped tests' reasons, and the names of what failed."""

    passed: int = 0
    failed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, ok: bool) -> None:
        """Count one check."""
        self.passed += ok
        self.failed += not ok
        if not ok:
            self.failures.append(name)

    def closing_line(self) -> str:
        """The last line, in the form that test runners' readers know."""
        return f"{self.passed} passed, {self.failed} failed, {len(self.skipped)} skipped"


def left_out(machine: Machine, *, quick: bool) -> dict[str, str]:
    """Marker → why tests with it cannot run here; only markers that are left out."""
    reasons = {
        "gpu": "" if machine.gpus else "没有找到 NVIDIA GPU",
        "docker": "" if machine.docker.usable else "没有可用的 Docker 或 Compose",
        "engine": native_cpu_problem(machine),
    }
    if quick:
        reasons |= dict.fromkeys(("docker", "engine", "slow"), "按要求只跑快的（--quick）")
    return {marker: reason for marker, reason in reasons.items() if reason}


def not_allowed_in_ci(omitted: dict[str, str], skipped: dict[str, str]) -> list[str]:
    """What CI may not leave out: everything but the tests that need a GPU."""
    markers = [f"{marker}：{reason}" for marker, reason in omitted.items() if marker != "gpu"]
    tests = [f"{test}：{reason}" for test, reason in skipped.items() if "GPU" not in reason]
    return markers + tests


def run_checks(tally: Tally) -> None:
    """Format, lint and type checks, each shown and counted."""
    for name, command in CHECKS:
        print(f"── {name}", flush=True)
        tally.add(name, subprocess.run(command, cwd=root()).returncode == 0)


def run_pytest(tally: Tally, omitted: dict[str, str], extra: list[str]) -> None:
    """pytest without the markers left out; counts come from its JUnit report."""
    print("── pytest", flush=True)
    report = state_dir() / "pytest.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}"]
    if omitted:
        command += ["-m", " and ".join(f"not {marker}" for marker in omitted)]
    code = subprocess.run([*command, *extra], cwd=root(), env=_environment()).returncode
    if report.is_file():
        read_report(tally, report)
    # 5: nothing was selected, which a -k expression may do; anything else unexplained is a failure.
    if code not in (0, 1, 5) or (code and not report.is_file()):
        tally.add(f"pytest（退出码 {code}）", False)


def read_report(tally: Tally, report: Path) -> None:
    """Add the outcome of every test in a JUnit file to the tally."""
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skipped = case.find("skipped")
        if skipped is not None:
            tally.skipped[name] = skipped.get("message", "")
        else:
            tally.add(name, case.find("failure") is None and case.find("error") is None)


def count_marked(marker: str) -> int:
    """How many tests carry a marker; 0 when pytest cannot collect them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", marker]
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True, env=_environment())
    return sum("::" in line for line in done.stdout.splitlines())


def _environment() -> dict[str, str]:
    return {**os.environ, "INFERLAB_ROOT": str(root())}
