"""The synchronous driver, over HTTP."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import BadStatusLine, HTTPException, HTTPResponse, ResponseNotReady
from types import TracebackType
from typing import Any, Final
from uuid import uuid4
from weakref import WeakSet

import httplib2

from tega.driver import exchange
from tega.driver.errors import CRUDException, SubscriptionException, TransactionException
from tega.driver.exchange import Exchange, Managed, Request, Response, Result, Transaction
from tega.errors import OutcomeUnknown
from tega.paths import check_tega_id

__all__ = ["CRUDException", "Driver", "SubscriptionException", "TransactionException"]

#: Seconds to wait before each further try after a lost answer. The first waits for nothing: most
#: often just the kept-alive connection has gone.
PAUSES: Final = (0.0, 0.1, 0.5)


class Driver:
    """A client of one tega server.

    Every verb returns its result, or raises

    - `CRUDException` where the server refuses it; `begin`, `cand`, `cancel` and `commit` raise
      `TransactionException`, with ``status`` None where this driver refuses by itself;
    - ``ConnectionRefusedError`` or another ``OSError``, at once, where there is no connection to be
      had;
    - ``ConnectionError`` or ``TimeoutError`` where the answer was lost and asking again did not
      help. What was asked may have been done.

    A request whose answer is lost is sent again, up to three times, where that is safe. It is for
    everything but `rpc`, `clear`, `reload` and a `delete` in a transaction: a change carries a key
    under which the server does it at most once.

    Threads may share a driver: each has its own connection and its own transaction. As a context
    manager it closes its connections at the end.

    :param host: name or address of the server
    :param port: its port
    :param tega_id: who asks; a unique one by default, or that of the subscriber
    :param subscriber: the `tega.subscriber.Subscriber` that this driver speaks for
    :param timeout: most seconds to wait for a connection and for each answer; None: no limit
    :raises Malformed: for what cannot be a tega id
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8739,
        tega_id: str | None = None,
        subscriber: Any = None,
        *,
        timeout: float | None = 60.0,
    ) -> None:
        if tega_id is None:
            tega_id = subscriber.tega_id if subscriber is not None else f"driver-{uuid4()}"
        self.host = host
        self.port = port
        self.tega_id = check_tega_id(tega_id)
        self.subscriber = subscriber
        self.timeout = timeout
        self._where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._lock = threading.Lock()
        self._clients: WeakSet[httplib2.Http] = WeakSet()
        self._thread = _Thread(self._new_client)

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
        """Close the connections of all threads, none of which may be in a call.

        A later call opens a new one. A transaction that is still open is left to expire.
        """
        with self._lock:
            for client in self._clients:
                _hang_up(client)

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
        :param ephemeral: let it go when the session of this tega id ends
        :param path: dotted path to put it at
        :returns: ``{"seq": S, "versions": {root: V}}``, the sequence number of the commit and the
            version that it made; in a transaction ``{"txid": T}``
        :raises CRUDException: 400 for a value or path that cannot be, 409 for a collision, a leaf
            in the way, or what the rules of ephemeral nodes forbid
        """
        return self._run(
            exchange.put(
                instance, path, version, ephemeral, self.tega_id, self._thread.transaction
            )
        )

    def get(
        self,
        path: str,
        version: int | None = None,
        internal: bool = False,
        python_dict: bool = False,
        regex_flag: bool = False,
    ) -> Any:
        r"""Read a subtree, as it is committed.

        :param path: dotted path; with `regex_flag` one regular expression (RE2) per level, split
            at ``\.``
        :param version: an old version; negative: counted back from the newest
        :param internal: give the internal form, a dict with the attributes of every node
        :param python_dict: give the plain value: dict, list, str, int, float, bool or None
        :returns: a `Cont` or leaf that knows its path and versions; null is None. With
            `regex_flag` a dict with one item per match, ``{PATH: {"groups": [[...], ...],
            "instance": ...}}``: the groups captured on each level that has some, and the subtree
            in the form asked for; nothing matched: ``{}``
        :raises CRUDException: 404 where there is no such node or version
        """
        return self._run(
            exchange.get(path, version, internal, python_dict, regex_flag, self.tega_id)
        )

    def delete(self, path: str, version: int | None = None) -> dict[str, Any]:
        """Remove a subtree, and every parent that it leaves empty.

        :param path: dotted path
        :param version: refuse unless the node has this version
        :returns: as `put`
        :raises CRUDException: 404 where there is none, 409 for a collision
        """
        return self._run(exchange.delete(path, version, self.tega_id, self._thread.transaction))

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

    # Management: each gives status, reason and data, and raises CRUDException for a refusal

    def rollback(self, root_oid: str, backto: int) -> Managed:
        """Make the content of an old version of a root its newest.

        :param root_oid: name of the root
        :param backto: the version; negative: counted back from the newest
        :returns: status, reason, and data as `put` gives it
        :raises CRUDException: 404 where there is no such root or version
        """
        return self._manage(
            "POST", "rollback", key=exchange.new_key(), root_oid=root_oid, backto=backto
        )

    def clear(self) -> Managed:
        """Empty the database: everything that this server leads."""
        # Sent twice it could take with it what others have put in between.
        return self._manage("POST", "clear", retry=False)

    def ss(self) -> Managed:
        """Save a snapshot; the answer says that it is on disk."""
        return self._manage("POST", "ss")

    def sync(self) -> Managed:
        """Wait until every replicated root has caught up with its leader.

        :raises CRUDException: 404 where no peer is configured
        """
        return self._manage("POST", "sync")

    def roots(self) -> Managed:
        """The roots: ``{root: version}``."""
        return self._manage("GET", "roots")

    def old(self) -> Managed:
        """The old versions, oldest first: ``[{root: [version, ...]}, ...]``."""
        return self._manage("GET", "old")

    def channels(self) -> Managed:
        """Who subscribes to each channel: ``{path pattern: [tega id, ...]}``."""
        return self._manage("GET", "channels")

    def subscribers(self) -> Managed:
        """What each subscribes to: ``{tega id: [path pattern, ...]}``."""
        return self._manage("GET", "subscribers")

    def ids(self) -> Managed:
        """The tega ids of live sessions and plugins: ``[tega id, ...]``."""
        return self._manage("GET", "ids")

    def global_(self) -> Managed:
        """The channels of global scope: ``[[path pattern, scope], ...]``.

        Also there as ``getattr(driver, "global")``.
        """
        return self._manage("GET", "global")

    def forwarders(self) -> Managed:
        """The connected peers that subscriptions are forwarded to: ``[tega id, ...]``."""
        return self._manage("GET", "forwarders")

    def plugins(self) -> Managed:
        """The plugins: ``{tega id: scope}``."""
        return self._manage("GET", "plugins")

    def reload(self) -> Managed:
        """Load the plugins anew."""
        return self._manage("POST", "reload", retry=False)

    def edges(self, root_oid: str | None = None, old_roots: bool = False) -> Managed:
        """Pairs of nodes for drawing: ``[[from, to], ...]``, each node as ``PATH(VERSION)``.

        :param root_oid: name of one root; None: all of them
        :param old_roots: old versions as well
        """
        return self._manage("GET", "edges", root_oid=root_oid, old_roots=old_roots)

    def rpc(self, path: str, /, *args: Any, **kwargs: Any) -> Managed:
        """Call the function at a dotted path.

        :returns: status, reason, and what the function returned
        :raises CRUDException: 404 where there is none, 502 where it raised (the message says what)
            or its owner is gone, 504 where it took too long
        """
        return self._run(exchange.rpc(path, args, kwargs, self.tega_id))

    def _manage(self, method: str, command: str, **params: Any) -> Managed:
        return self._run(exchange.manage(method, command, tega_id=self.tega_id, **params))

    # Transport

    def _run(self, verb: Exchange[Result]) -> Result:
        return exchange.drive(verb, self._send)

    def _send(self, request: Request) -> Response:
        """Send a request, again where its answer gets lost and that is safe."""
        lost: Exception | None = None
        for pause in (0.0, *PAUSES) if request.retry else (0.0,):
            if pause:
                time.sleep(pause)
            try:
                return self._send_once(request)
            except _Unreachable as error:
                if lost is None:
                    raise error.as_os_error(self._where) from error.cause
            except (OSError, HTTPException, httplib2.HttpLib2Error) as error:
                lost = error
        kind = TimeoutError if isinstance(lost, TimeoutError) else ConnectionError
        doubt = "" if request.method == "GET" else "; it may have been done"
        path = request.url.partition("?")[0][:120]
        raise kind(
            f"no answer from {self._where} to {request.method} {path} ({lost}){doubt}"
        ) from lost

    def _send_once(self, request: Request) -> Response:
        client = self._thread.client
        try:
            answer, body = client.request(
                f"http://{self._where}{request.url}",
                request.method,
                request.body,
                dict(request.headers),
                connection_type=_Connection,
            )
        except BaseException:
            # The next request must not find the rest of this answer, nor wait for it.
            _hang_up(client)
            raise
        return Response(answer.status, answer.reason, answer, body)

    def _new_client(self) -> httplib2.Http:
        client = httplib2.Http(timeout=self.timeout, proxy_info=None)
        client.follow_redirects = False
        with self._lock:
            self._clients.add(client)
        return client


# A name that Python's grammar has taken.
setattr(Driver, "global", Driver.global_)


class _Thread(threading.local):
    """What each thread has of its own: httplib2 is not made to be shared."""

    def __init__(self, new_client: Callable[[], httplib2.Http]) -> None:
        self.client = new_client()
        self.transaction: Transaction | None = None


class _Unreachable(Exception):
    """There is no connection: nothing has been sent."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause

    def as_os_error(self, where: str) -> OSError:
        """The cause, in words that name the server."""
        return type(self.cause)(
            f"cannot connect to a tega server at {where}: {self.cause.strerror or self.cause}"
        )


class _Connection(httplib2.HTTPConnectionWithTimeout):
    """A connection that sends a request once.

    httplib2 sends a request again when the server hangs up before the answer, whether that is safe
    or not. Here it sees errors that it leaves alone.
    """

    def __del__(self) -> None:
        # The thread that it belonged to has ended.
        self.close()

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            raise _Unreachable(error) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        # An idle connection has nothing to read, unless its end: the server has hung up.
        if self.sock is not None and _is_readable(self.sock):
            self.close()
        # The server may have refused what it saw of a long body, and said so: read on.
        with suppress(BrokenPipeError, ConnectionResetError):
            super().request(*args, **kwargs)

    def getresponse(self) -> HTTPResponse:
        try:
            return super().getresponse()
        except (BadStatusLine, ResponseNotReady) as error:
            raise ConnectionResetError(str(error) or "the connection was closed") from error


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _hang_up(client: httplib2.Http) -> None:
    for connection in client.connections.values():
        connection.close()
