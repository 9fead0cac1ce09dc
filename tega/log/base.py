"""The contract between a database and its commit log.

A log is opened once, gives the state that its commits add up to, and from then on takes batches.

- `recover` is called first, and once. It gives the last state that the log holds.
- `append` is called with the commits of a batch, in order of sequence number and without a gap.
  When it returns, they are as lasting as the log's policy says; a commit is acknowledged only then.
  When it raises `OSError`, none of the batch may be acknowledged, and some of it may be there after
  a restart; the log takes nothing more, and `failure` says why. When it raises `NoRoom`, nothing of
  the batch is there, nor will be; the log takes others as soon as there is room.
- `snapshot` is called with the state that the log holds at that moment. The snapshot is written
  while batches go on coming, by iterating over its steps; `install` makes it count.
- `clear` makes the given empty state all that the log holds. A crash in the middle is before or
  after.
- `commits_after` reads back what was appended, as far as it is still kept.
- `close` gives everything free. Calling it again does nothing.

Calls are not concurrent, but for the steps of a snapshot and for `commits_after`, which may run
beside `append`.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from tega.log.record import Logged
from tega.store.commit import Commit
from tega.store.history import State

#: Called while a log is read: commits so far, bytes so far, bytes in all.
Progress: TypeAlias = Callable[[int, int, int], None]


#: Errors of a disk that is full, or of a user who has no more of it.
NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class NoRoom(OSError):
    """The disk has no room for a batch, and the log has nothing of it."""


class Settings(msgspec.Struct, frozen=True):
    """What a log needs to know of its database.

    :ivar maxlen: old versions kept of each root
    :ivar max_depth: most keys in a path
    """

    maxlen: int = 10
    max_depth: int = 64


class Measured(msgspec.Struct, frozen=True):
    """How large a log is.

    :ivar segments: how many files it has
    :ivar size: of all of them, bytes
    :ivar snapshot_size: of the newest snapshot, bytes
    :ivar snapshot_time: when that was made, ISO 8601 in UTC; None where there is none
    """

    segments: int = 0
    size: int = 0
    snapshot_size: int = 0
    snapshot_time: str | None = None


class Snapshot(ABC):
    """A snapshot in the making."""

    @abstractmethod
    def steps(self) -> Iterator[None]:
        """Write it; every step is a bounded piece of work."""

    @abstractmethod
    def install(self) -> None:
        """Make it what the next start reads, with what was appended meanwhile after it."""

    @abstractmethod
    def discard(self) -> None:
        """Give it up; the log is as it was."""


class Log(ABC):
    """A place where commits are kept.

    :ivar full: whether there was no room for the last commit
    """

    full: bool = False

    @abstractmethod
    def recover(self, settings: Settings, progress: Progress | None = None) -> State:
        """Open the log and read it.

        :raises LogError: where it cannot be opened, or does not check
        """

    @abstractmethod
    def append(self, commits: Sequence[Commit]) -> None:
        """Keep a batch.

        :raises OSError: where that failed
        """

    @abstractmethod
    def snapshot(self, state: State) -> Snapshot:
        """Begin a snapshot of `state`, which holds all that was appended so far."""

    @abstractmethod
    def clear(self, state: State) -> None:
        """Let `state`, an empty one of a new life, be all that is held."""

    @abstractmethod
    def commits_after(self, versions: Mapping[str, int]) -> Iterator[Logged | None]:
        """The commits that made later versions of roots, oldest first, as far as kept.

        None in between, now and then, where reading took a while.

        :param versions: of each root, the one after which its commits are wanted
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""

    def measure(self) -> Measured:
        """How large it is, by default for a log that takes no place."""
        return Measured()

    @property
    @abstractmethod
    def failure(self) -> OSError | None:
        """Why the log takes nothing more; None while it does."""

    @property
    @abstractmethod
    def quick(self) -> bool:
        """Whether appending has lately taken so little time that an event loop may wait for it."""

    @property
    @abstractmethod
    def wants_snapshot(self) -> bool:
        """Whether so much was appended since the last snapshot that the next one is due."""
