"""etcd as a source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from tega.sentinel.access import Access
from tega.sentinel.address import Address
from tega.sentinel.etcd import Etcd, EtcdError, after, pages
from tega.sentinel.source import Away, Batch, Compacted, Entry, Listing, Position, Source


class EtcdSource(Source):
    """Keys of an etcd server. Its life is the id of the cluster.

    :param prefixes: what is mirrored of it
    """

    lists_back = True

    def __init__(self, address: Address, access: Access, prefixes: Sequence[bytes]) -> None:
        self.name = str(address)
        self.newest = 0
        self._etcd = Etcd(address, access)
        # One watch over one range, so that what changes together comes together.
        self._prefixes = tuple(prefixes)
        self._first = min(prefixes) or b"\0"
        self._end = b"\0" if b"" in prefixes else max(map(after, prefixes))

    async def open(self) -> None:
        with _errors():
            await self._etcd.open()
            await self._head()

    async def close(self) -> None:
        await self._etcd.close()

    async def listing(self, prefixes: Sequence[bytes], position: Position | None) -> Listing:
        with _errors():
            head = await self._head()
            if position is not None:
                # A server that was begun anew, or set back, cannot know it.
                if position.life != head.life or position.revision > head.revision:
                    raise Compacted
                head = position
            total = 0
            for prefix in prefixes:
                answer = await self._etcd.range(
                    prefix or b"\0", after(prefix), head.revision, count_only=True
                )
                total += answer.count
        return Listing(head, self._pieces(prefixes, head.revision), total)

    async def _pieces(self, prefixes: Sequence[bytes], revision: int) -> AsyncIterator[list[Entry]]:
        with _errors():
            for prefix in prefixes:
                async for page in pages(self._etcd, prefix, revision):
                    yield [Entry(kv.key, kv.value, kv.mod_revision) for kv in page]

    async def changes(
        self, position: Position, known: AsyncIterator[list[Entry]]
    ) -> AsyncIterator[Batch]:
        return self._changes(position)

    async def _changes(self, position: Position) -> AsyncIterator[Batch]:
        with _errors():
            head = await self._head()
            if position.life != head.life or position.revision > head.revision:
                raise Compacted
            parts: list[Any] = []
            async for answer in self._etcd.watch(self._first, self._end, position.revision + 1):
                parts += answer.events
                if answer.fragment:
                    continue
                events, parts = parts, []
                self.newest = max(self.newest, answer.header.revision)
                for batch in self._batches(events):
                    yield batch
                if not events and not answer.created:
                    # The server says how far it is. With events it does not: more may follow.
                    yield Batch(answer.header.revision, ())

    def _batches(self, events: Sequence[Any]) -> Iterator[Batch]:
        """The events of one answer, revision by revision."""
        for revision, those in groupby(events, lambda event: int(event.kv.mod_revision)):
            entries = [
                Entry(e.kv.key, None if e.type == e.DELETE else e.kv.value, revision)
                for e in those
                if e.kv.key.startswith(self._prefixes)
            ]
            yield Batch(revision, tuple(entries))

    async def _head(self) -> Position:
        """Where the server is now."""
        first = self._prefixes[0]
        answer = await self._etcd.range(first or b"\0", after(first), count_only=True)
        self.newest = answer.header.revision
        return Position(f"{answer.header.cluster_id:x}", answer.header.revision)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of the client, as a source raises them."""
    try:
        yield
    except EtcdError as error:
        if error.compacted:
            raise Compacted from None
        raise Away(str(error)) from None
