"""The least that receiving streams costs in Python: a bare socket loop that parses nothing.

    python -m inferlab.measure.selfcheck.floor PORT STREAMS TOKENS

Prints its CPU seconds. CPU time per token differs by half between an idle and a busy machine: the
cost of the client is read beside this.
"""

import select
import socket
import subprocess
import sys
import time

from inferlab.load.endpoint import Endpoint
from inferlab.load.samples import RequestSpec


def bare_reader(port: int, streams: int, tokens: int) -> None:
    """Receives `streams` answers of `tokens` tokens at once; each read looks at the clock."""
    request = Endpoint(f"http://127.0.0.1:{port}").request(RequestSpec([1] * 32, tokens))
    poll, sockets = select.epoll(), {}
    for _ in range(streams):
        opened = socket.create_connection(("127.0.0.1", port))
        opened.sendall(request)
        sockets[opened.fileno()] = opened
        poll.register(opened, select.EPOLLIN)
    while sockets:
        for descriptor, _ in poll.poll():
            data = sockets[descriptor].recv(16384)
            time.perf_counter()
            if not data or b"[DONE]" in data:
                poll.unregister(descriptor)
                sockets.pop(descriptor).close()


def floor_cpu_s(port: int, streams: int, tokens: int) -> float:
    """CPU seconds of a bare reader in a process of its own."""
    command = [sys.executable, "-m", __name__, *map(str, (port, streams, tokens))]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    bare_reader(*map(int, sys.argv[1:4]))
    print(time.process_time())
