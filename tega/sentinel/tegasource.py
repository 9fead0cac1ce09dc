"""A tega server as a source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Any, Final

import re2

from tega import paths, strictjson
from tega.driver.async_driver import Change, Watch
from tega.driver.errors import CRUDException
from tega.paths import Path
from tega.sentinel.access import Access
from tega.sentinel.address import Address
from tega.sentinel.replica import NOTHING, Cut, Node, Place, Replica
from tega.sentinel.source import Away, Batch, Compacted, Entry, Listing, Position, Source
from tega.sentinel.tega import Tega, errors

#: Keys of a piece of a listing.
_PIECE: Final = 500

#: Around whatever asks the server.
_errors = partial(errors, Away)


class TegaSource(Source):
    """Places in the tree of a tega server.

    A position is a sequence number of a life of the database. The revision of a key is the version
    of its root as it was last changed.

    :param places: what is mirrored of it, and what of that counts as a key
    """

    lists_back = False

    def __init__(self, address: Address, access: Access, places: Iterable[Place]) -> None:
        self.name = str(address)
        self.newest = 0
        self._tega = Tega(address, access)
        self._cut = Cut(places)
        # A watch that began before the listing of this position.
        self._begun: tuple[Position, Watch] | None = None
        self._following = False

    @property
    def connected(self) -> bool:
        return self._tega.connected

    async def open(self) -> None:
        self._begun = None
        with _errors():
            driver = await self._tega.open()
            async with driver.tx() as nothing:
                pass
        assert nothing.result is not None
        self.newest = nothing.result["seq"]

    async def close(self) -> None:
        self._begun = None
        await self._tega.close()

    async def listing(self, prefixes: Sequence[bytes], position: Position | None) -> Listing:
        watch = None
        with _errors():
            driver = self._tega.driver
            if not self._following:
                # A server forgets at its end what was before. So it is watched from here on.
                watch = await self._watch(None).__aenter__()
            # One transaction, so that all is of one sequence number.
            async with driver.tx() as transaction:
                for place in self._cut.prefixes:
                    transaction.get(paths.dotted(place), internal=True)
        assert transaction.result is not None
        assert driver.life is not None
        head = Position(driver.life, transaction.result["seq"])
        self.newest = head.revision
        if position not in (None, head):
            raise Compacted
        if watch is not None:
            self._begun = (head, watch)
        found: dict[Path, Node] = {}
        for place, tree in zip(self._cut.prefixes, transaction.results, strict=True):
            if isinstance(tree, CRUDException):
                if tree.status != 404:
                    raise Away(str(tree))
            else:
                found.update({node.path: node for node in self._cut.nodes(place, tree)})
        return Listing(head, self._pieces(list(found.values())), len(found))

    async def _pieces(self, found: list[Node]) -> AsyncIterator[list[Entry]]:
        for start in range(0, len(found), _PIECE):
            yield [_entry(*node) for node in found[start : start + _PIECE]]

    async def changes(
        self, position: Position, known: AsyncIterator[list[Entry]]
    ) -> AsyncIterator[Batch]:
        replica = Replica(self._cut)
        async for piece in known:
            for entry in piece:
                assert entry.value is not None
                replica.load(paths.parse(entry.key.decode()), strictjson.loads(entry.value))
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == position:
            watch = begun[1]
        else:
            with _errors():
                watch = self._watch(f"{position.revision}@{position.life}")
        return self._changes(position, replica, watch)

    async def _changes(
        self, position: Position, replica: Replica, watch: Watch
    ) -> AsyncIterator[Batch]:
        self._following = True
        try:
            with _errors():
                async with watch:
                    async for changes in _transactions(watch):
                        if self._tega.driver.life != position.life:
                            raise Compacted
                        self.newest = changes[-1].seq
                        if changes[0].resync or changes[0].seq > position.revision:
                            yield _batch(replica, changes)
        finally:
            self._following = False

    def _watch(self, since: str | None) -> Watch:
        place = _common(self._cut.prefixes)
        if place:
            return self._tega.driver.watch(paths.dotted(place), since)
        # Of several roots: one watch, so that what changes together comes together.
        roots = {re2.escape(prefix[0]) for prefix in self._cut.prefixes}
        return self._tega.driver.watch(f"({'|'.join(sorted(roots))})$", since, regex_flag=True)


def _batch(replica: Replica, changes: list[Change]) -> Batch:
    """What a transaction has changed, key by key.

    :raises Compacted: where only a listing can tell
    """
    touched: dict[Path, tuple[Any, int]] = {}
    for change in changes:
        if change.resync or change.ope == "ROLLBACK":
            raise Compacted
        path = paths.parse(change.path)
        if change.ope == "PUT":
            found = replica.put(path, change.instance)
        else:
            found = replica.delete(path)
        touched |= {key: (value, change.version) for key, value in found.items()}
    return Batch(changes[0].seq, tuple([_entry(path, *held) for path, held in touched.items()]))


def _entry(path: Path, value: Any, version: int) -> Entry:
    held = None if value is NOTHING else strictjson.dumps(value)
    return Entry(paths.dotted(path).encode(), held, version)


async def _transactions(watch: Watch) -> AsyncIterator[list[Change]]:
    """The changes of a watch, transaction by transaction."""
    coming = asyncio.ensure_future(watch.__anext__())
    try:
        group: list[Change] = []
        while True:
            if group:
                # A transaction comes whole: unless more of it is there already, there is none.
                await asyncio.sleep(0)
                if not coming.done() or coming.result().seq != group[0].seq:
                    yield group
                    group = []
            group.append(await coming)
            coming = asyncio.ensure_future(watch.__anext__())
    finally:
        coming.cancel()


def _common(prefixes: Sequence[Path]) -> Path:
    """The path above all of them."""
    common = prefixes[0]
    for prefix in prefixes:
        while prefix[: len(common)] != common:
            common = common[:-1]
    return common
