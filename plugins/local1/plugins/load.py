"""How busy this machine is: ``operational-local1.ne1.load()``, and as data that is kept up to date.

An agent in small: ``put config-local1.interval 1`` on the global server, and this one reports each
second; ``get operational-local1`` there shows what it has applied and what it reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from tega.subscriber import PlugIn

CONFIG = "config-local1"
OPERATIONAL = "operational-local1"

#: Seconds between two reports, as long as nothing else is configured.
INTERVAL = 5
LEAST, MOST = 0.1, 3600


class Load(PlugIn):
    """Offers the load averages, and reports them."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()
        with self.tx() as t:
            t.put(self.func(self.load), path=f"{OPERATIONAL}.ne1.load", ephemeral=True)
        self.subscribe(CONFIG)

    def load(self) -> dict[str, float]:
        """Processes that wanted to run, on average over the last 1, 5 and 15 minutes."""
        return dict(zip(("1m", "5m", "15m"), os.getloadavg(), strict=True))

    def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        """The configuration has changed."""
        self._changed.set()

    async def initialize(self) -> None:
        told: dict[str, Any] = {}
        while True:
            self._changed.clear()
            applied = self.configured()
            async with self.tx() as t:
                if applied != told:
                    t.put(applied, path=f"{OPERATIONAL}.applied", ephemeral=True)
                t.put(self.load(), path=f"{OPERATIONAL}.load", ephemeral=True)
            told = applied
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), applied["interval"])

    def configured(self) -> dict[str, Any]:
        """What is configured, as far as it makes sense. A person has written it."""
        try:
            given = self.get(f"{CONFIG}.interval")
        except KeyError:
            return {"interval": INTERVAL}
        if isinstance(given, int | float) and LEAST <= given <= MOST:
            return {"interval": given}
        return {"interval": INTERVAL, "problem": f"interval: give {LEAST} to {MOST} seconds"}
