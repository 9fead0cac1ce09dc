"""What each verb asks of the server and how it reads the answer: once, and without any I/O.

A verb is a generator that yields a `Request`, is sent the `Response`, and returns the result or
raises. A driver is a transport that answers requests, blocking or not, around `drive` or its like.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

from tega import paths, strictjson
from tega.driver.errors import CRUDException, DriverError, TransactionException
from tega.errors import Malformed, NoSuchTransaction
from tega.leaf import plain
from tega.paths import Path
from tega.tree import Func, Node
from tega.util import deserialize

#: The header that makes a change safe to send again.
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

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
    """An open transaction. The server commits one id at most once, however often it is asked."""

    txid: str


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
    keys = _parsed(path) if path is not None else _place_of(instance)
    return (
        yield from _change(
            "PUT",
            keys,
            transaction,
            body=_dumps(instance),
            version=version,
            ephemeral=ephemeral or (isinstance(instance, Node) and instance.is_ephemeral_()),
            tega_id=tega_id,
        )
    )


def delete(
    path: str, version: int | None, tega_id: str, transaction: Transaction | None
) -> Exchange[dict[str, Any]]:
    """DELETE the subtree at `path`."""
    return (
        yield from _change("DELETE", _parsed(path), transaction, version=version, tega_id=tega_id)
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
    tega_id: str,
) -> Exchange[Any]:
    """GET the subtree at `path`, or all that match it as a pattern."""
    keys = (path,) if regex_flag else _parsed(path)
    response = yield _request(
        "GET",
        paths.to_url(keys),
        version=version,
        internal=internal or not python_dict,
        regex_flag=regex_flag,
        tega_id=tega_id,
    )
    answer = _read(response, CRUDException)
    if internal or python_dict:
        return answer
    if not regex_flag:
        return deserialize(answer, path)
    return {
        found: {**match, "instance": deserialize(match["instance"], found)}
        for found, match in answer.items()
    }


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
    return [_unwrapped(instance) for instance in instances] if python_dict else instances


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
        _dumps({"args": args, "kwargs": kwargs}),
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
    details = {name: value for name, value in error.items() if name not in ("code", "message")}
    raise refusal(
        str(error.get("message", "")),
        response.status,
        response.reason,
        str(error.get("code", "")),
        details,
    )


# Paths and values


def _malformed(error: Malformed) -> CRUDException:
    """What the server would answer to this."""
    return CRUDException(error.message, error.status, "Bad Request", error.code, error.details)


def _parsed(path: str) -> Path:
    try:
        return paths.parse(path)
    except Malformed as error:
        raise _malformed(error) from None


def _place_of(instance: Any) -> Path:
    """Where an instance stands in its document."""
    try:
        if isinstance(instance, Node) and (keys := instance.qname_()):
            return paths.check(keys)
        raise Malformed(
            f"a {type(instance).__name__} that stands nowhere: give put its path=, "
            "or put it into a Cont that has a name"
        )
    except Malformed as error:
        raise _malformed(error) from None


def _dumps(value: Any) -> bytes:
    try:
        return strictjson.dumps(plain(_unwrapped(value)))
    except Malformed as error:
        raise _malformed(error) from None
    except RecursionError:
        raise _malformed(Malformed("the value is nested too deep, or in itself")) from None


def _unwrapped(value: Any) -> Any:
    """A value without documents, leaves or functions, which are left as they are."""
    if isinstance(value, Node):
        return value.serialize_()
    if isinstance(value, Func):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _unwrapped(child) for name, child in value.items()}
    return value
