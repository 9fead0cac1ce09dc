"""What a WebSocket's bytes come and go by, once the handshake is over.

Without TLS that is the socket itself: Tornado's stream takes a chunk from it in several steps of
the event loop, which costs as much as to do what one of the messages in it asks for. TLS stays with
Tornado.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, cast

from tornado.iostream import IOStream, StreamClosedError

#: Bytes that are read at once.
CHUNK: Final = 1 << 16

#: Most chunks that may come before the handshake is answered: who waits for that has sent none.
_MOST_EARLY: Final = 16


class End(Protocol):
    """Who uses a stream."""

    def take(self, chunk: bytes) -> None:
        """Something has come."""

    def drained(self) -> None:
        """The other end has taken all that was written."""

    def lost(self) -> None:
        """The connection is over."""


class Stream(Protocol):
    """A connection that takes bytes."""

    def write(self, data: bytes) -> None:
        """Send; where the connection is over, that is lost without a word."""

    @property
    def unsent(self) -> int:
        """Bytes of what was written that the other end has still to take."""

    def pause(self) -> None:
        """Take nothing from the other end until `resume`."""

    def resume(self) -> None:
        """Go on after `pause`."""

    def close(self) -> None:
        """End it, now, and drop what is not sent."""

    def closed(self) -> bool:
        """Whether it is over."""


#: Makes who uses a stream.
Opened: TypeAlias = Callable[[Stream], End]


class PlainStream(asyncio.BufferedProtocol):
    """A socket without TLS.

    :param opened: makes who gets what comes
    :param buffer: to read into, `CHUNK` bytes: all streams of an event loop share one
    :param early: what has come already
    """

    _transport: asyncio.Transport
    _end: End

    def __init__(self, opened: Opened, buffer: bytearray, early: bytes) -> None:
        self._opened = opened
        self._buffer = buffer
        self._early = early
        self._full = False
        self._closed = False

    # -- as a stream ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._transport.write(data)

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._full else 0

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        self._closed = True
        self._transport.abort()

    def closed(self) -> bool:
        return self._closed

    # -- what asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # So that it is known at once when there is something to wait for, and when no more.
        self._transport.set_write_buffer_limits(0)
        self._end = self._opened(self)
        if self._early:
            # Not now: a pause before reading has begun would not be one in Python 3.10.
            asyncio.get_running_loop().call_soon(self._end.take, self._early)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._end.take(bytes(memoryview(self._buffer)[:nbytes]))

    def eof_received(self) -> None:
        # Who sends no more is gone: a WebSocket has no half that stays open.
        self.close()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._end.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._full = False
        self._end.lost()


class TornadoStream:
    """A stream of Tornado's: one with TLS."""

    _end: End

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._unsent = 0
        self._pause: asyncio.Future[None] | None = None

    async def run(self, opened: Opened) -> None:
        """Read until it is over."""
        end = self._end = opened(self)
        try:
            while True:
                chunk = await self._stream.read_bytes(CHUNK, partial=True)
                end.take(chunk)
                # What this has caused goes out first; who waits for an answer has sent no more.
                await asyncio.sleep(0)
                while self._pause is not None:
                    await self._pause
        except StreamClosedError:
            return
        finally:
            self._stream.close()
            end.lost()

    def write(self, data: bytes) -> None:
        try:
            written: asyncio.Future[None] = self._stream.write(data)
        except StreamClosedError:
            return
        if not written.done():
            size = len(data)
            self._unsent += size
            written.add_done_callback(lambda done: self._taken(done, size))

    def _taken(self, done: asyncio.Future[Any], size: int) -> None:
        self._unsent -= size
        gone = done.cancelled() or done.exception() is not None
        if not gone and not self._unsent:
            self._end.drained()

    @property
    def unsent(self) -> int:
        return self._unsent

    def pause(self) -> None:
        self._pause = self._loop.create_future()

    def resume(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None and not pause.done():
            pause.set_result(None)

    def close(self) -> None:
        # Where it waits, it reads on, and finds that it is over.
        self._stream.close()
        self.resume()

    def closed(self) -> bool:
        return self._stream.closed()


async def take_over(stream: IOStream, opened: Opened, buffer: bytearray) -> None:
    """Go on with the socket of one of Tornado's streams, which is without TLS.

    :raises StreamClosedError: where it is over already
    :raises OSError: where there is no descriptor left
    """
    early: list[bytes] = []
    try:
        while (reading := asyncio.ensure_future(stream.read_bytes(CHUNK, partial=True))).done():
            early.append(reading.result())
            if len(early) > _MOST_EARLY:
                raise StreamClosedError
        # Nobody waits for what it would come to.
        reading.add_done_callback(lambda reading: reading.exception())
        made = stream.socket.dup()
    finally:
        stream.close()
    await asyncio.get_running_loop().connect_accepted_socket(
        lambda: PlainStream(opened, buffer, b"".join(early)), made
    )
