"""A folder as numbered parts with checksums, and back; the standard library alone.

The folder becomes one tar stream, cut into blocks that are compressed each for itself (an .xz
stream), so that many cores can work on them; a part holds whole blocks. All parts joined are an
ordinary `.tar.xz`: `cat bundle-*.part | tar -xJ` unpacks it without this module.
"""

import hashlib
import json
import lzma
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from inferlab.errors import LabError

BLOCK_BYTES = 16 << 20
MANIFEST = "manifest.json"
FORMAT = 1

Progress = Callable[[int], None]
"""Called with the number of bytes of the archive that one more step took in."""


@dataclass(frozen=True)
class Part:
    """One file of a bundle: its name, SHA-256, size in bytes, and the sizes of its blocks."""

    name: str
    sha256: str
    size: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        parts: in order.
        unpacked_bytes: size of the tar archive.
        about: engine, versions, target and what was left out, for people and for `verify`.
    """

    parts: tuple[Part, ...]
    unpacked_bytes: int
    about: dict[str, Any]
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Write it into the folder of the parts."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        temporary = folder / f"{MANIFEST}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read it from the folder of the parts.

        Raises:
            LabError: there is none, or it is damaged, or of another format.
        """
        return cls.read(folder / MANIFEST)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """As `load`, from the file itself."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            parts = tuple(
                Part(**{**each, "blocks": tuple(each["blocks"])}) for each in raw["parts"]
            )
            found = cls(parts, raw["unpacked_bytes"], raw["about"], raw["format"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LabError(f"读不了 {path}（{error}）", remedy="重新复制 manifest.json") from None
        if found.format != FORMAT:
            raise LabError(
                f"{path} 是格式 {found.format}，这里只认 {FORMAT}", remedy="用同一版本的仓库"
            )
        return found


def pack(source: Path, folder: Path, part_bytes: int, about: dict[str, Any],
         progress: Progress = lambda n: None) -> Manifest:  # fmt: skip
    """Write `source` as parts of at most `part_bytes` into `folder`, and the manifest last.

    Blocks that an interrupted run compressed are kept in `folder/.blocks` and taken from there.

    Raises:
        LabError: one block alone is larger than a part.
    """
    kept = folder / ".blocks"
    kept.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("bundle-*.part"):
        old.unlink()
    writer = _PartWriter(folder, part_bytes)
    total = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        tasks = ((_compress_kept, (block, kept)) for block in tar_blocks(source))
        for raw_bytes, data in _in_order(pool, tasks, ahead=2 * (os.cpu_count() or 1)):
            writer.add(data)
            total += raw_bytes
            progress(raw_bytes)
    manifest = Manifest(writer.close(), total, about)
    manifest.save(folder)
    for file in kept.iterdir():
        file.unlink()
    kept.rmdir()
    return manifest


def problems(manifest: Manifest, folder: Path) -> list[str]:
    """Parts that are missing or damaged, one line each; empty when all are whole."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            line for line in pool.map(lambda part: _problem(part, folder), manifest.parts) if line
        ]


def unpack(manifest: Manifest, folder: Path, into: Path) -> None:
    """Unpack parts that were checked into an empty folder, with all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = ((lzma.decompress, (block,)) for block in _blocks(manifest, folder))
        stream = _Joined(_in_order(pool, tasks, ahead=2 * (os.cpu_count() or 1)))
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[arg-type]
            archive.extractall(into, filter="data")


def tar_blocks(source: Path) -> Iterator[bytes]:
    """The folder as a tar stream in blocks of 16 MiB: sorted, no owners, no times: repeatable."""
    buffer = _Buffer()
    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[arg-type]
        for path in sorted(source.rglob("*")):
            info = archive.gettarinfo(path, arcname=str(path.relative_to(source)))
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            if info.isfile():
                yield from _add_file(archive, info, path, buffer)
            else:
                archive.addfile(info)
            yield from buffer.whole_blocks()
    yield from buffer.rest()


def _add_file(
    archive: Any, info: tarfile.TarInfo, path: Path, buffer: "_Buffer"
) -> Iterator[bytes]:
    # Not archive.addfile: a file of a gigabyte would all be in memory before a block is given on.
    archive.addfile(info)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            archive.fileobj.write(data)
            yield from buffer.whole_blocks()
    archive.fileobj.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))


class _Buffer:
    """A file to write to, whose content is taken away in blocks."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def whole_blocks(self) -> Iterator[bytes]:
        while len(self._data) >= BLOCK_BYTES:
            yield bytes(self._data[:BLOCK_BYTES])
            del self._data[:BLOCK_BYTES]

    def rest(self) -> Iterator[bytes]:
        yield from self.whole_blocks()
        if self._data:
            yield bytes(self._data)


class _Joined:
    """Blocks that come one after another, to be read as one file."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._data, self._at = b"", 0

    def read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            if self._at == len(self._data):
                self._data, self._at = next(self._blocks, b""), 0
                if not self._data:
                    break
            piece = self._data[self._at : self._at + size - len(found)]
            self._at += len(piece)
            found += piece
        return bytes(found)


class _PartWriter:
    """Puts blocks into parts, a new one whenever the next block would not fit."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self._folder, self._limit = folder, part_bytes
        self._file: BinaryIO | None = None
        self._hash, self._blocks = hashlib.sha256(), list[int]()
        self._done: list[Part] = []

    def add(self, data: bytes) -> None:
        if len(data) > self._limit:
            raise LabError(
                f"一个压缩块有 {len(data) / 1e6:.0f} MB，超过分卷大小 {self._limit / 1e6:.0f} MB",
                remedy=f"--part-size 至少 {(BLOCK_BYTES >> 20) + 1} MiB",
            )
        if self._file is None or sum(self._blocks) + len(data) > self._limit:
            self._next()
        assert self._file is not None
        self._file.write(data)
        self._hash.update(data)
        self._blocks.append(len(data))

    def close(self) -> tuple[Part, ...]:
        self._end()
        return tuple(self._done)

    def _next(self) -> None:
        self._end()
        self._file = (self._folder / f"bundle-{len(self._done):03d}.part").open("wb")
        self._hash, self._blocks = hashlib.sha256(), []

    def _end(self) -> None:
        if self._file is None:
            return
        self._file.close()
        name = Path(self._file.name).name
        self._done.append(
            Part(name, self._hash.hexdigest(), sum(self._blocks), tuple(self._blocks))
        )
        self._file = None


def _in_order(pool: Executor, tasks: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]], *,
              ahead: int) -> Iterator[Any]:  # fmt: skip
    """Results in the order of the tasks, with only so many of them in memory."""
    waiting: deque[Future[Any]] = deque()
    for function, arguments in tasks:
        waiting.append(pool.submit(function, *arguments))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _compress_kept(block: bytes, kept: Path) -> tuple[int, bytes]:
    file = kept / hashlib.sha256(block).hexdigest()
    if not file.exists():
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(lzma.compress(block, preset=6))
        temporary.replace(file)
    return len(block), file.read_bytes()


def _blocks(manifest: Manifest, folder: Path) -> Iterator[bytes]:
    for part in manifest.parts:
        with (folder / part.name).open("rb") as file:
            for size in part.blocks:
                yield file.read(size)


def _problem(part: Part, folder: Path) -> str:
    path = folder / part.name
    if not path.is_file():
        return f"{part.name}：缺失"
    if path.stat().st_size != part.size:
        return f"{part.name}：大小 {path.stat().st_size}，应为 {part.size} 字节"
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == part.sha256
    return "" if same else f"{part.name}：SHA-256 不符，内容已损坏"
