"""Offline bundles: what travels, what is cut out of libraries, and the way there and back."""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inferlab.engines.bundle import build, fatbin, parts
from inferlab.engines.bundle.command import main
from inferlab.engines.bundle.contents import Contents, contents, remove_unneeded_files
from inferlab.engines.bundle.install import install
from inferlab.engines.bundle.target import Target, describe_this_host, require_same
from inferlab.errors import LabError, UsageError
from inferlab.repository import root

MIB = 1 << 20
H200 = Target(gpus=((9, 0),), packages={"nvidia-cublas": "13.1.0.3", "nvidia-nccl-cu13": "2.28.9"})


def library(entries: list[tuple[int, int, bytes]]) -> bytes:
    """An ELF file whose `.nv_fatbin` holds one container of (kind, arch, payload) entries."""
    body = b"".join(
        struct.pack("<HHIQ", kind, 0x101, 64, len(payload))
        + struct.pack("<IIHHI", 0, 0, 0, 0, arch).ljust(48, b"\0")
        + payload
        for kind, arch, payload in entries
    )
    section = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    names = b"\0.nv_fatbin\0.shstrtab\0"
    table_at = 64 + len(section) + len(names)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + bytes(24) + struct.pack("<Q", table_at)
    header += bytes(10) + struct.pack("<HHH", 64, 3, 2)

    def row(name: int, offset: int, size: int) -> bytes:
        return (
            struct.pack("<I", name).ljust(24, b"\0") + struct.pack("<QQ", offset, size) + bytes(24)
        )

    rows = row(0, 0, 0) + row(1, 64, len(section)) + row(12, 64 + len(section), len(names))
    return header + section + names + rows


def payloads(path: Path) -> dict[tuple[int, int], bool]:
    """(kind, arch) → whether anything is left."""
    data = path.read_bytes()
    found = [e for entries in fatbin.containers(data) for e in entries]
    return {(e.kind, e.arch): any(data[e.start : e.start + e.size]) for e in found}


def test_only_code_that_the_gpu_can_run_is_left(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(
        library([(2, 80, b"a" * 40), (2, 86, b"b" * 8), (2, 90, b"c" * 64), (1, 90, b"p" * 16)])
    )
    size = path.stat().st_size
    assert fatbin.prune(path, [(9, 0)]) == 40 + 8 + 16
    assert payloads(path) == {(2, 80): False, (2, 86): False, (2, 90): True, (1, 90): False}
    assert path.stat().st_size == size


def test_ptx_stays_where_no_machine_code_fits(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(library([(2, 80, b"a" * 8), (1, 80, b"p" * 8)]))
    fatbin.prune(path, [(9, 0)])
    assert payloads(path) == {(2, 80): False, (1, 80): True}


def test_an_earlier_minor_version_of_the_same_major_runs(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(library([(2, 80, b"a" * 8), (2, 89, b"b" * 8)]))
    fatbin.prune(path, [(8, 6)])
    assert payloads(path) == {(2, 80): True, (2, 89): False}


def test_files_without_gpu_code_are_left_alone(tmp_path: Path) -> None:
    for name, data in {
        "a": b"",
        "b": b"#!/bin/sh\n",
        "c": Path(sys.executable).read_bytes(),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert fatbin.prune(tmp_path / name, [(9, 0)]) == 0
        assert (tmp_path / name).read_bytes() == data


def test_the_host_gives_cuda_libraries_of_the_same_major_version_but_never_nccl() -> None:
    found = contents("vllm", H200, lab_pins=["scipy==1.17.1"])
    names = {pin.split("==")[0] for pin in found.pins}
    assert {"vllm", "torch", "triton", "nvidia-nccl-cu13", "nixl-cu13", "scipy"} <= names
    assert "nvidia-cublas" not in names and "13.1.0.3" in found.left_out["nvidia-cublas"]
    assert "tilelang" in found.left_out
    assert "nvidia-cublas==13.1.1.3" in contents("vllm", replace(H200, packages={}), []).pins


def test_the_host_gives_what_it_has_in_the_locked_version_or_what_is_accepted() -> None:
    host = replace(H200, packages={"scipy": "1.18.1", "numpy": "2.3.5"})
    assert {"numpy"} <= contents("vllm", host, ["scipy==1.17.1"]).left_out.keys()
    assert "scipy==1.17.1" in contents("vllm", host, ["scipy==1.17.1"]).pins
    assert "scipy" in contents("vllm", host, ["scipy==1.17.1"], accept=["SciPy"]).left_out


def test_unknown_engine() -> None:
    with pytest.raises(UsageError, match="vllm、sglang"):
        contents("trt", H200, [])


@pytest.mark.parametrize(
    ("gpus", "kept"), [(((9, 0),), False), (((8, 0), (9, 0)), True), ((), True)]
)
def test_ampere_kernels_stay_only_for_ampere(tmp_path: Path, gpus: tuple, kept: bool) -> None:
    file = tmp_path / "vllm" / "vllm_flash_attn" / "_vllm_fa2_C.abi3.so"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    remove_unneeded_files(tmp_path, replace(H200, gpus=gpus))
    assert file.exists() == kept


def test_of_the_scripts_only_what_compiles_kernels_stays(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("ninja", "torchrun"):
        (tmp_path / "bin" / name).touch()
    remove_unneeded_files(tmp_path, H200)
    assert [each.name for each in (tmp_path / "bin").iterdir()] == ["ninja"]


def test_packages_unpacked_for_one_host_are_not_kept_for_another(tmp_path: Path) -> None:
    nothing, said = Contents((), {}, "vllm"), []
    for machine in ("x86_64", "x86_64", "aarch64"):
        target = replace(H200, machine=machine)
        build._staged(nothing, target, tmp_path / "stage", ["--offline"], said.append)
    assert said.count("沿用上次解开的包") == 1


def test_packages_unpacked_by_older_rules_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, said = Contents((), {}, "vllm"), []
    for rules in ([], [], [{"pattern": "bin"}]):
        monkeypatch.setattr(build, "file_rules", lambda rules=rules: rules)
        build._staged(nothing, H200, tmp_path / "stage", ["--offline"], said.append)
    assert said.count("沿用上次解开的包") == 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with all that a package can hold: large, empty, executable files, links."""
    folder = tmp_path / "source"
    (folder / "pkg" / "包").mkdir(parents=True)
    (folder / "pkg" / "large.bin").write_bytes(os.urandom(18 * MIB) + bytes(15 * MIB))
    (folder / "pkg" / "empty.py").touch()
    (folder / "pkg" / "包" / "run.sh").write_text("#!/bin/sh\necho hello\n")
    (folder / "pkg" / "包" / "run.sh").chmod(0o755)
    (folder / "pkg" / "link.py").symlink_to("empty.py")
    return folder


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    return {
        str(p.relative_to(folder)): (
            p.lstat().st_mode,
            str(p.readlink()) if p.is_symlink() else p.read_bytes(),
        )
        for p in folder.rglob("*")
        if not p.is_dir()
    }


def packed(source: Path, folder: Path, part_mib: float = 17, **about: object) -> parts.Manifest:
    here = describe_this_host()
    target = {"python": here.python, "machine": here.machine, "glibc": here.glibc, "gpus": []}
    folder.mkdir(exist_ok=True)
    return parts.pack(
        source, folder, round(part_mib * MIB), {"target": target, "package": "pkg", **about}
    )


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    manifest = packed(source, tmp_path / "parts")
    assert len(manifest.parts) > 1 and all(part.size <= 17 * MIB for part in manifest.parts)
    into = install(tmp_path / "parts", tmp_path / "engine", say=lambda line: None)
    assert tree(source).items() <= tree(into).items()
    assert (
        install(tmp_path / "parts", into, say=lambda line: None) == into
    )  # a second time: nothing to do


def test_warnings_about_the_code_of_others_are_not_shown(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (source / "pkg" / "odd.py").write_text("same = 1 is 1\n")
    packed(source, tmp_path / "parts")
    install(tmp_path / "parts", tmp_path / "engine", say=lambda line: None)
    assert capfd.readouterr().err == ""


def test_the_parts_joined_are_an_ordinary_archive(source: Path, tmp_path: Path) -> None:
    packed(source, tmp_path / "parts")
    (tmp_path / "plain").mkdir()
    join = f"cat {tmp_path}/parts/bundle-*.part | tar -xJf - -C {tmp_path}/plain"
    subprocess.run(join, shell=True, check=True)
    assert tree(tmp_path / "plain") == tree(source)


def test_every_missing_or_damaged_part_is_named_and_nothing_is_unpacked(
    source: Path, tmp_path: Path
) -> None:
    manifest = packed(source, tmp_path / "parts")
    first, second = (tmp_path / "parts" / part.name for part in manifest.parts[:2])
    first.unlink()
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    with pytest.raises(LabError, match=r"bundle-000.part：缺失；bundle-001.part：SHA-256 不符"):
        install(tmp_path / "parts", tmp_path / "engine", say=lambda line: None)
    assert not (tmp_path / "engine").exists()


def test_an_interrupted_build_goes_on_with_what_it_compressed(source: Path, tmp_path: Path) -> None:
    whole = packed(source, tmp_path / "whole")

    def stop_early(n: int) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "parts"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        parts.pack(source, folder, 17 * MIB, whole.about, stop_early)
    kept = list((folder / ".blocks").iterdir())
    assert kept and not (folder / parts.MANIFEST).exists()
    assert packed(source, folder) == whole
    assert not (folder / ".blocks").exists()


def test_a_bundle_for_another_host_is_refused() -> None:
    here = describe_this_host()
    require_same(here, here)
    for other, wrong in (
        (replace(here, python="3.9"), "Python 3.9"),
        (replace(here, glibc="2.99"), "glibc 2.99"),
        (replace(here, machine="riscv64"), "riscv64"),
    ):
        with pytest.raises(LabError, match=wrong):
            require_same(other, here)
    with pytest.raises(LabError, match=r"9\.0 的 GPU 代码，这台主机的 GPU 是 8\.0"):
        require_same(replace(here, gpus=((9, 0),)), replace(here, gpus=((8, 0),)))


def test_describe_and_its_way_into_a_target(tmp_path: Path) -> None:
    script = [sys.executable, str(root() / "scripts" / "offline_bundle.py"), "describe"]
    # -S -E: as on a bare host, without the lab's packages.
    done = subprocess.run(
        [script[0], "-S", "-E", *script[1:]], capture_output=True, text=True, check=True
    )
    (tmp_path / "host.json").write_text(done.stdout)
    found = Target.load(tmp_path / "host.json")
    assert found.python == "{}.{}".format(*sys.version_info[:2])
    (tmp_path / "host.json").write_text('{"python": 3}')
    with pytest.raises(UsageError, match="不是目标主机的描述"):
        Target.load(tmp_path / "host.json")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["install", "nowhere"], 1, "读不了 nowhere/manifest.json"),
        (["verify", "--into", "nowhere"], 1, "没有装好的包"),
        (["build", "--host", "nowhere.json"], 2, "nowhere.json 不是目标主机的描述"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: int, line: str, capsys) -> None:
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_lab_runs_from_a_bundle_without_installing_anything(tmp_path: Path) -> None:
    def run(bundle: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [root() / "lab", "records", "list"],
            env={"PATH": os.environ["PATH"], "LAB_BUNDLE": str(bundle)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    (tmp_path / ".python").write_text(sys.executable + "\n")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "chapter03" in done.stdout
    done = run(tmp_path / "none")
    assert done.returncode == 1 and "里没有装好的离线包" in done.stderr
