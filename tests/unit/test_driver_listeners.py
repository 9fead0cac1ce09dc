"""Messages, and what a subscriber is called back with, over a server that plays a script."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from scripted import PATIENCE, Scripted, on_loop
from test_driver_session import connected
from test_driver_watch import told

from tega.driver import AsyncDriver, Message, SubscriptionException, listeners
from tega.driver import session as module
from tega.protocol import Publish, Request, Since, Subscribe, Unsubscribe
from tega.subscriber import SCOPE


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


# Messages


@on_loop
async def test_messages_of_whole_channels() -> None:
    async with connected() as (server, driver):
        async with driver.messages('c."a b"') as plain, driver.messages(
            r"c\..*", regex_flag=True
        ) as pattern, driver.watch("c") as watch:
            for channel, value in (('c."a b"', 0), ("c", "no"), ("c.x", None), ("c.x.y", "no")):
                wire = channel.replace(" ", "\\u0020")
                server.peer.say(f'MESSAGE {wire} o\n{json.dumps({"message": value})}')
            server.commit({"path": "c.x"})
            assert await told(plain, 1) == [Message('c."a b"', "o", 0)]
            assert await told(pattern, 2) == [
                Message('c."a b"', "o", 0), Message("c.x", "o", None)
            ]  # fmt: skip
            await told(watch, 1)
        assert [one async for one in pattern] == []


@on_loop
async def test_messages_that_nobody_reads_get_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "MAX_WAITING", 3)
    async with connected() as (server, driver), driver.messages("c") as messages:
        for n in range(10):
            server.peer.say(f'MESSAGE c o\n{{"message": {n}}}')
        await driver.put(1, path="r")
        assert [one.message for one in await told(messages, 3)] == [0, 1, 2]
        server.peer.say('MESSAGE c o\n{"message": 10}')
        assert [one.message for one in await told(messages, 1)] == [10]
    assert caplog.text.count("messages get lost") == 1


@on_loop
async def test_publishing() -> None:
    async with connected() as (server, driver), connected() as (_, other):
        del other
        await driver.publish('c."a b"', {"x": None})
        with pytest.raises(SubscriptionException, match="empty key"):
            await driver.publish("", 1)
        with pytest.raises(SubscriptionException, match="type set"):
            await driver.publish("c", {1})
        await server.until(lambda: len(server.received) == 2)
        assert server.received[1].text() == 'PUBLISH c."a\\u0020b"\n{"message":{"x":null}}'


@on_loop
async def test_what_is_published_without_a_connection_waits_for_one() -> None:
    server = Scripted()
    server.script = lambda peer, message: isinstance(message, Request)
    async with server.running():
        driver = AsyncDriver("127.0.0.1", server.port)
        await driver.connect()
        call = asyncio.create_task(driver.rpc("r.f"))
        await server.until(lambda: server.of(Request))
    with pytest.raises(ConnectionError):
        await call
    await driver.publish("c", 1)
    async with server.running():
        await server.until(lambda: server.of(Publish))
        await driver.close()


# A subscriber


class Listening:
    """A subscriber that notes what it is told."""

    tega_id = "sub"

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.busy = False

    async def on_init(self) -> None:
        self.told.append("init")

    def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        self.told.append(notifications)
        if notifications[0]["instance"] == "fail":
            raise ValueError("as it was told")

    async def on_message(self, channel: str, tega_id: str, message: Any) -> None:
        assert not self.busy, "one at a time"
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False
        self.told.append((channel, tega_id, message))

    async def until(self, count: int) -> None:
        for _ in range(1000 * PATIENCE):
            if len(self.told) >= count:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(self.told)


@on_loop
async def test_a_subscriber_is_called_back_in_order(caplog: pytest.LogCaptureFixture) -> None:
    sub = Listening()
    async with connected(tega_id=None, subscriber=sub) as (server, driver):
        assert driver.tega_id == "sub"
        await driver.subscribe("w", SCOPE.GLOBAL)
        await driver.subscribe("w", SCOPE.GLOBAL)
        await driver.subscribe(r"c\..*", regex_flag=True)
        server.commit({"path": "w.x", "instance": 1}, {"path": "w.y", "instance": 2})
        server.peer.say('MESSAGE c.x o\n{"message": 1}')
        server.peer.say('MESSAGE c.x o\n{"message": 2}')
        server.commit({"path": "w", "instance": "fail"})
        server.commit({"ope": "ROLLBACK", "path": "w", "backto": 3})
        server.commit({"path": "elsewhere"})
        await sub.until(6)
        base = {"ope": "PUT", "tega_id": "other", "version": 0}
        assert sub.told == [
            "init",
            [{**base, "path": "w.x", "instance": 1, "seq": 1},
             {**base, "path": "w.y", "instance": 2, "seq": 1}],
            ("c.x", "o", 1),
            ("c.x", "o", 2),
            [{**base, "path": "w", "instance": "fail", "seq": 2}],
            [{**base, "ope": "ROLLBACK", "path": "w", "instance": None, "seq": 3, "backto": 3}],
        ]  # fmt: skip
        assert "ValueError: as it was told" in caplog.text
        server.peer.cut()
        await sub.until(7)
        assert sub.told[6] == "init", "once for each connection"
        await server.until(lambda: len(server.of(Subscribe)) == 4)
        assert server.of(Subscribe)[2:] == [
            Subscribe("w", "global", since=Since(3, "first")),
            Subscribe(r"c\..*", "local", True, Since(3, "first")),
        ]
        await driver.unsubscribe(r"c\..*", regex_flag=True)
        await driver.unsubscribe("nothing")
        await driver.subscribe("v")
        await driver.unsubscribe_all()
        assert server.of(Unsubscribe) == [Unsubscribe(r"c\..*", True), Unsubscribe()]


@on_loop
async def test_only_what_was_subscribed_to_is_called_back() -> None:
    sub = Listening()
    async with connected(subscriber=sub) as (server, driver):
        await driver.subscribe("w.a")
        async with driver.watch("w") as watch:
            server.commit({"path": "w.b"})
            server.commit({"path": "w.a"}, {"path": "w.b"})
            server.commit({"path": "w.a.x"})
            await sub.until(3)
            assert [[one["path"] for one in many] for many in sub.told[1:]] == [["w.a"], ["w.a.x"]]
            assert len(await told(watch, 4)) == 4


@on_loop
async def test_a_slow_subscriber_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "MAX_WAITING", 5)
    sub = Listening()
    async with connected(subscriber=sub) as (server, driver):
        await driver.subscribe("w")
        await driver.subscribe("v")
        await sub.until(1)
        for _ in range(20):
            server.commit({"path": "w"})
        await driver.put(1, path="r")
        await sub.until(21)
        assert [many[0]["seq"] for many in sub.told[1:]] == list(range(1, 21))
        again = server.of(Subscribe)[2:]
        assert {one.path for one in again} == {"w", "v"}
        assert all(one.since.seq >= 5 for one in again), "it has not missed what was before"


@on_loop
async def test_a_subscriber_without_callbacks_is_none_the_worse() -> None:
    class Mute:
        tega_id = "mute"

    async with connected(subscriber=Mute()) as (server, driver):
        await driver.subscribe("w")
        server.commit({"path": "w"})
        await driver.put(1, path="r")


@on_loop
async def test_without_a_subscriber_there_is_nobody_to_call_back() -> None:
    async with connected() as (_, driver):
        for call in (driver.subscribe("w"), driver.unsubscribe("w"), driver.unsubscribe_all()):
            with pytest.raises(SubscriptionException, match="without a subscriber") as caught:
                await call
            assert caught.value.status is None


@on_loop
async def test_a_callback_may_close_the_driver(caplog: pytest.LogCaptureFixture) -> None:
    class Closing(Listening):
        async def on_notify(self, notifications: Any) -> None:
            await driver.close()
            self.told.append("closed")

    sub = Closing()
    caplog.set_level(logging.WARNING)
    async with connected(subscriber=sub) as (server, driver):
        await driver.subscribe("w")
        server.commit({"path": "w"})
        await sub.until(2)
    assert sub.told == ["init", "closed"]
