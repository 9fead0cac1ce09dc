"""Notices in runs: those of several commits, one after the other, for all the same watchers.

Where many watch the same place and writes come fast, most of the work is to tell each watcher of
each commit. A watcher that takes a run is told of all of it at once, as all the others are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from tega.access.rules import Rights
from tega.notices import Notice
from tega.store.commit import Commit
from tega.watcher import Run, Watcher

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Most notices of a run.
_MOST: Final = 128


class Runs:
    """Gathers notices, and hands them out in order: each run when another begins, or at `end`."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._gathered: list[tuple[Commit, Notice]] = []

    def __bool__(self) -> bool:
        return bool(self._gathered)

    def add(self, commit: Commit, notice: Notice, watchers: list[Watcher]) -> None:
        """Tell some watchers of a commit, now or soon.

        :param watchers: all that subscribe to something of it; not changed any more
        """
        if watchers != self._watchers or len(self._gathered) >= _MOST:
            self.end()
            if not all(watcher.takes_runs for watcher in watchers):
                # What one of them is told may make it change its subscriptions.
                _tell_of(commit, notice, watchers)
                return
            self._watchers = watchers
        self._gathered.append((commit, notice))

    def end(self) -> None:
        """Hand out what is gathered."""
        gathered, self._gathered = self._gathered, []
        watchers, self._watchers = self._watchers, []
        if len(gathered) == 1:
            _tell_of(*gathered[0], watchers)
            return
        authors = {commit.tega_id for commit, _ in gathered}
        runs: dict[Rights | None, Run] = {}
        for watcher in watchers:
            if not watcher.live or watcher.tega_id in authors:
                for commit, notice in gathered:
                    _tell_of(commit, notice, [watcher])
                continue
            run = runs.get(watcher.rights)
            if run is None:
                seen = [notice.seen_by(watcher.rights) for _, notice in gathered]
                run = runs[watcher.rights] = Run([notice for notice in seen if notice is not None])
            if run.notices:
                guarded(watcher, watcher.notify_run, run)


def _tell_of(commit: Commit, notice: Notice, watchers: list[Watcher]) -> None:
    for watcher in watchers:
        if watcher.hears(commit):
            seen = notice.seen_by(watcher.rights)
            if seen is not None:
                guarded(watcher, watcher.notify, seen)


def guarded(watcher: Watcher, tell: Callable[[T], None], told: T) -> None:
    """Tell a watcher something; where that fails, the others are told all the same."""
    try:
        tell(told)
    except Exception:
        log.exception("%s failed on a notice; the others get it", watcher.tega_id)
