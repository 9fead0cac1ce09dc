"""One connection of a session: the greeting, messages as values, and signs of life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http.client import responses
from typing import Any, Final

from tega import strictjson
from tega.driver import values
from tega.driver.causes import cause, reworded
from tega.driver.credentials import Endpoint
from tega.driver.errors import SessionException
from tega.driver.websocket import HandshakeRefused, WebSocket, within
from tega.errors import Malformed
from tega.protocol import (
    Connection,
    Error,
    Message,
    Publish,
    Response,
    Role,
    Session,
    SessionAck,
)

log = logging.getLogger(__name__)

#: The codes that a server closes a connection with for good: the tega id was taken over; what came
#: was not the protocol; the credential is not valid any more.
_FINAL: Final = {4001: "taken_over", 4003: "not_understood", 4004: "unauthorized"}

#: The refusals of a handshake that may have gone by the next one: too slow, too much.
_PASSING: Final = (408, 429)


class Refused(Exception):
    """The server will not have this session."""

    def __init__(self, refusal: SessionException) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Link:
    """A connection.

    :param received: is called with each message once it is open; may raise `Malformed`
    :param opened: is called when it is open
    :param ponged: is called with the payload of each pong
    :param lost: is called when it is over, if it was open, with the code and reason of its end
    :ivar down: done when it is over
    :ivar refusal: why there shall be no other one
    :ivar told: bytes of the largest body that was sent with anything but a request
    """

    socket: WebSocket

    def __init__(
        self,
        tega_id: str,
        endpoint: Endpoint,
        received: Callable[[Link, Message], None],
        opened: Callable[[Link, SessionAck], None],
        ponged: Callable[[bytes], None],
        lost: Callable[[Link, int | None, str], None],
    ) -> None:
        self._tega_id = tega_id
        self._endpoint = endpoint
        self._where = str(endpoint)
        self._received = received
        self._opened = opened
        self._ponged = ponged
        self._lost = lost
        self._connection = Connection(Role.CLIENT)
        self._loop = asyncio.get_running_loop()
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self.down: asyncio.Future[None] = self._loop.create_future()
        self.refusal: SessionException | None = None
        self.told = 0

    async def open(self, timeout: float, ping_interval: float, ping_timeout: float) -> None:
        """Connect, and begin the session.

        :param timeout: seconds for that
        :param ping_interval: a server that is silent for so long is pinged, seconds
        :param ping_timeout: one that is silent for so long is gone, seconds
        :raises OSError: where there is no connection to be had
        :raises Refused: where the server will not have the session
        """
        server = self._endpoint
        try:
            self.socket = await WebSocket.connect(
                server.host, server.port, "/_pubsub", self._text, self._ponged, self._closed,
                timeout, credentials=server.credentials,
            )  # fmt: skip
            try:
                self.send(Session(self._tega_id))
                await within(timeout, self._up)
            except BaseException:
                self.socket.abort()
                raise
        except HandshakeRefused as error:
            if error.status is None or error.status in _PASSING or error.status // 100 != 4:
                raise self._unreachable(error) from error
            raise Refused(self._refusal(error, error.status)) from error
        except OSError as error:
            raise self._unreachable(error) from error
        self._watch(ping_interval, ping_timeout)

    def _refusal(self, error: HandshakeRefused, status: int) -> SessionException:
        said = error.error or {"message": f"{self._where} offers no sessions"}
        return values.refusal(SessionException, said, status, responses.get(status, ""))

    def _unreachable(self, error: OSError) -> OSError:
        text = f"cannot connect to a tega server at {self._where}: {cause(error)}"
        if isinstance(error, HandshakeRefused):
            return ConnectionError(text)
        return reworded(error, text)

    def send(self, message: Message) -> None:
        """Send a message."""
        if isinstance(message, Publish | Response):
            self.told = max(self.told, len(message.body))
        self.socket.send(self._connection.send(message))

    async def close(self) -> None:
        """Take leave."""
        await self.socket.close()

    # -- what comes -----------------------------------------------------------------------------

    def _text(self, text: str) -> None:
        try:
            message = self._connection.receive(text)
            if isinstance(message, SessionAck):
                self._opened(self, message)
                if not self._up.done():
                    self._up.set_result(None)
            elif isinstance(message, Error) and self._ends(message):
                self.socket.abort()
            else:
                self._received(self, message)
        except Malformed as error:
            if text.startswith("RESPONSE "):
                # It has come before, or nobody waits for it any more.
                log.debug("%s: %s", self._where, error)
                return
            # What it was is lost. On a new connection it comes again.
            log.warning("%s sent what cannot be read, so connect anew: %s", self._where, error)
            self.socket.abort()

    def _ends(self, message: Error) -> bool:
        """Whether an error is the end of the session, or of this connection."""
        if self._up.done() and message.code != "taken_over":
            return False
        body: dict[str, Any] = strictjson.loads(message.body)
        refusal = values.refusal(SessionException, {**body, "code": message.code})
        if refusal.status is None or refusal.status < 500:
            self.refusal = refusal
        elif not self._up.done():
            self._up.set_exception(ConnectionError(str(refusal)))
        return True

    def _closed(self, code: int | None, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.refusal is None and code in _FINAL:
            self.refusal = SessionException(f"{self._where}: {reason}", code=_FINAL[code])
        if not self._up.done():
            self._up.set_exception(
                Refused(self.refusal)
                if self.refusal is not None
                else ConnectionError("the server hung up")
            )
        self._lost(self, code, reason)
        if not self.down.done():
            self.down.set_result(None)

    # -- signs of life --------------------------------------------------------------------------

    def _watch(self, interval: float, timeout: float) -> None:
        """Look now and then whether the server is still there."""
        due = self._loop.time() + interval / 2

        def look() -> None:
            now = self._loop.time()
            silent = now - self.socket.heard
            # Where this process itself was held up, what has come is only about to be read.
            if silent > timeout and now - due < interval:
                log.warning("%s was silent for %d s: connect anew", self._where, silent)
                self.socket.abort()
                return
            if silent >= interval / 2:
                self.socket.ping()
            self._watch(interval, timeout)

        if not self.down.done():
            self._timer = self._loop.call_at(due, look)
