"""A tega server as a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tega import paths, strictjson
from tega.driver import AsyncDriver
from tega.driver.errors import CRUDException, DriverError, TransactionException
from tega.paths import Path
from tega.sentinel.address import Address
from tega.sentinel.sink import SinkError
from tega.sentinel.source import Entry
from tega.sentinel.tree.mirror import GONE, OWN, Put, TegaNames
from tega.sentinel.tree.sink import Refused, TreeSink

#: Most seconds for an answer.
_PATIENCE: Final = 20.0


class TegaSink(TreeSink):
    """A part of the tree of a tega server. The checkpoint is the node ``tega-sentinel.NAME``."""

    def __init__(self, source: Address, sink: Address, checkpoint: str, interval: float) -> None:
        super().__init__(source, sink, TegaNames(source, sink), checkpoint, interval)
        self._address = sink
        self._driver: AsyncDriver | None = None
        self._own = paths.dotted((OWN, checkpoint))
        # The version of the checkpoint, as it was read or written last; -1: there is none.
        self._version = -1

    async def connect(self) -> None:
        await self.close()
        self._driver = AsyncDriver(self._address.host, self._address.port, timeout=_PATIENCE)
        with _errors():
            await self._driver.connect()

    async def close(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    async def read_checkpoint(self) -> bytes | None:
        with _errors():
            try:
                node = await self._opened().get(self._own, internal=True)
            except CRUDException as error:
                if error.status != 404:
                    raise
                self._version = -1
                return None
        self._version = node["_version"]
        return str(node.get("_value")).encode()

    async def read(self) -> dict[Any, Any]:
        place = self._address.prefix.decode()
        with _errors():
            try:
                tree = await self._opened().get(place, python_dict=True)
            except CRUDException as error:
                if error.status != 404:
                    raise
                return {}
        return dict(_nodes(paths.parse(place), tree))

    def differing(
        self, there: dict[Any, Any], wanted: dict[Any, tuple[Any, Entry]]
    ) -> tuple[list[Any], list[Any]]:
        top = paths.parse(self._address.prefix.decode())
        above = {place[:size] for place in wanted for size in range(1, len(place))}
        surplus: list[Path] = [
            path
            for path, value in there.items()
            # Of what goes as a whole only the topmost is named.
            if (path == top or path[:-1] in above)
            and path not in wanted
            and not (path in above and type(value) is dict)
        ]
        lacking = [
            path for path, (value, _) in wanted.items()
            if path not in there or strictjson.dumps(there[path]) != strictjson.dumps(value)
        ]
        return surplus, lacking

    def named(self, place: Any) -> bytes:
        return paths.dotted(place).encode()

    async def commit(self, puts: Sequence[Put], checkpoint: bytes) -> bool:
        transaction = self._opened().tx()
        transaction.put(checkpoint.decode(), self._version, path=self._own)
        for put in puts:
            where = paths.dotted(put.place)
            if put.value is GONE:
                transaction.delete(where)
            else:
                transaction.put(put.value, path=where)
        with _errors():
            try:
                async with transaction:
                    pass
            except TransactionException as error:
                if error.code == "collision" and error.details.get("path") == self._own:
                    return False
                if error.code in ("unavailable", "outcome_unknown", "read_only", "leader_away"):
                    raise
                raise Refused(str(error)) from None
        assert transaction.result is not None
        self._version = transaction.result["versions"][OWN]
        return True

    def _opened(self) -> AsyncDriver:
        if self._driver is None:
            raise SinkError("not connected")
        return self._driver


def _nodes(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Everything in a tree, each container before what is in it."""
    yield path, value
    if type(value) is dict:
        for name, child in value.items():
            yield from _nodes((*path, name), child)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of the driver, as a sink raises them."""
    try:
        yield
    except (DriverError, OSError, asyncio.TimeoutError) as error:
        raise SinkError(str(error) or type(error).__name__) from None
