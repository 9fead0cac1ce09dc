"""Transactions that are gathered here and sent as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from tega.driver import operations
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException, TransactionException


class Tx:
    """Operations that are sent together when the ``async with`` block ends, as one transaction.

    Where the block raises, nothing is sent. Where the transaction is refused, all of it is, and the
    block's end raises a `TransactionException`.

    :ivar result: after that: ``{"seq": S, "versions": {root: V}}``
    :ivar results: after that: what each `get` has found, in order; where there is nothing, the
        `CRUDException` that says so, not raised
    """

    def __init__(
        self, transact: Callable[[list[Operation]], Awaitable[dict[str, Any]]]
    ) -> None:
        self._transact = transact
        self._operations: list[Operation] = []
        self._gets: list[operations.Get] = []
        self._over = False
        self.result: dict[str, Any] | None = None
        self.results: list[Any] = []

    def put(
        self,
        instance: Any,
        version: int | None = None,
        ephemeral: bool = False,
        *,
        path: str | None = None,
    ) -> None:
        """Replace a subtree: `AsyncDriver.put`."""
        self._add(operations.put(instance, version, ephemeral, path))

    def delete(self, path: str, version: int | None = None) -> None:
        """Remove a subtree: `AsyncDriver.delete`."""
        self._add(operations.delete(path, version))

    def get(
        self,
        path: str,
        version: int | None = None,
        internal: bool = False,
        python_dict: bool = False,
        regex_flag: bool = False,
    ) -> None:
        """Read a subtree as it is just before this transaction: `AsyncDriver.get`."""
        get = operations.Get(path, version, internal, python_dict, regex_flag)
        self._add(get.operation)
        self._gets.append(get)

    def _add(self, operation: Operation) -> None:
        if self._over:
            raise TransactionException("the transaction has ended", code="not_open")
        self._operations.append(operation)

    async def __aenter__(self) -> Tx:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        if kind is not None:
            return
        try:
            answer = await self._transact(self._operations)
        except CRUDException as refusal:
            raise TransactionException(*refusal.args) from refusal
        self.result = summary(answer)
        self.results = [
            _read(get, found) for get, found in zip(self._gets, answer["results"], strict=True)
        ]


def _read(get: operations.Get, found: dict[str, Any]) -> Any:
    try:
        return get.read(found)
    except CRUDException as error:
        return error


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    """What a change gives: sequence number and versions."""
    return {"seq": answer["seq"], "versions": answer["versions"]}
