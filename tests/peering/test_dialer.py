"""The way out of a local server, against servers that do what a test says."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tega.driver.proxy import Proxy
from tega.errors import Refused
from tega.peering.dialer import GOOD, Dialer
from tega.peering.wire import Wire
from tega.protocol import Error, Message, Request, Response, SessionAck
from tega.protocol.frames import CLOSE, PING, PONG, Reader, accept_value, close_frame, frame

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "behaviour"))
from service import Service
from test_driver_proxy import GRANTED, SECRET, Middleman, nobody

#: Most seconds to wait for what must happen.
PATIENCE = 10

ACK = SessionAck("global", "life", 7)
PING_INTERVAL, PING_TIMEOUT = 10.0, 30.0


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until a test puts it forward."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def on_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a coroutine function be a test, after which no task, timer or socket may be left."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        loop = Clock()
        try:
            loop.run_until_complete(test(*args, **kwargs))
            loop.run_until_complete(until(lambda: not asyncio.all_tasks(loop) - {current()}))
            # One is the loop's own.
            loop.run_until_complete(until(lambda: len(loop._selector.get_map()) == 1))
            assert all(timer.cancelled() for timer in loop._scheduled)
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    return run


def current() -> Any:
    return asyncio.current_task()


def skip(seconds: float) -> None:
    """Put the time forward."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    loop.now += seconds


def now() -> float:
    """What the time is."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something, while the time stands still."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0)


async def settle() -> None:
    """Let happen what can happen now."""
    for _ in range(20):
        await asyncio.sleep(0)


class End:
    """The server's end of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.texts: list[str] = []
        self.pings = 0
        self.gone = False
        self.reading = asyncio.Event()
        self.reading.set()

    def say(self, message: Message | str) -> None:
        text = message if isinstance(message, str) else message.text()
        self.writer.write(frame(text.encode()))

    def cut(self) -> None:
        self.writer.transport.abort()


class Global:
    """A server.

    :ivar heads: what it was asked
    :ivar raw: what it answers instead of a handshake
    :ivar also: what it sends together with the handshake
    :ivar greets: whether it acknowledges sessions
    :ivar alive: whether it answers pings, and hangs up when that is wanted
    """

    def __init__(self) -> None:
        self.ends: list[End] = []
        self.heads: list[str] = []
        self.raw: bytes | None = None
        self.also = b""
        self.greets = True
        self.alive = True
        self.port = 0

    @property
    def end(self) -> End:
        return self.ends[-1]

    async def pinged(self) -> None:
        """Wait for the next ping, and until the dialer has its pong."""
        before = self.end.pings
        await until(lambda: self.end.pings > before)
        await settle()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Global]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for end in self.ends:
                end.reading.set()
                end.cut()
            await until(lambda: all(end.gone for end in self.ends))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = End(writer)
        self.ends.append(end)
        try:
            # It hangs up whenever it likes to.
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._talk(end, reader)
        finally:
            end.gone = True
            writer.close()

    async def _talk(self, end: End, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("GET /_pubsub HTTP/1.1\r\n")
        self.heads.append(head)
        if self.raw is not None:
            end.writer.write(self.raw)
            if self.raw:
                await reader.read()
            return
        key = head.partition("Sec-WebSocket-Key: ")[2].split("\r\n")[0]
        end.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: %b\r\n\r\n"
            % accept_value(key).encode()
            + self.also
        )
        frames = Reader(1 << 30)
        while data := await reader.read(1 << 16):
            for opcode, payload in frames.feed(data):
                self._take(end, opcode, payload)
            await end.reading.wait()

    def _take(self, end: End, opcode: int, payload: str | bytes) -> None:
        if isinstance(payload, str):
            end.texts.append(payload)
            if payload.startswith("SESSION ") and self.greets:
                end.say(ACK)
        elif opcode == PING:
            end.pings += 1
            if self.alive:
                end.writer.write(frame(payload, PONG))
        elif opcode == CLOSE and self.alive:
            end.writer.close()


class Ear:
    """A receiver that notes everything, and may fail."""

    def __init__(self, wire: Wire, fails: dict[str, Exception]) -> None:
        self.wire = wire
        self.fails = fails
        self.messages: list[Message] = []
        self.drains = 0
        self.ends: list[str] = []

    def receive(self, message: Message) -> None:
        self.messages.append(message)
        self._fail("receive")

    def drained(self) -> None:
        self.drains += 1
        self._fail("drained")

    def closed(self, reason: str) -> None:
        self.ends.append(reason)
        self._fail("closed")

    def _fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]


class Dice(Random):
    """Gives the longest pause each time, and notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.rolls: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.rolls.append((a, b))
        return b


class Local:
    """The local server's end: a dialer, and what came of it.

    :ivar fails: what the methods of its receivers raise
    """

    def __init__(self, port: int, **options: Any) -> None:
        self.ears: list[Ear] = []
        self.acks: list[SessionAck] = []
        self.fails: dict[str, Exception] = {}
        self.dice = Dice()
        options = {"host": "127.0.0.1", "proxy": None, "ping_interval": PING_INTERVAL,
                   "ping_timeout": PING_TIMEOUT, "random": self.dice} | options  # fmt: skip
        self.dialer = Dialer(
            port=port, tega_id="local-1", connected=self._connected, **options
        )

    def _connected(self, wire: Wire, ack: SessionAck) -> Ear:
        self.acks.append(ack)
        if "connected" in self.fails:
            raise self.fails["connected"]
        self.ears.append(Ear(wire, self.fails))
        return self.ear

    @property
    def ear(self) -> Ear:
        return self.ears[-1]

    async def connected(self) -> None:
        await until(lambda: self.dialer.state == "connected")

    async def waiting(self, tries: int = 1) -> str:
        """Wait until it has failed so many times; why it did."""
        await until(lambda: len(self.dice.rolls) == tries)
        assert self.dialer.state == "waiting"
        assert self.dialer.reason is not None
        return self.dialer.reason


@asynccontextmanager
async def dialing(port: int, **options: Any) -> AsyncIterator[Local]:
    """A dialer that runs; in the end every receiver has heard of its end once."""
    local = Local(port, **options)
    local.dialer.start()
    try:
        yield local
    finally:
        await local.dialer.stop()
    assert [len(ear.ends) for ear in local.ears] == [1] * len(local.ears)
    assert (local.dialer.state, local.dialer.reason) == ("waiting", "stopped")


@asynccontextmanager
async def both(**options: Any) -> AsyncIterator[tuple[Global, Local]]:
    """A server, and a dialer that is connected to it."""
    async with Global().running() as server, dialing(server.port, **options) as local:
        await local.connected()
        yield server, local


@contextmanager
def warnings(caplog: pytest.LogCaptureFixture, *expected: str) -> Iterator[None]:
    """These warnings, with those words in them, are logged, and no others."""
    with caplog.at_level(logging.DEBUG, "tega.peering"):
        caplog.clear()
        yield
    told = [
        one.getMessage() for one in caplog.records
        if one.name.startswith("tega.") and one.levelno >= logging.WARNING
    ]
    assert len(told) == len(expected), told
    for line, words in zip(told, expected, strict=True):
        assert words in line


# Being connected


@on_clock
async def test_a_connection() -> None:
    async with Global().running() as server:
        local = Local(server.port)
        dialer = local.dialer
        begun = now()
        assert (dialer.state, dialer.reason, dialer.peer) == ("waiting", None, None)
        assert dialer.since == begun
        assert dialer.address == f"127.0.0.1:{server.port}"
        skip(5)
        dialer.start()
        dialer.start()
        await local.connected()
        assert server.end.texts == ["SESSION local-1 global"]
        assert local.acks == [ACK]
        assert (dialer.reason, dialer.peer) == (None, "global")
        assert dialer.since == now()

        asked = Request(1, "SYNC", "local-1", "-", b"{}")
        answer = Response(1, "SYNC", "local-1", False, b"null")
        local.ear.wire.send(asked)
        await until(lambda: len(server.end.texts) == 2)
        assert server.end.texts[1] == asked.text()
        server.end.say(answer)
        server.end.say(Error("gone", b'{"message":"x"}'))
        await until(lambda: len(local.ear.messages) == 2)
        assert local.ear.messages == [answer, Error("gone", b'{"message":"x"}')]

        skip(5)
        await dialer.stop()
        await dialer.stop()
        assert local.ear.ends == ["this server hangs up"]
        assert (dialer.state, dialer.reason) == ("waiting", "stopped")
        assert dialer.since == begun + 10
        assert len(server.ends) == 1


@pytest.mark.parametrize("text", ["SESSION x local", "RESPONSE 1 TX x\n1", "HELLO", "NOTIFY"])
@on_clock
async def test_what_may_not_come_ends_the_connection(text: str) -> None:
    async with both() as (server, local):
        server.end.say(text)
        server.end.say(Error("gone", b'{"message":"x"}'))
        reason = await local.waiting()
        assert text.split()[0] in reason
        assert local.ear.ends == [reason]
        assert local.ear.messages == []


@on_clock
async def test_the_receiver_closes_the_wire() -> None:
    async with both() as (server, local):
        ear = local.ear
        ear.wire.send(Request(1, "SYNC", "local-1", "-", b"{}"))
        ear.wire.close("the roots collide")
        ear.wire.close("no, I like it no more")
        ear.wire.send(Request(2, "SYNC", "local-1", "-", b"{}"))
        server.end.say(Error("gone", b'{"message":"x"}'))
        assert ear.ends == [], "that follows"
        ear.drains = 0
        assert await local.waiting() == "the roots collide"
        assert ear.ends == ["the roots collide"]
        assert (ear.messages, ear.drains) == ([], 0)
        assert len(server.end.texts) == 2


@on_clock
async def test_the_receiver_hears_when_the_backlog_is_gone() -> None:
    async with both() as (server, local):
        ear, wire = local.ear, local.ear.wire
        await settle()
        ear.drains = 0
        wire.send(Request(1, "SYNC", "local-1", "-", b'"%b"' % (b"x" * 10_000)))
        assert wire.backlog > 10_000
        await until(lambda: ear.drains == 1)
        assert wire.backlog == 0

        server.end.reading.clear()
        number = 1
        while wire.backlog < 1 << 20:
            number += 1
            wire.send(Request(number, "SYNC", "local-1", "-", b'"%b"' % (b"x" * 100_000)))
            await settle()
        ear.drains = 0
        await settle()
        assert ear.drains == 0
        server.end.reading.set()
        await until(lambda: ear.drains)
        assert wire.backlog < 1 << 16
        await until(lambda: len(server.end.texts) == 1 + number)


# Having no connection


@on_clock
async def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    bound, port = nobody()
    with warnings(caplog, f"no connection to 127.0.0.1:{port}, trying again: Connection refused"):
        async with dialing(port) as local:
            pauses = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
            for tries, pause in enumerate(pauses, 1):
                assert await local.waiting(tries) == "Connection refused"
                assert local.dice.rolls[-1] == (0.0, pause)
                skip(pause - 0.25)
                await settle()
                assert local.dialer.state == "waiting"
                skip(0.25)
            await local.waiting(len(pauses) + 1)
            assert local.dialer.since == now() - sum(pauses)
    bound.close()


@on_clock
async def test_a_host_that_is_none() -> None:
    async with dialing(1, host="a..b") as local:
        assert "UnicodeError" in await local.waiting()
        skip(1)
        await local.waiting(2)


@on_clock
async def test_kicked_it_tries_at_once() -> None:
    bound, port = nobody()
    async with dialing(port) as local:
        for tries in range(1, 10):
            await local.waiting(tries)
            local.dialer.kick()
        await local.waiting(10)
        bound.close()
        server = Global()
        server.port = port
        async with server.running():
            local.dialer.kick()
            await local.connected()
            local.dialer.kick()
            await settle()
            server.end.cut()
            await local.waiting(11)
            await settle()
            assert len(server.ends) == 1


@on_clock
async def test_after_a_cut_it_connects_again(caplog: pytest.LogCaptureFixture) -> None:
    with warnings(caplog, *["trying again: the connection was cut"] * 4):
        async with both() as (server, local):
            for tries in range(1, 4):
                skip(1)
                server.end.cut()
                assert await local.waiting(tries) == "the connection was cut"
                assert local.ear.ends == ["the connection was cut"]
                assert local.dialer.since == now()
                assert local.dialer.peer == "global"
                skip(local.dice.rolls[-1][1])
                await local.connected()
                assert local.dialer.since == now()
                assert len(server.ends) == len(local.ears) == tries + 1
            assert [most for _, most in local.dice.rolls] == [0.5, 1.0, 2.0]
            skip(GOOD + 1)
            await settle()
            server.end.cut()
            await local.waiting(4)
            assert local.dice.rolls[-1] == (0.0, 0.5)


@pytest.mark.parametrize(
    ("code", "said", "reason", "roll"),
    [
        (1001, "the server ends", "the server ends (1001)", (0.0, 0.5)),
        (4000, "", "no reason given (4000)", (0.0, 0.5)),
        (4002, "a\n\x1b[31mb\r\n", "a [31mb (4002)", (0.0, 0.5)),
        (4001, "taken over", "taken over (4001)", (15.0, 30.0)),
        (4003, "not understood", "not understood (4003)", (15.0, 30.0)),
    ],
)
@on_clock
async def test_the_server_closes(
    code: int, said: str, reason: str, roll: tuple[float, float]
) -> None:
    async with both() as (server, local):
        server.end.writer.write(close_frame(code, said))
        assert await local.waiting() == f"it has closed the connection: {reason}"
        assert local.dice.rolls == [roll]
        skip(30)
        await local.connected()
        server.end.cut()
        await local.waiting(2)
        assert local.dice.rolls[1] == ((0.0, 1.0) if roll[1] == 0.5 else (0.0, 30.0))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the server hung up"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP: 'SSH-2.0-OpenSSH'"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "no WebSocket: 404 Not Found"),
        (b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: x\r\n\r\n",
         "its answer is that of no WebSocket server"),
    ],
)  # fmt: skip
@on_clock
async def test_what_is_no_server(
    raw: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Global()
    server.raw = raw
    async with server.running():
        with warnings(caplog, reason):
            async with dialing(server.port) as local:
                assert await local.waiting(1) == reason
                local.dialer.kick()
                assert await local.waiting(2) == reason
                assert local.acks == []
        assert local.dialer.peer is None


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(b"HELLO"), "unknown message 'HELLO'"),
        (frame(b'SESSIONACK global\n{"life":"x"}'), "the body is"),
        (frame(b'PUBLISH x\n{"message":1}'), "PUBLISH: "),
        (frame(b"\xff"), "the connection was cut"),
        (frame(b'ERROR refused\n{"message":"no,\\nI will not"}'),
         "it refuses the session: no, I will not"),
        (frame(b"ERROR refused\n{}"), "it refuses the session: refused"),
        (close_frame(1001, "later"), "later (1001)"),
    ],
)  # fmt: skip
@on_clock
async def test_a_greeting_that_is_none(sent: bytes, reason: str, together: bool) -> None:
    server = Global()
    server.greets = False
    if together:
        server.also = sent
    async with server.running(), dialing(server.port) as local:
        if not together:
            await until(lambda: server.ends and server.end.texts)
            server.end.writer.write(sent)
        assert reason in await local.waiting()
        refused = "refuses the session" in reason
        assert local.dice.rolls == [(15.0, 30.0) if refused else (0.0, 0.5)]
        assert local.acks == []
        await until(lambda: server.end.gone)


@on_clock
async def test_a_refusal_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Global()
    server.greets = False
    server.also = frame(b'ERROR refused\n{"message":"one local-1 is here already"}')
    async with server.running():
        with warnings(caplog, "one local-1 is here already"):
            async with dialing(server.port) as local:
                for tries in range(1, 5):
                    await local.waiting(tries)
                    assert local.dice.rolls[-1] == (15.0, 30.0)
                    skip(30)
                server.also, server.greets = b"", True
                local.dialer.kick()
                await local.connected()


# Silence


@on_clock
async def test_an_accept_and_then_nothing() -> None:
    # Connections are taken by the kernel.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with dialing(listening.getsockname()[1], timeout=10.0) as local:
            await settle()
            assert local.dialer.state == "connecting"
            skip(10)
            assert await local.waiting() == "timed out"


@on_clock
async def test_a_handshake_and_then_nothing() -> None:
    server = Global()
    server.greets = False
    async with server.running(), dialing(server.port, timeout=10.0) as local:
        await until(lambda: server.ends and server.end.texts)
        skip(9.5)
        await settle()
        assert local.dialer.state == "connecting"
        skip(0.5)
        assert await local.waiting() == "no answer to SESSION"
        await until(lambda: server.end.gone)


@on_clock
async def test_a_server_that_answers_pings_stays() -> None:
    async with both() as (server, local):
        for _ in range(20):
            skip(PING_INTERVAL)
            await server.pinged()
        pings = server.end.pings
        # What it says is a sign of life too.
        skip(PING_INTERVAL / 2)
        server.end.say(Error("gone", b'{"message":"x"}'))
        await until(lambda: local.ear.messages)
        skip(PING_INTERVAL / 2)
        await settle()
        assert server.end.pings == pings
        skip(PING_INTERVAL / 2)
        await server.pinged()
        assert server.end.pings == pings + 1
        assert local.dialer.state == "connected"


@on_clock
async def test_a_silent_server_is_gone() -> None:
    async with both() as (server, local):
        server.alive = False
        for pings in (1, 2):
            skip(PING_INTERVAL - 1)
            await settle()
            assert server.end.pings == pings - 1
            skip(1)
            await server.pinged()
        skip(PING_INTERVAL - 1)
        await settle()
        assert local.dialer.state == "connected"
        skip(1)
        assert await local.waiting() == "it was silent for 30 s"
        assert local.ear.ends == ["it was silent for 30 s"]
        await until(lambda: server.end.gone)
    async with both(ping_interval=10.0, ping_timeout=15.0) as (server, local):
        server.alive = False
        for seconds in (10, 4):
            skip(seconds)
            await settle()
        assert local.dialer.state == "connected"
        skip(1)
        assert await local.waiting() == "it was silent for 15 s"


@on_clock
async def test_a_server_is_asked_before_it_is_called_gone() -> None:
    async with both() as (server, local):
        # As if this process had been stopped for so long.
        skip(1000)
        await server.pinged()
        await settle()
        assert local.dialer.state == "connected"
    async with both(ping_interval=10.0, ping_timeout=3.0) as (server, local):
        skip(9)
        await settle()
        skip(1)
        await server.pinged()
        await settle()
        assert local.dialer.state == "connected"
        server.alive = False
        skip(10)
        await server.pinged()
        skip(10)
        assert "it was silent for 20 s" in await local.waiting()


# Bugs


@pytest.mark.parametrize("where", ["connected", "receive", "drained", "closed"])
@on_clock
async def test_what_fails_here_ends_the_connection_only(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Global().running() as server, dialing(server.port) as local:
        await local.connected()
        for tries, error in enumerate((Refused("the root r is led by x"), ValueError("oh")), 1):
            known = where != "closed" and isinstance(error, Refused)
            local.fails = {where: error}
            caplog.clear()
            if where == "connected":
                server.end.cut()
                await local.waiting(2 * tries - 1)
                local.dialer.kick()
                reason = await local.waiting(2 * tries)
            else:
                local.ear.fails = local.fails
                local.ear.wire.send(Request(1, "SYNC", "local-1", "-", b"{}"))
                server.end.say(Error("gone", b'{"message":"x"}'))
                if where == "closed":
                    server.end.cut()
                reason = await local.waiting(tries)
            if where == "closed":
                assert reason == "the connection was cut"
            elif known:
                assert reason == "the root r is led by x"
            else:
                assert reason == "a bug in this server: ValueError, see its log"
            assert ("Traceback" in caplog.text) is not known
            local.fails = {}
            local.dialer.kick()
            await local.connected()


# Stopping


@on_clock
async def test_a_dialer_that_was_never_started() -> None:
    await Local(1).dialer.stop()


@on_clock
async def test_stopping_in_each_state() -> None:
    bound, port = nobody()
    async with dialing(port):
        pass
    async with dialing(port) as local:
        await settle()
    async with dialing(port) as local:
        await local.waiting()
    bound.close()
    server = Global()
    async with server.running():
        server.greets = False
        async with dialing(server.port) as local:
            await until(lambda: server.ends and server.end.texts)
            assert local.dialer.state == "connecting"
        await until(lambda: server.end.gone)
        server.raw = b"HTTP/1.1 101 "
        async with dialing(server.port) as local:
            await until(lambda: len(server.ends) == 2)
            await settle()
            assert local.dialer.state == "connecting"
        await until(lambda: server.end.gone)
        server.raw, server.greets = None, True
        for turns in range(40):
            async with dialing(server.port) as local:
                for _ in range(turns):
                    await asyncio.sleep(0)


# Proxies, and a real server


@on_clock
async def test_through_a_proxy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Global().running() as server, Middleman(GRANTED).running() as middleman:
        proxy = Proxy.parse(f"http://eve:{SECRET}@127.0.0.1:{middleman.port}")
        async with dialing(server.port, proxy=proxy) as local:
            await local.connected()
            assert local.dialer.address == f"127.0.0.1:{server.port}"
            server.end.say(Error("gone", b'{"message":"x"}'))
            await until(lambda: local.ear.messages)
            server.end.cut()
            await local.waiting()
            local.dialer.kick()
            await local.connected()
            assert len(middleman.heads) == 2
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    async with Middleman(refusal, then="hang up").running() as middleman:
        proxy = Proxy("127.0.0.1", middleman.port, "eve", SECRET)
        async with dialing(1, host="global", proxy=proxy) as local:
            assert await local.waiting() == (
                f"the proxy 127.0.0.1:{middleman.port} answers 407 Proxy Authentication Required: "
                "it does not take these credentials"
            )
    assert SECRET not in caplog.text


@on_clock
async def test_a_real_server(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    service = await loop.run_in_executor(None, lambda: Service(tmp_path, "-t", "global"))
    async with dialing(service.port) as local:
        await local.connected()
        assert local.dialer.peer == local.acks[0].tega_id == "global"
        wire = local.ear.wire
        wire.send(Request(1, "TX", "local-1", "-", b'{"ops":[{"ope":"GET","path":"nothing"}]}'))
        await until(lambda: local.ear.messages)
        answer = local.ear.messages[0]
        assert isinstance(answer, Response)
        assert not answer.error
        async with dialing(service.port) as other:
            await other.connected()
            assert "taken over" in await local.waiting()
            assert local.dice.rolls == [(15.0, 30.0)]
        local.dialer.kick()
        await local.connected()
        ended = await loop.run_in_executor(None, service.end)
        assert ended[0] == 0
        assert "(1001)" in await local.waiting(2)
        local.dialer.kick()
        assert await local.waiting(3) == "Connection refused"
