"""Functions that anybody can call: ``inventory.ne1.f1(1,2)`` and ``inventory.ne1.f2()``."""

from __future__ import annotations

from datetime import datetime

from tega.subscriber import PlugIn
from tega.tree import Cont


class Inventory(PlugIn):
    """Offers two functions."""

    def __init__(self) -> None:
        super().__init__()
        inventory = Cont("inventory")
        inventory.ne1.f1 = self.func(max)
        inventory.ne1.f2 = self.func(self.date)
        with self.tx() as t:
            t.put(inventory.ne1.f1, ephemeral=True)
            t.put(inventory.ne1.f2, ephemeral=True)

    def date(self) -> str:
        """The date and time of this machine."""
        return datetime.now().astimezone().isoformat(timespec="seconds")
