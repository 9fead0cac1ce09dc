"""What each verb asks of the server and how it reads the answer: once, and without any I/O.

A verb is a generator that yields a `Request`, is sent the `Response`, and returns the result or
raises. A driver is a transport that answers requests, blocking or not, around `drive` or its like.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

from tega import paths, strictjson
from tega.driver import values
from tega.driver.causes import cause, reworded
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException, DriverError, TransactionException
from tega.errors import Malformed, NoSuchTransaction
from tega.paths import Path
from tega.util import deserialize

#: The header that makes a change safe to send again.
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

#: Seconds to wait before each further try after a lost answer. The first waits for nothing: most
#: often just the kept-alive connection has gone.
PAUSES: Final = (0.0, 0.1, 0.5)

#: Most characters of a foreign error page that go into a message.
_SHOWN: Final = 200


@dataclass(frozen=True)
class Request:
    """What to send.

    `url` is path and query. `retry` says that sending it twice does what sending it once does, so
    that it may be sent again when the answer got lost.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    retry: bool = True


@dataclass(frozen=True)
class Response:
    """What came back."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Transaction:
    """An open transaction. The server commits one id at most once, however often it is asked.

    `operations` are those on ephemeral nodes that the driver keeps in mind.
    """

    txid: str
    operations: list[Operation] = field(default_factory=list, compare=False)


Result = TypeVar("Result")
Exchange: TypeAlias = Generator[Request, Response, Result]

#: What a management verb gives: status, reason and data.
Managed: TypeAlias = tuple[int, str, Any]


def drive(exchange: Exchange[Result], send: Callable[[Request], Response]) -> Result:
    """Carry an exchange out, blocking."""
    try:
        request = next(exchange)
        while True:
            request = exchange.send(send(request))
    except StopIteration as end:
        result: Result = end.value
        return result


async def drive_async(
    exchange: Exchange[Result], send: Callable[[Request], Awaitable[Response]]
) -> Result:
    """Carry an exchange out, on an event loop."""
    try:
        request = next(exchange)
        while True:
            request = exchange.send(await send(request))
    except StopIteration as end:
        result: Result = end.value
        return result


class Unreachable(Exception):
    """There is no connection: nothing has been sent."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause

    def as_os_error(self, server: object) -> OSError:
        """The cause, in words that name the server."""
        why = cause(self.cause)
        return reworded(self.cause, f"cannot connect to a tega server at {server}: {why}")


def pauses(request: Request) -> tuple[float, ...]:
    """Seconds to wait before each try to send a request."""
    return (0.0, *PAUSES) if request.retry else (0.0,)


def lost(request: Request, error: Exception, server: object) -> OSError:
    """What to raise where no try has brought an answer, and that is how the last one ended."""
    kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionError
    doubt = "" if request.method == "GET" else "; it may have been done"
    path = request.url.partition("?")[0][:120]
    return kind(f"no answer from {server} to {request.method} {path} ({error}){doubt}")


def where(host: str, port: int) -> str:
    """A server's address, for messages and URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def new_key() -> str:
    """A fresh idempotency key."""
    return str(uuid4())


# Documents


def put(
    instance: Any,
    path: str | None,
    version: int | None,
    ephemeral: bool,
    tega_id: str,
    transaction: Transaction | None,
) -> Exchange[dict[str, Any]]:
    """PUT `instance` at `path`, or where it stands in its own document."""
    keys = values.parsed(path) if path is not None else values.place_of(instance)
    return (
        yield from _change(
            "PUT",
            keys,
            transaction,
            body=values.dumps(instance),
            version=version,
            ephemeral=ephemeral or values.is_ephemeral(instance),
            tega_id=tega_id,
        )
    )


def delete(
    path: str, version: int | None, tega_id: str, transaction: Transaction | None
) -> Exchange[dict[str, Any]]:
    """DELETE the subtree at `path`."""
    return (
        yield from _change(
            "DELETE", values.parsed(path), transaction, version=version, tega_id=tega_id
        )
    )


def _change(
    method: str,
    keys: Path,
    transaction: Transaction | None,
    body: bytes | None = None,
    **params: Any,
) -> Exchange[dict[str, Any]]:
    request = _request(
        method,
        paths.to_url(keys),
        body,
        key=new_key() if transaction is None else None,
        # Staged twice, a PUT is the same PUT; a second DELETE would find nothing to delete.
        retry=transaction is None or method == "PUT",
        txid=transaction.txid if transaction else None,
        **params,
    )
    answer: dict[str, Any] = _read((yield request), CRUDException)
    return answer


def get(
    path: str,
    version: int | None,
    internal: bool,
    python_dict: bool,
    regex_flag: bool,
    consistent: bool,
    tega_id: str,
) -> Exchange[Any]:
    """GET the subtree at `path`, or all that match it as a pattern."""
    keys = (path,) if regex_flag else values.parsed(path)
    plainly = internal or python_dict
    response = yield _request(
        "GET",
        paths.to_url(keys),
        version=version,
        internal=internal or not python_dict,
        regex_flag=regex_flag,
        consistent=consistent,
        tega_id=tega_id,
    )
    return values.formed(_read(response, CRUDException), path, plainly, regex_flag)


# Transactions


def begin(tega_id: str) -> Exchange[Transaction]:
    """Open a transaction. One whose answer is lost stays empty and expires."""
    response = yield _request("POST", "/_begin", tega_id=tega_id)
    return Transaction(_read(response, TransactionException)["txid"])


def cand(transaction: Transaction, internal: bool, python_dict: bool) -> Exchange[list[Any]]:
    """The trees as they would be after the commit."""
    response = yield _request("POST", "/_cand", txid=transaction.txid)
    roots: list[dict[str, Any]] = _read(response, TransactionException)
    if internal:
        return roots
    instances = [deserialize(root) for root in roots if not root.get("_deleted")]
    return [values.unwrapped(instance) for instance in instances] if python_dict else instances


def cancel(transaction: Transaction) -> Exchange[None]:
    """Drop a transaction. One that the server does not know (any more) is dropped already."""
    response = yield _request("POST", "/_cancel", txid=transaction.txid)
    try:
        _read(response, TransactionException)
    except TransactionException as error:
        if error.code != NoSuchTransaction.code:
            raise


def commit(transaction: Transaction) -> Exchange[dict[str, Any]]:
    """Commit a transaction, at most once however often it is asked."""
    response = yield _request("POST", "/_commit", txid=transaction.txid)
    answer: dict[str, Any] = _read(response, TransactionException)
    return answer


# Management


def manage(
    method: str, command: str, *, key: str | None = None, retry: bool = True, **params: Any
) -> Exchange[Managed]:
    """A management command.

    :param key: for a change: the idempotency key
    """
    response = yield _request(method, f"/_{command}", key=key, retry=retry, **params)
    return response.status, response.reason, _read(response, CRUDException)


def rpc(
    path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], tega_id: str
) -> Exchange[Managed]:
    """Call a function. It is never called twice: what it does is its owner's business."""
    response = yield _request(
        "POST",
        "/_rpc",
        values.dumps({"args": args, "kwargs": kwargs}),
        retry=False,
        path=path,
        tega_id=tega_id,
    )
    return response.status, response.reason, _read(response, CRUDException)["result"]


# Requests and answers


def _request(
    method: str,
    url: str,
    body: bytes | None = None,
    *,
    key: str | None = None,
    retry: bool = True,
    **params: str | int | bool | None,
) -> Request:
    given = {
        name: "true" if value is True else value
        for name, value in params.items()
        if value is not None and value is not False
    }
    headers = {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if key is not None:
        headers[IDEMPOTENCY_KEY] = key
    query = f"?{urlencode(given, quote_via=quote)}" if given else ""
    return Request(method, url + query, headers, body, retry)


def _read(response: Response, refusal: type[DriverError]) -> Any:
    """The JSON value of an answer; None where it has no body.

    :raises DriverError: of the class `refusal`
    """
    try:
        answer = strictjson.loads(response.body) if response.body else None
    except Malformed:
        answer = response.body[:_SHOWN].decode(errors="replace")
        if response.status < 300:
            raise refusal(
                f"the answer is not JSON, this may be no tega server: {answer!r}",
                response.status,
                response.reason,
            ) from None
    if response.status < 300:
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        error = {"message": answer if answer else "the server gave no reason"}
    raise values.refusal(refusal, error, response.status, response.reason)
