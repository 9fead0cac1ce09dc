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
            offered = {"worst": self.func(self.worst), "hold": self.func(self.hold)}
            t.put(offered, path="turns", ephemeral=True)

    async def worst(self) -> tuple[float, float]:
        """Seconds of processor time: of the longest turn, and now of an `exercise`."""
        worst = self._worst
        pace = min(exercise() for _ in range(3))
        # What this takes is no matter.
        asyncio.get_running_loop().call_later(0.001, self._forget)
        self._worst = 0.0
        return worst, pace

    async def hold(self, seconds: float) -> None:
        """Work for so long in one turn."""
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            exercise()

    def _forget(self) -> None:
        self._worst = 0.0
