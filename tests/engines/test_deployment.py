"""Several engines behind a router: what a lab may describe, what each worker is started with."""

import os
from pathlib import Path

import pytest
import yaml

from inferlab.engines import deployment as deployments
from inferlab.engines.deployment import Deployment, RunningDeployment, deployment
from inferlab.engines.layout import Layout, layouts_to_start, read_layouts
from inferlab.engines.temporary import Recipe
from inferlab.errors import UsageError


def layouts(text: str) -> dict[str, Layout]:
    return read_layouts("chapter07/pd", yaml.safe_load(text))


def test_flags_and_variables_stand_beside_the_roles() -> None:
    text = (
        "{colocated: [0], flags: {block-size: 16}, environment: {cuda: {VLLM_BATCH_INVARIANT: 1}}}"
    )
    found = layouts(f"deployments: {{one: {text}}}")["one"]
    assert found.places == {"colocated": (0,)}
    assert found.flags == {"block-size": 16}
    assert found.variables("gpu") == found.variables("cuda") == {"VLLM_BATCH_INVARIANT": "1"}
    assert found.variables("cpu") == {}


@pytest.mark.parametrize("given", ["{VLLM_BATCH_INVARIANT: 1}", "{tpu: {A: 1}}"])
def test_variables_are_given_by_device(given: str) -> None:
    with pytest.raises(UsageError, match=r"deployments\.one 的 environment 没有按设备写"):
        layouts(f"deployments: {{one: {{colocated: [0], environment: {given}}}}}")


@pytest.mark.parametrize("value", ["yes", "true", "[1]", "null"])
def test_a_variable_that_yaml_does_not_read_as_text_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="UCX_PROTO_INFO 读成了") as refused:
        layouts(
            f"deployments: {{one: {{colocated: [0], "
            f"environment: {{cuda: {{UCX_PROTO_INFO: {value}}}}}}}}}"
        )
    assert refused.value.remedy == "给值加上引号"


def test_roles_and_places_are_read() -> None:
    found = layouts("deployments: {one: {prefill: [0], decode: [1, 2]}, two: {colocated: [0]}}")
    assert found["one"].places == {"prefill": (0,), "decode": (1, 2)}
    assert (found["one"].workers, found["two"].workers) == (3, 1)
    assert (found["one"].gpus, found["two"].gpus) == (3, 1)
    assert (found["one"].workers_on_one, found["two"].workers_on_one) == (1, 1)
    assert layouts("title: none") == {}


@pytest.mark.parametrize("roles", [
    "{prefill: [0]}", "{decode: [0]}", "{prefill: [0], decode: []}", "{}",
    "{prefill: [0], decode: [1], colocated: [2]}", "{serve: [0]}",
])  # fmt: skip
def test_a_half_or_unknown_role_is_one_clear_line(roles: str) -> None:
    with pytest.raises(UsageError, match=r"deployments\.wrong"):
        layouts(f"deployments: {{wrong: {roles}}}")


def test_up_starts_what_the_lab_names_the_best_first() -> None:
    apart, together = layouts_to_start("chapter07/pd")
    assert set(apart.places) == set(together.places) == {"prefill", "decode"}
    assert (apart.gpus, apart.workers_on_one, apart.compose) == (2, 1, "")
    assert (together.gpus, together.workers_on_one) == (1, 2)
    assert together.compose == "docker-compose.one-gpu.yml"
    assert layouts_to_start("chapter03") == ()


@pytest.mark.parametrize(("up", "said"), [
    ("pdd", "'pdd'"), ("[pd, pdd]", "'pdd'"), ("0", "0"), ("{pd: 1}", "{'pd': 1}"), ("''", "''"),
])  # fmt: skip
def test_up_must_name_a_deployment(
    up: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"up: {up}\ndeployments: {{pd: {{prefill: [0], decode: [1]}}}}"
    (tmp_path / "lab.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("inferlab.engines.layout.lab_dir", lambda _: tmp_path)
    with pytest.raises(UsageError, match=f"up 写了 {said}") as refused:
        layouts_to_start("small")
    assert refused.value.remedy == "可选：pd"


def on_core(core: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "OMP_PLACES": f"{{{core}}}", "OMP_PROC_BIND": "true"}


@pytest.mark.parametrize(("device", "visible", "expected"), [
    ("gpu", None, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
    ("gpu", "2,5", [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]),
    ("cpu", None, [on_core(0), on_core(1 % (os.cpu_count() or 1))]),
])  # fmt: skip
def test_each_worker_gets_its_place_log_and_flags(
    device: str, visible: str | None, expected: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    def recipe(role: str) -> Recipe:
        config = tmp_path / f"{role}.yaml"
        return Recipe(role, device, Path("python"), config, tmp_path, tmp_path / "no.log")

    variables = {"VLLM_BATCH_INVARIANT": "1"}
    by_device = {"cuda" if device == "gpu" else device: variables}
    layout = Layout("pd", {"prefill": (0,), "decode": (1,)}, {"block-size": 64}, by_device)
    found = deployment(layout, recipe, config=tmp_path / "lab.yaml", log=tmp_path / "pd.log")
    assert list(found.workers) == ["prefill-0", "decode-0"]
    given = [each.environment for each in found.workers.values()]
    assert given == [variables | each for each in expected]
    assert [each.config.name for each in found.workers.values()] == ["prefill.yaml", "decode.yaml"]
    assert found.workers["decode-0"].log == tmp_path / "pd-decode-0.log"
    assert all(each.flags == {"block-size": 64} for each in found.workers.values())


class Started:
    """Notes what is started, in place of an engine."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.url = recipe, f"http://127.0.0.1/{recipe.name}"


@pytest.mark.parametrize(("device", "places", "flags", "first"), [
    ("gpu", {"prefill": (0,), "decode": (0,)}, {}, ["prefill-0"]),
    ("gpu", {"prefill": (0,), "decode": (0,)}, {"kv-cache-memory-bytes": 2**30}, []),
    ("gpu", {"prefill": (0,), "decode": (1,)}, {}, []),
    ("gpu", {"prefill": (0, 1), "decode": (1,)}, {}, ["prefill-1"]),
    ("gpu", {"prefill": (0, 0), "decode": (0,)}, {}, ["prefill-0", "prefill-1"]),
    ("cpu", {"prefill": (0,), "decode": (0,)}, {}, []),
])  # fmt: skip
def test_a_worker_that_looks_at_its_gpus_memory_waits_for_those_on_it(
    device: str, places: dict[str, tuple[int, ...]], flags: dict[str, int], first: list[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    def recipe(role: str) -> Recipe:
        config = tmp_path / f"{role}.yaml"
        config.touch()
        return Recipe(role, device, Path("python"), config, tmp_path, tmp_path / "no.log")

    began: list[str] = []
    monkeypatch.setattr(deployments.temporary, "launch",
                        lambda each: began.append(each.name) or Started(each))  # fmt: skip
    monkeypatch.setattr(RunningDeployment, "_launch_router", lambda _: began.append("router"))
    planned: Deployment = deployment(
        Layout("pd", places, flags), recipe, config=tmp_path / "lab.yaml", log=tmp_path / "pd.log"
    )
    waited = []
    for each in RunningDeployment(planned).launching():
        waited.append(each.recipe.name)
        assert began[-1] == waited[-1], "the next one has begun before this one answers"
    assert waited == first
    assert began == [*planned.workers, "router"]
