"""The asynchronous driver: over one WebSocket, any number of requests at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from tega.driver import exchange, operations, values
from tega.driver.asynchttp import AsyncHttp
from tega.driver.background import check, checked_publication
from tega.driver.credentials import Credentials, Endpoint, Security
from tega.driver.ephemerals import Operation
from tega.driver.errors import SubscriptionException, TransactionException
from tega.driver.exchange import Exchange, Managed, Result, Transaction
from tega.driver.listeners import Change, Listener, Message, Messages, Reader, Watch, Watcher
from tega.driver.management import Management
from tega.driver.room import Room
from tega.driver.session import Session
from tega.driver.tx import Tx, summary
from tega.errors import Malformed, OutcomeUnknown
from tega.paths import check_tega_id, dotted
from tega.protocol import Since
from tega.subscriber import SCOPE

__all__ = ["AsyncDriver", "Change", "Message", "Messages", "Tx", "Watch"]

#: Requests that may be under way: who asks for more waits.
MAX_OPEN = 1024


class AsyncDriver(Management[Awaitable[Managed]]):
    """A client of one tega server, for programs with an event loop.

    It has the verbs of `Driver` as coroutines. ``put``, ``get``, ``delete`` and ``rpc`` go over one
    WebSocket, on which any number can be under way; management, and transactions from ``begin`` to
    ``commit``, over HTTP. Every verb returns its result, or raises

    - `CRUDException` where the server refuses it; `TransactionException` and
      `SubscriptionException` where that is about transactions or subscriptions;
    - `SessionException` where the server has ended the session: it was refused, or another one has
      taken over its tega id;
    - ``ConnectionError`` or ``TimeoutError`` where there was no answer. Where it may have been done
      all the same, the message says so.

    A connection that is lost is made anew, for as long as it takes. Changes and reads that had no
    answer are sent again, each change with an id under which the server does it at most once; calls
    of functions are not. Ephemeral nodes and functions are put again, what was watched is resumed.

    To be used on one event loop. As a context manager it connects and closes.

    :param host: name or address of the server
    :param port: its port
    :param tega_id: who asks; a unique one by default, or that of the subscriber
    :param subscriber: the `tega.subscriber.Subscriber` that is called back with what it
        subscribes to, see `Driver.subscriber_client`
    :param timeout: most seconds to wait for a connection and for each answer; None: no limit
    :param ping_interval: a server that is silent for so long is pinged, seconds
    :param ping_timeout: one that is silent for so long is gone, seconds
    :param token: ``NAME.SECRET``, as ``tega-server token add NAME`` prints it. The unique tega id
        then begins with NAME. Without TLS others may read it on the way, which is warned of
    :param tls: True: connect over TLS, and take a certificate that an authority of this system has
        signed for this host; a `Tls` with files, or an `ssl.SSLContext`, for anything else
    :raises Malformed: for what cannot be a tega id or token, and files that cannot be used
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8739,
        tega_id: str | None = None,
        subscriber: Any = None,
        *,
        timeout: float | None = 60.0,
        ping_interval: float = 10.0,
        ping_timeout: float = 30.0,
        token: str | None = None,
        tls: Security = None,
    ) -> None:
        credentials = Credentials.of(token, tls)
        if tega_id is None:
            known = subscriber is not None
            tega_id = subscriber.tega_id if known else credentials.new_tega_id("driver")
        self.host = host
        self.port = port
        self.tega_id = check_tega_id(tega_id)
        self.subscriber = subscriber
        self.timeout = timeout
        endpoint = Endpoint(host, port, credentials)
        endpoint.warn()
        self._http = AsyncHttp(endpoint, timeout)
        self._session = Session(
            endpoint, self.tega_id, timeout=timeout, subscriber=subscriber,
            ping_interval=ping_interval, ping_timeout=ping_timeout, on_ready=self._ready,
        )  # fmt: skip
        #: Whether there is a connection at this moment; one that is lost is made anew.
        self.connected = False
        self._room = Room(MAX_OPEN)
        self._transaction: Transaction | None = None

    def _ready(self, ready: bool) -> None:
        self.connected = ready

    async def connect(self) -> None:
        """Begin the session; nothing where it has begun.

        :raises OSError: where there is no connection to be had
        :raises SessionException: where the server refuses the session
        """
        await self._session.start()

    async def close(self) -> None:
        """End the session, and with it what is ephemeral. What is under way fails."""
        self._http.close()
        await self._session.close()

    async def __aenter__(self) -> AsyncDriver:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def life(self) -> str | None:
        """The life of the server's database, which a sequence number is of; None: not known yet."""
        return self._session.life

    # Documents

    async def put(
        self,
        instance: Any,
        version: int | None = None,
        ephemeral: bool = False,
        *,
        path: str | None = None,
    ) -> dict[str, Any]:
        """Replace a subtree.

        :param instance: a `Cont` or a leaf, put where it stands in its own document; with `path`,
            any plain value as well, None included
        :param version: refuse unless the node has this version; -1: unless it does not exist
        :param ephemeral: let it go when this driver's session ends
        :param path: dotted path to put it at
        :returns: ``{"seq": S, "versions": {root: V}}``, the sequence number of the commit and the
            version that it made; in a transaction ``{"txid": T}``
        :raises CRUDException: 400 for a value or path that cannot be, 409 for a collision, a leaf
            in the way, or what the rules of ephemeral nodes forbid
        """
        operation = operations.put(instance, version, ephemeral, path)
        if self._transaction is None:
            return summary(await self._transact([operation]))
        verb = exchange.put(instance, path, version, ephemeral, self.tega_id, self._transaction)
        self._transaction.operations.append(operation)
        return await self._run(verb)

    async def get(
        self,
        path: str,
        version: int | None = None,
        internal: bool = False,
        python_dict: bool = False,
        regex_flag: bool = False,
        consistent: bool = False,
    ) -> Any:
        r"""Read a subtree, as it is committed.

        :param path: dotted path; with `regex_flag` one regular expression (RE2) per level, split
            at ``\.``
        :param version: an old version; negative: counted back from the newest
        :param internal: give the internal form, a dict with the attributes of every node
        :param python_dict: give the plain value: dict, list, str, int, float, bool or None
        :param consistent: of a root that another server leads, give what that has now, rather than
            what has come here
        :returns: as `Driver.get`
        :raises CRUDException: 404 where there is no such node or version; with `consistent` 503
            where the leader is away
        """
        get = operations.Get(path, version, internal, python_dict, regex_flag, consistent)
        return get.read((await self._transact([get.operation]))["results"][0])

    async def delete(self, path: str, version: int | None = None) -> dict[str, Any]:
        """Remove a subtree, and every parent that it leaves empty.

        :param path: dotted path
        :param version: refuse unless the node has this version
        :returns: as `put`
        :raises CRUDException: 404 where there is none, 409 for a collision
        """
        operation = operations.delete(path, version)
        if self._transaction is None:
            return summary(await self._transact([operation]))
        verb = exchange.delete(path, version, self.tega_id, self._transaction)
        self._transaction.operations.append(operation)
        return await self._run(verb)

    def tx(self) -> Tx:
        """A transaction that is sent as a whole: ``async with driver.tx() as t: t.put(...)``."""
        return Tx(self._transact)

    # Transactions at the server: all tasks that share the driver share one

    @property
    def txid(self) -> str | None:
        """The id of the open transaction, if there is one."""
        return self._transaction.txid if self._transaction else None

    async def begin(self) -> str:
        """Open a transaction: this driver's puts and deletes go into it until its end.

        :returns: its id
        :raises TransactionException: where one is open already
        """
        self._expect_none()
        transaction = await self._run(exchange.begin(self.tega_id))
        self._expect_none()
        self._transaction = transaction
        return transaction.txid

    async def join(self, txid: str) -> None:
        """Go on with a transaction that was begun elsewhere.

        :raises TransactionException: where one is open already
        """
        self._expect_none()
        self._transaction = Transaction(txid)

    async def cand(self, internal: bool = False, python_dict: bool = False) -> list[Any]:
        """The trees that the transaction touches, as they would be after a commit: `Driver.cand`.

        :raises TransactionException: where none is open, 404 where it has expired, and what a
            commit would raise
        """
        return await self._run(exchange.cand(self._open("cand"), internal, python_dict))

    async def cancel(self) -> str:
        """Drop the transaction.

        :returns: its id
        :raises TransactionException: where none is open
        """
        transaction = self._open("cancel")
        self._transaction = None
        await self._run(exchange.cancel(transaction))
        return transaction.txid

    async def commit(self) -> str:
        """Apply the transaction, all of it or nothing: `Driver.commit`.

        :returns: its id
        :raises TransactionException: where none is open, 404 where it has expired, 406 for a
            collision, another status for another refusal
        """
        transaction = self._open("commit")
        try:
            await self._run(exchange.commit(transaction))
        except TransactionException as error:
            if error.code != OutcomeUnknown.code:
                self._transaction = None
            raise
        self._transaction = None
        for operation in transaction.operations:
            self._session.remember(operation)
        return transaction.txid

    def _expect_none(self) -> None:
        if self._transaction is not None:
            raise TransactionException(
                f"transaction {self.txid} is open: commit or cancel it first", code="open"
            )

    def _open(self, verb: str) -> Transaction:
        if self._transaction is None:
            raise TransactionException(
                f"{verb} without a transaction: begin one first", code="not_open"
            )
        return self._transaction

    # Functions

    async def rpc(self, path: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function at a dotted path, once at most.

        :returns: what it returned; unlike `Driver.rpc`, that alone
        :raises CRUDException: 404 where there is none, 502 where it raised (the message says what)
            or its owner is gone, 504 where it took too long
        :raises ConnectionError: where the connection was lost meanwhile: it may have been done
        """
        body = values.dumps({"args": args, "kwargs": kwargs})
        where = dotted(values.parsed(path))
        async with self._room:
            await self._session.drained()
            return await self._session.call(where, body)

    async def serve(self, path: str, func: Callable[..., Any]) -> None:
        """Offer a function at a dotted path, until `unserve` or the end of the session.

        Calls run beside each other: a coroutine function on this event loop, any other in one of
        32 threads, which it keeps until it returns. What it raises, the caller gets as an error.

        :param func: a function, or a `Func` with bound arguments
        :raises CRUDException: where it cannot stand there
        """
        await self._session.functions.serve(path, func)

    async def unserve(self, path: str) -> None:
        """Offer it no more.

        :raises CRUDException: 404 where this driver offers nothing there
        """
        await self._session.functions.unserve(path)

    # Changes and messages

    def watch(
        self,
        path: str,
        since: int | str | None = None,
        *,
        regex_flag: bool = False,
        scope: SCOPE = SCOPE.LOCAL,
    ) -> Watch:
        r"""Changes that others make at, below and above a path.

        ``async for change in driver.watch(path)`` gives a `Change` after the other: in the order of
        commits, each once, nothing left out, whatever becomes of the connection. A change above is
        cut down to the part that is watched; a ROLLBACK has the root as its path, and goes to who
        watches anything in that root. Where changes are not known any more, how it stands by now is
        given instead, marked ``resync``.

        Watching begins with the call, not with the loop; ``async with driver.watch(path) as
        changes`` waits until the server has confirmed it. It ends with that block, with
        ``aclose()``, or when the iterator is let go.

        Up to 10 000 changes wait to be read. A watch that is further behind is given the others
        from what the server keeps, once it has read those.

        :param path: dotted path; with `regex_flag` one regular expression (RE2) per level, split
            at ``\.``
        :param since: a sequence number: give first what has changed since then. Better
            ``"SEQ@LIFE"``, with the `life` of the database, by which is noticed that it was cleared
        :param scope: of this server, or of all that are connected
        :raises SubscriptionException: for what is no path, pattern or sequence number
        """
        listener = Watcher(f"a watch on {path}", self._session.subscriptions.go_on)
        self._listen(listener, path, regex_flag, scope, _since(since))
        return Watch(listener, self._settled, self._leave)

    def messages(
        self, channel: str, regex_flag: bool = False, scope: SCOPE = SCOPE.LOCAL
    ) -> Messages:
        """Messages that others publish on a channel: an asynchronous iterator as `watch` is.

        Up to 10 000 messages wait to be read. What comes beyond that is lost, which is logged, and
        so is what comes while there is no connection.

        :param channel: dotted path, or with `regex_flag` a pattern, of whole channels
        :raises SubscriptionException: for what is neither
        """
        listener = Reader(f"a reader of {channel}", self._session.subscriptions.go_on)
        self._listen(listener, channel, regex_flag, scope)
        return Messages(listener, self._settled, self._leave)

    async def subscribe(
        self, path: str, scope: SCOPE = SCOPE.LOCAL, regex_flag: bool = False
    ) -> None:
        """Let the subscriber be called back with changes and messages: `Driver.subscribe`.

        :raises SubscriptionException: without a subscriber, and for what is no path or pattern
        """
        self._listen(self._subscriber("subscribe"), path, regex_flag, scope)
        await self._settled()

    async def unsubscribe(self, path: str, regex_flag: bool = False) -> None:
        """Let the subscriber hear of that no more; nothing where it does not.

        :raises SubscriptionException: as `subscribe`
        """
        check(path, regex_flag)
        self._session.subscriptions.remove(self._subscriber("unsubscribe"), path, regex_flag)
        await self._settled()

    async def unsubscribe_all(self) -> None:
        """Let the subscriber hear of nothing more.

        :raises SubscriptionException: without a subscriber
        """
        self._session.subscriptions.remove_all(self._subscriber("unsubscribe"))
        await self._settled()

    async def publish(self, channel: str, message: Any) -> None:
        """Tell every other subscriber of a channel, each once at most.

        :param channel: a dotted path
        :param message: any JSON value
        :raises SubscriptionException: for what is no channel or no JSON, and where too many
            messages wait for a connection
        """
        publication = checked_publication(channel, message)
        self._session.check()
        await self._session.drained()
        self._session.publish(*publication)

    def _listen(
        self,
        listener: Listener,
        path: str,
        regex: bool,
        scope: SCOPE,
        since: Since | None = None,
    ) -> None:
        check(path, regex)
        self._session.check()
        self._session.subscriptions.add(listener, path, regex, scope, since)

    def _leave(self, listener: Listener) -> None:
        self._session.subscriptions.remove_all(listener)
        listener.end()

    def _subscriber(self, verb: str) -> Listener:
        if self._session.callbacks is None:
            raise SubscriptionException(
                f"{verb} without a subscriber: give the driver one, or watch", code="no_subscriber"
            )
        return self._session.callbacks

    # Transport

    async def _settled(self) -> None:
        """Wait until the server has taken all that was sent."""
        await self._transact([])

    async def _transact(self, these: list[Operation]) -> dict[str, Any]:
        async with self._room:
            await self._session.drained()
            return await self._session.transact(these)

    async def _manage(self, method: str, command: str, **params: Any) -> Managed:
        return await self._run(exchange.manage(method, command, tega_id=self.tega_id, **params))

    async def _run(self, verb: Exchange[Result]) -> Result:
        return await exchange.drive_async(verb, self._http.send)


def _since(given: int | str | None) -> Since | None:
    if given is None:
        return None
    seq, at, life = str(given).partition("@")
    if type(given) is bool or not (seq.isascii() and seq.isdigit()) or (at and not life):
        error = Malformed(f"since {given!r}: a sequence number, or one and a life: 17@9af3")
        raise values.refusal(SubscriptionException, error.body()["error"])
    return Since(int(seq), life or None)
