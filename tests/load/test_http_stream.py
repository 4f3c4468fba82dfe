"""The response parser gives the same body however the network cuts the bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.load.http_stream import BadResponseError, ResponseParser

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
)


def feed_all(parser: ResponseParser, pieces: list[bytes]) -> bytes:
    return b"".join(parser.feed(piece) for piece in pieces)


def cut_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def encode(bodies: list[bytes]) -> bytes:
    return CHUNKED + b"".join(b"%X\r\n%b\r\n" % (len(b), b) for b in bodies if b) + b"0\r\n\r\n"


@given(
    st.lists(st.binary(max_size=40), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_chunked_body_survives_any_cut(bodies: list[bytes], cuts: list[int]) -> None:
    parser = ResponseParser()
    assert feed_all(parser, cut_at(encode(bodies), cuts)) == b"".join(bodies)
    assert parser.done
    assert parser.keep_alive


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=8))
def test_counted_body_survives_any_cut(body: bytes, cuts: list[int]) -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    parser = ResponseParser()
    assert feed_all(parser, cut_at(head + body, cuts)) == body
    assert parser.done
    assert parser.status == 404


def test_part_of_a_chunk_is_delivered_at_once() -> None:
    parser = ResponseParser()
    assert parser.feed(CHUNKED + b"a\r\n12345") == b"12345"
    assert parser.feed(b"67890\r\n") == b"67890"
    assert not parser.done


def test_trailers_and_chunk_extensions_are_passed_over() -> None:
    parser = ResponseParser()
    assert parser.feed(CHUNKED + b"2;x=y\r\nab\r\n0\r\nX-Sum: 1\r\n") == b"ab"
    assert not parser.done
    parser.feed(b"\r\n")
    assert parser.done


def test_body_until_the_connection_closes() -> None:
    parser = ResponseParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\nhello") == b"hello"
    assert not parser.done
    assert parser.feed_eof()
    assert not parser.keep_alive


def test_a_chunked_body_without_its_end_is_cut() -> None:
    parser = ResponseParser()
    parser.feed(encode([b"abc"])[:-5])
    assert not parser.feed_eof()


def test_interim_responses_are_passed_over() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert parser.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx") == b"x"


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH\r\n", CHUNKED + b"zz\r\n"])
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponseError):
        ResponseParser().feed(data)
