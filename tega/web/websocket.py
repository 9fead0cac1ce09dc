"""``/_pubsub``: WebSocket connections, each with a session at its end."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Iterator, Mapping
from typing import Final

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from tega.access.policy import digest_in
from tega.access.who import Who
from tega.errors import Malformed, TooLarge
from tega.protocol.frames import (
    CLOSE,
    NORMAL,
    PING,
    TEXT,
    TOO_BIG,
    Frame,
    Reader,
    Violation,
    accept_value,
    close_frame,
    frame,
)
from tega.protocol.frames import PONG as _PONG
from tega.web.context import Context
from tega.web.door import address_of
from tega.web.outbox import Outbox
from tega.web.session import ServerSession
from tega.web.streams import CHUNK, Stream, TornadoStream, take_over

log = logging.getLogger(__name__)

#: Room for what a message has beside the value in it.
_MORE: Final = 1 << 16

#: Most bytes of a message from another server: a commit may have many values.
_MAX_PEER: Final = 1 << 28

#: So long a client may take to close its end of the connection too, seconds.
_PARTING: Final = 2.0


class WebSockets:
    """Takes WebSocket connections.

    :param max_body: most bytes of a value, and so about those of a message
    """

    def __init__(self, context: Context, max_body: int) -> None:
        self._context = context
        self._limit = max_body + _MORE
        self._buffer = bytearray(CHUNK)
        self._tasks: set[asyncio.Task[None]] = set()
        #: How many have been answered, and have no session yet.
        self.opening = 0

    def accept(
        self, method: str, headers: HTTPHeaders, connection: HTTP1Connection, who: Who
    ) -> None:
        """Go on as a WebSocket, where a request asks for that as it should.

        :raises Malformed: where it does not
        :raises Unauthorized: where whoever asks could do nothing with it
        :raises OverLimit: where there are too many
        """
        key = _checked_key(method, headers)
        if who.helpless:
            raise who.refused("have a session")
        self._context.sessions.check_room(self.opening)
        answer = HTTPHeaders(
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": accept_value(key),
            }
        )
        answered = connection.write_headers(
            ResponseStartLine("HTTP/1.1", 101, "Switching Protocols"), answer
        )
        address, token = address_of(connection), digest_in(headers.get("Authorization"))
        stream = connection.detach()
        # A small answer must not wait until the one before it is acknowledged.
        stream.set_nodelay(True)
        self.opening += 1
        serving = self._serve(answered, stream, who, token, address)
        task = asyncio.get_running_loop().create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self,
        answered: Awaitable[None],
        stream: IOStream,
        who: Who,
        token: str | None,
        address: str,
    ) -> None:
        begun = False

        def opened(stream: Stream) -> _Connection:
            nonlocal begun
            begun = True
            self.opening -= 1
            return _Connection(self._context, stream, self._limit, who, token, address)

        try:
            await answered
            if isinstance(stream, SSLIOStream):
                await TornadoStream(stream).run(opened)
            else:
                await take_over(stream, opened, self._buffer)
        except (StreamClosedError, OSError) as error:
            log.info("%s is gone before its session could begin: %s", address, error)
        finally:
            if not begun:
                self.opening -= 1


def _checked_key(method: str, headers: Mapping[str, str]) -> str:
    """The key of a handshake (RFC 6455, section 4.2.1).

    :raises Malformed: where it is none
    """
    if (
        method != "GET"
        or "upgrade" not in headers.get("Connection", "").lower()
        or headers.get("Upgrade", "").lower() != "websocket"
    ):
        raise Malformed(
            "a WebSocket begins with GET, 'Connection: Upgrade' and 'Upgrade: websocket'"
        )
    if headers.get("Sec-WebSocket-Version") != "13":
        raise Malformed("Sec-WebSocket-Version: this server speaks version 13")
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        if len(base64.b64decode(key, validate=True)) == 16:
            return key
    except ValueError:
        pass
    raise Malformed("Sec-WebSocket-Key: it holds 16 bytes in base 64")


class _Connection:
    """One connection: takes frames until it ends."""

    __slots__ = (
        "_closing", "_deaf", "_frames", "_loop", "_outbox", "_reader", "_stream", "_turns",
        "session",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        stream: Stream,
        limit: int,
        who: Who,
        token: str | None,
        address: str,
    ) -> None:
        self._stream = stream
        self._reader = Reader(limit)
        self._loop = asyncio.get_running_loop()
        self._closing = False
        # Whether what comes does not count any more.
        self._deaf = False
        self._frames: Iterator[Frame] = iter(())
        self._turns = context.sessions.outboxes.turns
        self._outbox = Outbox(stream, context.sessions.outboxes, self._drained)
        self.session = ServerSession(
            context, self._outbox, self._hang_up, self._widen, who, token, address
        )

    def _widen(self) -> None:
        self._reader.limit = _MAX_PEER

    def _drained(self) -> None:
        self.session.drained()

    def _hang_up(self, code: int, reason: str) -> None:
        """Say goodbye, and leave the client a moment to say it too."""
        if self._closing:
            return
        self._closing = True
        self._outbox.end(close_frame(code, reason))
        self._loop.call_later(_PARTING, self._stream.close)

    # -- what the stream calls ------------------------------------------------------------------

    def take(self, chunk: bytes) -> None:
        if not self._deaf:
            self._frames = self._reader.feed(chunk)
            self._go_on()

    def drained(self) -> None:
        self._outbox.taken()

    def lost(self) -> None:
        self._deaf = True
        self.session.ended()
        self._outbox.taken()

    # -- what comes -----------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take the frames that are there, unless the client has to wait."""
        session = self.session
        now = session.heard = self._loop.time()
        until = now + self._turns.length
        try:
            for opcode, payload in self._frames:
                if opcode == TEXT:
                    assert isinstance(payload, str)
                    session.receive(payload)
                elif opcode == PING:
                    assert isinstance(payload, bytes)
                    self._outbox.send(frame(payload, _PONG))
                elif opcode == CLOSE:
                    self._hang_up(NORMAL, "")
                    self._stream.close()
                    return
                wait = session.room()
                if wait is None and self._loop.time() > until:
                    # One that sends much must not hold up the others.
                    wait = self._turns.next()
                if wait is not None:
                    self._stream.pause()
                    wait.add_done_callback(self._resume)
                    return
        except Violation as error:
            # Closed with something unread, the connection would be reset, and the code lost.
            self._deaf = True
            log.info("session %s is cut: %s", session.tega_id, error.reason)
            if error.code == TOO_BIG:
                session.note_refusal(TooLarge(error.reason), "a message")
            session.close(error.code, error.reason)

    def _resume(self, _: asyncio.Future[None]) -> None:
        if not self._stream.closed():
            self._stream.resume()
            self._go_on()
