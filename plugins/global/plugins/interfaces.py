"""The counters of the machine's network interfaces, every second, as ephemeral nodes.

``get operational-global.interfaces``, or ``sub`` it and see them change.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tega.subscriber import PlugIn

#: Where Linux tells them: two lines of headings, then one for each interface.
COUNTERS = Path("/proc/net/dev")

#: The columns of that file: first what was received, then what was sent.
COLUMNS = [
    f"{way}_{what}"
    for way, whats in (
        ("rx", ("bytes", "packets", "errors", "dropped", "fifo", "frame", "compressed", "multi")),
        ("tx", ("bytes", "packets", "errors", "dropped", "fifo", "collisions", "carrier", "comp")),
    )
    for what in whats
]


class Interfaces(PlugIn):
    """Tells how many bytes and packets have passed each interface."""

    path = "operational-global.interfaces"

    async def initialize(self) -> None:
        told: dict[str, dict[str, int]] = {}
        while True:
            now = counters(read())
            changed = {name: now[name] for name in now if told.get(name) != now[name]}
            gone = told.keys() - now.keys()
            if changed or gone:
                async with self.tx() as t:
                    for name, values in changed.items():
                        t.put(values, path=f'{self.path}."{name}"', ephemeral=True)
                    for name in gone:
                        t.delete(f'{self.path}."{name}"')
            told = now
            await asyncio.sleep(1)


def read() -> str:
    """What Linux tells. It makes that up on the spot, so that no loop waits for a disk."""
    return COUNTERS.read_text() if COUNTERS.exists() else ""


def counters(text: str) -> dict[str, dict[str, int]]:
    """The counters by interface."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, values = line.partition(":")
        found[name.strip()] = dict(zip(COLUMNS, map(int, values.split()), strict=False))
    return found
