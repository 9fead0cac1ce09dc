"""Requests that are judged, and are not durable yet."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tega.errors import TegaError
from tega.store.commit import Commit
from tega.store.history import Result, State


class Prepared(NamedTuple):
    """What comes of a request, if it is the next one.

    :ivar before: the state that it was judged by
    :ivar after: the state with its commit as the newest
    """

    before: State
    after: State
    commit: Commit


class Pending:
    """A request on its way: accepted or refused, but what was decided is not durable yet.

    :ivar before: the state that it was judged by
    :ivar commit: what was made of it; None where that is nothing
    :ivar begun: when it was judged, by the monotonic clock
    :ivar settled: whether the outcome may be told
    """

    __slots__ = ("_error", "_result", "before", "begun", "commit", "settled")

    def __init__(
        self,
        before: State,
        result: Result | None,
        error: TegaError | None,
        commit: Commit | None = None,
    ) -> None:
        self.before = before
        self._result = result
        self._error = error
        self.commit = commit
        self.begun = 0.0
        self.settled = False

    @classmethod
    def outcome(cls, before: State, result: Result | None, error: TegaError | None) -> Pending:
        """One that is settled: it was judged elsewhere."""
        made = cls(before, result, error)
        made.settled = True
        return made

    def fail(self, error: TegaError) -> None:
        """Settle with another outcome than the one that was judged."""
        self._error = error
        self.settled = True

    def check(self) -> None:
        """See that it was done.

        :raises TegaError: where the request was refused, or the disk failed
        """
        assert self.settled, "nobody may learn this before it is durable"
        if self._error is not None:
            # Many may be told of the same failure: its traceback must not grow with each of them.
            raise self._error.with_traceback(None)

    def made(self) -> tuple[int, Collection[tuple[str, int]]]:
        """What `result` holds, without making one: the sequence number, and roots with versions.

        :raises TegaError: as `check` does
        """
        self.check()
        if self._result is None:
            assert self.commit is not None
            return self.commit.seq, self.commit.versions
        return self._result.seq, tuple(self._result.versions.items())

    def result(self) -> Result:
        """What the client is told.

        :raises TegaError: as `check` does
        """
        self.check()
        if self._result is None:
            assert self.commit is not None
            self._result = self.commit.result()
        return self._result
