"""The way out: a local server connects to its global one, and again whenever it must."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, Literal, TypeAlias

from tega import strictjson
from tega.driver.causes import cause, is_distrust
from tega.driver.credentials import Credentials, Endpoint
from tega.driver.exchange import where
from tega.driver.proxy import Proxy
from tega.driver.websocket import HandshakeRefused, WebSocket
from tega.errors import TegaError
from tega.peering.wire import Receiver, Wire
from tega.protocol import Connection, Error, Message, Role, Session, SessionAck

log = logging.getLogger(__name__)

#: Most seconds before the first try to reconnect, and before any further one.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0

#: A connection that lasted so long, in seconds, was a good one: the pauses begin anew.
GOOD: Final = 30.0

#: The server closes with these where the next try will hardly end otherwise: another connection
#: has taken over the tega id; what came was not the protocol; the credential counts no more.
_HOPELESS: Final = (4001, 4003, 4004)

#: It answers the handshake with these where the token is not right, or not enough.
_DENIED: Final = (401, 403)

#: Most characters of what the other server says that are shown.
_SHOWN: Final = 200

State: TypeAlias = Literal["connecting", "connected", "waiting"]

#: Is told of a connection, and gives what it is read by.
Connected: TypeAlias = Callable[[Wire, SessionAck], Receiver]


class Dialer:
    """Has a connection to another server, over and over, until it is stopped.

    :param tega_id: this server's
    :param connected: is called with each connection; where it raises, that one is closed
    :param proxy: connect through this one
    :param credentials: gives what to connect with, anew for each try; where it raises, that one
        has failed
    :param ping_interval: a server that is silent for so long is pinged, seconds
    :param ping_timeout: one that is silent for so long is gone, seconds
    :param random: spreads the tries, so that not all locals come back at the same time
    :param timeout: seconds to connect, and as many for the greeting
    :ivar state: whether it tries, has a connection, or waits before the next try
    :ivar reason: why there is no connection, for people; None where there is one, or no try yet
    :ivar since: when it was last connected or disconnected, seconds of the event loop's clock
    :ivar peer: the tega id of the server that answered last
    :ivar address: host and port that it connects to
    """

    def __init__(
        self,
        host: str,
        port: int,
        tega_id: str,
        connected: Connected,
        *,
        proxy: Proxy | None,
        credentials: Callable[[], Credentials] = Credentials,
        ping_interval: float,
        ping_timeout: float,
        random: Random,
        timeout: float = 10.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connected = connected
        self._random = random
        self._host = host
        self._port = port
        self._proxy = proxy
        self._credentials = credentials
        self._timeout = timeout
        self._line = functools.partial(
            _Line, tega_id, self._greeted, timeout, ping_interval, ping_timeout
        )
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.address = where(host, port)
        self.state: State = "waiting"
        self.reason: str | None = None
        self.since = self._loop.time()
        self.peer: str | None = None

    def start(self) -> None:
        """Connect, and stay connected."""
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """End the connection, and try no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            self._change("waiting", "stopped")

    def kick(self) -> None:
        """Try at once, where it waits before the next try."""
        self._wake.set()

    async def _run(self) -> None:
        most = FIRST_PAUSE
        while True:
            self._change("connecting", self.reason)
            line = self._line()
            await line.run(self._open)
            least = 0.0
            if line.hopeless:
                least, most = LONGEST_PAUSE / 2, LONGEST_PAUSE
            elif self.state == "connected" and self._loop.time() - self.since > GOOD:
                most = FIRST_PAUSE
            # The same is not told again and again.
            level = logging.DEBUG if line.reason == self.reason else logging.WARNING
            log.log(level, "no connection to %s, trying again: %s", self.address, line.reason)
            self._change("waiting", line.reason)
            await self._pause(self._random.uniform(least, most))
            most = min(2 * most, LONGEST_PAUSE)

    async def _open(self, **callbacks: Any) -> WebSocket:
        endpoint = Endpoint(self._host, self._port, self._credentials())
        endpoint.warn()
        return await WebSocket.connect(
            self._host, self._port, "/_pubsub", timeout=self._timeout, proxy=self._proxy,
            credentials=endpoint.credentials, **callbacks,
        )  # fmt: skip

    def _greeted(self, wire: Wire, ack: SessionAck) -> Receiver:
        self.peer = ack.tega_id
        receiver = self._connected(wire, ack)
        self._change("connected", None)
        log.info("connected to %s at %s", ack.tega_id, self.address)
        return receiver

    def _change(self, state: State, reason: str | None) -> None:
        if (state == "connected") is not (self.state == "connected"):
            self.since = self._loop.time()
        self.state, self.reason = state, reason

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        timer = self._loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()


class _Line:
    """One connection, from the first byte to the last: the `Wire` of its receiver.

    :ivar reason: why it is over, once it is
    :ivar hopeless: whether the next one will hardly fare better
    """

    _socket: WebSocket

    def __init__(
        self,
        tega_id: str,
        greeted: Connected,
        timeout: float,
        ping_interval: float,
        ping_timeout: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._tega_id = tega_id
        self._greeted = greeted
        self._timeout = timeout
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._pinged = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._connection = Connection(Role.CLIENT)
        self._receiver: Receiver | None = None
        self._over = asyncio.Event()
        self.reason = ""
        self.hopeless = False

    async def run(self, connect: Callable[..., Awaitable[WebSocket]]) -> None:
        """Connect, and stay until it is over; cancelled, take leave."""
        try:
            self._socket = await connect(
                on_text=self._text,
                on_pong=lambda payload: None,
                on_closed=self._closed,
                on_drained=self._drained,
            )
        except HandshakeRefused as error:
            self._end(_shown(str(error)), hopeless=error.status in _DENIED)
            return
        except TegaError as error:
            self._end(str(error), hopeless=True)
            return
        except OSError as error:
            self._end(cause(error), hopeless=is_distrust(error))
            return
        except Exception as error:
            # Such as that of a host name that cannot be one.
            self._end(f"{type(error).__name__}: {error}")
            return
        self._timer = self._loop.call_later(self._timeout, self._end, "no answer to SESSION")
        try:
            self.send(Session(self._tega_id, "global"))
            await self._over.wait()
        finally:
            self._end("this server hangs up")
            self._timer.cancel()
            await self._socket.close()

    def _end(self, reason: str, hopeless: bool = False) -> None:
        """It is over, or shall be. What is said first counts."""
        if not self._over.is_set():
            self._over.set()
            self.reason, self.hopeless = reason, hopeless

    # -- what the receiver uses -----------------------------------------------------------------

    @property
    def backlog(self) -> int:
        return self._socket.backlog

    def send(self, message: Message) -> None:
        """See `Wire`.

        :raises NotUnderstood: for a message that may not come now; it is not sent
        """
        if not self._over.is_set():
            self._socket.send(self._connection.send(message))

    def close(self, reason: str) -> None:
        self._end(reason)

    # -- what the WebSocket calls ---------------------------------------------------------------

    def _text(self, text: str) -> None:
        if not self._over.is_set():
            self._guarded(self._take, text)

    def _take(self, text: str) -> None:
        message = self._connection.receive(text)
        if self._receiver is not None:
            self._receiver.receive(message)
        elif isinstance(message, SessionAck):
            self._receiver = self._greeted(self, message)
            self._look()
        elif isinstance(message, Error):
            said = strictjson.loads(message.body).get("message", message.code)
            self._end(f"it refuses the session: {_shown(str(said))}", hopeless=True)

    def _drained(self) -> None:
        if self._receiver is not None and not self._over.is_set():
            self._guarded(self._receiver.drained)

    def _closed(self, code: int | None, said: str) -> None:
        why = "the connection was cut"
        if code is not None:
            why = f"it has closed the connection: {_shown(said) or 'no reason given'} ({code})"
        self._end(why, hopeless=code in _HOPELESS)
        if self._receiver is not None:
            try:
                self._receiver.closed(self.reason)
            except Exception:
                log.exception("a bug: the end of a connection is not dealt with")

    def _guarded(self, work: Callable[..., None], *args: Any) -> None:
        """Do what may fail, and with it this connection, but nothing else."""
        try:
            work(*args)
        except TegaError as error:
            self._end(_shown(str(error)))
        except Exception as error:
            log.exception("a bug: the connection is closed")
            self._end(f"a bug in this server: {type(error).__name__}, see its log")

    # -- signs of life --------------------------------------------------------------------------

    def _look(self) -> None:
        """See whether the server is still there, and when to look again."""
        now, heard = self._loop.time(), self._socket.heard
        due, gone = heard + self._ping_interval, heard + self._ping_timeout
        if now >= due:
            # Where this process itself was held up, it has not asked.
            if now >= gone and self._pinged > heard:
                self._end(f"it was silent for {now - heard:.0f} s")
                self._socket.abort()
                return
            self._socket.ping()
            self._pinged = now
            due = now + self._ping_interval
        assert self._timer is not None
        self._timer.cancel()
        self._timer = self._loop.call_at(min(due, gone) if now < gone else due, self._look)


def _shown(text: str) -> str:
    """What another server says, as one line that is not too long."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_SHOWN]).split())
