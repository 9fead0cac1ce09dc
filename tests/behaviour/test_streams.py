"""What comes and goes on a WebSocket, with TLS and without: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, flags
from service import Service
from wsclient import CLOSE, KEY, Ended, WSClient, frame

HANDSHAKE = (
    "GET /_pubsub HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()


class Site:
    """A server, and a way to connect to it."""

    def __init__(self, directory: Path, secured: bool) -> None:
        self.context: ssl.SSLContext | None = None
        options: list[str] = ["--max-requests", "8"]
        if secured:
            authority = Authority(directory)
            options += flags(authority.issue("localhost", "127.0.0.1"))
            self.context = ssl.create_default_context(cafile=str(authority.file))
        self.service = Service(directory / "var", "-t", "srv", *options)
        self.client: Callable[..., WSClient] = partial(
            WSClient, self.service.port, tls=self.context
        )

    def bare(self) -> socket.socket:
        """A connection without any handshake of HTTP."""
        made = socket.create_connection(("127.0.0.1", self.service.port), 20)
        if self.context is not None:
            return self.context.wrap_socket(made, server_hostname="127.0.0.1")
        return made

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.service.process.pid}/fd"))



@pytest.fixture(scope="module", params=["plain", "tls"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp(request.param), request.param == "tls")
    yield made
    assert made.service.end()[0] == 0


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def read_to_end(made: socket.socket) -> bytes:
    found = b""
    while chunk := made.recv(1 << 16):
        found += chunk
    return found


@pytest.mark.parametrize("size", [1, 200_000])
def test_what_comes_before_the_handshake_is_answered_counts(site: Site, size: int) -> None:
    text = 'REQUEST 1 TX early -\n{"ops":[{"ope":"PUT","path":"early.x","instance":"%s"}]}'
    with site.bare() as made:
        made.sendall(
            HANDSHAKE + frame(b"SESSION early local") + frame((text % ("x" * size)).encode())
            + frame(struct.pack("!H", 1000), CLOSE)
        )  # fmt: skip
        head, _, rest = read_to_end(made).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"SESSIONACK srv" in rest
    one = site.client("reader")
    until(lambda: "instance" in one.tx({"ope": "GET", "path": "early.x"})["results"][0])
    one.socket.close()


def test_more_than_may_be_open_before_the_handshake_is_answered(site: Site) -> None:
    asked = [
        f'REQUEST {number} TX eager -\n{{"ops":[{{"ope":"PUT","path":"e.x","instance":{number}}}]}}'
        for number in range(1, 301)
    ]
    with site.bare() as made:
        made.sendall(
            HANDSHAKE + b"".join([frame(t.encode()) for t in ["SESSION eager local", *asked[:200]]])
        )
        found = b""
        while b"RESPONSE 200 TX" not in found:
            found += made.recv(1 << 16)
        made.sendall(b"".join([frame(text.encode()) for text in asked[200:]]))
        while b"RESPONSE 300 TX" not in found:
            found += made.recv(1 << 16)
    positions = [found.index(b"RESPONSE %d TX" % number) for number in range(1, 301)]
    assert positions == sorted(positions)


def test_more_than_may_be_open_is_taken_later_and_in_order(site: Site) -> None:
    one = site.client("asks")
    one.send(
        *[
            f'REQUEST {number} TX asks -\n'
            f'{{"ops":[{{"ope":"PUT","path":"many.x","instance":{number}}}]}}'
            for number in range(1, 2001)
        ]
    )
    answers = [one.receive() for _ in range(2000)]
    assert [int(answer.words[1]) for answer in answers] == list(range(1, 2001))
    assert [answer.body["versions"]["many"] for answer in answers] == list(range(2000))
    one.socket.close()


def test_a_long_answer_to_one_that_reads_slowly_is_whole(site: Site) -> None:
    value = {f"k{number}": "x" * 1000 for number in range(3000)}
    writer = site.client("writer")
    for start in range(0, 3000, 500):
        part = dict(list(value.items())[start : start + 500])
        writer.put(f"long.p{start}", part)
    slow = site.client("slow", window=4096)
    number = slow.request("TX", "-", {"ops": [{"ope": "GET", "path": "long"}]})
    time.sleep(0.5)
    writer.put("other.x", 1)
    found: dict[str, Any] = {}
    for part in slow.response(number).body["results"][0]["instance"].values():
        found |= part
    assert found == value
    for one in (writer, slow):
        one.socket.close()


def test_one_that_sends_no_more_has_left(site: Site) -> None:
    watcher = site.client("watcher")
    watcher.send("SUBSCRIBE left local False")
    watcher.settle()
    leaver = site.client("leaver")
    leaver.put("left.node", 1, ephemeral=True)
    assert watcher.receive().body[0]["ope"] == "PUT"
    if isinstance(leaver.socket, ssl.SSLSocket):
        leaver.socket.shutdown(socket.SHUT_RDWR)
    else:
        leaver.socket.shutdown(socket.SHUT_WR)
        assert leaver.socket.recv(100) == b""
    assert watcher.receive().body[0]["ope"] == "DELETE"
    for one in (watcher, leaver):
        one.socket.close()


def test_a_goodbye_is_answered(site: Site) -> None:
    one = site.client("polite")
    one.send_bytes(frame(struct.pack("!H", 1000), CLOSE))
    with pytest.raises(Ended) as end:
        one.text()
    assert end.value.code == 1000
    with pytest.raises(Ended) as end:
        one.text()
    assert end.value.code is None


def test_who_breaks_the_rules_is_told_so_however_much_follows(site: Site) -> None:
    one = site.client("rude")
    try:
        one.send_bytes(frame(b"binary", 0x2) + frame(b"PUBLISH a\n" + b"x" * 500_000) * 20)
    except ConnectionError:
        pytest.fail("the connection was reset before all of it was sent")
    with pytest.raises(Ended) as end:
        one.text()
    assert end.value.code == 1003
    one.socket.close()


def test_nothing_is_left_of_those_that_were_cut(site: Site) -> None:
    site.client("first").socket.close()
    time.sleep(0.3)
    before = site.descriptors()
    for number in range(60):
        one = site.client(f"cut{number}")
        one.send("SUBSCRIBE cut local False", "PUBLISH cut\n" + '{"message":1}')
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.socket.close()
    until(lambda: site.descriptors() <= before)
