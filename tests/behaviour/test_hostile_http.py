"""HTTP that is wrong, on a bare socket: refused or hung up on, no bug, and never read twice."""

from __future__ import annotations

import fcntl
import gzip
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service
from wsclient import KEY, WSClient, frame

#: Hung up on without a word.
CUT = 0

HOST = b"Host: localhost\r\n"
GET = b"GET /a/ HTTP/1.1\r\n" + HOST
PUT = b"PUT /a/ HTTP/1.1\r\n" + HOST
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"

#: Behind each comes this: who takes the end of one request for another beginning would do it.
SMUGGLED = b"PUT /smuggled/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n1"

#: What cannot be told where it ends: the connection is over.
ENDS: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "all bytes": (bytes(range(256)) + b"\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/9.9": (b"GET /a/ HTTP/9.9\r\n" + HOST + b"\r\n", 400),
    "a method that is none": (b"G(T /a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a NUL in the URL": (b"GET /\0/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a header without a colon": (GET + b"x\r\n\r\n", 400),
    "a blank before the colon": (PUT + b"Content-Length : 1\r\n\r\n1", 400),
    "a NUL in a header": (GET + b"X: a\0b\r\n\r\n", 400),
    "a carriage return in a header": (GET + b"X: a\rTransfer-Encoding: chunked\r\n\r\n", 400),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "a first header that is folded": (b"GET /a/ HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n", 400),
    "two lengths": (PUT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n11", 400),
    "two lengths in one": (PUT + b"Content-Length: 1, 2\r\n\r\n11", 400),
    "a length below zero": (PUT + b"Content-Length: -1\r\n\r\n1", 400),
    "a length with a plus": (PUT + b"Content-Length: +1\r\n\r\n1", 400),
    "a hexadecimal length": (PUT + b"Content-Length: 0x1\r\n\r\n1", 400),
    "a length in other digits": (PUT + "Content-Length: ²\r\n\r\n1".encode("latin-1"), 400),
    "a length of 20 digits": (PUT + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n1", 413),
    "a length of 5000 digits": (PUT + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n1", 413),
    "a length that nobody has": (PUT + b"Content-Length: 999999999999\r\n\r\n1", 413),
    "length and chunks": (
        PUT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400
    ),
    "chunks and length": (
        PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400
    ),
    "an unknown encoding of the transfer": (PUT + b"Transfer-Encoding: gzip\r\n\r\n1", 400),
    "two encodings of the transfer": (
        PUT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400
    ),
    "an encoding of the transfer that is hidden": (
        PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400
    ),
    "a chunk without a size": (CHUNKED + b"zz\r\n", 400),
    "a chunk below zero": (CHUNKED + b"-1\r\n", 400),
    "a chunk with 0x": (CHUNKED + b"0x1\r\n1\r\n0\r\n\r\n", 400),
    "a chunk that nobody has": (CHUNKED + b"f" * 18 + b"\r\n1", 400),
    "a chunk that ends late": (CHUNKED + b"1\r\n1XX0\r\n\r\n", 400),
    "an endless size of a chunk": (CHUNKED + b"1;" + b"x" * 5_000, CUT),
    "trailers": (CHUNKED + b"1\r\n1\r\n0\r\nX: y\r\n\r\n", 400),
    "chunks without end": (CHUNKED + (b"10000\r\n" + b"1" * 65_536 + b"\r\n") * 300, 413),
    "a giant header": (GET + b"X: " + b"y" * 300_000 + b"\r\n\r\n", CUT),
    "headers without end": (GET + b"X: y\r\n" * 50_000, CUT),
}

#: What can be answered, and the connection goes on.
STAYS: dict[str, tuple[bytes, int]] = {
    "a thousand headers": (GET + b"".join(b"X%d: y\r\n" % n for n in range(1_000)) + b"\r\n", 200),
    "a giant URL": (b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a giant method": (b"G" * 100_000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "another server's URL": (b"GET http://evil/a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CONNECT": (b"CONNECT evil:80 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "OPTIONS": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "TRACE": (b"TRACE /a/ HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "a URL that is not ASCII": (b"GET /\xe9/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two hosts": (GET + b"Host: evil.example\r\n\r\n", 400),
    "an origin that is none": (GET + b"Origin: http://[\r\n\r\n", 403),
    "a host with a user": (b"GET /a/ HTTP/1.1\r\nHost: a@b.c\r\n\r\n", 403),
    "a token that is no text": (GET + b"Authorization: Bearer \xff\xfe\r\n\r\n", 200),
    "a length twice": (PUT + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1", 200),
    "a body of a GET": (GET + b"Content-Length: 1\r\n\r\n1", 200),
    "a byte a chunk": (CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n", 400),
    "a body that is compressed": (
        PUT + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"1"))
        + gzip.compress(b"1"), 400,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("http"), "-t", "srv")
    started.ask("PUT", "/a/", 1)
    yield started
    status, messages = started.end()
    assert status == 0
    assert "ERROR" not in messages, messages


def answers(service: Service, sent: bytes) -> tuple[list[int], bool]:
    """The status of each answer, and whether the server ended the connection by itself."""
    got = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        try:
            connection.sendall(sent)
            while chunk := connection.recv(1 << 16):
                got += chunk
        except ConnectionError:
            pass
        except TimeoutError:
            return statuses(got), False
    return statuses(got), True


def statuses(got: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", got)]


#: What is asked last, so that it ends.
LAST = b"GET /_ready HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"


@pytest.mark.parametrize("kind", ENDS)
def test_what_has_no_certain_end_ends_the_connection(service: Service, kind: str) -> None:
    sent, status = ENDS[kind]
    found, over = answers(service, sent + SMUGGLED)
    assert over
    # What was still to be read when the server hung up can take its answer away.
    assert found in ([[], [status]] if len(sent) > 100_000 or status == CUT else [[status]])
    assert service.ask("GET", "/smuggled/")[0] == 404


@pytest.mark.parametrize("kind", STAYS)
def test_what_has_an_end_is_answered(service: Service, kind: str) -> None:
    sent, status = STAYS[kind]
    found, over = answers(service, sent + LAST)
    assert over
    assert found == [status, 200]


def test_requests_that_stay_half(service: Service) -> None:
    """They wait for the rest, and nobody waits for them."""
    whole = PUT + b"Content-Length: 10\r\n\r\n1234567890"
    made = []
    for size in range(1, len(whole), 3):
        made.append(socket.create_connection(("127.0.0.1", service.port), timeout=20))
        made[-1].sendall(whole[:size])
    assert service.ask("GET", "/_ready")[0] == 200
    made[0].sendall(whole[1:])
    assert made[0].recv(100).startswith(b"HTTP/1.1 200 ")
    for connection in made:
        connection.close()
    assert service.ask("GET", "/_ready")[0] == 200


# -- the handshake of a WebSocket -----------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "h2c"}, {"Connection": "keep-alive"}, {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Version": "13, 8"}, {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "x" * 24}, {"Sec-WebSocket-Key": KEY[:-4]},
        {"Sec-WebSocket-Key": "é" * 24}, {"Sec-WebSocket-Key": KEY + "\x0b"},
    ],
    ids=str,
)  # fmt: skip
def test_a_handshake_that_is_none(service: Service, headers: dict[str, str]) -> None:
    with WSClient(service.port, **headers) as client:
        assert client.status == 400


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"HEAD"])
def test_a_handshake_of_another_method(service: Service, method: bytes) -> None:
    sent = (
        b"%b /_pubsub HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n"
        % (method, KEY.encode(), HOST)
    )
    assert answers(service, sent + LAST) == ([400, 200], True)


def test_compression_is_not_agreed_on_and_compressed_frames_end_it(service: Service) -> None:
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    with WSClient(service.port, "h", **offer) as client:
        client.send_bytes(b"\xc1" + frame(b"\x4a\x04\x00")[1:])
        assert client.ended() == 1002


def test_frames_in_front_of_the_answer_to_the_handshake(service: Service) -> None:
    """Sent at one go with it, they count all the same."""
    sent = (
        b"GET /_pubsub HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n" % (KEY.encode(), HOST)
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(sent + frame(b"SESSION early local") + frame(b"", 0x8))
        got = b""
        while chunk := connection.recv(1 << 16):
            got += chunk
    assert b"SESSIONACK srv" in got
    assert got.endswith(b"\x88\x02\x03\xe8")


# -- what is no HTTP, and nobody who listens ------------------------------------------------------


def test_tls_where_there_is_none_is_answered_at_once(service: Service) -> None:
    begun = time.monotonic()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500
    assert answers(service, hello) == ([400], True)
    assert time.monotonic() - begun < 5


def test_a_log_that_nobody_reads_does_not_stop_the_server(tmp_path: Path) -> None:
    """A pager that was stopped, a pipe to a program that hangs."""
    service = Service(tmp_path, "-t", "srv")
    assert service.process.stderr is not None
    fcntl.fcntl(service.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    for _ in range(200):
        assert answers(service, b"hello\r\n\r\n") == ([400], True)
    assert service.ask("PUT", "/a/", 1)[0] == 200
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    assert service.process.stderr.read().count("Malformed HTTP") > 10
