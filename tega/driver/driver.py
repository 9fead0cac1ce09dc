"""The synchronous driver: over HTTP, with a session in the background where one is wanted."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tega.driver import exchange, operations, values
from tega.driver.credentials import Credentials, Endpoint, Security
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException, SubscriptionException, TransactionException
from tega.driver.exchange import Exchange, Managed, Result, Transaction
from tega.driver.management import Management
from tega.driver.transport import Http
from tega.errors import OutcomeUnknown
from tega.paths import check_tega_id
from tega.subscriber import SCOPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tega.driver.background import Background

__all__ = ["CRUDException", "Driver", "SubscriptionException", "TransactionException"]


class Driver(Management[Managed]):
    """A client of one tega server.

    Every verb returns its result, or raises

    - `CRUDException` where the server refuses it; `begin`, `cand`, `cancel` and `commit` raise
      `TransactionException`, with ``status`` None where this driver refuses by itself;
    - ``ConnectionRefusedError`` or another ``OSError``, at once, where there is no connection to be
      had;
    - ``ConnectionError`` or ``TimeoutError`` where the answer was lost and asking again did not
      help. What was asked may have been done;
    - `SubscriptionException` where something about subscriptions is wrong.

    A request whose answer is lost is sent again, up to three times, where that is safe. It is for
    everything but `rpc`, `clear`, `release`, `reload` and a `delete` in a transaction: a change
    carries a key under which the server does it at most once.

    Threads may share a driver: each has its own connection and its own transaction. As a context
    manager it closes its connections at the end.

    Where changes and messages are to be heard, or functions offered, a session runs beside, on an
    event loop: `subscriber_client`.

    :param host: name or address of the server
    :param port: its port
    :param tega_id: who asks; a unique one by default, or that of the subscriber
    :param subscriber: the `tega.subscriber.Subscriber` that this driver speaks for
    :param timeout: most seconds to wait for a connection and for each answer; None: no limit
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
        self._endpoint = Endpoint(host, port, credentials)
        self._endpoint.warn()
        self._http = Http(self._endpoint, timeout)
        self._thread = _Thread()
        self._lock = threading.Lock()
        self._background: Background | None = None

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads, none of which may be in a call, and the session.

        A later call opens a new one. A transaction that is still open is left to expire.
        """
        self._http.close()
        if self._background is not None:
            self._background.stop()

    # Documents

    def put(
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
        :param ephemeral: let it go when the session of this tega id ends, which must run
        :param path: dotted path to put it at
        :returns: ``{"seq": S, "versions": {root: V}}``, the sequence number of the commit and the
            version that it made; in a transaction ``{"txid": T}``
        :raises CRUDException: 400 for a value or path that cannot be, 409 for a collision, a leaf
            in the way, or what the rules of ephemeral nodes forbid
        """
        done = self._run(
            exchange.put(
                instance, path, version, ephemeral, self.tega_id, self._thread.transaction
            )
        )
        if self._background is not None and (ephemeral or values.is_ephemeral(instance)):
            self._note(operations.put(instance, None, True, path))
        return done

    def get(
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
        :returns: a `Cont` or leaf that knows its path and versions; null is None. With
            `regex_flag` a dict with one item per match, ``{PATH: {"groups": [[...], ...],
            "instance": ...}}``: the groups captured on each level that has some, and the subtree
            in the form asked for; nothing matched: ``{}``
        :raises CRUDException: 404 where there is no such node or version; with `consistent` 503
            where the leader is away
        """
        return self._run(
            exchange.get(
                path, version, internal, python_dict, regex_flag, consistent, self.tega_id
            )
        )

    def delete(self, path: str, version: int | None = None) -> dict[str, Any]:
        """Remove a subtree, and every parent that it leaves empty.

        :param path: dotted path
        :param version: refuse unless the node has this version
        :returns: as `put`
        :raises CRUDException: 404 where there is none, 409 for a collision
        """
        done = self._run(exchange.delete(path, version, self.tega_id, self._thread.transaction))
        if self._background is not None:
            self._note(operations.delete(path, None))
        return done

    def _note(self, operation: Operation) -> None:
        """Let the session know of what may concern its ephemeral nodes."""
        if self._thread.transaction is not None:
            self._thread.transaction.operations.append(operation)
        elif self._background is not None:
            self._background.remember([operation])

    # Transactions

    @property
    def txid(self) -> str | None:
        """The id of this thread's open transaction, if there is one."""
        return self._thread.transaction.txid if self._thread.transaction else None

    def begin(self) -> str:
        """Open a transaction: this thread's puts and deletes go into it until its end.

        :returns: its id
        :raises TransactionException: where one is open already
        """
        self._expect_none()
        self._thread.transaction = self._run(exchange.begin(self.tega_id))
        return self._thread.transaction.txid

    def join(self, txid: str) -> None:
        """Go on with a transaction that was begun elsewhere.

        :raises TransactionException: where one is open already
        """
        self._expect_none()
        self._thread.transaction = Transaction(txid)

    def cand(self, internal: bool = False, python_dict: bool = False) -> list[Any]:
        """The trees that this transaction touches, as they would be after a commit.

        :param internal: give the internal form of each; a root that would go is
            ``{"_oid": R, "_deleted": true}``
        :param python_dict: give plain values
        :returns: one `Cont` or leaf per root; a root that would go is left out
        :raises TransactionException: where none is open, 404 where it has expired, and what a
            commit would raise
        """
        return self._run(exchange.cand(self._open("cand"), internal, python_dict))

    def cancel(self) -> str:
        """Drop the transaction.

        :returns: its id
        :raises TransactionException: where none is open
        """
        transaction = self._open("cancel")
        self._thread.transaction = None
        self._run(exchange.cancel(transaction))
        return transaction.txid

    def commit(self) -> str:
        """Apply the transaction, all of it or nothing.

        A refusal ends it. Where the outcome is not known (503 ``outcome_unknown``, or no answer)
        it stays open, so that `commit` can be called again: it applies once at most. `cancel` gives
        it up.

        :returns: its id
        :raises TransactionException: where none is open, 404 where it has expired, 406 for a
            collision, another status for another refusal
        """
        transaction = self._open("commit")
        try:
            self._run(exchange.commit(transaction))
        except TransactionException as error:
            if error.code != OutcomeUnknown.code:
                self._thread.transaction = None
            raise
        self._thread.transaction = None
        if self._background is not None:
            self._background.remember(transaction.operations)
        return transaction.txid

    def _expect_none(self) -> None:
        if self.txid is not None:
            raise TransactionException(
                f"transaction {self.txid} is open: commit or cancel it first", code="open"
            )

    def _open(self, verb: str) -> Transaction:
        if self._thread.transaction is None:
            raise TransactionException(
                f"{verb} without a transaction: begin one first", code="not_open"
            )
        return self._thread.transaction

    # Functions

    def rpc(self, path: str, /, *args: Any, **kwargs: Any) -> Managed:
        """Call the function at a dotted path.

        :returns: status, reason, and what the function returned
        :raises CRUDException: 404 where there is none, 502 where it raised (the message says what)
            or its owner is gone, 504 where it took too long
        """
        return self._run(exchange.rpc(path, args, kwargs, self.tega_id))

    def _manage(self, method: str, command: str, **params: Any) -> Managed:
        return self._run(exchange.manage(method, command, tega_id=self.tega_id, **params))

    def _run(self, verb: Exchange[Result]) -> Result:
        return exchange.drive(verb, self._http.send)

    # The session

    async def subscriber_client(self) -> None:
        """Run the session on the event loop of the caller, until cancelled or `close`.

        It connects, and connects again whenever the connection is lost, for ever. What was
        subscribed to is resumed so that nothing is lost, and ephemeral nodes and functions are put
        again. The subscriber is called back on this event loop, with one thing at a time: its
        ``on_init()`` once for each connection, ``on_notify(changes)`` with a list of dicts once for
        each transaction, and ``on_message(channel, tega_id, message)``.

        A subscriber that lets more than 10 000 changes come is told the others from what the server
        keeps, once it has caught up; messages that come meanwhile are lost, which is logged.

        :raises SessionException: where the server refuses the session, or another one has taken
            over its tega id
        :raises ssl.SSLError: where, at the beginning, one end does not take the other's certificate
        """
        await self._session().run()

    def session_ready(self, timeout: float | None = None) -> bool:
        """Wait, in another thread than the session's, until it is connected.

        :param timeout: most seconds to wait; None: no limit
        :returns: whether it is; False at once where `subscriber_client` has ended
        """
        return self._session().ready(timeout)

    def subscribe(
        self, path: str, scope: SCOPE = SCOPE.LOCAL, regex_flag: bool = False
    ) -> None:
        r"""Let the subscriber hear of changes at, below and above a path, and of its messages.

        As everything about subscriptions it may be called from any thread. Where the session is not
        connected it is done once it is.

        :param path: dotted path; with `regex_flag` one regular expression (RE2) per level, split
            at ``\.``
        :param scope: of this server, or of all that are connected
        :raises SubscriptionException: without a subscriber, and for what is no path or pattern
        """
        self._subscriber("subscribe").subscribe(path, regex_flag, scope)

    def unsubscribe(self, path: str, regex_flag: bool = False) -> None:
        """Let it hear of that no more; nothing where it does not.

        :raises SubscriptionException: as `subscribe`
        """
        self._subscriber("unsubscribe").unsubscribe(path, regex_flag)

    def unsubscribe_all(self) -> None:
        """Let it hear of nothing more.

        :raises SubscriptionException: without a subscriber
        """
        self._subscriber("unsubscribe").unsubscribe_all()

    def publish(self, channel: str, message: Any) -> None:
        """Tell every other subscriber of a channel.

        It gets there at most once: a message that is on its way when the connection is lost is not
        sent again.

        :param channel: a dotted path
        :param message: any JSON value
        :raises SubscriptionException: without a subscriber, for what is no channel or no JSON, and
            where too many messages wait for a connection
        """
        self._subscriber("publish").publish(channel, message)

    def serve(self, path: str, func: Callable[..., Any]) -> None:
        """Offer a function at a dotted path, for as long as the session lasts.

        Calls run beside each other: a coroutine function on the session's event loop, any other in
        one of 32 threads, which it keeps until it returns. What it raises, the caller gets as an
        error.

        :param func: a function, or a `Func` with bound arguments
        :raises SubscriptionException: where the session does not run
        :raises CRUDException: where it cannot stand there
        """
        self._session().serve(path, func)

    def unserve(self, path: str) -> None:
        """Offer it no more.

        :raises SubscriptionException: where the session does not run
        :raises CRUDException: 404 where this driver offers nothing there
        """
        self._session().unserve(path)

    def _subscriber(self, verb: str) -> Background:
        if self.subscriber is None:
            raise SubscriptionException(
                f"{verb} without a subscriber: give the driver one", code="no_subscriber"
            )
        return self._session()

    def _session(self) -> Background:
        # Importing it takes a while, which a program without an event loop need not wait for.
        from tega.driver.background import Background

        with self._lock:
            if self._background is None:
                self._background = Background(
                    self._endpoint, self.tega_id, self.subscriber, self.timeout
                )
            return self._background


class _Thread(threading.local):
    """What each thread has of its own."""

    transaction: Transaction | None = None
