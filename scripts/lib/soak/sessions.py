"""Clients with sessions, on one event loop: watchers, functions, messages, what is ephemeral."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from soak.clients import PASSING, Writer
from soak.judge import Judge
from soak.world import Server, World
from tega.driver import AsyncDriver
from tega.driver.errors import DriverError
from tega.subscriber import SCOPE

#: Seconds within which a watcher has heard of everything, once nothing is broken any more.
HEARD = 60.0


class Sessions(threading.Thread):
    """All of them.

    :param watched: each of these is watched at every server that has its root
    """

    def __init__(
        self, world: World, watched: list[Writer], over: threading.Event, seed: int
    ) -> None:
        super().__init__(name="sessions", daemon=True)
        self.world = world
        self.judge: Judge = world.judge
        self.over = over
        self.chance = random.Random(f"{seed} sessions")
        self._watched = watched
        self._views: list[_View] = []
        self._sent = 0
        self._watching = threading.Event()
        self._settled = threading.Event()

    def begin(self) -> None:
        """Begin; comes back when all watch."""
        self.start()
        if not self._watching.wait(60):
            raise RuntimeError("the watchers do not get to watch")

    def finish(self) -> None:
        """Wait until all watchers have heard of what was written; the servers must be well."""
        limit = time.monotonic() + HEARD
        while time.monotonic() < limit and not all(view.is_whole for view in self._views):
            time.sleep(0.1)
        for view in self._views:
            self.judge.check(
                "watchers hear of every change in the end", view.is_whole, view.difference
            )
        self._settled.set()
        self.join(60)
        self.judge.check("every client gets its answer in the end", not self.is_alive(), self.name)

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        views = [
            _View(self.judge, writer, server)
            for writer in self._watched for server in self.world.all
            if writer.root == "shared" or server in (self.world.g, writer.server)
        ]
        self._views = views
        watching = [asyncio.create_task(self._watch(view)) for view in views]
        await asyncio.gather(*[view.watching.wait() for view in views])
        self._watching.set()
        await asyncio.gather(
            self._again("call", self._call, 0.05), self._again("message", self._message, 0.05),
            self._again("ephemeral", self._ephemeral, 0.3), self._offer(), self._hear(),
        )
        await asyncio.to_thread(self._settled.wait)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    def _driver(self, server: Server, name: str) -> AsyncDriver:
        return AsyncDriver(
            *server.address, f"soak-{name}", token=server.tokens["writer"], tls=self.world.tls,
            timeout=15, ping_interval=2, ping_timeout=6,
        )  # fmt: skip

    async def _again(self, kind: str, act: Callable[[], Awaitable[None]], pause: float) -> None:
        while not self.over.is_set():
            await asyncio.sleep(self.chance.uniform(0, 2 * pause))
            try:
                await act()
                self.judge.did(kind)
            except DriverError as error:
                self.judge.did(kind, f"{error.status} {error.code}")
                in_order = error.status in PASSING | {404} or "connection" in str(error)
                self.judge.check("refusals are those of the documents", in_order, error)
            except (OSError, asyncio.TimeoutError) as error:
                self.judge.did(kind, f"no answer: {type(error).__name__}")
                await asyncio.sleep(0.2)

    # -- watching -------------------------------------------------------------------------------

    async def _watch(self, view: _View) -> None:
        name = f"watch-{view.writer.name.replace(' ', '-')}-{view.server.tega_id}"
        async with self._driver(view.server, name) as driver:
            path = view.writer.place.replace("/", ".")
            async with driver.watch(path) as changes:
                view.watching.set()
                async for change in changes:
                    view.hear(change)

    # -- functions ------------------------------------------------------------------------------

    async def _offer(self) -> None:
        """A function at one server, that is called from all."""
        async with self._driver(self.world.a, "owner") as driver:
            await driver.serve("op-a.add", lambda one, other: one + other)
            await asyncio.to_thread(self.over.wait)

    async def _call(self) -> None:
        one, other = self.chance.randrange(1000), self.chance.randrange(1000)
        server = self.chance.choice([self.world.g, self.world.a])
        async with self._driver(server, f"caller-{server.tega_id}") as driver:
            for _ in range(10):
                found = await driver.rpc("op-a.add", one, other)
                self.judge.check("calls are answered rightly", found == one + other, found)

    # -- messages -------------------------------------------------------------------------------

    async def _hear(self) -> None:
        async def hear() -> None:
            last = 0
            async with self._driver(self.world.b, "hearer") as driver:
                async for message in driver.messages("shared.news", scope=SCOPE.GLOBAL):
                    number = message.message
                    self.judge.check(
                        "messages come in order, each once at most", number > last, (last, number)
                    )
                    last = number
                    self.judge.did("message", "heard")

        hearing = asyncio.create_task(hear())
        await asyncio.to_thread(self.over.wait)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)

    async def _message(self) -> None:
        async with self._driver(self.world.a, "publisher") as driver:
            for _ in range(20):
                self._sent += 1
                await driver.publish("shared.news", self._sent)
                await asyncio.sleep(0.05)

    # -- what is ephemeral ----------------------------------------------------------------------

    async def _ephemeral(self) -> None:
        """A node comes and goes with its session."""
        server = self.chance.choice(self.world.locals)
        name = f"eph-{self.chance.randrange(5)}-{server.tega_id}"
        path = f"op-{server.tega_id}.live.{name}"
        async with self._driver(server, name) as driver:
            await driver.put({"up": True}, path=path, ephemeral=True)
            await asyncio.sleep(self.chance.uniform(0, 0.2))


class _View:
    """What a watcher has heard of one writer, and whether that came as it must."""

    def __init__(self, judge: Judge, writer: Writer, server: Server) -> None:
        self.writer = writer
        self.server = server
        self.watching = asyncio.Event()
        self._judge = judge
        self._seen: dict[str, int] = {}
        self._last = 0

    def hear(self, change: Any) -> None:
        """A change has come."""
        self._judge.did("change", "told again" if change.resync else "heard")
        key = change.path.rpartition(".")[2]
        if not key.startswith("k"):
            # How it stands by now, as a whole.
            self._seen = dict(change.instance or {})
            newest = max(self._seen.values(), default=0)
            in_order = change.resync and newest >= self._last
        else:
            newest = change.instance
            in_order = newest > self._last or (change.resync and newest == self._last)
            self._seen[key] = newest
        where = f"{self.writer.place} at {self.server.tega_id}"
        self._judge.check(
            "watchers hear of changes in order, each once", in_order,
            f"{where}: {newest} after {self._last}: {change}",
        )
        self._last = max(self._last, newest)

    @property
    def is_whole(self) -> bool:
        """Whether it has heard of all that stands there."""
        return self._seen == self.writer.expected

    @property
    def difference(self) -> object:
        """What it has not heard of, or heard of wrongly."""
        keys = self._seen.keys() | self.writer.expected.keys()
        return self.writer.place, self.server.tega_id, {
            key: (self._seen.get(key), self.writer.expected.get(key))
            for key in sorted(keys) if self._seen.get(key) != self.writer.expected.get(key)
        }
