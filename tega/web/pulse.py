"""The pulse of the event loop: how late it comes to what is due."""

from __future__ import annotations

import asyncio
from typing import Final

from tega.metrics import Meters

#: Seconds from one beat to the next: a loop that is held up is late by all but so much of it.
_BEAT: Final = 0.05


class Pulse:
    """Beats until it is stopped.

    :param meters: takes how late each beat was
    """

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + _BEAT
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        self._meters.loop_lag.note(now - self._due, now)
        self._due = now + _BEAT
        self._timer = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()
