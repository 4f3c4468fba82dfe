"""Chapter 3 in containers, up once for each Compose that this machine has."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from compose_lab import Lab, compose_commands


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`compose` runs a test once for each Compose that is installed."""
    if "compose" in metafunc.fixturenames:
        commands = compose_commands()
        metafunc.parametrize("compose", commands.values(), ids=commands, scope="module")


@pytest.fixture(scope="session")
def docker_daemon() -> None:
    """Needs a Docker daemon; in CI its absence is a failure, elsewhere a reason to skip."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Docker daemon answers")


@pytest.fixture(scope="session")
def engine_image(docker_daemon: None) -> None:
    """The CPU engine's image, built once: minutes of work, and the same whichever Compose asks."""
    first = next(iter(compose_commands().values()))
    Lab(first).run("--profile", "build", "build", "engine-image")


@pytest.fixture(scope="module")
def running(compose: tuple[str, ...], engine_image: None) -> Iterator[Lab]:
    """Chapter 3 with the CPU override, built and up; afterwards nothing of it may be left."""
    lab = Lab(compose)
    try:
        lab.run("build", "lab")
        lab.run("up", "-d")
        yield lab
    finally:
        lab.run("down", "-v")
    assert not lab.containers()
    assert not lab.volumes()
