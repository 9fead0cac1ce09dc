"""A tega server as a sink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from tega import paths, strictjson
from tega.driver.errors import CRUDException, TransactionException
from tega.paths import Path
from tega.sentinel.access import Access
from tega.sentinel.address import Address
from tega.sentinel.sink import SinkError
from tega.sentinel.source import Entry
from tega.sentinel.tega import Tega, errors
from tega.sentinel.tree.mirror import GONE, OWN, Put, TegaNames
from tega.sentinel.tree.sink import Refused, TreeSink

#: Around whatever asks the server.
_errors = partial(errors, SinkError)


class TegaSink(TreeSink):
    """A part of the tree of a tega server. The checkpoint is the node ``tega-sentinel.NAME``."""

    def __init__(
        self, source: Address, sink: Address, access: Access, checkpoint: str, interval: float
    ) -> None:
        super().__init__(source, sink, TegaNames(source, sink), checkpoint, interval)
        self._place = sink.prefix.decode()
        self._tega = Tega(sink, access)
        self._own = paths.dotted((OWN, checkpoint))
        # The version of the checkpoint, as it was read or written last; -1: there is none.
        self._version = -1

    @property
    def connected(self) -> bool:
        return self._tega.connected

    async def connect(self) -> None:
        with _errors():
            await self._tega.open()

    async def close(self) -> None:
        await self._tega.close()

    async def read_checkpoint(self) -> bytes | None:
        with _errors():
            try:
                node = await self._tega.driver.get(self._own, internal=True)
            except CRUDException as error:
                if error.status != 404:
                    raise
                self._version = -1
                return None
        self._version = node["_version"]
        return str(node.get("_value")).encode()

    async def read(self) -> dict[Any, Any]:
        with _errors():
            try:
                tree = await self._tega.driver.get(self._place, python_dict=True)
            except CRUDException as error:
                if error.status != 404:
                    raise
                return {}
        return dict(_nodes(paths.parse(self._place), tree))

    def differing(
        self, there: dict[Any, Any], wanted: dict[Any, tuple[Any, Entry]]
    ) -> tuple[list[Any], list[Any]]:
        top = paths.parse(self._place)
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
        with _errors():
            transaction = self._tega.driver.tx()
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


def _nodes(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Everything in a tree, each container before what is in it."""
    yield path, value
    if type(value) is dict:
        for name, child in value.items():
            yield from _nodes((*path, name), child)
