#!/usr/bin/env python3
"""An agent: watches its configuration, applies it, reports what it sees, offers a function.

It measures how long a TCP connection to each of its targets takes. Copy it and put your own work in
the place of `probe`. Start a server and the agent, and give it something to do:

    ./scripts/global
    .venv/bin/python doc/examples/agent.py ne1
    ./scripts/cli put config-ne1 '{interval: 2, targets: {server: "127.0.0.1:8739"}}'
    ./scripts/cli get operational-ne1
    ./scripts/cli rpc operational-ne1.probe 127.0.0.1:8739

What it reports are ephemeral nodes. They are there as long as the agent is connected: when it ends,
or is killed, or its link breaks, everybody who watches them is told.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from typing import Any

from tega.driver import AsyncDriver, SessionException, Tls

log = logging.getLogger("agent")

#: What it does until it is configured, and wherever its configuration says nothing.
DEFAULTS: dict[str, Any] = {"interval": 5, "targets": {}}


async def probe(target: str) -> dict[str, Any]:
    """Connect to HOST:PORT, and say how long that took."""
    host, _, port = target.rpartition(":")
    started = time.monotonic()
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 2)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        return {"up": False, "reason": str(error) or type(error).__name__}
    writer.close()
    return {"up": True, "ms": round(1000 * (time.monotonic() - started), 3)}


class Agent:
    """One agent of the network element `name`."""

    def __init__(self, driver: AsyncDriver, name: str) -> None:
        self._driver = driver
        self._config = f"config-{name}"
        self._operational = f"operational-{name}"
        self._settings = DEFAULTS
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Work for ever."""
        await self._driver.serve(f"{self._operational}.probe", probe)
        await asyncio.gather(self._follow(), self._report())

    async def _follow(self) -> None:
        """Keep to the configuration: as it is now, and as it changes."""
        async for change in self._driver.watch(self._config, since=0):
            # Whatever has changed, and however many changes are still to come: read it all. What a
            # person has written may be wrong, and must not end the agent.
            matches = await self._driver.get(self._config, python_dict=True, regex_flag=True)
            given = matches.get(self._config, {}).get("instance")
            self._settings = {**DEFAULTS, **(given if isinstance(given, dict) else {})}
            log.info("%s at number %s: now %s", change.ope, change.seq, self._settings)
            self._changed.set()

    async def _report(self) -> None:
        """Probe and report, each interval and whenever the configuration changes."""
        told: set[str] = set()
        while True:
            self._changed.clear()
            targets = self._settings["targets"]
            targets = targets if isinstance(targets, dict) else {}
            results = await asyncio.gather(*[probe(str(target)) for target in targets.values()])
            # All of it as one transaction: nobody sees half of a report.
            async with self._driver.tx() as t:
                for name, result in zip(targets, results, strict=True):
                    t.put(result, path=f'{self._operational}.targets."{name}"', ephemeral=True)
                for name in told - targets.keys():
                    t.delete(f'{self._operational}.targets."{name}"')
            told = set(targets)
            try:
                interval = float(self._settings["interval"])
                await asyncio.wait_for(self._changed.wait(), max(interval, 0.1))
            except asyncio.TimeoutError:
                pass
            except (TypeError, ValueError) as error:
                log.warning("interval: %s", error)
                await self._changed.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description="An example agent of tega db.")
    parser.add_argument("name", help="the network element that it speaks for")
    parser.add_argument("-a", "--address", default="127.0.0.1", help="of the server")
    parser.add_argument("-p", "--port", type=int, default=8739, help="of the server")
    parser.add_argument("--ca", help="PEM file of the authority that vouches for the server")
    given = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    # Not a flag: all users of a machine can see flags.
    token = os.environ.get("TEGA_TOKEN")
    tls = Tls(ca=given.ca) if given.ca else None
    tega_id = f"agent-{given.name}"
    async with AsyncDriver(given.address, given.port, tega_id, token=token, tls=tls) as driver:
        await Agent(driver, given.name).run()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (OSError, SessionException) as error:
        sys.exit(f"the agent ends: {error}")
