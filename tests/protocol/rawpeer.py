"""A server in this process, and clients that send it frames made by hand."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tega.embedded import Database
from tega.log.memory import MemoryLog
from tega.server import Server
from tega.settings import Settings

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

#: Most seconds to wait for what must come.
PATIENCE = 20.0

_MASK = b"mask"


class Received(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes


class Cut(Exception):
    """The connection has ended without a close frame."""


@asynccontextmanager
async def serving(life: str = "9c41", **settings: Any) -> AsyncIterator[int]:
    """A server with an empty database in memory, on a free port, which it gives.

    :param settings: by name, ``_`` for ``-``
    """
    database = Database(MemoryLog(lambda: life), "global")
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    # The log is in memory: the directory is only named.
    given |= {"port": 0, "address": "127.0.0.1", "logdir": Path("unused")}
    server = Server(Settings(given), database)
    server.start()
    try:
        yield server.addresses[0][1]
    finally:
        await server.stop()


def masked(payload: bytes, opcode: int = TEXT, last: bool = True) -> bytes:
    """A frame as a client sends it."""
    size = len(payload)
    first = opcode | (0x80 if last else 0)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + _MASK + bytes([byte ^ _MASK[at % 4] for at, byte in enumerate(payload)])


class RawPeer:
    """A client that does nothing by itself: it answers no ping, and checks nothing.

    :ivar kept: frames that came while it waited for something else
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.kept: list[Received] = []
        self._barriers = 0

    @classmethod
    async def connect(cls, port: int) -> RawPeer:
        """Open a connection, and shake hands."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /_pubsub HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            .encode()
        )  # fmt: skip
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return cls(reader, writer)

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def say(self, text: str) -> None:
        """Send a message."""
        self.write(masked(text.encode()))

    async def hear(self) -> Received:
        """The next frame.

        :raises Cut: where the connection has ended
        """
        if self.kept:
            return self.kept.pop(0)
        return await asyncio.wait_for(self._frame(), PATIENCE)

    async def _frame(self) -> Received:
        try:
            first, size = await self._reader.readexactly(2)
            if size >= 126:
                wide = 2 if size == 126 else 8
                size = int.from_bytes(await self._reader.readexactly(wide), "big")
            return Received(first & 0x0F, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut from error

    async def settle(self) -> None:
        """Wait until the server has taken all that was sent, or has closed."""
        self._barriers += 1
        payload = b"barrier %d" % self._barriers
        self.write(masked(payload, PING))
        while (frame := await asyncio.wait_for(self._frame(), PATIENCE)) != (PONG, payload):
            self.kept.append(frame)
            if frame.opcode == CLOSE:
                return

    async def sent(self) -> None:
        """Wait until the network has taken all that was sent, but for a little."""
        await self._writer.drain()

    def read_no_more(self) -> None:
        """Take nothing from the network any more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def cut(self) -> None:
        """Hang up without a word."""
        self._writer.transport.abort()
