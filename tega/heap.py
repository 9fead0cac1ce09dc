"""Keeps the garbage collector from stopping a server that holds millions of nodes.

A full collection visits every container, which for a million leaves takes most of a second. Trees
hold no cycles, so those visits find nothing. What has survived a full collection that took
noticeably long is therefore set aside: the collector does not look at it again. It is still freed
as soon as nothing refers to it; only cycles among what is set aside would stay.
"""

from __future__ import annotations

import gc
import time
from typing import Final, Literal

#: A full collection that takes so long is the last one for what it visited, seconds.
_NOTICEABLE: Final = 0.01


#: So many new objects bring on a collection of the youngest, which are looked through in under a
#: millisecond. At Python's own 700 a tenth of the time of a busy server goes there.
_YOUNG: Final = 10_000


class Heap:
    """Watches full collections of this process."""

    def __init__(self) -> None:
        self._started = 0.0
        self._thresholds = gc.get_threshold()

    def watch(self) -> None:
        """Set aside what is there, and from now on what grows too large to be visited."""
        gc.freeze()
        gc.set_threshold(_YOUNG, *self._thresholds[1:])
        gc.callbacks.append(self._collecting)

    def leave(self) -> None:
        """Undo `watch`."""
        gc.callbacks.remove(self._collecting)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _collecting(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if info["generation"] != 2:
            return
        if phase == "start":
            self._started = time.monotonic()
        elif time.monotonic() - self._started > _NOTICEABLE:
            gc.freeze()
