"""The time here, for machines whose own clock cannot be trusted: ``operational-global.time()``."""

from __future__ import annotations

from datetime import datetime, timezone

from tega.subscriber import PlugIn


class Clock(PlugIn):
    """Offers the time."""

    def __init__(self) -> None:
        super().__init__()
        with self.tx() as t:
            t.put(self.func(self.time), path="operational-global.time", ephemeral=True)

    async def time(self) -> str:
        """The time of this machine, in UTC."""
        return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
