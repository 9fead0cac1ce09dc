"""Syncing beside the commits: for a log that may lose the last moment's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Syncer:
    """A thread that syncs at most once in an interval, while there is something to sync."""

    def __init__(self, sync: Callable[[], None], interval: float) -> None:
        self._sync = sync
        self._interval = interval
        self._work = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tega-sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was appended."""
        self._work.set()

    def _run(self) -> None:
        while self._work.wait() and not self._stopped.wait(self._interval):
            self._work.clear()
            try:
                self._sync()
            except OSError:
                log.exception("syncing the commit log failed: no further commit is taken")
                return

    def stop(self) -> None:
        """End the thread; what is left to sync is for the caller."""
        self._stopped.set()
        self._work.set()
        self._thread.join()
