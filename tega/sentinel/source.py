"""What is mirrored: the contract that every source keeps, in prose.

A source holds *keys*, each with a value and the *revision* of its last change. Revisions are whole
numbers that only grow, and each names one state of everything. They are of a *life*: where the
source was begun anew, its revisions are of another life, and say nothing about this one.

- `Source.open` connects. It may be called again at any time, and then connects anew.
- `Source.listing` gives everything under some prefixes as it was at **one** revision, in pieces of
  bounded size. Without a revision the source takes its newest. A revision that is not known any
  more raises `Compacted`; a source whose `lists_back` is false knows only its newest.
- `Source.changes` gives what changed after a position, in order, nothing left out and nothing
  twice: one `Batch` for each revision, with all that changed at it. It never ends by itself. Where
  it cannot go on from that position it raises `Compacted`, and then the way on is a listing.
- Whoever reads slowly holds up nothing but itself, and costs a bounded amount of memory here.
- A source that cannot be reached raises `Away`, from anywhere. `Source.open` then begins again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple


class Away(OSError):
    """The source cannot be reached, or refuses; the message says why."""


class Compacted(Exception):
    """The source does not know that revision any more, or never did."""


class Position(NamedTuple):
    """A state of the source: everything up to this revision of this life."""

    life: str
    revision: int


class Entry(NamedTuple):
    """A key, and what it holds since a revision.

    :ivar key: as the source has it: of tega a dotted path in UTF-8
    :ivar value: None: it was deleted at this revision
    """

    key: bytes
    value: bytes | None
    revision: int


class Batch(NamedTuple):
    """All that changed at one revision.

    :ivar entries: the changes, one for each key; none where the source only says how far it is
    """

    revision: int
    entries: tuple[Entry, ...]


class Listing(NamedTuple):
    """Everything at one revision.

    :ivar position: that revision
    :ivar pieces: the keys with their values, in pieces
    :ivar total: how many keys there are
    """

    position: Position
    pieces: AsyncIterator[list[Entry]]
    total: int


class Source(ABC):
    """A source.

    :ivar name: its address for people, without secrets
    :ivar lists_back: whether it can list old revisions
    :ivar newest: the newest revision that it has told of
    :ivar connected: False once a connection that was there is lost, also before anything fails
    """

    name: str
    lists_back: bool
    newest: int = 0

    @property
    def connected(self) -> bool:
        return True

    @abstractmethod
    async def open(self) -> None:
        """Connect, anew where it was connected.

        :raises Away: where that fails
        """

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def listing(self, prefixes: Sequence[bytes], position: Position | None) -> Listing:
        """Everything under these prefixes, at a position or at the newest.

        :raises Compacted: where it is not known any more; the pieces may raise it too
        :raises Away: where the source cannot be reached; the pieces may raise it too
        """

    @abstractmethod
    async def changes(
        self, position: Position, known: AsyncIterator[list[Entry]]
    ) -> AsyncIterator[Batch]:
        """What changes after a position.

        :param known: everything as it was at that position, for a source that tells of a key only
            in part what has changed; it is read before this returns, or not at all
        :raises Compacted: where it cannot go on from there
        :raises Away: where the source cannot be reached
        """
