"""How often who may ask: a token bucket for each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Buckets that are remembered at most. One that is forgotten is full again.
_REMEMBERED: Final = 10_000


class Rates:
    """Counts what each asks for.

    :param rate: requests a second that are granted to each in the long run; 0: any number
    :param burst: requests that one may make at once, after a rest
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self._burst = burst
        # By name: when the bucket would be empty at this rate, seconds. In order of their use.
        self._empty: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str, now: float, granted: bool = False) -> float:
        """Somebody asks.

        :param now: seconds, never going back
        :param granted: whether it is granted and counts in any case
        :returns: seconds after which that would be in time; 0: it is
        """
        full = now - self._burst / self.rate
        # A bucket holds (now - empty) x rate; taking one moves that on by 1 / rate.
        after = max(self._empty.get(name, full), full) + 1 / self.rate
        if after > now and not granted:
            return after - now
        self._empty[name] = after
        self._empty.move_to_end(name)
        if len(self._empty) > _REMEMBERED:
            self._empty.popitem(last=False)
        return max(0.0, after - now)
