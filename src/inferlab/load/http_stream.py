"""HTTP/1.1 responses, cut down to what a stream of server-sent events needs."""


class BadResponseError(Exception):
    """The bytes received are not an HTTP response."""


class ResponseParser:
    """Incremental parser of one response: `feed` bytes, get the body's bytes back."""

    __slots__ = (
        "_left",
        "_tail",
        "_until_eof",
        "chunked",
        "done",
        "headers",
        "keep_alive",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self.keep_alive = True
        self.chunked = False
        self._left = 0
        self._until_eof = False
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes of the response and gives those of its body.

        Raises:
            BadResponseError: not HTTP/1.x, or a broken chunk size.
        """
        if self._tail:
            data, self._tail = self._tail + data, b""
        if not self.status:
            data = self._head(data)
            if not self.status:
                return b""
        if self.chunked:
            return self._chunks(data)
        return data if self._until_eof else self._counted(data)

    def feed_many(self, pieces: list[bytes]) -> list[bytes]:
        """`feed` for pieces in order; cheap when each is exactly one chunk, as a token usually is.

        Raises:
            BadResponseError: not HTTP/1.x, or a broken chunk size.
        """
        if self.chunked and len(pieces) > 1 and not (self._tail or self._left or self.done):
            starts = [piece.find(b"\r\n", 0, 10) for piece in pieces]
            try:
                sizes = [int(piece[:at], 16) for piece, at in zip(pieces, starts, strict=True)]
            except ValueError:
                sizes = [0]
            whole = [at + 4 + size for at, size in zip(starts, sizes, strict=False)]
            if min(sizes) > 0 and whole == [len(piece) for piece in pieces]:
                return [piece[at + 2 : -2] for piece, at in zip(pieces, starts, strict=True)]
        return [self.feed(piece) for piece in pieces]

    def feed_eof(self) -> bool:
        """The connection ended; True when that is a proper end of this response."""
        if self.status and self._until_eof:
            self.done = True
        return self.done

    def _head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if not b"HTTP/1.".startswith(data[:7]):
                raise BadResponseError(f"not an HTTP response: {data[:40]!r}")
            self._tail = data
            return b""
        lines = data[:end].decode("latin-1").split("\r\n")
        rest = data[end + 4 :]
        status = _status(lines[0])
        if status < 200:
            return self._head(rest) if rest else b""
        self.status = status
        pairs = (line.partition(":") for line in lines[1:])
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._choose_framing(lines[0])
        return rest

    def _choose_framing(self, status_line: str) -> None:
        headers = self.headers
        self.keep_alive = (
            headers.get("connection", "").lower() != "close"
            if status_line.startswith("HTTP/1.1")
            else False
        )
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self.chunked = True
        elif (length := headers.get("content-length", "")).isdigit():
            self._left = int(length)
            self.done = self._left == 0
        else:
            self._until_eof, self.keep_alive = True, False

    def _counted(self, data: bytes) -> bytes:
        body = data[: self._left]
        self._left -= len(body)
        self.done = self._left == 0
        return body

    def _chunks(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
                if not self._left and data.startswith(b"\r\n", at):
                    at += 2
                continue
            body = self._chunk_size(data, at)
            if body < 0:
                self._tail = data[at:]
                break
            at = body
            if self.done:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _chunk_size(self, data: bytes, at: int) -> int:
        """Reads one chunk-size line (and the line break that ends the chunk before it).

        Gives the offset of what follows, or -1 when the line is not complete yet.
        """
        start = at + 2 if data.startswith(b"\r\n", at) else at
        eol = data.find(b"\r\n", start)
        if eol < 0:
            return -1
        try:
            self._left = int(data[start:eol].partition(b";")[0], 16)
        except ValueError:
            raise BadResponseError(f"broken chunk size {data[start:eol][:20]!r}") from None
        if self._left:
            return eol + 2
        if data.startswith(b"\r\n", eol + 2):
            self.done = True
            return eol + 4
        trailers = data.find(b"\r\n\r\n", eol + 2)
        if trailers >= 0:
            self.done = True
            return trailers + 4
        return -1


def _status(line: str) -> int:
    parts = line.split(" ", 2)
    if not line.startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
        raise BadResponseError(f"not an HTTP response: {line[:40]!r}")
    return int(parts[1])
