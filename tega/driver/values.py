"""Paths and values as users give and get them, and refusals as they are told."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import responses
from typing import Any, TypeVar

from tega import paths, strictjson
from tega.driver.errors import CRUDException, DriverError
from tega.errors import BY_CODE, Malformed
from tega.leaf import plain
from tega.paths import Path
from tega.tree import Func, Node
from tega.util import deserialize

Refusal = TypeVar("Refusal", bound=DriverError)


def malformed(error: Malformed) -> CRUDException:
    """What the server would answer to this."""
    return CRUDException(error.message, error.status, "Bad Request", error.code, error.details)


def parsed(path: str) -> Path:
    """The keys of a dotted path.

    :raises CRUDException: for what is none
    """
    try:
        return paths.parse(path)
    except Malformed as error:
        raise malformed(error) from None


def place_of(instance: Any) -> Path:
    """Where an instance stands in its document.

    :raises CRUDException: where it stands nowhere
    """
    try:
        if isinstance(instance, Node) and (keys := instance.qname_()):
            return paths.check(keys)
        raise Malformed(
            f"a {type(instance).__name__} that stands nowhere: give put its path=, "
            "or put it into a Cont that has a name"
        )
    except Malformed as error:
        raise malformed(error) from None


def jsonable(value: Any) -> Any:
    """A value in plain Python, checked: without documents, leaves or functions.

    :raises CRUDException: for what is no JSON
    """
    try:
        return plain(unwrapped(value))
    except Malformed as error:
        raise malformed(error) from None
    except RecursionError:
        raise malformed(Malformed("the value is nested too deep, or in itself")) from None


def dumps(value: Any) -> bytes:
    """A value as JSON text.

    :raises CRUDException: for what is no JSON
    """
    try:
        return strictjson.dumps(jsonable(value))
    except RecursionError:
        raise malformed(Malformed("the value is nested too deep, or in itself")) from None


def unwrapped(value: Any) -> Any:
    """A value without documents, leaves or functions, which are left as they are."""
    if isinstance(value, Node):
        return value.serialize_()
    if isinstance(value, Func):
        return str(value)
    if isinstance(value, Mapping):
        return {name: unwrapped(child) for name, child in value.items()}
    return value


def is_ephemeral(instance: Any) -> bool:
    """Whether a document, or a leaf, is marked as ephemeral."""
    return isinstance(instance, Node) and instance.is_ephemeral_()


def formed(answer: Any, path: str, plainly: bool, regex_flag: bool) -> Any:
    """What a GET was answered, in the form that was asked for.

    :param answer: plain or internal, or with `regex_flag` a dict of matches
    :param plainly: leave it as it is; otherwise make documents of internal forms
    """
    if plainly:
        return answer
    if not regex_flag:
        return deserialize(answer, path)
    return {
        found: {**match, "instance": deserialize(match["instance"], found)}
        for found, match in answer.items()
    }


def refusal(
    kind: type[Refusal],
    error: Mapping[str, Any],
    status: int | None = None,
    reason: str | None = None,
) -> Refusal:
    """An exception of what the server says is wrong.

    :param error: ``{"code", "message", ...}``
    :param status: the HTTP status; by default what the table of errors has for the code
    """
    code = str(error.get("code", ""))
    if status is None and code in BY_CODE:
        status = BY_CODE[code].status
    if reason is None:
        reason = "" if status is None else responses.get(status, "")
    details = {name: value for name, value in error.items() if name not in ("code", "message")}
    return kind(str(error.get("message", "")), status, reason, code, details)
