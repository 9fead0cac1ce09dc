"""Sessions of both drivers against a real server, over a wire that can be cut."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from service import Service, check

from tega.driver import (
    AsyncDriver,
    Change,
    CRUDException,
    Driver,
    Message,
    SessionException,
    TransactionException,
    listeners,
    session,
)
from tega.subscriber import SCOPE, Subscriber
from tega.tree import Cont, Func

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from scripted import PATIENCE, Wire, on_loop


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    flags = getattr(request, "param", ())
    service = Service(tmp_path, "-t", "server", "--sync", "never", *flags)
    yield service
    assert service.end()[0] == 0
    check(tmp_path, "server")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(session, "LONGEST_PAUSE", 0.01)


@asynccontextmanager
async def drivers(port: int, *names: str, **options: Any) -> AsyncIterator[list[AsyncDriver]]:
    made = [AsyncDriver("127.0.0.1", port, name, **options) for name in names]
    for driver in made:
        await driver.connect()
    try:
        yield made
    finally:
        for driver in made:
            await driver.close()


async def told(stream: Any, count: int) -> list[Any]:
    return [await asyncio.wait_for(stream.__anext__(), 2 * PATIENCE) for _ in range(count)]


async def until(condition: Any) -> None:
    """Wait for what another process does: ask it again and again."""
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not come")


# Documents and transactions


@on_loop
async def test_put_get_delete(service: Service) -> None:
    async with drivers(service.port, "me") as (driver,):
        r = Cont("r")
        r["10.0.0.0/24"]["a b"] = {"metric": 1, "up": False}
        assert await driver.put(r["10.0.0.0/24"]) == {"seq": 1, "versions": {"r": 0}}
        found = await driver.get("r")
        assert found == {"10.0.0.0/24": {"a b": {"metric": 1, "up": False}}}
        leaf = found["10.0.0.0/24"]["a b"].metric
        assert (leaf, leaf._version, leaf.qname_()) == (1, 0, ["r", "10.0.0.0/24", "a b", "metric"])
        for value in (0, "", False, None, [], {}, 0.5, 2**70, "日本\n"):
            await driver.put(value, path="v")
            got = await driver.get("v", python_dict=True)
            assert (got, type(got)) == (value, type(value))
        assert (await driver.get("v", internal=True))["_version"] == 8
        assert await driver.get("v", version=-1, python_dict=True) == 2**70
        await driver.delete("r")
        with pytest.raises(CRUDException, match="404 Not Found") as caught:
            await driver.get("r")
        assert caught.value.code == "not_found"
        with pytest.raises(CRUDException, match="409 Conflict") as caught:
            await driver.put(1, version=3, path="v")
        assert (caught.value.code, caught.value.details["expected"]) == ("collision", 3)
        found = await driver.get(r"(v)", python_dict=True, regex_flag=True)
        assert found == {"v": {"groups": [["v"]], "instance": "日本\n"}}
        with pytest.raises(CRUDException, match="413") as caught:
            await driver.put("x" * 2_000_000, path="v")
        assert (await driver.roots())[2] == {"v": 8}


@on_loop
async def test_a_transaction(service: Service) -> None:
    async with drivers(service.port, "me") as (driver,):
        async with driver.tx() as t:
            t.put(1, path="a.x")
            t.put(2, path="b")
        assert t.result == {"seq": 1, "versions": {"a": 0, "b": 0}}
        async with driver.tx() as t:
            t.get("a", python_dict=True)
            t.put(5, version=0, path="a.x")
            t.delete("b")
            t.get("nothing")
            t.get(".*", python_dict=True, regex_flag=True)
        assert t.results[0] == {"x": 1}
        assert t.results[1].code == "not_found"
        assert set(t.results[2]) == {"a", "b"}

        async def collide() -> None:
            async with driver.tx() as t:
                t.put(1, path="c")
                t.put(1, version=0, path="a.x")

        with pytest.raises(TransactionException, match="409 Conflict"):
            await collide()
        assert (await driver.roots())[2] == {"a": 1}


@on_loop
async def test_ten_thousand_at_a_time(service: Service) -> None:
    async with drivers(service.port, "me") as (driver,):
        done = await asyncio.gather(*[driver.put(n, path=f"r.k{n % 7}") for n in range(10_000)])
        assert [one["versions"]["r"] for one in done] == list(range(10_000))
        assert await driver.get("r.k3", python_dict=True) == 9999 - (9999 - 3) % 7


@pytest.mark.parametrize(
    "seed", [0, *[pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 40)]]
)
@on_loop
async def test_a_wire_that_is_cut_at_random_while_much_is_going_on(
    service: Service, seed: int
) -> None:
    """Every change is made once, and every watcher hears of each once and in order."""
    rng = random.Random(seed)
    count = 1500
    async with Wire(service.port).strung() as wire, drivers(service.port, "sure") as (sure,):
        async with drivers(wire.port, "torn", "hears") as (torn, hears):
            watches = {
                path: hears.watch(path, regex_flag="\\" in path)
                for path in ("w", "w.k1", "w.k2", r"w\.k[12]", "torn")
            }
            readers = {
                path: asyncio.create_task(_all_of(watch, f"{path}".split(".")[0]))
                for path, watch in watches.items()
            }

            await hears.get(".*", regex_flag=True)  # the answer shows that all of them hold

            async def cutter() -> None:
                while True:
                    limit = rng.randrange(1, 40_000)
                    wire.cuts = [(rng.choice(("up", "down")), limit) for _ in range(2)]
                    await asyncio.sleep(rng.random() * 0.03)
                    if rng.random() < 0.5:
                        wire.cut()

            cutting = asyncio.create_task(cutter())

            async def write(number: int) -> None:
                async with sure.tx() as t:
                    t.put(number, path=f"w.k{number % 4}")
                    if number % 10 == 0:
                        t.put({f"k{key}": number for key in range(4)}, path="w")

            for at in range(0, count, 50):
                await asyncio.gather(
                    *[write(number) for number in range(at, at + 50)],
                    *[torn.put(number, path="torn.x") for number in range(at, at + 50)],
                )
            cutting.cancel()
            wire.cuts = []
            await asyncio.gather(sure.put("end", path="w.k1"), sure.put("end", path="w.k2"))
            await sure.put("end", path="torn.x")
            heard = {path: await reader for path, reader in readers.items()}
            assert len(wire.carried) > 5
            assert (await sure.roots())[2] == {"w": count + 1, "torn": count}, "each once"

        for path, changes in heard.items():
            seqs = [one.seq for one in changes]
            assert seqs == sorted(seqs), path
            assert not any(one.resync for one in changes)
        numbers = [one.instance for one in heard["torn"] if one.tega_id == "torn"]
        assert numbers == list(range(count))
        single = [one.instance for one in heard["w"] if one.path.startswith("w.k")]
        assert [one for one in single if one != "end"] == list(range(count))
        whole = [one.instance["k0"] for one in heard["w"] if one.path == "w"]
        assert whole == list(range(0, count, 10))
        for path, keys in (("w.k1", {1}), ("w.k2", {2}), (r"w\.k[12]", {1, 2})):
            assert [(one.path, one.instance) for one in heard[path] if one.instance != "end"] == [
                (f"w.k{key}", n)
                for n in range(count)
                for key in [*({n % 4} & keys), *(sorted(keys) if n % 10 == 0 else ())]
            ], path


async def _all_of(watch: Any, root: str) -> list[Change]:
    """What comes until the end is told of."""
    changes = []
    async for change in watch:
        changes.append(change)
        if change.instance == "end":
            return changes
    raise AssertionError("it ended")


# Watching


@on_loop
async def test_what_watches_hear(service: Service) -> None:
    async with drivers(service.port, "me", "you") as (me, you):
        async with me.watch("r") as whole, me.watch("r.a.x", scope=SCOPE.GLOBAL) as part:
            await me.put(0, path="r.mine")
            await you.put({"x": {"deep": 1}, "y": 2}, path="r.a")
            await you.put(3, path="r.a.x.deep")
            await you.delete("r.a")
            await you.rollback("r", -1)
            assert await told(whole, 4) == [
                Change("PUT", "r.a", {"x": {"deep": 1}, "y": 2}, "you", 2, 1),
                Change("PUT", "r.a.x.deep", 3, "you", 3, 2),
                Change("DELETE", "r.a", {"x": {"deep": 3}, "y": 2}, "you", 4, 3),
                Change("ROLLBACK", "r", None, "you", 5, 4, -1),
            ]
            assert await told(part, 4) == [
                Change("PUT", "r.a.x", {"deep": 1}, "you", 2, 1),
                Change("PUT", "r.a.x.deep", 3, "you", 3, 2),
                Change("DELETE", "r.a.x", {"deep": 3}, "you", 4, 3),
                Change("ROLLBACK", "r", None, "you", 5, 4, -1),
            ]
            assert (await you.channels())[2] == {"r": ["me"], "r.a.x": ["me"]}
            assert (await you.global_())[2] == [["r.a.x", "global"]]
        await until(lambda: _gives(you.channels(), {}))


async def _gives(answer: Any, expected: Any) -> bool:
    return bool((await answer)[2] == expected)


@on_loop
async def test_going_on_from_a_number(service: Service) -> None:
    async with drivers(service.port, "me", "you") as (me, you):
        for n in range(5):
            await you.put(n, path="w")
        watch = me.watch("w", since=f"2@{me.life}")
        assert [one.instance for one in await told(watch, 3)] == [2, 3, 4]
        stale = me.watch("w", since="2@another")
        (change,) = await told(stale, 1)
        assert change == Change("PUT", "w", 4, "server", 5, 4, None, True)
        await you.put(5, path="w")
        assert [one.instance for one in await told(stale, 1)] == [5]
        nothing = me.watch("nothing", since=99)
        assert await told(nothing, 1) == [
            Change("DELETE", "nothing", None, "server", 6, 0, None, True)
        ]


@on_loop
async def test_a_cleared_database(service: Service) -> None:
    async with drivers(service.port, "me", "you") as (me, you):
        for n in range(20):
            await you.put(n, path="w")
        async with me.watch("w") as watch, me.watch("w.*", regex_flag=True) as pattern:
            await you.put(20, path="w")
            await told(watch, 1)
            await you.clear()
            await you.put("anew", path="w")
            gone, new = await told(watch, 2)
            assert (gone.ope, gone.instance, gone.resync) == ("DELETE", None, True)
            assert (new.instance, new.resync) == ("anew", False)
            assert [one.instance for one in await told(pattern, 2)] == [20, "anew"]
            assert me.life not in (None, you.life), "it has been told of the new life"
            me._session._link.socket.abort()
            await you.put("more", path="w")
            assert [one.instance for one in await told(watch, 1)] == ["more"]
            assert [one.instance for one in await told(pattern, 1)] == ["more"]


@pytest.mark.parametrize("service", [(), ("--resume", "20")], indirect=True)
@on_loop
async def test_a_slow_watch(
    service: Service, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """It hears of all that the server keeps, and beyond that how it stands."""
    monkeypatch.setattr(listeners, "MAX_WAITING", 50)
    kept = not request.node.callspec.params["service"]
    async with drivers(service.port, "me", "you") as (me, you), me.watch("w") as slow:
        quick = me.watch("w")
        for n in range(500):
            await you.put(n, path="w.x")
            if n % 40 == 0:
                await told(quick, 40 if n else 1)
        assert len(slow._listener._waiting) == 50
        numbers: list[Any] = []
        while not numbers or numbers[-1] != 499:
            (change,) = await told(slow, 1)
            numbers.append(change.instance["x"] if change.resync else change.instance)
        assert numbers == (list(range(500)) if kept else [*range(50), 499])


@on_loop
async def test_a_subtree_of_many_megabytes(service: Service) -> None:
    async with drivers(service.port, "me", "you") as (me, you):
        for n in range(6):
            await you.put("x" * 1_000_000, path=f"w.k{n}")
        watch = me.watch("w", since="0@another")
        await you.put(1, path="w.last")
        whole, last = await told(watch, 2)
        assert {len(value) for value in whole.instance.values()} == {1_000_000}
        assert (len(whole.instance), last.path) == (6, "w.last")


@on_loop
async def test_messages(service: Service) -> None:
    async with drivers(service.port, "me", "you") as (me, you), me.messages("c.a-b") as plain:
        pattern = me.messages(r"c\..*", regex_flag=True)
        await me.publish("c.a-b", "my own")
        for value in (0, None, {"x": [1]}):
            await you.publish("c.a-b", value)
        await you.publish("c", "not whole")
        await you.publish('c."x y"', "pattern")
        expected = [Message("c.a-b", "you", value) for value in (0, None, {"x": [1]})]
        assert await told(plain, 3) == expected
        assert await told(pattern, 4) == [*expected, Message('c."x y"', "you", "pattern")]


# Functions


@on_loop
async def test_calls_from_driver_to_driver(service: Service) -> None:
    async def slow(value: Any) -> Any:
        await asyncio.sleep(0.01)
        return value

    def fail() -> None:
        raise ValueError("as it was told")

    with Driver("127.0.0.1", service.port) as other:
        async with drivers(service.port, "me", "you") as (me, you):
            await me.serve("f.slow", slow)
            await me.serve('f."a b"', max)
            await me.serve("f.fail", fail)
            await me.serve("f.bound", Func("me", max, 3, 4))
            assert await you.get("f.slow", python_dict=True) == "%me.slow"
            for value in (0, "", False, None, [], {}, {"a": 1.5}):
                got = await you.rpc("f.slow", value)
                assert (got, type(got)) == (value, type(value))
            assert await you.rpc('f."a b"', 1, 5) == 5
            assert await me.rpc('f."a b"', 1, 6) == 6, "its own, by way of the server"
            assert await you.rpc("f.bound") == 4
            assert await asyncio.to_thread(other.rpc, "f.slow", value=0) == (200, "OK", 0)
            for path, args, status, shown in (
                ("f.fail", (), 502, "ValueError: as it was told"),
                ("f.bound", (1,), 400, "bound"),
                ("f.none", (), 404, "no function"),
            ):
                with pytest.raises(CRUDException, match=shown) as caught:
                    await you.rpc(path, *args)
                assert caught.value.status == status
            assert len(await asyncio.gather(*[you.rpc("f.slow", n) for n in range(500)])) == 500
            await me.unserve("f.slow")
            with pytest.raises(CRUDException, match="404"):
                await you.rpc("f.slow", 1)


@pytest.mark.parametrize("service", [("--rpc-timeout", "0.3")], indirect=True)
@on_loop
async def test_a_call_that_is_not_answered(service: Service) -> None:
    never, calls = asyncio.Event(), []

    async def wait() -> None:
        calls.append(1)
        await never.wait()

    async with drivers(service.port, "me", "you") as (me, you):
        await me.serve("f", wait)
        with pytest.raises(CRUDException, match="504 Gateway Timeout") as caught:
            await you.rpc("f")
        assert caught.value.code == "call_timeout"
        call = asyncio.create_task(you.rpc("f"))
        await until(lambda: asyncio.sleep(0, len(calls) == 2))
        await me.close()
        with pytest.raises(CRUDException, match="502 Bad Gateway") as caught:
            await call
        assert caught.value.code == "owner_gone"
        assert len(calls) == 2


@on_loop
async def test_a_function_runs_once_however_often_the_wire_is_cut(service: Service) -> None:
    rng = random.Random(3)
    runs: list[int] = []

    async with Wire(service.port).strung() as wire, drivers(service.port, "me") as (me,):
        await me.serve("f", lambda number: runs.append(number) or number)
        async with drivers(wire.port, "you") as (you,):
            lost: list[Exception] = []
            for number in range(300):
                wire.cuts = [None, ("down", rng.randrange(300, 900))]
                try:
                    assert await you.rpc("f", number) == number
                except ConnectionError as error:
                    lost.append(error)
                if number % 3 == 0:
                    wire.cut()
            assert lost
            assert all("may have been done" in str(error) for error in lost)
        assert len(runs) == len(set(runs))


# Ephemeral nodes and ids


@on_loop
async def test_ephemeral_nodes_go_with_the_session_and_come_back_with_it(service: Service) -> None:
    async with Wire(service.port).strung() as wire, drivers(service.port, "you") as (you,):
        async with drivers(wire.port, "me") as (me,):
            await me.serve("f.x", max)
            await me.put({"state": "up"}, ephemeral=True, path="e.me")
            await me.put("lasting", path="lasting")
            async with you.watch("e") as watch:
                wire.cut()
                await me.put("still here", path="lasting")
                gone, back = await told(watch, 2)
                assert (gone.ope, gone.tega_id, back.ope) == ("DELETE", "me", "PUT")
            assert await you.get("e", python_dict=True) == {"me": {"state": "up"}}
            assert await you.rpc("f.x", 1, 2) == 2
            with pytest.raises(CRUDException, match="409") as caught:
                await you.put(1, path="e.me.state")
            assert caught.value.code == "ephemeral_conflict"
            await me.delete("e.me")
            wire.cut()
            await me.put("again", path="lasting")
            with pytest.raises(CRUDException, match="404"):
                await you.get("e")
        await until(lambda: _gives(you.ids(), ["you"]))
        with pytest.raises(CRUDException, match="404"):
            await you.get("f.x")
        assert await you.get("lasting", python_dict=True) == "again"


@on_loop
async def test_a_second_session_takes_over(service: Service) -> None:
    async with drivers(service.port, "me") as (first,):
        await first.put(1, ephemeral=True, path="e")
        watch = first.watch("w")
        async with drivers(service.port, "me", "you") as (second, you):
            with pytest.raises(SessionException) as caught:
                await told(watch, 1)
            assert caught.value.code == "taken_over"
            with pytest.raises(SessionException):
                await first.put(1, path="r")
            assert await you.get("e", python_dict=True) == 1, "the nodes stay"
            await second.put(2, ephemeral=True, path="e")
            assert (await you.ids())[2] == ["me", "you"]


@on_loop
async def test_the_id_of_the_server_is_refused(service: Service) -> None:
    with pytest.raises(SessionException, match="409 Conflict"):
        await AsyncDriver("127.0.0.1", service.port, "server").connect()


@on_loop
async def test_a_server_that_is_started_again(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "server")
    wire = Wire(service.port)
    async with wire.strung(), drivers(wire.port, "me", "you") as (me, you):
        await you.put(1, path="w")
        watch = me.watch("w")
        await me.put(1, ephemeral=True, path="e")
        await you.put(2, path="w")
        await told(watch, 1)
        service.end()
        put = asyncio.create_task(you.put(3, path="w"))
        service = Service(tmp_path, "-t", "server")
        wire._target = service.port
        await put
        changes = await told(watch, 1)
        assert changes[-1].instance in (2, 3)
        if changes[-1].instance == 2:
            assert changes[-1].resync
            assert [one.instance for one in await told(watch, 1)] == [3]
        assert await you.get("e", python_dict=True) == 1
    service.end()


# The synchronous driver


class Listening(Subscriber):
    def __init__(self) -> None:
        super().__init__("sync")
        self.changed = threading.Condition()
        self.told: list[Any] = []

    def _note(self, item: Any) -> None:
        with self.changed:
            self.told.append(item)
            self.changed.notify_all()

    def on_init(self) -> None:
        self._note("init")

    async def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        self._note([(one["ope"], one["path"], one["instance"]) for one in notifications])

    def on_message(self, channel: str, tega_id: str, message: Any) -> None:
        self._note((channel, tega_id, message))

    def until(self, count: int) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.told) >= count, PATIENCE), self.told
            return self.told


def test_a_session_of_the_synchronous_driver(service: Service) -> None:
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever)
    running.start()

    def do(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)

    wire = Wire(service.port)
    strung = wire.strung()
    do(strung.__aenter__())
    you = Driver("127.0.0.1", service.port, "you")
    sub = Listening()
    with Driver("127.0.0.1", wire.port, subscriber=sub, timeout=PATIENCE) as driver:
        with pytest.raises(CRUDException, match="409") as caught:
            driver.put(1, ephemeral=True, path="e.sync")
        assert caught.value.code == "no_session"
        driver.subscribe("w")
        driver.subscribe(r"c\..*", regex_flag=True)
        thread = threading.Thread(target=lambda: asyncio.run(driver.subscriber_client()))
        thread.start()
        assert driver.session_ready(PATIENCE)
        driver.serve("f", lambda a, b=0: a + b)
        driver.put(1, ephemeral=True, path="e.sync")
        driver.begin()
        driver.put({"x": 1, "y": 2}, ephemeral=True, path="e.more")
        driver.commit()
        driver.delete("e.more.x")
        assert you.rpc("f", 1, b=2) == (200, "OK", 3)
        you.put({"x": 1}, path="w")
        driver.put(2, path="w.x")
        assert sub.until(2) == ["init", [("PUT", "w", {"x": 1})]], "not of its own"
        loop.call_soon_threadsafe(wire.cut)
        sub.until(3)
        # What is its own is put again behind the greeting.
        limit = time.monotonic() + PATIENCE
        while "f" not in you.roots()[2] and time.monotonic() < limit:
            time.sleep(0.01)
        assert you.rpc("f", 2) == (200, "OK", 2)
        assert you.get("e", python_dict=True) == {"sync": 1, "more": {"y": 2}}
        you.delete("w")
        assert sub.until(4)[2:] == ["init", [("DELETE", "w", {"x": 2})]]
    thread.join(PATIENCE)
    assert not thread.is_alive()
    you.close()
    do(strung.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    running.join()
    loop.close()
