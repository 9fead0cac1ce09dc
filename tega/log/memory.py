"""A log that keeps commits in memory: for tests, and for databases that need not last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tega.log import record
from tega.log.base import Log, Progress, Settings, Snapshot
from tega.log.record import Logged
from tega.store.commit import Commit
from tega.store.history import State


class MemoryLog(Log):
    """Commits as text in a list; what `recover` gives is replayed from that text.

    A second database opened on the same log goes on where the first one ended.
    """

    def __init__(self, new_life: Callable[[], str]) -> None:
        self._new_life = new_life
        self._start: State | None = None
        self._life = ""
        self._texts: list[bytes] = []

    def recover(self, settings: Settings, progress: Progress | None = None) -> State:
        if self._start is None:
            self._start = State(self._new_life())
        state = self._start
        self._life = state.life
        for text in self._texts:
            state = record.apply(state, record.read_one(text, 0), settings.maxlen)
        return state

    def append(self, commits: Sequence[Commit]) -> None:
        self._texts += [record.encode(commit, commit.seq - 1, self._life) for commit in commits]

    def snapshot(self, state: State) -> Snapshot:
        return _Nothing()

    def clear(self, state: State) -> None:
        self._start, self._life, self._texts = state, state.life, []

    def commits_after(self, versions: Mapping[str, int]) -> Iterator[Logged | None]:
        for text in tuple(self._texts):
            logged = record.read_one(text, 0)
            if logged.made_after(versions):
                yield logged

    def close(self) -> None:
        """Nothing to let go of: the commits stay for the next database."""

    @property
    def failure(self) -> OSError | None:
        return None

    @property
    def quick(self) -> bool:
        return True

    @property
    def wants_snapshot(self) -> bool:
        return False


class _Nothing(Snapshot):
    """A snapshot of what is in memory anyway."""

    def steps(self) -> Iterator[None]:
        return iter(())

    def install(self) -> None:
        """Nothing to exchange."""

    def discard(self) -> None:
        """Nothing to remove."""
