"""Where the mirror is kept: the contract that every sink keeps, in prose.

- `Sink.open` connects, makes what is missing, takes the checkpoint of this name over from whoever
  had it, and gives the position that it holds. It may be called again at any time.
- `Sink.apply` takes in batches in order, and the position they lead to, as **one** transaction:
  after a crash all of it is there, with the new position, or nothing, with the old one. What does
  not fit is set aside and reported, and the rest goes in.
- `Sink.full_pass` makes the mirror equal to a listing in the same way. It compares before it
  writes. What differs although the source has not changed is *drift*, and reported as such.
- Every transaction is made on the condition that the checkpoint is still this sentinel's own and
  where it left it. If it is not, another one has taken over, and `Fenced` is raised.
- A sink that fails raises `SinkError`. The outcome of what was under way is then unknown;
  `Sink.open` tells by the position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from tega.sentinel.source import Batch, Entry, Position


class SinkError(OSError):
    """The sink cannot be reached, or fails; it may do better the next time."""


class Unfit(Exception):
    """The sink cannot be used as it is: a table does not match, a right is missing."""


class Again(Exception):
    """The full pass must be made again, from a new listing: the sink has learnt what it refuses."""


class Fenced(Exception):
    """Another sentinel has taken over the checkpoint."""


class Event(NamedTuple):
    """Something done, or to be done, to the mirror.

    :ivar kind: ``insert``, ``update``, ``delete``, ``reject`` or ``error``
    :ivar table: the table; of a tree empty
    :ivar row: the primary key, column by column; of a tree empty
    :ivar key: the key that it comes of
    :ivar revision: the revision that it comes of
    :ivar changed: with an update: what differs, column by column, before and after
    :ivar reason: with a reject or an error: why
    :ivar drift: whether somebody else had changed the mirror
    """

    kind: str
    table: str
    row: dict[str, Any]
    key: bytes
    revision: int
    changed: dict[str, tuple[Any, Any]] | None = None
    reason: str = ""
    drift: bool = False


class FullPass(ABC):
    """A pass over everything: take each piece, finish, commit; then, or instead, close."""

    @abstractmethod
    async def take(self, piece: Sequence[Entry]) -> None:
        """The next piece of the listing."""

    @abstractmethod
    async def finish(self) -> list[Event]:
        """After the last piece: find what is gone, and what somebody else has changed.

        :returns: what somebody else has changed, to be told before it is mended; of a comparison
            all that would have to be done
        """

    @abstractmethod
    async def commit(self) -> list[Event]:
        """Make it all so, and the position.

        :returns: what was done, but for what `finish` has told; nothing of a comparison
        """

    @abstractmethod
    async def close(self) -> None:
        """Undo what is not committed."""


class Sink(ABC):
    """A sink.

    :ivar name: its address for people, without secrets
    :ivar forgets: whether it needs a full pass after each `open`, before it can apply changes
    :ivar prefixes: what of the source it mirrors, each with how often to pass over it, seconds
    :ivar lacks: what `peek` has found not to be there yet, though it is taken for empty
    :ivar unanswered: what the last transaction of `apply` does, if it was done though its answer
        was lost
    :ivar connected: False once a connection that was there is lost, also before anything fails
    """

    name: str
    forgets: bool
    prefixes: dict[bytes, float]
    lacks: Sequence[str] = ()
    unanswered: Sequence[Event] = ()

    @property
    def connected(self) -> bool:
        return True

    @abstractmethod
    async def open(self) -> Position | None:
        """Connect and take over the checkpoint.

        :returns: the position that the mirror is at; None: no whole pass was made yet
        :raises SinkError: where it cannot be reached
        :raises Unfit: where it cannot be used as it is
        """

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def peek(self) -> Position | None:
        """The position of the mirror, changing and claiming nothing."""

    @abstractmethod
    def known(self) -> AsyncIterator[list[Entry]]:
        """Every key with its value, as they were at the position that `open` gave."""

    @abstractmethod
    async def apply(self, batches: Sequence[Batch], position: Position) -> list[Event]:
        """Take in changes.

        :param position: of the last of them
        :returns: what was done, in order
        :raises Fenced: where another sentinel has the checkpoint
        """

    @abstractmethod
    def full_pass(self, prefixes: Sequence[bytes], position: Position) -> FullPass:
        """A pass over what is under these prefixes, that leads to a position."""

    @abstractmethod
    def comparison(self, prefixes: Sequence[bytes], position: Position) -> FullPass:
        """A pass that changes nothing, and needs no checkpoint."""
