"""A session: one WebSocket to a server, made anew whenever it is lost.

What a program asked for outlives a connection. After a reconnect the session puts its ephemeral
nodes again, subscribes from where it was, and sends again what has no answer yet and may be sent
twice: reads, and transactions, each of which has an id under which the server does it once at most.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import uuid4

from tega import strictjson
from tega.driver import values
from tega.driver.causes import is_distrust
from tega.driver.credentials import Endpoint
from tega.driver.ephemerals import Ephemerals, Operation
from tega.driver.errors import CRUDException, SessionException, SubscriptionException
from tega.driver.functions import Functions
from tega.driver.link import Link, Refused
from tega.driver.listeners import Callbacks
from tega.driver.requests import Asked, Requests
from tega.driver.subscriptions import Subscriptions
from tega.errors import NoPeer, NotUnderstood, OverLimit
from tega.protocol import (
    Error,
    Message,
    Notify,
    Publish,
    PubSubMessage,
    Request,
    Response,
    Rollback,
    SessionAck,
    Subscribe,
    Unsubscribe,
)

log = logging.getLogger(__name__)

#: Seconds before a second try to reconnect, and most of them before any further one.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0

#: Seconds until a node whose leader is away is put once more.
_AWHILE: Final = 1.0

#: A connection that lasted so long, in seconds, was a good one: the next is tried at once.
_GOOD: Final = 5.0

#: Most messages to publish that wait for a connection.
_MAX_PUBLICATIONS: Final = 10_000


def pauses() -> Iterator[float]:
    """How long to wait before each try to connect, seconds: not all clients at the same time."""
    yield 0.0
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311  # no secret: it only spreads retries
        pause = min(2 * pause, LONGEST_PAUSE)


class Session:
    """A client's session. All of it happens on one event loop, that of `start` or `run`.

    :param timeout: most seconds to wait for an answer, and for a connection; None: no limit
    :param subscriber: is called back with what it subscribes to
    :param ping_interval: a server that is silent for so long is pinged, seconds
    :param ping_timeout: one that is silent for so long is gone, seconds
    :param on_ready: is called when a connection is there, and when it is there no more
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tega_id: str,
        *,
        timeout: float | None = 60.0,
        subscriber: Any = None,
        ping_interval: float = 10.0,
        ping_timeout: float = 30.0,
        on_ready: Callable[[bool], None] = lambda ready: None,
    ) -> None:
        self.tega_id = tega_id
        self._endpoint = endpoint
        self._where = where = str(endpoint)
        self._patience = min(ping_timeout, timeout or ping_timeout)
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._on_ready = on_ready
        self._id = uuid4().hex
        self._transactions = 0
        self._requests = Requests(where, timeout)
        self._ephemerals = Ephemerals()
        #: Whether they are too much to be put again in one transaction.
        self._apart = False
        self.functions = Functions(tega_id, self.transact)
        self.subscriptions = Subscriptions(self._send, self._ping)
        self.callbacks: Callbacks | None = None
        if subscriber is not None:
            self.callbacks = Callbacks(subscriber, self.subscriptions.go_on)
        self._publications: list[Publish] = []
        self._link: Link | None = None
        self._starting = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None
        self._calling: asyncio.Task[None] | None = None
        #: Why it is over, where that is for good.
        self.failure: Exception | None = None
        #: Makes what every request gets, where there is no session.
        self._over: Callable[[str], Exception] | None = self._not_connected

    # -- beginning and end ----------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and from then on stay connected until `close`.

        :raises OSError: where there is no connection to be had
        :raises SessionException: where the server refuses the session
        """
        async with self._starting:
            if self._runs:
                return
            await self.close()
            self._begin()
            try:
                link = await self._connect()
            except BaseException:
                await self.close()
                raise
            self._keeping = asyncio.get_running_loop().create_task(self._keep(link))

    async def run(self) -> None:
        """Connect and stay connected, until cancelled or `stop`; try for ever where it must.

        :raises SessionException: where the server refuses the session or ends it for good
        :raises ssl.SSLError: where one end does not take the other's certificate, at the beginning
        :raises RuntimeError: where it runs already
        """
        if self._runs:
            raise RuntimeError(f"the session {self.tega_id} runs already")
        self._begin()
        keeping = self._keeping = asyncio.get_running_loop().create_task(self._keep(None))
        try:
            await asyncio.wait({keeping})
        finally:
            await self.close()
        if self.failure is not None:
            raise self.failure

    @property
    def _runs(self) -> bool:
        return self._keeping is not None and not self._keeping.done()

    def stop(self) -> None:
        """Let `run` return."""
        if self._keeping is not None:
            self._keeping.cancel()

    async def close(self) -> None:
        """End the session: what is still asked fails, and no iterator gives any more."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
        if self._link is not None:
            await self._link.close()
        if self._over is None:
            self._end(self._closed, None)
        calling, self._calling = self._calling, None
        # It may be a callback that closes the session.
        if calling is not None and calling is not asyncio.current_task():
            calling.cancel()
            await asyncio.wait({calling})
        await self.functions.close()

    def _begin(self) -> None:
        self._over = self.failure = None
        if self.callbacks is not None:
            self._calling = asyncio.get_running_loop().create_task(self.callbacks.run())

    def _end(self, over: Callable[[str], Exception], error: Exception | None) -> None:
        """Nothing can be asked any more."""
        self._over = over
        self._requests.end(over)
        self.subscriptions.end(error)

    def _not_connected(self, doubt: str) -> Exception:
        return ConnectionError(f"there is no session with {self._where}: connect first")

    def _closed(self, doubt: str) -> Exception:
        return ConnectionError(f"the session with {self._where} is closed{doubt}")

    # -- connections ----------------------------------------------------------------------------

    async def _keep(self, link: Link | None) -> None:
        """Have a connection, over and over."""
        loop = asyncio.get_running_loop()
        waits = pauses()
        met = False
        try:
            while True:
                if link is None:
                    link = await self._reconnect(waits, met)
                met = True
                begun = loop.time()
                await link.down
                if link.refusal is not None:
                    raise link.refusal
                if loop.time() - begun > _GOOD:
                    waits = pauses()
                link = None
        except Exception as error:
            log.error("the session %s with %s is over: %s", self.tega_id, self._where, error)
            self.failure = error
            self._end(functools.partial(_again, error), error)

    async def _reconnect(self, waits: Iterator[float], met: bool) -> Link:
        shown = ""
        while True:
            await asyncio.sleep(next(waits))
            try:
                return await self._connect()
            except OSError as error:
                # A certificate that was good will be renewed; one that never was is a mistake.
                if is_distrust(error) and not met:
                    raise
                level = logging.DEBUG if str(error) == shown else logging.WARNING
                log.log(level, "%s; trying again", error)
                shown = str(error)

    async def _connect(self) -> Link:
        link = Link(
            self.tega_id, self._endpoint, self._received, self._opened, self.subscriptions.ponged,
            self._lost,
        )  # fmt: skip
        try:
            await link.open(self._patience, self._ping_interval, self._ping_timeout)
        except Refused as error:
            raise error.refusal from None
        return link

    def _opened(self, link: Link, ack: SessionAck) -> None:
        """There is a connection: take up where the last one ended."""
        log.info("session %s with %s", self.tega_id, self._where)
        self._requests.reborn(ack.life)
        self.subscriptions.opened(ack.life, ack.seq)
        unanswered = list(self._requests)
        self._link = link
        self._put_again(unanswered)
        self.subscriptions.start()
        for asked in unanswered:
            self._transmit(asked)
        publications, self._publications = self._publications, []
        for publication in publications:
            link.send(publication)
        if self.callbacks is not None:
            self.callbacks.begun()
        self._on_ready(True)

    def _lost(self, link: Link, code: int | None, reason: str) -> None:
        """A connection is over."""
        if self._link is not link:
            return
        self._link = None
        if self._runs and link.refusal is None:
            log.warning("the connection to %s was lost%s", self._where, _why(code, reason))
        self.subscriptions.lost()
        too_large = self._requests.lost(code, link.told)
        self._apart = self._apart or (too_large is not None and too_large.fleeting)
        self._on_ready(False)

    # -- ephemeral nodes ------------------------------------------------------------------------

    def _put_again(self, unanswered: list[Asked]) -> None:
        """Put the ephemeral nodes: they may have gone with the connection.

        Those that are under way too: if they were put, they will not be put again, and yet gone.
        """
        nodes = self._ephemerals.copy()
        for asked in unanswered:
            for operation in asked.operations:
                nodes.apply(operation)
        if self._apart:
            self._put_apart(list(nodes))
        elif len(nodes):
            operations = list(nodes)
            asked = self._ask_transaction(operations, fleeting=True)

            def answered(answer: asyncio.Future[bytes]) -> None:
                # Where it was too much, they are put apart on the next connection.
                if _refusal_of(answer) is not None and not self._apart:
                    self._put_apart(operations)

            asked.answer.add_done_callback(answered)

    def _put_apart(self, operations: list[Operation]) -> None:
        """As not all of them can be put, put each that can be."""
        for operation in operations:
            asked = self._ask_transaction([operation], fleeting=True)
            asked.answer.add_done_callback(functools.partial(self._put_or_not, operation))

    def _put_or_not(self, operation: Operation, answer: asyncio.Future[bytes]) -> None:
        """See what came of it: where only the leader of its root is away, try again in a while."""
        refusal = _refusal_of(answer)
        if refusal is None:
            return
        if refusal.code == "leader_away":
            asyncio.get_running_loop().call_later(_AWHILE, self._put_once_more, operation)
        else:
            path = operation["path"]
            log.error("the ephemeral node %s could not be put again: %s", path, refusal)

    def _put_once_more(self, operation: Operation) -> None:
        # With another connection all of them are put anyway.
        if self._link is not None and any(one is operation for one in self._ephemerals):
            self._put_apart([operation])

    def remember(self, operation: Operation) -> None:
        """That was done to an ephemeral node of this tega id, by another way."""
        self._ephemerals.apply(operation)

    # -- asking ---------------------------------------------------------------------------------

    @property
    def life(self) -> str | None:
        """The life of the server's database; None: there was no connection yet."""
        return self.subscriptions.life

    async def drained(self) -> None:
        """Wait while the network has much still to take."""
        while self._link is not None and self._link.socket.congested:
            await self._link.socket.drained()

    async def transact(self, operations: list[Operation]) -> dict[str, Any]:
        """Ask for a transaction: PUT, DELETE and GET operations.

        :returns: ``{"seq", "versions", "results"}``
        :raises CRUDException: where it is refused
        :raises TimeoutError, ConnectionError: where there is no answer
        """
        body = await self._ask_transaction(operations).answer
        answer: dict[str, Any] = strictjson.loads(body)
        self.subscriptions.hear_of(answer["seq"])
        return answer

    async def call(self, path: str, body: bytes) -> Any:
        """Call a function, once at most.

        :param body: ``{"args", "kwargs"}``
        :returns: its result
        """
        self.check()
        asked = self._requests.add("RPC", self.tega_id, path, body, once=True)
        self._transmit(asked)
        return strictjson.loads(await asked.answer)

    def publish(self, channel: str, body: bytes) -> None:
        """Publish a message, now or once there is a connection.

        :raises SubscriptionException: where too many wait for that
        """
        publication = Publish(channel, body)
        if self._link is not None:
            self._link.send(publication)
        elif len(self._publications) < _MAX_PUBLICATIONS:
            self._publications.append(publication)
        else:
            error = OverLimit(f"{_MAX_PUBLICATIONS} messages wait for a connection, the limit")
            raise values.refusal(SubscriptionException, error.body()["error"])

    def _ask_transaction(self, operations: list[Operation], fleeting: bool = False) -> Asked:
        self.check()
        self._transactions += 1
        txid = f"{self._id}-{self._transactions}"
        asked = self._requests.add(
            "TX",
            self.tega_id,
            "-",
            strictjson.dumps({"ops": operations, "txid": txid}),
            changes=any(one["ope"] != "GET" for one in operations),
            fleeting=fleeting,
            operations=[
                one for one in operations if "ephemeral" in one or one["ope"] == "DELETE"
            ],
        )
        self._transmit(asked)
        return asked

    def check(self) -> None:
        """Refuse where there is no session.

        :raises ConnectionError: where it was not begun, or was closed
        :raises SessionException: where the server has ended it
        """
        if self._over is not None:
            raise self._over("")

    def _transmit(self, asked: Asked) -> None:
        if self._link is not None and not asked.answer.done():
            if asked.life is None:
                asked.life = self.subscriptions.life or ""
            self._link.send(asked.message)

    def _send(self, message: Subscribe | Unsubscribe) -> None:
        if self._link is not None:
            self._link.send(message)

    def _ping(self, payload: bytes) -> None:
        if self._link is not None:
            self._link.socket.ping(payload)

    # -- what comes -----------------------------------------------------------------------------

    def _received(self, link: Link, message: Message) -> None:
        """A message of an open connection.

        :raises Malformed: for what is none after all
        """
        if isinstance(message, Response):
            self._answered(message)
        elif isinstance(message, Notify):
            self.subscriptions.notify(message)
        elif isinstance(message, PubSubMessage):
            self.subscriptions.message(message)
        elif isinstance(message, Request):
            self._asked_for(link, message)
        elif isinstance(message, Error):
            self._told(message)
        elif not isinstance(message, Rollback):
            raise NotUnderstood(f"{message.command}: not from a server")

    def _answered(self, message: Response) -> None:
        asked = self._requests.take(message.seq_no)
        if asked is None:
            log.debug("the answer to request %d came too late", message.seq_no)
        elif message.error:
            error = strictjson.loads(message.body)
            if type(error) is not dict:
                error = {"message": str(error)}
            asked.fail(values.refusal(CRUDException, error))
        else:
            for operation in asked.operations:
                self._ephemerals.apply(operation)
            if not asked.answer.done():
                asked.answer.set_result(message.body)

    def _asked_for(self, link: Link, message: Request) -> None:
        """Somebody calls a function."""

        def reply(error: bool, body: bytes) -> None:
            if self._link is link:
                link.send(Response(message.seq_no, message.type, message.tega_id, error, body))
            else:
                log.debug("nobody waits any more for the answer to a call of %s", message.path)

        if message.type == "RPC":
            self.functions.call(message.path, message.body, reply)
        else:
            refusal = NoPeer(f"{message.type} is for servers among themselves: this is a client")
            reply(True, strictjson.dumps(refusal.body()["error"]))

    def _told(self, message: Error) -> None:
        """Something that is no answer to a request."""
        if message.code == "gone":
            self.subscriptions.gone(message)
            return
        error = strictjson.loads(message.body)
        if message.code == "behind":
            log.info("%s: %s", self._where, error.get("message"))
            return
        refusal = values.refusal(SubscriptionException, {**error, "code": message.code})
        if not self.subscriptions.refused(refusal):
            log.warning("%s refuses something: %s", self._where, refusal)


def _again(error: Exception, doubt: str) -> Exception:
    """The reason why a session is over, for one more who asks."""
    if not isinstance(error, SessionException):
        return ConnectionError(f"the session broke: {error}{doubt}")
    message = f"{error.message}{doubt}"
    return SessionException(message, error.status, error.reason, error.code, error.details)


def _why(code: int | None, reason: str) -> str:
    return "" if code is None else f" ({code} {reason})"


def _refusal_of(answer: asyncio.Future[bytes]) -> CRUDException | None:
    """The refusal, where a request was refused."""
    error = None if answer.cancelled() else answer.exception()
    return error if isinstance(error, CRUDException) else None
