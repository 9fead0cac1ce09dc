"""The WebSocket client against hand-made bytes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from scripted import PATIENCE, on_loop

from tega.driver import websocket as module
from tega.driver.room import Room
from tega.driver.websocket import WebSocket, within


class End:
    """The other end of a connection, behind the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: first byte and payload; a client masks it."""
        first, size = await self.reader.readexactly(2)
        assert size & 0x80
        size &= 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        return first, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Client:
    """A WebSocket, and what has come of it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.closed: asyncio.Future[tuple[int | None, str]] = (
            asyncio.get_running_loop().create_future()
        )
        self.came = asyncio.Event()
        self.socket: WebSocket

    def on_text(self, text: str) -> None:
        self.texts.append(text)
        self.came.set()

    def on_pong(self, payload: bytes) -> None:
        self.on_text(f"pong {payload.decode()}")

    def on_closed(self, code: int | None, reason: str) -> None:
        self.closed.set_result((code, reason))

    async def until(self, count: int) -> list[str]:
        while len(self.texts) < count:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), PATIENCE)
        return self.texts


@asynccontextmanager
async def opened(also: bytes = b"") -> AsyncIterator[tuple[End, Client]]:
    """A connection; `also` comes in one piece with the handshake."""
    ends: asyncio.Queue[End] = asyncio.Queue()

    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("GET /there HTTP/1.1\r\n")
        key = head.partition("Sec-WebSocket-Key: ")[2].split("\r\n")[0]
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(f"{key}{guid}".encode()).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept + also
        )
        await ends.put(End(reader, writer))

    server = await asyncio.start_server(shake, "127.0.0.1", 0)
    client = Client()
    client.socket = await WebSocket.connect(
        "127.0.0.1", server.sockets[0].getsockname()[1], "/there",
        client.on_text, client.on_pong, client.on_closed, PATIENCE,
    )  # fmt: skip
    end = await ends.get()
    try:
        yield end, client
    finally:
        client.socket.abort()
        end.writer.close()
        server.close()
        await asyncio.wait_for(client.closed, PATIENCE)


def frame(first: int, payload: bytes) -> bytes:
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


TEXT = frame(0x81, b"hello")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000])
@on_loop
async def test_messages_of_any_size_both_ways(size: int) -> None:
    async with opened() as (end, client):
        client.socket.send("é" + "x" * size)
        assert await end.frame() == (0x81, "é".encode() + b"x" * size)
        end.writer.write(frame(0x81, "é".encode() + b"x" * size) + TEXT)
        assert await client.until(2) == ["é" + "x" * size, "hello"]


@on_loop
async def test_what_one_turn_sends_goes_out_together_and_masked_anew() -> None:
    async with opened() as (end, client):
        for text in "abc":
            client.socket.send(text)
        data = await end.reader.read(1000)
        assert len(data) == 21
        assert len({data[2:6], data[9:13], data[16:20]}) == 3


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@on_loop
async def test_frames_in_pieces(step: int) -> None:
    whole = (
        frame(0x01, b"one, ") + frame(0x89, b"ping") + frame(0x00, b"two") + frame(0x80, b"!")
        + frame(0x8A, b"") + frame(0x81, b"y" * 200)
    )  # fmt: skip
    async with opened(TEXT + whole[:1]) as (end, client):
        for at in range(1, len(whole), step):
            end.writer.write(whole[at : at + step])
            await end.writer.drain()
            await asyncio.sleep(0)
        assert await client.until(4) == ["hello", "one, two!", "pong ", "y" * 200]
        assert await end.frame() == (0x8A, b"ping")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(0x82, b"binary"), 1003),
        (frame(0xC1, b"reserved bit"), 1002),
        (frame(0x83, b"reserved opcode"), 1002),
        (frame(0x80, b"continues nothing"), 1002),
        (frame(0x01, b"begun") + TEXT, 1002),
        (frame(0x09, b"a fragmented ping"), 1002),
        (frame(0x81, b"\xff"), 1007),
        (bytes((0x81, 0x85)) + bytes(9), 1002),
        (bytes((0x81, 127)) + bytes((0xFF,)) * 8, 1009),
        (struct.pack("!BBQ", 0x81, 127, module.MAX_MESSAGE + 1), 1009),
    ],
)
@on_loop
async def test_what_is_no_message(sent: bytes, code: int) -> None:
    async with opened() as (end, client):
        end.writer.write(TEXT + sent + TEXT)
        assert await end.frame() == (0x88, struct.pack("!H", code))
        assert await end.reader.read() == b""
        assert client.texts == ["hello"]
        assert await client.closed == (None, "")


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (struct.pack("!H", 4001) + b"taken over", (4001, "taken over")),
        (struct.pack("!H", 1000) + b"\xff", (1000, "�")),
        (b"", (1005, "")),
    ],
)
@on_loop
async def test_the_server_takes_leave(payload: bytes, told: Any) -> None:
    async with opened() as (end, client):
        end.writer.write(TEXT + frame(0x88, payload) + TEXT)
        assert await end.frame() == (0x88, struct.pack("!H", 1000))
        assert await end.reader.read() == b""
        assert await client.closed == told
        assert client.texts == ["hello"]


@on_loop
async def test_leaving_sends_what_is_to_be_sent() -> None:
    async with opened() as (end, client):
        client.socket.send("last")
        closing = asyncio.create_task(client.socket.close())
        assert await end.frame() == (0x81, b"last")
        assert await end.frame() == (0x88, struct.pack("!H", 1000))
        assert not closing.done(), "the server may have something to say"
        end.writer.write(TEXT)
        end.writer.close()
        await closing
        assert client.texts == []
        client.socket.send("more")


@on_loop
async def test_a_server_that_does_not_take_leave_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAVE", 0.05)
    async with opened() as (end, client):
        await client.socket.close()
        assert await client.closed == (None, "")
        assert await end.frame() == (0x88, struct.pack("!H", 1000))


@on_loop
async def test_congestion() -> None:
    async with opened() as (end, client):
        assert not client.socket.congested
        for _ in range(100):
            client.socket.send("x" * 300_000)
        await asyncio.sleep(0)
        assert client.socket.congested
        drained = asyncio.create_task(client.socket.drained())
        for _ in range(100):
            assert len((await end.frame())[1]) == 300_000
        await asyncio.wait_for(drained, PATIENCE)
        assert not client.socket.congested


@on_loop
async def test_work_within_a_time() -> None:
    async def work() -> int:
        return 3

    assert await within(None, work()) == 3
    assert await within(PATIENCE, work()) == 3
    never = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await within(0.001, never)
    assert never.cancelled()
    waiting = asyncio.create_task(within(PATIENCE, asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@on_loop
async def test_a_room_has_so_many_places() -> None:
    room = Room(2)
    inside: list[int] = []
    go = asyncio.Event()

    async def visit(number: int) -> None:
        async with room:
            inside.append(number)
            await go.wait()

    visits = [asyncio.create_task(visit(number)) for number in range(6)]
    await asyncio.sleep(0)
    assert inside == [0, 1]
    visits[2].cancel()
    visits[0].cancel()
    await asyncio.sleep(0)
    # The place is given to the next one, who has changed his mind when he hears of it.
    visits[3].cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert inside == [0, 1, 4]
    go.set()
    await asyncio.gather(*visits, return_exceptions=True)
    assert inside == [0, 1, 4, 5]
