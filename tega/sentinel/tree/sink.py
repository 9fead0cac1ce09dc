"""What the sinks that are trees share: a mirror in memory, and writing in transactions."""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from tega.sentinel.address import Address
from tega.sentinel.sink import Event, Fenced, FullPass, Sink, SinkError
from tega.sentinel.source import Batch, Entry, Position
from tega.sentinel.tree.mirror import GONE, Mirror, Names, Put

#: Changes in one transaction, most: etcd takes 128. And their bytes.
_TOGETHER: Final = 100
_BYTES: Final = 512 << 10


class Refused(Exception):
    """The tree refuses a transaction, for what is in it."""


class Checkpoint(NamedTuple):
    """How far a mirror is.

    :ivar whole: whether all up to that position is there: not so amid a pass of many transactions
    """

    source: str
    position: Position
    holder: str
    whole: bool

    def dumps(self) -> bytes:
        """As JSON."""
        return json.dumps({
            "source": self.source, "life": self.position.life,
            "revision": self.position.revision, "holder": self.holder, "whole": self.whole,
        }).encode()  # fmt: skip

    @classmethod
    def loads(cls, text: bytes) -> Checkpoint | None:
        """Of JSON; None: it is no checkpoint."""
        try:
            read = json.loads(text)
            position = Position(str(read["life"]), int(read["revision"]))
            return cls(str(read["source"]), position, str(read["holder"]), bool(read["whole"]))
        except (ValueError, TypeError, KeyError):
            return None


class TreeSink(Sink):
    """A tree.

    :param source: what is mirrored
    :param sink: what it is mirrored to: nobody else writes there
    :param checkpoint: the name of the checkpoint
    """

    forgets = True

    def __init__(
        self, source: Address, sink: Address, names: Names, checkpoint: str, interval: float
    ) -> None:
        self.name = str(sink)
        self.prefixes = {source.prefix: interval}
        self.names = names
        self.checkpoint = checkpoint
        self.mirror = Mirror(names)
        self.position: Position | None = None
        self._source = str(source)
        self._holder = str(uuid.uuid4())
        self._claimed = False

    # What each kind of tree does

    @abstractmethod
    async def connect(self) -> None:
        """Connect, anew where it was connected."""

    @abstractmethod
    async def read_checkpoint(self) -> bytes | None:
        """What the checkpoint holds; `commit` goes on the condition that it still does."""

    @abstractmethod
    async def read(self) -> dict[Any, Any]:
        """What there is, by place."""

    @abstractmethod
    async def commit(self, puts: Sequence[Put], checkpoint: bytes) -> bool:
        """Write something, and the checkpoint, as one transaction.

        :returns: whether the checkpoint was still as it had been read
        :raises Refused: where it is refused for another reason
        """

    @abstractmethod
    def differing(
        self, there: dict[Any, Any], wanted: dict[Any, tuple[Any, Entry]]
    ) -> tuple[list[Any], list[Any]]:
        """What is there and should not be, and which of what should be there is not."""

    @abstractmethod
    def named(self, place: Any) -> bytes:
        """A place of the sink, for people."""

    # What they share

    async def open(self) -> Position | None:
        await self.connect()
        held = await self._read_checkpoint()
        if self._claimed and held is not None and held.holder != self._holder:
            raise self._fenced()
        whole = held is not None and held.whole and held.source == self._source
        self.position = held.position if held is not None and whole else None
        claim = self.position or Position("", 0)
        if not await self.commit([], self._checkpoint(claim, self.position is not None)):
            raise SinkError(f"somebody changes the checkpoint {self.checkpoint!r} at this moment")
        self._claimed = True
        return self.position

    async def peek(self) -> Position | None:
        await self.connect()
        held = await self._read_checkpoint()
        whole = held is not None and held.whole and held.source == self._source
        return held.position if held is not None and whole else None

    async def _read_checkpoint(self) -> Checkpoint | None:
        text = await self.read_checkpoint()
        return None if text is None else Checkpoint.loads(text)

    def _checkpoint(self, position: Position, whole: bool) -> bytes:
        return Checkpoint(self._source, position, self._holder, whole).dumps()

    def _fenced(self) -> Fenced:
        return Fenced(
            f"another sentinel has taken over the checkpoint {self.checkpoint!r} at {self.name}: "
            "stop one of them, or give each its own --name"
        )

    async def known(self) -> AsyncIterator[list[Entry]]:
        yield list(self.mirror.keys.values())

    async def apply(self, batches: Sequence[Batch], position: Position) -> list[Event]:
        puts, rejected = self.mirror.changes(batches)
        return rejected + await self.write(puts, position)

    async def write(self, puts: Sequence[Put], position: Position) -> list[Event]:
        """Write changes, and the position that they lead to: in one transaction, if that will do.

        :returns: what was done
        """
        events: list[Event] = []
        rest = list(_portions(puts))
        while rest:
            portion = rest.pop(0)
            try:
                await self._commit(portion, position, not rest)
            except Refused as refused:
                if len(portion) > 1:
                    half = len(portion) // 2
                    rest[:0] = [portion[:half], portion[half:]]
                    continue
                if not portion:
                    raise SinkError(str(refused)) from None
                (put,) = portion
                # What somebody else has removed need not be deleted.
                if put.value is not GONE:
                    entry = Entry(put.event.key, None, put.event.revision)
                    events += self.mirror.reject(entry, f"refused: {refused}")
                if not rest:
                    rest.append([])
            else:
                events += [put.event for put in portion]
        self.position = position
        return events

    async def _commit(self, portion: Sequence[Put], position: Position, whole: bool) -> None:
        if not await self.commit(portion, self._checkpoint(position, whole)):
            held = await self._read_checkpoint()
            if held is None or held.holder == self._holder:
                raise SinkError(f"somebody has changed the checkpoint {self.checkpoint!r}")
            raise self._fenced()

    def full_pass(self, prefixes: Sequence[bytes], position: Position) -> FullPass:
        return _TreePass(self, position, writes=True)

    def comparison(self, prefixes: Sequence[bytes], position: Position) -> FullPass:
        return _TreePass(self, position, writes=False)


class _TreePass(FullPass):
    """A pass: the listing beside what is there."""

    def __init__(self, sink: TreeSink, position: Position, writes: bool) -> None:
        self._sink = sink
        self._position = position
        self._writes = writes
        self._mirror = Mirror(sink.names)
        self._puts: list[Put] = []
        self._rejected: list[Event] = []

    async def take(self, piece: Sequence[Entry]) -> None:
        self._mirror.take(piece)

    async def finish(self) -> list[Event]:
        sink, before = self._sink, self._sink.mirror
        if self._writes:
            self._mirror.heard_of(before)
        there = await sink.read()
        wanted, rejected = self._mirror.all()
        surplus, lacking = sink.differing(there, wanted)
        same = sink.position == self._position
        puts = [
            Put(place, GONE, Event(
                "delete", "", {}, sink.named(place), self._position.revision, drift=same,
            ))
            for place in surplus
        ]  # fmt: skip
        for place in lacking:
            value, entry = wanted[place]
            kind = "update" if place in there else "insert"
            drift = sink.position is not None and (same or before.keys.get(entry.key) == entry)
            event = Event(kind, "", {}, entry.key, entry.revision, drift=drift)
            puts.append(Put(place, value, event))
        self._puts, self._rejected = puts, rejected
        return [put.event for put in puts if put.event.drift or not self._writes]

    async def commit(self) -> list[Event]:
        sink = self._sink
        sink.mirror = self._mirror
        if not self._puts and sink.position == self._position:
            return self._rejected
        done = await sink.write(self._puts, self._position)
        return [event for event in self._rejected + done if not event.drift]

    async def close(self) -> None:
        pass


def _portions(puts: Sequence[Put]) -> list[list[Put]]:
    """The changes in portions for one transaction each; one at least."""
    portions: list[list[Put]] = [[]]
    size = 0
    for put in puts:
        weight = len(str(put.value)) if put.value is not GONE else 0
        if len(portions[-1]) >= _TOGETHER or (portions[-1] and size + weight > _BYTES):
            portions.append([])
            size = 0
        portions[-1].append(put)
        size += weight
    return portions
