"""Take out of a CUDA library the GPU code that a generation of GPUs cannot run.

A library carries its GPU code in the section `.nv_fatbin`: containers (magic 0xBA55ED50, header 16
bytes, size), each with one entry for every architecture that it was compiled for. An entry's header
tells its kind (1 PTX, 2 machine code), its own length, the payload's length, and the architecture
as 10·major + minor. Machine code runs on GPUs of the same major version and the same or a later
minor version (CUDA C++ Programming Guide, "Binary Compatibility"); PTX is compiled by the driver
where no machine code fits. Payloads that can never be chosen are overwritten with zeros: nothing
moves, and the zeros vanish in compression. Layout: CUDA's `fatbinary_section.h` and what
`cuobjdump --list-elf` shows.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_WRITE, mmap
from pathlib import Path

_MAGIC = struct.pack("<I", 0xBA55ED50)
_PTX, _CODE = 1, 2
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, header bytes, bytes after the header
_ENTRY = struct.Struct("<HHIQ")  # kind, version, header bytes, payload bytes
_ARCH_AT = 28
_SECTION = b".nv_fatbin"

Capability = tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """GPU code for one architecture: what it is, and where its payload lies in the file."""

    kind: int
    arch: int
    start: int
    size: int

    @property
    def capability(self) -> Capability:
        return self.arch // 10, self.arch % 10


def prune(library: Path, gpus: Sequence[Capability]) -> int:
    """Overwrite in place what GPUs of these compute capabilities cannot use.

    Returns:
        bytes overwritten; 0 for a file without GPU code, or for no GPUs.
    """
    if not gpus or library.stat().st_size == 0:
        return 0
    with library.open("r+b") as file, mmap(file.fileno(), 0, access=ACCESS_WRITE) as data:
        unused = [e for entries in containers(data) for e in _unused(entries, gpus)]
        for entry in unused:
            data[entry.start : entry.start + entry.size] = bytes(entry.size)
    return sum(entry.size for entry in unused)


def containers(data: mmap | bytes) -> Iterator[list[Entry]]:
    """The entries of each container in the file's `.nv_fatbin` section."""
    start, size = _section(data)
    at, end = start, start + size
    while (at := data.find(_MAGIC, at, end)) >= 0:
        _, _, header, length = _CONTAINER.unpack_from(data, at)
        yield list(_entries(data, at + header, at + header + length))
        at += header + length


def _entries(data: mmap | bytes, at: int, end: int) -> Iterator[Entry]:
    while at < end:
        kind, _, header, size = _ENTRY.unpack_from(data, at)
        (arch,) = struct.unpack_from("<I", data, at + _ARCH_AT)
        yield Entry(kind, arch, at + header, size)
        at += header + size


def _unused(entries: list[Entry], gpus: Sequence[Capability]) -> list[Entry]:
    served = all(any(_runs(entry, gpu) for entry in entries) for gpu in gpus)
    needed = [e for e in entries if any(_runs(e, gpu) for gpu in gpus)]
    return [
        e for e in entries if e not in needed and (e.kind == _CODE or (e.kind == _PTX and served))
    ]


def _runs(entry: Entry, gpu: Capability) -> bool:
    major, minor = entry.capability
    return entry.kind == _CODE and major == gpu[0] and minor <= gpu[1]


def _section(data: mmap | bytes) -> tuple[int, int]:
    """Offset and size of `.nv_fatbin` in a 64-bit little-endian ELF file; (0, 0) without one."""
    if data[:6] != b"\x7fELF\x02\x01":
        return 0, 0
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [_section_header(data, table + i * entry_size) for i in range(count)]
    if names >= len(headers):
        return 0, 0
    names_at = headers[names][1]
    for name, offset, size in headers:
        first = names_at + name
        if data[first : first + len(_SECTION) + 1] == _SECTION + b"\0":
            return offset, size
    return 0, 0


def _section_header(data: mmap | bytes, at: int) -> tuple[int, int, int]:
    """Offset of its name among the names, its offset in the file, its size."""
    (name,) = struct.unpack_from("<I", data, at)
    offset, size = struct.unpack_from("<QQ", data, at + 24)
    return name, offset, size
