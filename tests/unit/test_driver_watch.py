"""Changes on their way to who watches, over a server that plays a script."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from scripted import PATIENCE, Peer, Scripted, Wire, on_loop
from test_driver_session import connected

from tega.driver import AsyncDriver, Change, SubscriptionException, listeners
from tega.driver import session as module
from tega.protocol import Message as Sent
from tega.protocol import Since, Subscribe, Unsubscribe
from tega.subscriber import SCOPE


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


async def told(stream: Any, count: int) -> list[Any]:
    """The next so many items."""
    return [await asyncio.wait_for(stream.__anext__(), PATIENCE) for _ in range(count)]


async def nothing_more(server: Scripted, stream: Any) -> None:
    """Fail where something else is there before what comes now."""
    last = server.commit({"path": "w", "instance": "last"})
    assert [one.seq for one in await told(stream, 1)] == [last]


# Watching


@on_loop
async def test_a_change_as_it_comes() -> None:
    async with connected() as (server, driver):
        watch = driver.watch("w")
        await server.until(lambda: server.of(Subscribe))
        server.commit(
            {"path": 'w."a b".x', "instance": {"b": [1, None]}, "version": 7},
            {"ope": "DELETE", "path": "w.y", "instance": 2**70, "version": 7},
        )
        server.commit({"ope": "ROLLBACK", "path": "w", "backto": 2, "version": 8})
        assert await told(watch, 3) == [
            Change("PUT", 'w."a b".x', {"b": [1, None]}, "other", 1, 7),
            Change("DELETE", "w.y", 2**70, "other", 1, 7),
            Change("ROLLBACK", "w", None, "other", 2, 8, 2),
        ]


@on_loop
async def test_paths_without_spaces_on_the_wire_have_them_again() -> None:
    async with connected() as (server, driver):
        watch = driver.watch('w."a b"')
        await server.until(lambda: server.of(Subscribe))
        assert server.of(Subscribe) == [Subscribe('w."a b"')]
        change = {"ope": "PUT", "path": 'w."a\\u0020b".x', "tega_id": "o", "seq": 1, "version": 0,
                  "instance": 1}  # fmt: skip
        server.peer.say(f"NOTIFY\n{json.dumps([change])}")
        (one,) = await told(watch, 1)
        assert one.path == 'w."a b".x'


@on_loop
async def test_watching_holds_within_the_block_and_ends_with_it() -> None:
    async with connected() as (server, driver):
        async with driver.watch("w", scope=SCOPE.GLOBAL) as watch:
            assert server.of(Subscribe) == [Subscribe("w", "global")]
            server.commit({"path": "w"})
            await driver.put(1, path="r")
        assert [one.seq async for one in watch] == [1], "what had come can still be read"
        await server.until(lambda: server.of(Unsubscribe) == [Unsubscribe("w")])


@on_loop
async def test_watches_on_a_path_share_a_subscription() -> None:
    async with connected() as (server, driver):
        first, second = driver.watch("w"), driver.watch("w")
        async with driver.watch("w"):
            server.commit({"path": "w", "instance": [1]})
        one, other = [await told(watch, 1) for watch in (first, second)]
        assert one == other
        one[0].instance.append("mine")
        assert other[0].instance == [1], "each reader has a value of its own"
        await first.aclose()
        await first.aclose()
        await nothing_more(server, second)
        assert server.of(Subscribe) == [Subscribe("w")]
        assert not server.of(Unsubscribe)
        await second.aclose()
        await server.until(lambda: server.of(Unsubscribe) == [Unsubscribe("w")])


@on_loop
async def test_a_watch_that_is_let_go_ends() -> None:
    async with connected() as (server, driver):
        driver.watch("unread")
        gc.collect()
        await server.until(lambda: server.of(Unsubscribe) == [Unsubscribe("unread")])
        async for change in driver.watch("w", since=server.commit({"path": "w"}) - 1):
            assert change.seq == 1
            break
        gc.collect()
        await server.until(lambda: len(server.of(Unsubscribe)) == 2)


@on_loop
async def test_a_change_goes_to_who_watches_at_or_above_it() -> None:
    async with connected() as (server, driver):
        paths = {"w": False, "w.a": False, "w.a.x": False, "w.b": False, r"w\.[ab]\.x": True,
                 r"v\..*": True}  # fmt: skip
        watches = {path: driver.watch(path, regex_flag=regex) for path, regex in paths.items()}
        for path in ("w.a.x.y", "w.a.xy", "w.b", "v"):
            server.seq += 1
            change = {"ope": "PUT", "path": path, "tega_id": "o", "seq": server.seq, "version": 0}
            server.peer.say(f"NOTIFY\n{json.dumps([change])}")
        rollback = {**change, "ope": "ROLLBACK", "path": "w", "seq": 5, "backto": 1}
        server.peer.say(f"NOTIFY\n{json.dumps([rollback])}")
        await driver.put(1, path="r")
        await driver.close()
        heard = {}
        for path, watch in watches.items():
            heard[path] = [one.seq async for one in watch]
        assert heard == {
            "w": [1, 2, 3, 5], "w.a": [1, 2, 5], "w.a.x": [1, 5], "w.b": [3, 5],
            r"w\.[ab]\.x": [1, 2, 5], r"v\..*": [],
        }  # fmt: skip


@on_loop
async def test_a_part_that_is_told_for_the_sake_of_another_watch() -> None:
    """Watches on `w` and `w.a.x` share a session, which is told of each change for both."""
    put = {"path": "w.a", "instance": {"x": 1}}
    cut = {"path": "w.a.x", "instance": 1}
    async with connected() as (server, driver):
        upper, lower = driver.watch("w"), driver.watch("w.a.x")
        await server.until(lambda: len(server.of(Subscribe)) == 2)
        cases: list[tuple[list[dict[str, Any]], list[str]]] = [
            ([put, cut], ["w.a"]),
            ([put, cut, {"path": "w.a.x", "instance": 2}], ["w.a", "w.a.x"]),
            ([put, cut, {"path": "w.a.x", "instance": 2}, cut], ["w.a", "w.a.x", "w.a.x"]),
            ([put, {"path": "w.a.x", "instance": True}], ["w.a", "w.a.x"]),
            ([{"ope": "DELETE", **put}, {"ope": "DELETE", **cut}], ["w.a"]),
            ([{"path": "w.a", "instance": {}}, {"ope": "DELETE", **cut}], ["w.a"]),
            ([{"path": "w.a", "instance": 5}, {"ope": "DELETE", **cut}], ["w.a"]),
            ([put, cut, {"ope": "DELETE", **cut}], ["w.a", "w.a.x"]),
            ([{"path": "w.a.y", "instance": {"x": 1}}, cut], ["w.a.y", "w.a.x"]),
            ([put, {"path": "w.a.y", "instance": 1}], ["w.a", "w.a.y"]),
        ]
        for changes, heard in cases:
            server.commit(*changes)
            assert [one.path for one in await told(upper, len(heard))] == heard
        await nothing_more(server, upper)
        await lower.aclose()


# From where it goes on


@pytest.mark.parametrize("at_once", [False, True])
@on_loop
async def test_a_watch_can_begin_with_what_was_before(at_once: bool) -> None:
    async with connected() as (server, driver):
        server.at_once = at_once
        for n in range(5):
            server.commit({"path": "w", "instance": n})
        watches = [driver.watch("w", 2), driver.watch("w", "3@first"), driver.watch("w", since=0)]
        assert [one.seq for one in await told(watches[0], 3)] == [3, 4, 5]
        assert [one.seq for one in await told(watches[1], 2)] == [4, 5]
        assert [one.seq for one in await told(watches[2], 5)] == [1, 2, 3, 4, 5]
        server.peer.cut()
        server.commit({"path": "w"})
        for watch in watches:
            assert [one.seq for one in await told(watch, 1)] == [6]


@pytest.mark.parametrize("since", [-1, "x", "1@", "@first", True, "", "１"])
@on_loop
async def test_what_is_no_sequence_number(since: Any) -> None:
    async with connected() as (server, driver):
        with pytest.raises(SubscriptionException, match=r"since .*sequence number") as caught:
            driver.watch("w", since)
        assert (caught.value.status, caught.value.code) == (400, "malformed")
        assert not server.of(Subscribe)


@pytest.mark.parametrize(
    ("path", "regex", "shown"),
    [("", False, "empty key"), ("w..x", False, "empty key"), ("w._version", False, "reserved"),
     ("(?=x)", True, "malformed pattern"), ("", True, "empty pattern"), ("a\nb", True, "line")],
)  # fmt: skip
@on_loop
async def test_what_cannot_be_watched(path: str, regex: bool, shown: str) -> None:
    async with connected() as (_, driver):
        for listen in (driver.watch, driver.messages):
            with pytest.raises(SubscriptionException, match=shown) as caught:
                listen(path, regex_flag=regex)
            assert caught.value.status == 400


@on_loop
async def test_after_a_reconnect_it_goes_on_where_it_was() -> None:
    async with connected() as (server, driver):
        server.seq = 10
        watch = driver.watch("w")
        quiet = driver.watch(r"quiet\.a b", regex_flag=True)
        await server.until(lambda: len(server.of(Subscribe)) == 2)
        server.commit({"path": "w"})
        await told(watch, 1)
        server.peer.cut()
        await driver.put(1, path="r")
        # The session knows by the change of `w` that nothing has come for the other one before.
        assert server.of(Subscribe)[2:] == [
            Subscribe("w", since=Since(11, "first")),
            Subscribe(r"quiet\.a\x20b", regex=True, since=Since(11, "first")),
        ]
        await quiet.aclose()
        await server.until(lambda: server.of(Unsubscribe))
        assert server.of(Unsubscribe) == [Unsubscribe(r"quiet\.a\x20b", True)]


@on_loop
async def test_before_the_first_change_it_goes_on_from_the_newest_commit() -> None:
    async with connected() as (server, driver):
        for n in range(5):
            await driver.put(n, path="r")
        watch = driver.watch("w")
        await server.until(lambda: server.of(Subscribe))
        server.peer.cut()
        server.commit({"path": "w"})
        assert [one.seq for one in await told(watch, 1)] == [6]
        assert server.of(Subscribe)[1].since == Since(5, "first")


@on_loop
async def test_where_changes_are_lost_it_is_told_how_it_stands() -> None:
    async with connected() as (server, driver):
        watch, other = driver.watch("w"), driver.watch("v")
        server.seq = 50
        await server.until(lambda: len(server.of(Subscribe)) == 2)
        server.commit({"path": "w"}, {"path": "v"})
        await told(watch, 1)
        server.life, server.seq = "second", 3
        server.history.clear()
        server.peer.cut()
        for _ in range(2):
            for one, path in ((watch, "w"), (other, "v")):
                if path == "v" and server.seq == 3:
                    await told(other, 1)
                (change,) = await told(one, 1)
                assert change == Change(
                    "PUT", path, {"is": server.seq}, "scripted", server.seq, 0, None, True
                )
            server.commit({"path": "w"}, {"path": "v"})
            assert not (await told(watch, 1) + await told(other, 1))[0].resync
            # A server may also find on its own that it has lost what it should tell.
            server.life, server.seq = "third", 1
            server.history.clear()
            server.gone(server.peer, "w")
            server.gone(server.peer, "v")


@on_loop
async def test_a_connection_that_is_lost_in_the_midst_of_what_was_missed() -> None:
    for after in range(6):
        async with connected() as (server, driver):
            live = driver.watch("v")
            for _ in range(5):
                server.commit({"path": "w"})
            await server.until(lambda: server.of(Subscribe))
            server.commit({"path": "v"})
            await told(live, 1)
            server.torn_after = after
            watch = driver.watch("w", since=0)
            assert [one.seq for one in await told(watch, 5)] == [1, 2, 3, 4, 5], after
            await driver.put(1, path="r")
            assert [one.seq for one in await told(live, 0)] == []


@pytest.mark.parametrize("life", ["first", "second"])
@on_loop
async def test_a_connection_that_is_lost_before_it_is_told_how_it_stands(life: str) -> None:
    async with connected() as (server, driver):
        watch = driver.watch("w")
        server.seq = 7
        await server.until(lambda: server.of(Subscribe))
        server.commit({"path": "w"})
        await told(watch, 1)
        server.commit({"path": "w", "instance": "lost"})
        (lost,) = await told(watch, 1)
        assert lost.seq == 9
        server.commit({"path": "w"})
        server.peer.subscribed.clear()
        server.commit({"path": "w"})
        await told(watch, 1)
        body = {"path": "w", "regex_flag": False, "seq": 11, "life": life, "message": "gone"}
        server.life = life
        server.peer.say(f"ERROR gone\n{json.dumps(body)}")
        server.peer.cut()
        (change,) = await told(watch, 1)
        assert (change.resync, change.seq) == (life != "first", 11), "that is what is told now"
        assert server.of(Subscribe)[1].since == Since(10, "first")


@on_loop
async def test_a_watch_that_could_not_be_resumed_is_not_taken_for_resumed() -> None:
    def script(peer: Peer, message: Sent) -> bool:
        if isinstance(message, Subscribe) and message.since is not None and peer is first:
            body = {"path": "w", "regex_flag": False, "seq": 9, "message": "gone"}
            peer.say(f"ERROR gone\n{json.dumps(body)}")
            asyncio.get_running_loop().call_soon(peer.cut)
            return True
        return False

    async with connected() as (server, driver):
        first = server.peer
        other = driver.watch("v")
        await server.until(lambda: server.of(Subscribe))
        server.seq = 8
        server.commit({"path": "v"})
        await told(other, 1)
        server.script = script
        watch = driver.watch("w", since="5@first")
        await server.until(lambda: len(server.of(Subscribe)) == 4)
        server.commit({"path": "w"})
        await told(watch, 1)
        assert {one.path: one.since for one in server.of(Subscribe)[2:]} == {
            "v": Since(9, "first"), "w": Since(5, "first")
        }  # fmt: skip


@on_loop
async def test_how_it_stands_concerns_nobody_else() -> None:
    """Its number is that of the newest commit, which others may still be told of."""
    async with connected() as (server, driver):
        upper, lower = driver.watch("w"), driver.watch("w.a")
        await server.until(lambda: len(server.of(Subscribe)) == 2)
        server.commit({"path": "w.b"})
        server.seq = 9
        server.gone(server.peer, "w.a")
        server.gone(server.peer, "w.unheard")
        server.seq = 4
        server.commit({"path": "w.a"})
        assert [(one.seq, one.path) for one in await told(upper, 2)] == [(1, "w.b"), (5, "w.a")]
        server.seq = 9
        server.commit({"path": "w.a"})
        assert [(one.seq, one.resync) for one in await told(lower, 2)] == [(9, True), (10, False)]


@pytest.mark.parametrize("sinces", [(1, 2), (4, 5), (5, 1), (3, 3)])
@pytest.mark.parametrize("at_once", [False, True])
@on_loop
async def test_what_is_on_its_way_while_it_goes_back(
    at_once: bool, sinces: tuple[int, int]
) -> None:
    """What was sent before the server goes back comes again, and must not hide what is between.

    Changes are made before any of the SUBSCRIBEs arrives, within and after.
    """
    async with Scripted().running() as server, Wire(server.port).strung() as wire:
        server.at_once = at_once
        for arrives in range(0, 120, 2):
            server.history.clear()
            base = server.seq
            driver = AsyncDriver("127.0.0.1", wire.port, "me")
            async with driver, driver.watch("w") as first, driver.watch("v") as other:
                for _ in range(3):
                    server.commit({"path": "w.x"})
                await told(first, 3)
                wire.hold()
                second = driver.watch("w", since=base + sinces[0])
                third = driver.watch("w.x", since=base + sinces[1])
                await wire.until_held(90)
                server.commit({"path": "w.x"}, {"path": "v"})
                await told(other, 1)
                over = arrives >= wire.release(0)
                wire.release(None if over else arrives)
                server.commit({"path": "w.x"}, {"path": "v"})
                await told(other, 1)
                if not over:
                    wire.release()
                server.commit({"path": "w.x"})
                for watch, since in ((second, sinces[0]), (third, sinces[1]), (first, 3)):
                    expected = list(range(base + since + 1, base + 7))
                    got = [one.seq for one in await told(watch, len(expected))]
                    assert got == expected, arrives


@on_loop
async def test_a_subscription_that_the_server_refuses() -> None:
    def script(peer: Peer, message: Sent) -> bool:
        if isinstance(message, Subscribe):
            body = {"message": "too many", "path": message.path, "regex_flag": message.regex}
            peer.say(f"ERROR over_limit\n{json.dumps(body)}")
        return isinstance(message, Subscribe)

    async with connected() as (server, driver):
        server.script = script
        for path, regex in (("w", False), ("w.*", True)):
            with pytest.raises(SubscriptionException, match=r"429 .*: too many") as caught:
                await told(driver.watch(path, regex_flag=regex), 1)
            assert caught.value.code == "over_limit"
        await driver.put(1, path="r")
        assert len(server.peers) == 1


# Slow listeners


@pytest.mark.parametrize("at_once", [False, True])
@on_loop
async def test_a_slow_watch_takes_a_bounded_amount_and_misses_nothing(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "MAX_WAITING", 20)
    async with connected() as (server, driver):
        server.at_once = at_once
        slow, quick = driver.watch("w"), driver.watch("w")
        await server.until(lambda: server.of(Subscribe))
        for n in range(10):
            for _ in range(10):
                server.commit({"path": "w.x", "instance": n}, {"path": "w.y"})
            await told(quick, 20)
        waiting = slow._listener._waiting
        assert len(waiting) == 20
        seqs = [one.seq for one in await told(slow, 199)]
        assert seqs == [n // 2 + 1 for n in range(199)]
        server.peer.cut()
        server.commit({"path": "w.x"})
        assert [one.seq for one in await told(slow, 2)] == [100, 101]
        assert [one.seq for one in await told(quick, 1)] == [101]
        await nothing_more(server, quick)


@on_loop
async def test_bytes_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "MAX_BYTES", 10_000)
    async with connected() as (server, driver):
        watch = driver.watch("w")
        await server.until(lambda: server.of(Subscribe))
        for _ in range(20):
            server.commit({"path": "w", "instance": "x" * 3000})
        await driver.put(1, path="r")
        assert len(watch._listener._waiting) == 4
        assert [one.seq for one in await told(watch, 20)] == list(range(1, 21))
