"""A WebSocket client: RFC 6455 on asyncio, as much of it as tega's protocol has use for.

Tornado's client makes a system call and a task for each message that it sends, and takes none of
more than 100 MB. Here all that one turn of the event loop sends is written at one go, and the only
limit to a message is `MAX_MESSAGE`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from tega import strictjson
from tega.driver.credentials import HANDSHAKE, SILENT, Credentials
from tega.driver.exchange import where
from tega.driver.proxy import Proxy, reach
from tega.errors import Malformed
from tega.protocol.frames import (
    CLOSE,
    NORMAL,
    PING,
    PONG,
    TEXT,
    Reader,
    Violation,
    accept_value,
    masked_frame,
)

T = TypeVar("T")

#: Most bytes of one message.
MAX_MESSAGE: Final = 1 << 30

#: Most bytes of the answer to the handshake, its headers and some of its body.
_MAX_ANSWER: Final = 1 << 16

#: Seconds that the server has to take leave.
_LEAVE: Final = 1.0


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """What comes of some work, if it comes in time; otherwise the work is cancelled.

    `asyncio.wait_for` may overlook that it is cancelled itself, until Python 3.12.

    :raises TimeoutError: where it does not come in time
    """
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working}, timeout=seconds)
    finally:
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
        if not working.cancelled():
            # Seen, also where nobody is left to be told of it.
            working.exception()
    if working.cancelled():
        raise TimeoutError("timed out")
    return working.result()


class HandshakeRefused(ConnectionError):
    """The server answered, but not with a WebSocket.

    :ivar status: the HTTP status; None for what is no HTTP
    :ivar error: what the server says of it, as in the body of a refusal; empty where it does not
    """

    def __init__(
        self, message: str, status: int | None = None, error: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error or {}


class WebSocket(asyncio.Protocol):
    """One connection.

    :param on_text: is called with each message
    :param on_pong: is called with the payload of each pong, in order with the messages
    :param on_closed: is called once, when it is over, with the code and the reason that the server
        gave; a code of None: it gave none
    :param on_drained: is called when little is left of what was sent
    :ivar heard: when something came last, seconds of the event loop's clock
    """

    def __init__(
        self,
        on_text: Callable[[str], None],
        on_pong: Callable[[bytes], None],
        on_closed: Callable[[int | None, str], None],
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_text = on_text
        self._on_pong = on_pong
        self._on_closed = on_closed
        self._on_drained = on_drained
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Future[None] = self._loop.create_future()
        #: Until the handshake is done: its outcome.
        self._opening: asyncio.Future[None] | None = self._loop.create_future()
        self._key = base64.b64encode(os.urandom(16))
        # The server's part of the handshake; then, what came together with it.
        self._buffer = bytearray()
        self._reader = Reader(MAX_MESSAGE, masked=False)
        self._masks: Iterator[tuple[bytes]] = iter(())
        self._frames: list[bytes] = []
        # Bytes in them.
        self._unwritten = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._leaving = False
        self._code: int | None = None
        self._reason = ""
        self.heard = self._loop.time()

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        path: str,
        on_text: Callable[[str], None],
        on_pong: Callable[[bytes], None],
        on_closed: Callable[[int | None, str], None],
        timeout: float | None,
        *,
        proxy: Proxy | None = None,
        credentials: Credentials = Credentials(),  # noqa: B008 - it is frozen
        on_drained: Callable[[], None] = lambda: None,
    ) -> WebSocket:
        """Open one.

        Its callbacks are called from the first turn of the event loop after this one on.

        :param timeout: seconds for all of it; None: no limit
        :param proxy: connect through this one
        :raises HandshakeRefused: where the server has no WebSocket there
        :raises OSError: where there is no connection to be had, a ``TimeoutError`` among them
        """
        self = cls(on_text, on_pong, on_closed, on_drained)
        try:
            await within(timeout, self._open(host, port, path, proxy, credentials))
            if self._lost.done():
                raise ConnectionError("the server hung up")
        except BaseException:
            self.abort()
            raise
        # From here on what comes goes to the callbacks, but not before the caller has this.
        self._opening = None
        self._loop.call_soon(self._read, b"")
        return self

    async def _open(
        self, host: str, port: int, path: str, proxy: Proxy | None, credentials: Credentials
    ) -> None:
        await self._connect(host, port, proxy, credentials)
        assert self._transport is not None
        assert self._opening is not None
        more = "".join([f"{name}: {value}\r\n" for name, value in credentials.headers.items()])
        self._transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {where(host, port)}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {self._key.decode()}\r\n{more}\r\n".encode()
        )
        await self._opening

    async def _connect(
        self, host: str, port: int, proxy: Proxy | None, credentials: Credentials
    ) -> None:
        made = await reach(host, port, proxy)
        try:
            if credentials.tls is None:
                await self._loop.create_connection(lambda: self, sock=made)
                return
            shaking = self._loop.create_connection(
                lambda: self, sock=made, ssl=credentials.tls, server_hostname=host
            )
            try:
                await within(HANDSHAKE, shaking)
            except TimeoutError:
                raise TimeoutError(SILENT) from None
        except BaseException:
            made.close()
            raise

    # -- sending --------------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Send a message at the end of this turn of the event loop; none once it is closed."""
        self._send(TEXT, text.encode())

    def ping(self, payload: bytes = b"") -> None:
        """Ask for a sign of life; the pong comes behind the answers to what was sent before."""
        self._send(PING, payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._leaving:
            return
        if not self._frames:
            self._loop.call_soon(self._flush)
        frame = masked_frame(payload, self._mask(), opcode)
        self._frames.append(frame)
        self._unwritten += len(frame)

    def _mask(self) -> bytes:
        """Four random bytes."""
        for (mask,) in self._masks:
            return mask
        # So many at once: to ask for a few takes as long as all else about a small frame.
        self._masks = struct.iter_unpack("4s", os.urandom(1024))
        return self._mask()

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        self._unwritten = 0
        if frames and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(frames))
            if not self.congested:
                self._tell_drained()

    def _tell_drained(self) -> None:
        if not self._leaving:
            self._on_drained()

    @property
    def backlog(self) -> int:
        """Bytes that the network has still to take."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._unwritten + buffered

    @property
    def congested(self) -> bool:
        """Whether the network has much still to take."""
        return not self._writable.is_set()

    async def drained(self) -> None:
        """Wait until it has not, or the connection is over."""
        await self._writable.wait()

    # -- the end --------------------------------------------------------------------------------

    async def close(self) -> None:
        """Send what is still to be sent, take leave, and close."""
        self._leave(NORMAL)
        if self._transport is not None:
            with suppress(TimeoutError):
                await within(_LEAVE, asyncio.shield(self._lost))
        self.abort()
        if self._transport is not None:
            await self._lost

    def abort(self) -> None:
        """Close at once."""
        self._leaving = True
        if self._transport is not None:
            self._transport.abort()

    def _leave(self, code: int) -> None:
        self._send(CLOSE, struct.pack("!H", code))
        self._leaving = True
        self._flush()

    # -- what asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._leaving:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leaving = True
        self._writable.set()
        self._lost.set_result(None)
        if self._opening is None:
            self._on_closed(self._code, self._reason)
        elif not self._opening.done():
            self._opening.set_exception(
                exc if isinstance(exc, OSError) else ConnectionError("the server hung up")
            )

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self._tell_drained()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self._opening is None:
            self._read(data)
            return
        self._buffer += data
        if not self._opening.done():
            self._read_answer(self._opening)

    # -- reading --------------------------------------------------------------------------------

    def _read_answer(self, opening: asyncio.Future[None]) -> None:
        """The server's part of the handshake (RFC 6455, section 4.1)."""
        end = self._buffer.find(b"\r\n\r\n")
        room = len(self._buffer) < _MAX_ANSWER
        if end < 0 and room:
            return
        first, *lines = self._buffer[: max(end, 0)].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        protocol, _, rest = first.partition(" ")
        if not protocol.startswith("HTTP/1."):
            opening.set_exception(HandshakeRefused(f"no HTTP: {first[:64]!r}"))
        elif not rest.startswith("101"):
            body = self._buffer[end + 4 :]
            announced = headers.get("content-length", "")
            if room and announced.isdigit() and len(body) < int(announced):
                return
            opening.set_exception(_refusal(rest, body))
        elif headers.get("sec-websocket-accept") != accept_value(self._key.decode()):
            opening.set_exception(HandshakeRefused("its answer is that of no WebSocket server"))
        else:
            del self._buffer[: end + 4]
            opening.set_result(None)

    def _read(self, data: bytes) -> None:
        """Take what has come."""
        if self._buffer:
            # What came together with the answer.
            data = bytes(self._buffer) + data
            self._buffer.clear()
        try:
            for opcode, payload in self._reader.feed(data):
                if self._ended:
                    return
                self._received(opcode, payload)
        except Violation as error:
            self._fail(error.code)

    @property
    def _ended(self) -> bool:
        return self._code is not None or self._transport is None or self._transport.is_closing()

    def _received(self, opcode: int, payload: str | bytes) -> None:
        if isinstance(payload, str):
            if not self._leaving:
                self._on_text(payload)
        elif opcode == PING:
            self._send(PONG, payload)
        elif opcode == PONG:
            self._on_pong(payload)
        elif opcode == CLOSE:
            self._code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005
            self._reason = payload[2:].decode(errors="replace")
            self._leave(NORMAL)
            assert self._transport is not None
            self._transport.close()

    def _fail(self, code: int) -> None:
        """This is no WebSocket message, or one too large: say so, and hang up."""
        self._leave(code)
        if self._transport is not None:
            self._transport.close()


def _refusal(status_line: str, body: bytes | bytearray) -> HandshakeRefused:
    """Of an answer that is no WebSocket: its status, and what a tega server says of it."""
    status = int(status_line[:3]) if status_line[:3].isdigit() else None
    try:
        found = strictjson.loads(bytes(body))
    except Malformed:
        found = None
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return HandshakeRefused(f"no WebSocket: {status_line[:64]}", status)
    return HandshakeRefused(f"{status_line[:64]}: {error['message']}", status, error)
