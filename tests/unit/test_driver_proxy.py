"""Connections through a proxy, by HTTP CONNECT."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import pytest
from scripted import PATIENCE, Scripted, on_loop

from tega.driver import proxy as module
from tega.driver import websocket
from tega.driver.proxy import Proxy, ProxyFailed, reach
from tega.driver.websocket import WebSocket, within
from tega.errors import Malformed
from tega.protocol.frames import accept_value

GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SECRET = "hunter2"


class Middleman:
    """A proxy that answers what it is told to.

    :param then: what it does after that
    :ivar heads: what it was asked
    :ivar left: whether the one who asked last has hung up
    """

    def __init__(
        self, *pieces: bytes, then: Literal["carry", "wait", "hang up"] = "carry"
    ) -> None:
        self._pieces = pieces
        self._then = then
        self._tasks: set[asyncio.Task[None]] = set()
        self.heads: list[str] = []
        self.left = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Middleman]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A cancelled handler would be told of on the screen.
        with suppress(asyncio.CancelledError, ConnectionError):
            self.left.clear()
            try:
                await self._talk(reader, writer)
            finally:
                self.left.set()
                writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        for piece in self._pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if self._then == "carry":
            host, _, port = head.split(" ")[1].rpartition(":")
            there = await asyncio.open_connection(host.strip("[]"), int(port))
            carrying = asyncio.ensure_future(carry(there[0], writer))
            try:
                await carry(reader, there[1])
            finally:
                carrying.cancel()
                there[1].transport.abort()
        elif self._then == "wait":
            await reader.read()


async def carry(source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        drain.write(data)
        await drain.drain()
    drain.transport.abort()


def nobody() -> tuple[socket.socket, int]:
    """A port where nobody listens, as long as the socket is there."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound, bound.getsockname()[1]


# The setting


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128)),
        ("HTTP://10.0.0.1:80/", Proxy("10.0.0.1", 80)),
        ("http://[fd00::1]:3128", Proxy("fd00::1", 3128)),
        ("http://eve:hunter2@proxy:3128", Proxy("proxy", 3128, "eve", SECRET)),
        ("http://eve@proxy:3128", Proxy("proxy", 3128, "eve", "")),
        ("http://e%40x:a%3ab%2F%c3%a9:@p:1", Proxy("p", 1, "e@x", "a:b/é:")),
    ],
)
def test_what_a_setting_says(text: str, proxy: Proxy) -> None:
    assert Proxy.parse(text) == proxy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with http://"),
        ("proxy:3128", "does not begin with http://"),
        ("https://eve:hunter2@proxy:3128", "does not begin with http://"),
        ("eve:hunter2@proxy:3128", "does not begin with http://"),
        ("http://eve:hunter2@proxy", "host or port"),
        ("http://eve:hunter2", "host or port"),
        ("http://eve:hunter2@:3128", "host or port"),
        ("http://eve:hunter2@proxy:0", "host or port"),
        ("http://eve:hunter2@proxy:65536", "host or port"),
        ("http://eve:hunter2@[fd00::1:3128", "host or port"),
        ("http://eve:hunter2%ff@proxy:3128", "host or port"),
        ("http://eve:hunter2@proxy:3128/there", "in a password write /"),
        ("http://eve:hunter2@proxy:3128?x", "in a password write /"),
        ("http://eve:hunter2@proxy:3128#x", "in a password write /"),
        ("http://e%3ave:hunter2@proxy:3128", "no colon in the user"),
        ("http://eve:hunter2%0d%0aX-Evil:1@proxy:3128", "no control characters"),
        ("http://eve:hunter2\r\n@proxy:3128", "without spaces"),
        ("http://eve:hunter2 @proxy:3128", "without spaces"),
    ],
)
def test_what_is_no_setting(text: str, why: str) -> None:
    with pytest.raises(Malformed) as refused:
        Proxy.parse(text)
    assert why in str(refused.value)
    assert "http://host:port" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_password_is_not_shown() -> None:
    proxy = Proxy.parse(f"http://eve:{SECRET}@proxy:3128")
    assert proxy.password == SECRET
    assert SECRET not in repr(proxy)
    assert SECRET not in f"{proxy} {[proxy]}"
    assert str(proxy) == "proxy:3128"
    assert str(Proxy("fd00::1", 3128)) == "[fd00::1]:3128"


def test_what_a_proxy_is_asked() -> None:
    assert Proxy("proxy", 3128).request("global", 8739) == (
        b"CONNECT global:8739 HTTP/1.1\r\nHost: global:8739\r\n\r\n"
    )
    # The example of RFC 7617.
    assert Proxy("proxy", 3128, "Aladdin", "open sesame").request("fd00::1", 8739) == (
        b"CONNECT [fd00::1]:8739 HTTP/1.1\r\nHost: [fd00::1]:8739\r\n"
        b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    )


# The way through


@pytest.mark.parametrize(
    "pieces",
    [
        (GRANTED,),
        (b"HTTP/1.0 200\r\n\r\n",),
        (b"HTTP/1.1 204 \xe9\r\nVia: x\r\nContent-Length: 7\r\n\r\n",),
        tuple(GRANTED[at : at + 1] for at in range(len(GRANTED))),
    ],
)
@on_loop
async def test_a_websocket_through_a_proxy(pieces: tuple[bytes, ...]) -> None:
    texts: list[str] = []
    came, closed = asyncio.Event(), asyncio.Event()

    def on_text(text: str) -> None:
        texts.append(text)
        came.set()

    async with Scripted().running() as server, Middleman(*pieces).running() as proxy:
        made = await WebSocket.connect(
            "127.0.0.1", server.port, "/_pubsub", on_text, lambda payload: None,
            lambda code, reason: closed.set(), PATIENCE, proxy=Proxy("127.0.0.1", proxy.port),
        )  # fmt: skip
        made.send("SESSION local-1 global")
        await asyncio.wait_for(came.wait(), PATIENCE)
        assert texts[0].startswith("SESSIONACK ")
        assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n")
        await made.close()
        await asyncio.wait_for(closed.wait(), PATIENCE)
        await asyncio.wait_for(proxy.left.wait(), PATIENCE)


@pytest.mark.parametrize("user", [None, "eve"])
@pytest.mark.parametrize("then", ["wait", "hang up"])
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Authenticate!\r\n\r\n", "answers 407 Authenticate!: it "),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "answers 403 Forbidden"),
        (b"HTTP/1.1 502 Bad\x1b[31m Gateway\r\n\r\n", "answers 502 Bad?[31m Gateway"),
        (b"HTTP/1.1 301 " + b"x" * 1000 + b"\r\n\r\n", "answers 301 xx"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GRANTED, "answers 100 Continue"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP: b'SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.1 fine\r\n\r\n", "speaks no HTTP: 'HTTP/1.1 fine'"),
        (b"HTTP/1.1 2000\r\n\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 200 \r\nX: " + b"x" * module._MAX_HEAD, "headers without end"),
    ],
)
@on_loop
async def test_a_proxy_that_refuses(
    answer: bytes, why: str, then: Literal["wait", "hang up"], user: str | None
) -> None:
    async with Middleman(answer, then=then).running() as middleman:
        proxy = Proxy("127.0.0.1", middleman.port, user, SECRET)
        with pytest.raises(ProxyFailed, match=re.escape(why)) as failed:
            await within(PATIENCE, reach("global", 8739, proxy))
        told = str(failed.value)
        assert told.startswith(f"the proxy 127.0.0.1:{proxy.port} ")
        assert len(told) < 250
        assert SECRET not in told
        if " 407 " in told:
            assert ("wants credentials" in told) is (user is None)
            assert ("does not take these" in told) is (user is not None)
        await asyncio.wait_for(middleman.left.wait(), PATIENCE)
        assert ("Proxy-Authorization: Basic " in middleman.heads[0]) is (user is not None)


@pytest.mark.parametrize("answer", [b"", b"HTT", b"HTTP/1.1 200 Connection establ", GRANTED[:-1]])
@on_loop
async def test_half_an_answer(answer: bytes) -> None:
    async with Middleman(answer, then="hang up").running() as middleman:
        with pytest.raises(ProxyFailed, match="hung up without a whole answer"):
            await within(PATIENCE, reach("global", 1, Proxy("127.0.0.1", middleman.port)))
    async with Middleman(answer, then="wait").running() as middleman:
        with pytest.raises(TimeoutError):
            await within(0.05, reach("global", 1, Proxy("127.0.0.1", middleman.port)))
        await asyncio.wait_for(middleman.left.wait(), PATIENCE)


@on_loop
async def test_a_proxy_that_cannot_be_reached() -> None:
    bound, port = nobody()
    with pytest.raises(ProxyFailed) as failed:
        await reach("global", 8739, Proxy("127.0.0.1", port))
    assert str(failed.value) == f"the proxy 127.0.0.1:{port} cannot be used: Connection refused"
    bound.close()


@on_loop
async def test_something_behind_the_proxy_that_is_no_server() -> None:
    async with Middleman(GRANTED + b"220 mail\r\n", then="wait").running() as middleman:
        with pytest.raises(ProxyFailed, match=r"leads to is no tega server: it speaks first$"):
            await WebSocket.connect(
                "global", 25, "/_pubsub", print, print, print, PATIENCE,
                proxy=Proxy("127.0.0.1", middleman.port),
            )  # fmt: skip
        await asyncio.wait_for(middleman.left.wait(), PATIENCE)


# What the network has still to take


@on_loop
async def test_what_is_still_to_be_taken_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_LEAVE", 0.01)
    taking, left = asyncio.Event(), asyncio.Event()
    drained: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = (await reader.readuntil(b"\r\n\r\n")).decode().partition("Key: ")[2].split("\r")[0]
        writer.write(
            b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept_value(key).encode()
        )
        await taking.wait()
        # The client ends it with a reset.
        with suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        writer.transport.abort()
        left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = await WebSocket.connect(
        "127.0.0.1", server.sockets[0].getsockname()[1], "/", print, print,
        lambda code, reason: None, PATIENCE, on_drained=lambda: drained.append(made.backlog),
    )  # fmt: skip
    assert made.backlog == 0
    made.send("x" * 100)
    made.send("x" * 1000)
    assert made.backlog == 106 + 1008
    assert not drained
    await asyncio.sleep(0)
    assert drained == [0], "the network takes a little at once"
    while not made.congested:
        made.send("x" * 100_000)
        await asyncio.sleep(0)
    known = len(drained)
    before = made.backlog
    made.send("x" * 1000)
    assert made.backlog == before + 1008
    await asyncio.sleep(0)
    assert made.backlog == before + 1008
    assert len(drained) == known
    taking.set()
    await asyncio.wait_for(made.drained(), PATIENCE)
    assert len(drained) == known + 1
    assert drained[-1] == made.backlog < 1 << 16
    made.send("x")
    await made.close()
    assert len(drained) == known + 1, "one that leaves is not told"
    assert made.backlog == 0
    server.close()
    await asyncio.wait_for(left.wait(), PATIENCE)
