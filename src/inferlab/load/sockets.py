"""Plain TCP connections of one client behind a single entry in the event loop.

asyncio spends about 5 µs on each readable socket before the first byte is looked at, as much as
receiving and reading a token cost together. Here all sockets sit in an epoll of their own and
the loop watches only that; `selfcheck cost` shows what is gained. TLS and systems without epoll
use asyncio's transports; `connection.Connection` serves both.
"""

import asyncio
import contextlib
import select
import socket
import time
from typing import Any, Protocol

BUNDLE_ABOVE = 64
BUNDLE_S_PER_SOCKET = 1e-6
LONGEST_BUNDLE_S = 0.0005
READ_BYTES = 16 * 1024
Address = tuple[socket.AddressFamily, Any]


def bundle_s(sockets: int) -> float:
    """How long to wait for more to arrive before reading; 0 with few sockets."""
    return min(sockets * BUNDLE_S_PER_SOCKET, LONGEST_BUNDLE_S) if sockets > BUNDLE_ABOVE else 0.0


class Receiver(Protocol):
    """What a connection needs to do (the part of `asyncio.Protocol` that is used)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up."""

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""


class SocketPool:
    """The sockets of one client.

    With many sockets wake-ups are bundled, as network cards do with interrupts: what arrives within
    `bundle_s` (0.1 ms for 100 sockets, never above 0.5 ms) is read in one go and stamped at most so
    much late. On an idle machine waking up costs more than reading a token.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._open: dict[int, SocketTransport] = {}
        self._addresses: list[Address] = []
        self._resolving = asyncio.Lock()
        loop.add_reader(self._epoll.fileno(), self._drain)

    async def connect(self, host: str, port: int, receiver: Receiver) -> None:
        """Opens a connection for `receiver`.

        Raises:
            OSError: no address of the host accepts it.
        """
        problem: OSError = OSError("no address")
        for family, address in await self._resolved(host, port):
            try:
                self._add(await self._socket(family, address), receiver)
                return
            except OSError as error:
                problem = error
        raise problem

    def close(self) -> None:
        """Closes all sockets without telling their receivers."""
        for transport in list(self._open.values()):
            transport.abort()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def forget(self, descriptor: int) -> None:
        """Takes a socket out."""
        if self._open.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def _resolved(self, host: str, port: int) -> list[Address]:
        async with self._resolving:
            if not self._addresses:
                found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                self._addresses = [(entry[0], entry[4]) for entry in found]
        return self._addresses

    async def _socket(self, family: socket.AddressFamily, address: Any) -> socket.socket:
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(opened, address)
        except BaseException:
            opened.close()
            raise
        return opened

    def _add(self, opened: socket.socket, receiver: Receiver) -> None:
        transport = SocketTransport(self, self._loop, opened, receiver)
        self._open[opened.fileno()] = transport
        receiver.connection_made(transport)
        self._epoll.register(opened.fileno(), select.EPOLLIN)

    def _drain(self) -> None:
        if pause_s := bundle_s(len(self._open)):
            time.sleep(pause_s)
        open_ = self._open
        for descriptor, _ in self._epoll.poll(0, len(open_) + 1):
            if transport := open_.get(descriptor):
                try:
                    data = transport.receive(READ_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:
                    transport.lost(error)
                    continue
                if data:
                    transport.received(data)
                else:
                    transport.lost(None)


class SocketTransport(asyncio.Transport):
    """One plain socket, with the few methods of a transport that a connection uses."""

    def __init__(
        self, pool: SocketPool, loop: asyncio.AbstractEventLoop, opened: socket.socket,
        receiver: Receiver,
    ) -> None:  # fmt: skip
        super().__init__()
        self._pool, self._loop, self._socket, self._receiver = pool, loop, opened, receiver
        self.receive, self.received = opened.recv, receiver.data_received
        self._closing = False
        self._unsent: asyncio.Task[None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends; what the socket does not take at once follows from a task."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._loop.call_soon(self.lost, error)
            return
        if sent < len(data):
            self._unsent = self._loop.create_task(self._send_rest(data[sent:]))

    def is_closing(self) -> bool:
        """Whether the connection is closed."""
        return self._closing

    def abort(self) -> None:
        """Closes at once; the receiver is not told."""
        if self._closing:
            return
        self._closing = True
        if self._unsent is not None:
            self._unsent.cancel()
        self._pool.forget(self._socket.fileno())
        self._socket.close()

    async def _send_rest(self, data: bytes | bytearray | memoryview) -> None:
        with contextlib.suppress(OSError):
            await self._loop.sock_sendall(self._socket, data)

    def lost(self, error: Exception | None) -> None:
        """Closes and tells the receiver."""
        if not self._closing:
            self.abort()
            self._receiver.connection_lost(error)
