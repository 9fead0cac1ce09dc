"""How busy this machine is: ``operational-local1.ne1.load()``."""

from __future__ import annotations

import os

from tega.subscriber import PlugIn


class Load(PlugIn):
    """Offers the load averages."""

    def __init__(self) -> None:
        super().__init__()
        with self.tx() as t:
            t.put(self.func(self.load), path="operational-local1.ne1.load", ephemeral=True)

    def load(self) -> dict[str, float]:
        """Processes that wanted to run, on average over the last 1, 5 and 15 minutes."""
        return dict(zip(("1m", "5m", "15m"), os.getloadavg(), strict=True))
