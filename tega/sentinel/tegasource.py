"""A tega server as a source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import re2

from tega import paths, strictjson
from tega.driver import AsyncDriver
from tega.driver.async_driver import Change, Watch
from tega.driver.errors import CRUDException, DriverError
from tega.paths import Path
from tega.sentinel.address import Address
from tega.sentinel.replica import NOTHING, Cut, Node, Place, Replica
from tega.sentinel.source import Away, Batch, Compacted, Entry, Listing, Position, Source

#: Keys of a piece of a listing.
_PIECE: Final = 500

#: Most seconds for an answer.
_PATIENCE: Final = 20.0


class TegaSource(Source):
    """Places in the tree of a tega server.

    A position is a sequence number of a life of the database. The revision of a key is the version
    of its root as it was last changed.

    :param places: what is mirrored of it, and what of that counts as a key
    """

    lists_back = False

    def __init__(self, address: Address, places: Iterable[Place]) -> None:
        self.name = str(address)
        self.newest = 0
        self._address = address
        self._cut = Cut(places)
        self._driver: AsyncDriver | None = None
        # A watch that began before the listing of this position.
        self._begun: tuple[Position, Watch] | None = None
        self._following = False

    async def open(self) -> None:
        await self.close()
        self._driver = AsyncDriver(self._address.host, self._address.port, timeout=_PATIENCE)
        with _errors():
            await self._driver.connect()
            async with self._driver.tx() as nothing:
                pass
        assert nothing.result is not None
        self.newest = nothing.result["seq"]

    async def close(self) -> None:
        driver, self._driver = self._driver, None
        self._begun = None
        if driver is not None:
            await driver.close()

    async def listing(self, prefixes: Sequence[bytes], position: Position | None) -> Listing:
        driver = self._opened()
        watch = None
        with _errors():
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
                        if self._opened().life != position.life:
                            raise Compacted
                        self.newest = changes[-1].seq
                        if changes[0].resync or changes[0].seq > position.revision:
                            yield _batch(replica, changes)
        finally:
            self._following = False

    def _watch(self, since: str | None) -> Watch:
        place = _common(self._cut.prefixes)
        if place:
            return self._opened().watch(paths.dotted(place), since)
        # Of several roots: one watch, so that what changes together comes together.
        roots = {re2.escape(prefix[0]) for prefix in self._cut.prefixes}
        return self._opened().watch(f"({'|'.join(sorted(roots))})$", since, regex_flag=True)

    def _opened(self) -> AsyncDriver:
        if self._driver is None:
            raise Away("not connected")
        return self._driver


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


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of the driver, as a source raises them."""
    try:
        yield
    except (DriverError, OSError, asyncio.TimeoutError) as error:
        raise Away(str(error) or type(error).__name__) from None
