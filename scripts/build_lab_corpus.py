"""Build the training text of the embedded model: Python source under permissive licences.

Reads `models/corpus.yaml`, downloads the listed wheels with pip, keeps what looks hand-written,
drops copies, and writes `<out>/train.txt`, `<out>/heldout.txt` and `<out>/sources.yaml` (each
package with its version and the licence its metadata states). Files are separated by the
end-of-text token. The held-out text comes from the standard library alone, so Python's licence
covers what this repository commits of it; training files that share more than a fifth of their
telling lines with it are dropped.
"""

import argparse
import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import yaml

END_OF_TEXT = "<|endoftext|>"
PERMISSIVE = (
    "MIT", "BSD", "APACHE", "PSF", "PYTHON SOFTWARE", "ISC", "HPND", "ZPL", "ZOPE", "0BSD",
)  # fmt: skip
FORBIDDEN = ("GPL", "MPL", "MOZILLA", "EUPL", "PROPRIETARY")
FILE_BYTES = range(400, 120_000)


def download(packages: list[str], wheels: Path) -> None:
    """Fetch one wheel a package (`name==version`), without its dependencies."""
    wheels.mkdir(parents=True, exist_ok=True)
    for package in packages:
        name, version = package.split("==")
        if any(wheels.glob(f"{name.replace('-', '_').replace('.', '_')}-{version}-*.whl")):
            continue
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--only-binary", ":all:", "-d", str(wheels), package], check=True)


def licence(wheel: zipfile.ZipFile) -> str:
    """What the wheel's metadata says of its licence, in one line."""
    metadata = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    header = HeaderParser().parsestr(wheel.read(metadata).decode("utf-8", "replace"))
    classifiers = [
        value.rsplit("::", 1)[-1].strip()
        for value in header.get_all("Classifier", [])
        if value.startswith("License ::") and not value.endswith("OSI Approved")
    ]
    stated = header.get("License-Expression") or ", ".join(classifiers) or header.get("License", "")
    return stated.strip().splitlines()[0][:80] if stated.strip() else ""


def is_permissive(stated: str) -> bool:
    upper = stated.upper()
    return any(n in upper for n in PERMISSIVE) and not any(n in upper for n in FORBIDDEN)


def looks_written(text: str) -> bool:
    """Whether a file reads like code a person wrote: mostly ASCII, short lines, some structure."""
    lines = text.splitlines()
    if len(lines) < 12 or max(map(len, lines)) > 240:
        return False
    plain = sum(map(str.isascii, lines)) / len(lines)
    numeric = sum(character.isdigit() for character in text) / len(text)
    return plain > 0.97 and numeric < 0.12 and ("def " in text or "class " in text)


def wheel_files(wheel: zipfile.ZipFile) -> Iterator[str]:
    for member in wheel.infolist():
        vendored = "/_vendor/" in member.filename or "/vendor/" in member.filename
        if member.filename.endswith(".py") and member.file_size in FILE_BYTES and not vendored:
            yield wheel.read(member).decode("utf-8", "replace")


def standard_library() -> list[tuple[str, str]]:
    """(path below the standard library, text) of each module, tests included."""
    base = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(base.rglob("*.py")):
        relative = path.relative_to(base)
        if relative.parts[0] == "site-packages" or path.stat().st_size not in FILE_BYTES:
            continue
        found.append((relative.as_posix(), path.read_text(encoding="utf-8", errors="replace")))
    return found


def is_held_out(name: str, text: str) -> bool:
    """About 3 % of the library's own modules (tests excluded), chosen by the hash of their path."""
    chosen = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < 3
    return chosen and not name.startswith(("test/", "idlelib/", "lib2to3/")) and len(text) > 3000


def telling_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) > 24}


class Corpus:
    """Collects files, dropping exact copies and files that overlap the held-out text."""

    def __init__(self, held_out: list[str]) -> None:
        self.held_out_lines = set().union(*map(telling_lines, held_out))
        self.seen: set[bytes] = set()
        self.files: list[str] = []

    def add(self, text: str) -> int:
        """Take the file if it is new and fit; returns the characters taken."""
        text = text.replace("\r\n", "\n").replace(END_OF_TEXT, "").expandtabs(4)
        if not looks_written(text):
            return 0
        digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
        lines = telling_lines(text)
        overlap = len(lines & self.held_out_lines) / max(len(lines), 1)
        if digest in self.seen or overlap > 0.2:
            return 0
        self.seen.add(digest)
        self.files.append(text.strip() + "\n")
        return len(text)


def up_to(chars: int, files: list[str]) -> list[str]:
    """The smallest files that fit in `chars` together, in their first order."""
    kept, total = set(), 0
    for text in sorted(files, key=len):
        total += len(text)
        if total <= chars:
            kept.add(text)
    return [text for text in files if text in kept]


def write_joined(path: Path, files: list[str]) -> None:
    path.write_text(END_OF_TEXT.join(files), encoding="utf-8")


def build(config: dict, out: Path) -> None:
    """Make the three files under `out`; prints what each package gave."""
    modules = standard_library()
    held_out = [f"# {name}\n{text}" for name, text in modules if is_held_out(name, text)]
    corpus = Corpus(held_out)
    taken = sum(corpus.add(text) for name, text in modules if not is_held_out(name, text))
    version = sys.version.split()[0]
    sources = [{"name": "python", "version": version, "licence": "PSF-2.0", "chars": taken}]
    for path in sorted((out / "wheels").glob("*.whl")):
        name, version = path.name.split("-")[:2]
        with zipfile.ZipFile(path) as wheel:
            stated = licence(wheel)
            if not is_permissive(stated):
                print(f"left out: {name} {version}: licence {stated!r}")
                continue
            budget, taken = config["chars_per_package"], 0
            for text in wheel_files(wheel):
                taken += corpus.add(text)
                if taken > budget:
                    break
        sources.append({"name": name, "version": version, "licence": stated, "chars": taken})
    # Order by content, so that neighbouring files in a batch come from different packages.
    corpus.files.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    write_joined(out / "train.txt", corpus.files)
    committed = up_to(config["held_out_chars"], held_out)
    write_joined(out / "heldout.txt", committed)
    total = {"files": len(corpus.files), "chars": sum(map(len, corpus.files)), "sources": sources}
    (out / "sources.yaml").write_text(yaml.safe_dump(total, sort_keys=False), encoding="utf-8")
    size = f"{total['files']} files, {total['chars'] / 1e6:.0f} M characters"
    print(f"{size} from {len(sources)} sources")
    print(f"held out: {len(committed)} files, {sum(map(len, committed)) / 1e3:.0f} k characters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("models/corpus.yaml"))
    parser.add_argument("--out", type=Path, default=Path(".lab/corpus"))
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    download(config["packages"], arguments.out / "wheels")
    build(config, arguments.out)


if __name__ == "__main__":
    main()
