"""Byte/s at which one process reads another's memory through NIXL, over size and pieces.

The KV cache's way from a prefill to a decode worker, without the engines: vLLM looks only now and
then whether a read has ended (an idle worker after every millisecond that it sleeps), and counts
that as transfer. Here one agent owns the memory, another reads it and does not sleep. What was read
is compared with what should have come. Run by `./lab record`, in an interpreter that has torch and
nixl:

python -m inferlab.hardware.nixl_read --out nixl_read.json
"""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from inferlab.errors import LabError
from inferlab.hardware.experiment import run
from inferlab.hardware.link import require_two_gpus
from inferlab.hardware.timing import Series, load_torch

# Without a link between GPUs UCX does not read over CUDA IPC unless told; it takes TCP.
READ_OVER_CUDA_IPC = {"UCX_CUDA_IPC_ENABLE_GET_ZCOPY": "y"}
# Qwen3-8B's KV cache of 128 tokens (bf16, all 36 layers side by side), and the blocks of prompts of
# 1,024 to 30,000 tokens.
BLOCK_BYTES = 18 << 20
BLOCKS = (8, 32, 64, 128, 235)
THREADS = 4  # vLLM's default for its NIXL connector
START_S = 120.0
READ_S = 60.0
WORK_S = 0.05
IDLE_S = 0.5
WORD = 8  # bytes of the counters that fill the memory


def measure(device: str, repeats: int = 5) -> Iterator[Series]:
    """GPU 1 reads GPU 0's memory, as the lab's decode worker does.

    Raises:
        LabError: there are not two GPUs, or they cannot reach each other's memory.
    """
    require_two_gpus(device)
    yield from reads("cuda:0", "cuda:1", BLOCKS, BLOCK_BYTES, repeats)


def reads(
    source: str, target: str, blocks: tuple[int, ...], block_bytes: int, repeats: int
) -> Iterator[Series]:
    """Each number of blocks, in one piece and every block a piece of its own.

    Args:
        source, target: torch's names of the devices whose memory is read and written.
        block_bytes: divisible by 8.

    Yields:
        `nixl_read`, byte/s from the posting of the read until it is seen to have ended. Labels:
        `bytes`, `pieces`, and `before`: `work` (both devices multiplied matrices until just before
        each read, as a prefill worker does) or `idle` (one piece only). The first read of each is
        not counted.

    Raises:
        LabError: nixl is missing, a read failed or took longer than a minute, or other bytes came.
    """
    os.environ.update(READ_OVER_CUDA_IPC)
    with _owner(source, max(blocks) * block_bytes) as owner:
        reader = _reader(owner, target, max(blocks) * block_bytes)
        for number in blocks:
            for pieces, before in ((1, "idle"), (1, "work"), (number, "work")):
                size = number * block_bytes // pieces
                reader.memory.zero_()
                seconds: list[float] = []
                for _ in range(repeats + 1):
                    if before == "work":
                        owner.work_beside(target)
                    else:
                        time.sleep(IDLE_S)
                    seconds.append(reader.read(pieces, size))
                compare(reader.memory, pieces, size)
                labels = {"bytes": number * block_bytes, "pieces": pieces, "before": before}
                rates = [number * block_bytes / each for each in seconds[1:]]
                yield Series("nixl_read", "byte/s", rates, labels)


@dataclass(frozen=True, slots=True)
class _Reader:
    """The agent that reads, and where it reads to and from.

    Attributes:
        memory: 64-bit words.
        peer: the owner's agent.
        here, there: address and device's number of the memory, and of the owner's.
        kind: NIXL's word for both.
    """

    agent: Any
    memory: Any
    peer: str
    here: tuple[int, int]
    there: tuple[int, int]
    kind: str

    def read(self, pieces: int, size: int) -> float:
        """Seconds that one read of so many pieces, each of `size` bytes, takes.

        On the other side they lie last first, so that neighbours cannot be joined.

        Raises:
            LabError: it failed, or took longer than `READ_S`.
        """
        here = self._pieces(self.here, size, range(pieces))
        there = self._pieces(self.there, size, reversed(range(pieces)))
        handle = self.agent.initialize_xfer("READ", here, there, self.peer)
        try:
            started = time.perf_counter()
            state = self.agent.transfer(handle)
            while state == "PROC" and time.perf_counter() - started < READ_S:
                state = self.agent.check_xfer_state(handle)
            seconds = time.perf_counter() - started
        finally:
            self.agent.release_xfer_handle(handle)
        if state != "DONE":
            raise LabError(f"NIXL 没有读完（{state}，{seconds:.0f} s）", remedy="看 UCX 的日志")
        return seconds

    def _pieces(self, side: tuple[int, int], size: int, numbers: Iterable[int]) -> Any:
        address, place = side
        found = [(address + number * size, size, place) for number in numbers]
        return self.agent.get_xfer_descs(found, self.kind)


def _reader(owner: "_Owner", device: str, size: int) -> _Reader:
    torch = load_torch()
    _use(device)
    agent = _agent("reader")
    memory = torch.zeros(size // WORD, dtype=torch.int64, device=device)
    agent.register_memory(memory)
    return _Reader(
        agent, memory, agent.add_remote_agent(owner.metadata), _place_of(memory),
        (owner.address, owner.place), "DRAM" if device == "cpu" else "VRAM",
    )  # fmt: skip


def compare(memory: Any, pieces: int, size: int) -> None:
    """The pieces were read last first, and each holds where its words lay."""
    torch = load_torch()
    words = size // WORD
    for i in range(pieces):
        first = (pieces - 1 - i) * words
        wanted = torch.arange(first, first + words, dtype=torch.int64, device=memory.device)
        if not torch.equal(memory[i * words : (i + 1) * words], wanted):
            raise LabError(f"第 {i} 片读到的不是对面的数据", remedy="换一个 UCX 版本再试")


@dataclass(frozen=True, slots=True)
class _Owner:
    """The process that owns the memory which is read: its agent's metadata, the memory's address
    and its device's number."""

    connection: Connection
    metadata: bytes
    address: int
    place: int

    def work_beside(self, device: str) -> None:
        """Both devices work; returns when both have ended."""
        self.connection.send("work")
        _work(device)
        self.connection.recv()


@contextmanager
def _owner(device: str, size: int) -> Iterator[_Owner]:
    """A process that owns `size` bytes, each eight of them their place."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_own, args=(there, device, size), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(START_S):
            raise LabError(f"被读的进程 {START_S:g} s 没有就绪", remedy="看它的输出")
        yield _Owner(here, *here.recv())
    except (EOFError, ConnectionError) as ended:
        raise LabError("被读的进程退出了", remedy="原因见上面的输出") from ended
    finally:
        here.close()
        process.join(START_S)


def _own(connection: Connection, device: str, size: int) -> None:
    torch = load_torch()
    _use(device)
    memory = torch.arange(size // WORD, dtype=torch.int64, device=device)
    _settle(device)
    agent = _agent("owner")
    agent.register_memory(memory)
    connection.send((agent.get_agent_metadata(), *_place_of(memory)))
    try:
        while connection.recv():
            _work(device)
            connection.send("done")
    except EOFError:
        return


def _work(device: str) -> None:
    """Multiply matrices for `WORK_S`: clocks that fell while nothing was computed are up again."""
    torch = load_torch()
    matrix = torch.ones(2048, 2048, dtype=torch.bfloat16, device=device)
    until = time.perf_counter() + WORK_S
    while time.perf_counter() < until:
        torch.mm(matrix, matrix)
        _settle(device)


def _use(device: str) -> None:
    if device != "cpu":
        load_torch().cuda.set_device(device)


def _settle(device: str) -> None:
    if device != "cpu":
        load_torch().cuda.synchronize(device)


def _place_of(memory: Any) -> tuple[int, int]:
    """Its address and its device's number, which is 0 for the host."""
    return memory.data_ptr(), max(memory.get_device(), 0)


def _agent(name: str) -> Any:
    try:
        nixl = import_module("nixl")
    except ImportError as missing:
        raise LabError("引擎的环境里没有 nixl", remedy="装 versions.toml 里的 vLLM") from missing
    return nixl.nixl_agent(name, nixl.nixl_agent_config(num_threads=THREADS))


if __name__ == "__main__":
    run(__doc__, lambda device, repeats, _: measure(device, repeats))
