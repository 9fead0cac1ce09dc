"""Sessions at server processes that are peers: ephemeral nodes, calls and messages."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from realservers import (
    BOUND,
    PING_TIMEOUT,
    RealServer,
    Three,
    everywhere,
    running,
    until,
)

from tega.driver import AsyncDriver, CRUDException
from tega.subscriber import SCOPE


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    made = Three(tmp_path)
    with running(*made.all):
        made.settle()
        yield made


# -- ephemeral nodes ------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["a", "g", "ag"])
def test_ephemeral_nodes_of_dead_sessions_are_gone_everywhere(three: Three, victim: str) -> None:
    g, a, b = three.all
    by_id = {server.tega_id: server for server in three.all}
    three.first_puts()
    roots = ("shared", "config-a", "op-a")

    async def put_from(server: RealServer) -> AsyncDriver:
        driver = AsyncDriver(*server.address, f"on-{server.tega_id}")
        await driver.connect()
        for root in roots:
            await driver.put(server.tega_id, ephemeral=True, path=f"{root}.{driver.tega_id}")
        return driver

    async def work() -> None:
        drivers = [await put_from(server) for server in (g, a)]
        both = {"first": 0, "on-g": "g", "on-a": "a"}
        everywhere("/shared/", both, *three.all)
        three.agree()
        for one in victim:
            by_id[one].kill()
        # They die with a server, and do not come back.
        for driver in drivers:
            await driver.close()
        for one in victim:
            by_id[one].start()

    asyncio.run(work())
    everywhere("/shared/", {"first": 0}, *three.all)
    three.agree()
    for root in roots:
        assert g.get(f"/{root}/") == a.get(f"/{root}/") == {"first": 0}
    assert b.get("/shared/") == {"first": 0}


def test_an_ephemeral_node_is_there_again_with_its_session(three: Three) -> None:
    """The driver puts it again where its server was killed; with its session it goes for good."""
    g, a, _ = three.all
    three.first_puts()

    async def work() -> None:
        async with AsyncDriver(*a.address, "me") as driver:
            await driver.put(1, ephemeral=True, path="op-a.me")
            await asyncio.to_thread(everywhere, "/op-a/me/", 1, g)
            a.kill()
            a.start()
            await asyncio.to_thread(everywhere, "/op-a/me/", 1, g)

    asyncio.run(work())
    everywhere("/op-a/me/", None, g, a)
    three.agree()


def test_what_is_ephemeral_at_a_server_that_stays_away_is_hidden(three: Three) -> None:
    g, a, b = three.all
    three.first_puts()

    async def work() -> None:
        async with AsyncDriver(*a.address, "me") as driver:
            await driver.put(1, ephemeral=True, path="shared.me")
            await driver.put(1, ephemeral=True, path="op-a.me")
            until(lambda: b.get("/shared/me/") == 1 and g.get("/op-a/me/") == 1)
            a.kill()

    asyncio.run(work())
    until(lambda: b.get("/shared/me/") is None, PING_TIMEOUT + 3)
    until(lambda: g.get("/op-a/me/") is None, PING_TIMEOUT + 3)
    # Hiding makes no version, for only the leader makes any.
    assert g.get("/_roots")["op-a"] == 1
    assert g.get("/op-a/first/") == 0
    a.start()
    three.agree()


# -- calls ----------------------------------------------------------------------------------------


class Function:
    """A function that writes down each call in a file, and then takes its time."""

    def __init__(self, file: Path, seconds: float = 0.0) -> None:
        self._file = file
        self._seconds = seconds
        self.begun = threading.Event()
        self.over = threading.Event()

    def __call__(self, number: int) -> int:
        with self._file.open("a") as file:
            file.write(f"{number}\n")
        self.begun.set()
        self.over.wait(self._seconds)
        return -number

    @property
    def calls(self) -> list[int]:
        return [int(line) for line in self._file.read_text().split()]


def test_functions_are_called_over_three_servers(three: Three, tmp_path: Path) -> None:
    g, a, b = three.all
    function = Function(tmp_path / "calls")

    async def work() -> None:
        async with AsyncDriver(*b.address, "owner") as owner:
            await owner.serve("op-b.f", function)
            await asyncio.to_thread(until, lambda: a.ask(
                "POST", "/_rpc?path=op-b.f", {"args": [0]})[0] == 200)
            async with AsyncDriver(*a.address, "caller") as caller:
                made = [caller.rpc("op-b.f", number) for number in range(1, 100)]
                assert await asyncio.gather(*made) == [-number for number in range(1, 100)]
            for number, server in ((100, g), (101, b)):
                status, body = await asyncio.to_thread(
                    server.ask, "POST", "/_rpc?path=op-b.f", {"args": [number]}
                )
                assert (status, body) == (200, {"result": -number})
            await owner.unserve("op-b.f")
            await asyncio.to_thread(until, lambda: a.ask(
                "POST", "/_rpc?path=op-b.f", {"args": [0]})[0] == 404)

    asyncio.run(work())
    calls = function.calls
    assert sorted(number for number in calls if number) == list(range(1, 102))


@pytest.mark.parametrize("victim", ["g", "b"])
def test_a_call_whose_way_is_cut_fails_soon_and_ran_once(
    three: Three, tmp_path: Path, victim: str
) -> None:
    _g, a, b = three.all
    by_id = {server.tega_id: server for server in three.all}
    function = Function(tmp_path / "calls", 30)

    async def work() -> None:
        owner = AsyncDriver(*b.address, "owner")
        await owner.connect()
        await owner.serve("op-b.f", function)
        async with AsyncDriver(*a.address, "caller") as caller:
            await asyncio.to_thread(until, lambda: three.g.get("/op-b/f/"))
            call = asyncio.ensure_future(caller.rpc("op-b.f", 7))
            await asyncio.to_thread(until, function.begun.is_set)
            by_id[victim].kill()
            began = time.monotonic()
            with pytest.raises(CRUDException) as failed:
                await call
            assert time.monotonic() - began < 2 * PING_TIMEOUT
            assert failed.value.status == 502
            assert failed.value.code == "owner_gone"
            assert f"the connection to {victim} was lost in the middle" in str(failed.value)
            by_id[victim].start()
            function.over.set()
            await asyncio.to_thread(three.settle)
            await asyncio.to_thread(until, lambda: a.ask(
                "POST", "/_rpc?path=op-b.f", {"args": [8]})[0] == 200)
        await owner.close()

    asyncio.run(work())
    assert function.calls.count(7) == 1


# -- messages -------------------------------------------------------------------------------------


def test_each_message_arrives_once_everywhere(three: Three) -> None:
    async def work() -> None:
        drivers = [AsyncDriver(*server.address, f"at-{server.tega_id}") for server in three.all]
        for driver in drivers:
            await driver.connect()
        streams = [
            driver.messages(channel, regex, scope=SCOPE.GLOBAL)
            for driver in drivers
            for channel, regex in (("news", False), (r"n\w+s", True))
        ]
        for stream in streams:
            await stream.__aenter__()

        def forwarded() -> bool:
            wanted = {"a", "b", "at-g"}
            return wanted <= set(three.g.get("/_channels").get("news", []))

        await asyncio.to_thread(until, forwarded)
        for number in range(200):
            for driver in drivers:
                await driver.publish("news", f"{driver.tega_id}-{number}")
        for driver in drivers:
            await driver.publish("news", "end")
        # A driver is told of each message once by the server, and does not hear itself.
        for driver, one, two in zip(drivers, streams[::2], streams[1::2], strict=True):
            others = [other.tega_id for other in drivers if other is not driver]
            for stream in (one, two):
                heard: dict[str, list[Any]] = {other: [] for other in others}
                while any(said[-1:] != ["end"] for said in heard.values()):
                    message = await asyncio.wait_for(stream.__anext__(), BOUND)
                    heard[message.tega_id].append(message.message)
                for other in others:
                    said = [f"{other}-{number}" for number in range(200)]
                    assert heard[other] == [*said, "end"]
        for driver in drivers:
            await driver.close()

    asyncio.run(work())


def test_subscriptions_are_forwarded_again_after_a_restart(three: Three) -> None:
    async def work() -> None:
        async with (
            AsyncDriver(*three.a.address, "ear") as ear,
            AsyncDriver(*three.b.address, "mouth") as mouth,
            ear.messages("news", scope=SCOPE.GLOBAL) as stream,
        ):
            three.g.kill()
            three.g.start()
            await asyncio.to_thread(three.settle)
            await asyncio.to_thread(until, lambda: "a" in three.g.get("/_channels").get("news", []))
            for number in range(10):
                await mouth.publish("news", number)
            for number in range(10):
                message = await asyncio.wait_for(stream.__anext__(), BOUND)
                assert message.message == number

    asyncio.run(work())
