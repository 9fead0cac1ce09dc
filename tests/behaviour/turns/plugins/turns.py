"""Measures how long the turns of the server's event loop take."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tega.subscriber import PlugIn


def exercise() -> float:
    """Processor time of some work that is always the same, seconds."""
    begun = time.thread_time()
    sorted({str(number): [number] for number in range(20_000)})
    return time.thread_time() - begun


class Turns(PlugIn):
    """Offers ``turns.worst``: what the longest turn took since it was asked last."""

    def __init__(self) -> None:
        super().__init__()
        self._worst = 0.0
        loop: Any = asyncio.get_running_loop()
        turn = loop._run_once

        def measured() -> None:
            begun = time.thread_time()
            turn()
            self._worst = max(self._worst, time.thread_time() - begun)

        loop._run_once = measured
        with self.tx() as t:
            t.put({"worst": self.func(self.worst)}, path="turns", ephemeral=True)

    async def worst(self) -> tuple[float, float]:
        """Seconds of processor time: of the longest turn, and now of an `exercise`."""
        worst = self._worst
        pace = min(exercise() for _ in range(3))
        # What this takes is no matter.
        asyncio.get_running_loop().call_later(0.001, self._forget)
        self._worst = 0.0
        return worst, pace

    def _forget(self) -> None:
        self._worst = 0.0
