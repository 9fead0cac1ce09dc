"""The newest commits, kept in memory for watchers that fall behind or come back.

Most servers are written to far more than they are watched. What is kept for nobody costs memory,
and time: each new document is then made where nothing has been for a while, which no cache of the
processor holds. So little is kept where nobody could ask for more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from tega.store.commit import Commit

#: Most bytes of records that are kept, beside their number.
_MOST: Final = 4 << 20

#: The same while nobody watches who could want them.
_UNWATCHED: Final = 16 << 10

#: So many are let go at once for each that comes, where far more are kept than have to be: to free
#: all of them would stop a server for many milliseconds.
_AT_ONCE: Final = 4


class Kept:
    """A window over the newest commits. Its user sees to it that one thread is in here at a time.

    :param most: how many commits are kept at most
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._commits: deque[Commit] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._wanted = -1

    def wanted(self, seq: int) -> None:
        """Somebody has seen all up to a sequence number, and may want to go on from there."""
        self._wanted = seq

    def add(self, commits: Sequence[Commit]) -> None:
        """Keep some more, each the next after the one before."""
        for commit in commits:
            size = 0
            for change in commit.changes:
                size += len(change.record)
            self._sizes.append(size)
            self._bytes += size
        self._commits.extend(commits)
        while len(self._commits) > self._most or self._bytes > _MOST:
            self._let_go()
        for _ in range(_AT_ONCE * len(commits)):
            # Who wants to go on from before what is kept must be told what stands there anyway.
            if self._bytes <= _UNWATCHED or self._wanted >= self._commits[0].seq - 1:
                break
            self._let_go()

    def _let_go(self) -> None:
        self._commits.popleft()
        self._bytes -= self._sizes.popleft()

    @property
    def oldest(self) -> int | None:
        """The sequence number of the oldest; None where there is none."""
        return self._commits[0].seq if self._commits else None

    def all(self) -> list[Commit]:
        """All of them, oldest first."""
        return list(self._commits)

    def after(self, seq: int, most: int) -> list[Commit]:
        """Those after a sequence number, oldest first, but no more than `most`."""
        if not self._commits:
            return []
        start = max(seq + 1 - self._commits[0].seq, 0)
        return list(islice(self._commits, start, start + most))

    def newest(self, count: int) -> list[Commit]:
        """So many of the newest, oldest first."""
        return list(islice(reversed(self._commits), count))[::-1]

    def clear(self) -> None:
        """Let all go: numbers begin anew."""
        self._commits.clear()
        self._sizes.clear()
        self._bytes = 0
        self._wanted = -1
