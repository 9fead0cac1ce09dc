"""Every limit to the byte, what no JSON may hold, and large trees beside small requests."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from adapters import send
from service import Service, check

MIB = 1 << 20
DEPTH = 64


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("sizes")
    made = Service(directory, "-t", "srv")
    yield made
    status, messages = made.end()
    assert status == 0
    assert "did not take their answers" not in messages, "a refused body counts as answered"
    check(directory, "srv")


@pytest.fixture(scope="module")
def port(service: Service) -> int:
    return service.port


def pieces(size: int) -> Iterator[bytes]:
    """A JSON string of `size` bytes, as chunks."""
    yield b'"'
    left = size - 2
    while left > 0:
        yield b"x" * min(left, 50_000)
        left -= 50_000
    yield b'"'


def refused(port: int, url: str, body: Any, says: str = "") -> None:
    reply = send(port, "PUT", url, body)
    assert (reply.status, reply.code) == (400, "malformed")
    assert says in reply.json["error"]["message"]
    assert send(port, "GET", "/refused").status == 404


# -- the body ---------------------------------------------------------------------------------


def test_a_body_of_a_mebibyte_and_one_byte_more(port: int) -> None:
    for body in (b"".join(pieces(MIB)), pieces(MIB)):
        assert send(port, "PUT", "/body/", body).status == 200
    assert send(port, "GET", "/body/").body == b"".join(pieces(MIB))
    for body in (b"".join(pieces(MIB + 1)), pieces(MIB + 1), pieces(5 * MIB)):
        reply = send(port, "PUT", "/refused/", body)
        assert (reply.status, reply.code) == (413, "too_large")
        assert reply.json["error"]["limit"] == MIB
        assert "--max-body" in reply.json["error"]["message"]
    assert send(port, "GET", "/refused/").status == 404


def test_the_connection_goes_on_after_a_body_a_bit_too_large(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        head = f"PUT /refused/ HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * MIB}\r\n\r\n".encode()
        client.sendall(head + b"x" * (2 * MIB) + b"GET /_roots HTTP/1.1\r\nHost: x\r\n\r\n")
        with client.makefile("rb") as taken:
            assert taken.readline().startswith(b"HTTP/1.1 413")
            assert any(line.startswith(b"HTTP/1.1 200") or b"HTTP/1.1 200" in line
                       for line in taken)


@pytest.mark.parametrize(
    "head",
    [f"Content-Length: {1 << 40}", f"Content-Length: {MIB + 1}\r\nExpect: 100-continue"],
)
def test_a_body_announced_as_too_large_is_refused_unsent(port: int, head: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(f"PUT /refused/ HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        with client.makefile("rb") as taken:
            answer = taken.read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_far_too_large_is_not_taken_for_ever(port: int) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"PUT /refused/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = f"{MIB:x}\r\n".encode() + b"x" * MIB + b"\r\n"
        try:
            while sent < 200:
                client.sendall(chunk)
                sent += 1
        except OSError:
            answer = client.recv(1 << 16)
    assert sent < 200
    assert answer.startswith(b"HTTP/1.1 413")
    assert send(port, "GET", "/_health").status == 200


def test_a_body_is_asked_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"PUT /asked HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                       b"Expect: 100-continue\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 100")
        client.sendall(b"42")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


# -- the URL ----------------------------------------------------------------------------------


def test_the_longest_url(port: int) -> None:
    def get(size: int) -> Any:
        url = "/_health?tega_id=x&a="
        return send(port, "GET", url + "a" * (size - len(url)))

    assert get(1 << 16).status == 400, "read, and its parameter refused"
    reply = get((1 << 16) + 1)
    assert (reply.status, reply.code) == (414, "url_too_long")
    assert "65537" in reply.json["error"]["message"]


def test_a_url_far_too_long_hurts_nobody(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        try:
            client.sendall(b"GET /" + b"k" * (4 * MIB) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        except OSError as error:
            # The server has hung up on it.
            assert isinstance(error, ConnectionError)
    assert send(port, "GET", "/_health").status == 200


@pytest.mark.parametrize(
    "url", ["/%FF/", "/a/%C3/", "/%ED%A0%80/", "/%FF/?regex_flag=1", "/a?version=%FF"]
)
def test_what_is_not_utf8_in_a_url(port: int, url: str) -> None:
    reply = send(port, "GET", url)
    assert (reply.status, reply.code) == (400, "malformed")


def test_bytes_that_are_not_encoded_in_a_url(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall("PUT /refused/ü HTTP/1.1\r\nContent-Length: 1\r\n\r\n1".encode())
        answer = client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"percent-encode" in answer


# -- keys and depth ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k" * 255, "ü" * 127 + "k", "😀" * 63 + "abc"])
def test_keys_of_255_bytes(port: int, key: str) -> None:
    url = "/" + "".join(f"%{byte:02X}" for byte in key.encode())
    longer = url + "%6B"
    for place in (url, "/keys" + url):
        assert send(port, "PUT", place, b"1").status == 200
        assert send(port, "GET", place).body == b"1"
    assert send(port, "PUT", "/keys/", json.dumps({key: 2}).encode()).status == 200
    refused(port, longer, b"1", "256")
    refused(port, "/refused/", json.dumps({"a": {key + "k": 2}}).encode(), "256")
    inside = json.dumps([{key * 2: {"": 1, "_any": 2}}]).encode()
    assert send(port, "PUT", "/keys/", inside).status == 200, "keys inside a list are free"


def nested(levels: int, opening: str, closing: str) -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.parametrize(("opening", "closing"), [('{"k":', "}"), ("[", "]"), ('[{"k":', "}]")])
def test_depth_64(port: int, opening: str, closing: str) -> None:
    each = 2 if opening.startswith("[{") else 1
    for above in (2, DEPTH - 2):
        url = "/deep" + "/k" * (above - 1)
        whole = nested((DEPTH - above) // each, opening, closing)
        assert send(port, "PUT", url, whole).status == 200
        assert send(port, "GET", url).json == json.loads(whole)
        refused(port, url, nested((DEPTH - above) // each + 1, opening, closing), "deep")
        assert send(port, "DELETE", "/deep").status == 200
    deepest = "/deep" + "/k" * (DEPTH - 1)
    assert send(port, "PUT", deepest, b"1").status == 200
    assert send(port, "GET", deepest).body == b"1"
    refused(port, deepest + "/k", b"1", "64")
    assert send(port, "DELETE", deepest + "/k").status == 400
    for bomb in (b"[" * 500_000, b'{"k":' * 200_000):
        refused(port, "/refused/", bomb, "JSON")


# -- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"NaN", b"-Infinity", b"Infinity", b"1e999", b'{"a":[1e999]}', b"nan", b"01", b"+1", b".5",
        b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"b":{"a":1,"c":2,"a":1}}', b'[{"a":1,"a":1}]',
        b'"\xff"', b'{"\xc3":1}', b'"\xed\xa0\x80"', b'"\\ud800"', b'{"\\udc00":1}',
        b"\xef\xbb\xbf1", '"ü"'.encode("utf-16"), b"", b" ", b"{", b"1 2", b"[1,]", b'"a\nb"',
        b"'a'", b"{a:1}", b"1" * 4301, b"None",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_json(port: int, body: bytes) -> None:
    refused(port, "/refused/", body[:5000])


@pytest.mark.parametrize(
    "body",
    [
        b"18446744073709551616", b"-9223372036854775809", b"9" * 4000, b"0.1", b"1e300", b"5e-324",
        b"true", b"null", b'""', b"[]", b"{}", b'{"a":[],"b":{}}', b'[null,{"":{"_x":[1.5]}}]',
        '"ü€😀\u2028"'.encode(), b'"\\u0000\\u001b\\u007f"'.replace(b"\\u007f", b"\x7f"),
        b'"\\"\\\\/"', '{"Z":1,"a":2,"é":3}'.encode(),
    ],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
def test_what_comes_back_to_the_byte(port: int, body: bytes) -> None:
    assert send(port, "PUT", "/exact/", body).status == 200
    assert send(port, "GET", "/exact/").body == body


# -- large trees ------------------------------------------------------------------------------


def test_a_hundred_thousand_siblings(port: int) -> None:
    leaves = {f"{n:x}": 0 for n in range(100_000)}
    body = json.dumps(leaves, separators=(",", ":")).encode()
    assert len(body) <= MIB
    assert send(port, "PUT", "/wide/", body).status == 200
    assert send(port, "PUT", "/wide/ffff", b"1").json["versions"] == {"wide": 1}
    assert send(port, "DELETE", "/wide/0").json["versions"] == {"wide": 2}
    assert send(port, "GET", "/wide/ffff").headers["ETag"] == '"1"'
    assert send(port, "GET", "/wide/1").headers["ETag"] == '"0"'
    whole = send(port, "GET", "/wide/").json
    assert list(whole) == sorted(leaves.keys() - {"0"})
    assert whole == {**{key: 0 for key in leaves if key != "0"}, "ffff": 1}
    assert send(port, "GET", "/wide%5C.1869(.)/?regex_flag=1").json == {
        f"wide.1869{n:x}": {"groups": [[f"{n:x}"]], "instance": 0} for n in range(16) if
        0x18690 + n < 100_000
    }


@pytest.fixture(scope="module")
def large(port: int) -> None:
    """A tree of 200 000 leaves."""
    leaves = json.dumps({f"leaf{n}": n for n in range(20_000)}).encode()
    for part in range(10):
        assert send(port, "PUT", f"/large/c{part}/", leaves).status == 200


@pytest.mark.parametrize("url", ["/large/", "/large/?internal=1", "/", "/large%5C..*%5C..*/"])
def test_a_large_answer_holds_nobody_up(port: int, large: None, url: str) -> None:
    """While it is on its way, and its client takes nothing, the others are served."""
    if "%5C" in url:
        url += "?regex_flag=1"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        taken = client.recv(1000)
        for _ in range(20):
            assert send(port, "GET", "/large/c3/leaf7").body == b"7"
            assert send(port, "PUT", "/small", b"1").status == 200
        assert b"0\r\n\r\n" not in taken, "it had not ended"
        with client.makefile("rb") as rest:
            assert rest.read().endswith(b"0\r\n\r\n"), "and it was whole"


def test_a_snapshot_holds_nobody_up(port: int, large: None) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /_ss HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert send(port, "PUT", "/small", b"2").status == 200
        assert send(port, "GET", "/large/c3/leaf7").body == b"7"
        assert not select.select([client], [], [], 0)[0], "the snapshot was still being written"
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
