"""Refusals: each is counted, and those of access and limits are logged, a few a second.

A client that is refused may well go on asking, and must not fill the disk with that. So no more
than some refusals a second are logged of each kind, and then how many were left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from tega.errors import TegaError
from tega.metrics import Meters

log = logging.getLogger("tega.refusals")

#: Refusals with these statuses are logged: who may, and how much.
_LOGGED: Final = frozenset((401, 403, 413, 414, 429))

#: So many of each code are logged in a while, which is so long, seconds.
_MOST: Final = 10
_WHILE: Final = 1.0

#: Characters of what a client has sent that are logged.
_SHOWN: Final = 200


class Throttle:
    """Admits so many of each kind in a while, and counts the others.

    :param most: how many
    :param seconds: how long a while is
    :param clock: gives seconds, never going back
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        # When the while of each kind began, and how many it has admitted.
        self._admitted: dict[str, tuple[float, int]] = {}
        self._left_out: Counter[str] = Counter()

    def admits(self, kind: str) -> bool:
        """Whether there is room for one more of a kind, of which there are not many."""
        now = self._clock()
        begun, count = self._admitted.get(kind, (now, 0))
        if now - begun >= self._seconds:
            begun, count = now, 0
        if count >= self._most:
            self._left_out[kind] += 1
            return False
        self._admitted[kind] = begun, count + 1
        return True

    def left_out(self) -> dict[str, int]:
        """How many of each kind were not admitted since this was asked last."""
        counts, self._left_out = self._left_out, Counter()
        return dict(counts)


class Refusals:
    """What a server refuses.

    :param meters: takes what is counted
    """

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._loop = asyncio.get_running_loop()
        self._throttle = Throttle(_MOST, _WHILE, self._loop.time)
        self._timer: asyncio.TimerHandle | None = None

    def refused(self, error: TegaError, who: str, source: str, what: str) -> None:
        """Something is refused.

        :param who: the identity, or the tega id that is claimed
        :param source: the address that it came from
        :param what: the request or message
        """
        self._meters.refusals[error.code] += 1
        if error.limited_by:
            self._meters.limits[error.limited_by] += 1
        if error.status not in _LOGGED:
            return
        if self._throttle.admits(error.code):
            who, what, why = who[:_SHOWN], what[:_SHOWN], error.message[:_SHOWN]
            log.warning(
                "%s: %s at %s: %s: %s", error.code, who, source, what, why,
                extra={"code": error.code, "who": who, "source": source, "what": what},
            )
        elif self._timer is None:
            self._timer = self._loop.call_later(_WHILE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        for code, count in self._throttle.left_out().items():
            log.warning("%s: %d more", code, count, extra={"code": code, "left_out": count})

    def close(self) -> None:
        """Tell what is still to be told."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()
