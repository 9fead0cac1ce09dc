"""A function that answers what it is asked: ``operational-local2.ne2.echo('hello')``."""

from __future__ import annotations

import asyncio
from typing import Any

from tega.subscriber import PlugIn


class Echo(PlugIn):
    """Offers a coroutine, which may take its time without holding up the server."""

    def __init__(self) -> None:
        super().__init__()
        with self.tx() as t:
            t.put(self.func(self.echo), path="operational-local2.ne2.echo", ephemeral=True)

    async def echo(self, value: Any = None, delay: float = 0) -> Any:
        """The value, after a delay in seconds."""
        await asyncio.sleep(delay)
        return value
