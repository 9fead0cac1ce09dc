"""Functions that a driver serves, and ephemeral nodes that outlive a connection."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import threading
from typing import Any

import pytest
from scripted import Peer, Scripted, on_loop
from test_driver_session import connected

from tega.driver import CRUDException
from tega.driver import session as module
from tega.driver.ephemerals import Ephemerals
from tega.paths import parse
from tega.protocol import Message, Request, Response, Subscribe
from tega.tree import Cont, Func


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


class Caller:
    """Calls the functions of a session, as the server does."""

    def __init__(self, server: Scripted) -> None:
        self.server = server
        self.count = 0

    def call(self, path: str, body: Any = None) -> int:
        self.count += 1
        text = json.dumps(body if body is not None else {})
        peer = self.server.peer
        peer.tell(Request(self.count, "RPC", "caller", path, text.encode()))
        return self.count

    def answer_to(self, number: int) -> Response | None:
        for one in self.server.of(Response):
            if one.seq_no == number:
                return one
        return None

    async def ask(self, path: str, body: Any = None) -> tuple[bool, Any]:
        number = self.call(path, body)
        await self.server.until(lambda: self.answer_to(number))
        answer = self.answer_to(number)
        assert answer is not None
        assert (answer.type, answer.tega_id) == ("RPC", "caller")
        return answer.error, json.loads(answer.body)


def puts(server: Scripted) -> list[list[tuple[str, str]]]:
    """What each transaction has put, or deleted, where."""
    return [
        [(one["path"], one.get("instance", one["ope"])) for one in operations]
        for operations in server.transactions()
    ]


# Serving


@on_loop
async def test_functions_are_ephemeral_leaves() -> None:
    async with connected() as (server, driver):
        await driver.serve('f."a b"', max)
        await driver.serve("f.bound", Func("me", max, 1, "x"))
        assert server.transactions() == [
            [{"ope": "PUT", "path": 'f."a b"', "instance": "%me.max", "ephemeral": True}],
            [{"ope": "PUT", "path": "f.bound", "instance": '%me.max(1,"x")', "ephemeral": True}],
        ]
        await driver.unserve('f."a b"')
        assert server.transactions()[2] == [{"ope": "DELETE", "path": 'f."a b"'}]
        with pytest.raises(CRUDException, match=r"404 Not Found: me serves nothing at f"):
            await driver.unserve("f.x")


@on_loop
async def test_calls_and_their_results() -> None:
    async def later(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    def show(*args: Any, **kwargs: Any) -> Any:
        return {"args": list(args), "kwargs": kwargs}

    document = Cont("r")
    document.a.b = (1, True)
    async with connected() as (server, driver):
        caller = Caller(server)
        for name, func in (
            ("show", show), ("later", later), ("partial", functools.partial(show, 0)),
            ("awaitable", lambda value: later(value)), ("document", lambda: document),
            ("bound", Func("me", show, 1, x=2)),
        ):  # fmt: skip
            await driver.serve(f'f."{name} it"', func)
        assert await caller.ask('f."show it"', {"args": [1, "x"], "kwargs": {"path": [None]}}) == (
            False, {"args": [1, "x"], "kwargs": {"path": [None]}}
        )  # fmt: skip
        for body in ({}, {"args": None, "kwargs": None}, {"args": []}):
            assert await caller.ask('f."show it"', body) == (False, {"args": [], "kwargs": {}})
        assert await caller.ask('f."partial it"') == (False, {"args": [0], "kwargs": {}})
        for value in (0, "", False, None, [], {}, {"a": [1.5]}):
            for name in ("later", "awaitable"):
                assert await caller.ask(f'f."{name} it"', {"args": [value]}) == (False, value)
        assert await caller.ask('f."document it"') == (False, {"a": {"b": [1, True]}})
        whole = {"args": [1], "kwargs": {"x": 2}}
        assert await caller.ask('f."bound it"') == (False, whole)
        assert await caller.ask('f."bound it"', whole) == (False, whole), "as the server sends it"
        error, body = await caller.ask('f."bound it"', {"args": [2]})
        assert (error, body["code"]) == (True, "malformed")


@on_loop
async def test_what_goes_wrong_in_a_call() -> None:
    def leave() -> None:
        raise SystemExit(3)

    def stop() -> None:
        raise StopIteration("it")

    def fail() -> None:
        raise KeyError("no such thing")

    async def fail_later() -> None:
        fail()

    def endless() -> Any:
        value: list[Any] = []
        value.append(value)
        return value

    functions: dict[str, tuple[Any, str]] = {
        "fail": (fail, "raised KeyError: 'no such thing'"),
        "later": (fail_later, "raised KeyError: 'no such thing'"),
        "leave": (leave, "SystemExit: 3"),
        "stop": (stop, "StopIteration: it"),
        "set": (lambda: {1, 2}, "not JSON"),
        "nan": (lambda: float("nan"), "not JSON"),
        "text": (lambda: "\ud800", "not JSON"),
        "endless": (endless, "not JSON"),
        "arguments": (lambda x: x, "raised TypeError: "),
    }
    async with connected() as (server, driver):
        caller = Caller(server)
        for name, (func, shown) in functions.items():
            await driver.serve(f"f.{name}", func)
            error, body = await caller.ask(f"f.{name}")
            assert (error, body["code"]) == (True, "call_failed")
            assert shown in body["message"]
            assert f"f.{name}" in body["message"]
        error, body = await caller.ask("f.fail", {"args": 3})
        assert (error, body["code"]) == (True, "malformed")
        await driver.unserve("f.fail")
        error, body = await caller.ask("f.fail")
        assert (error, body["code"]) == (True, "no_such_function")
        server.peer.tell(Request(99, "SYNC", "caller", "-", b"{}"))
        await server.until(lambda: caller.answer_to(99))
        assert len(server.peers) == 1


@on_loop
async def test_calls_run_beside_each_other_and_ordinary_functions_in_threads() -> None:
    release = threading.Event()
    together = threading.Barrier(3)
    never = asyncio.Event()
    names = set()

    def slow() -> str:
        together.wait(10)
        names.add(threading.current_thread().name)
        assert release.wait(10)
        return "slow"

    async with connected() as (server, driver):
        caller = Caller(server)
        await driver.serve("f.slow", slow)
        await driver.serve("f.never", never.wait)
        await driver.serve("f.quick", lambda: "quick")
        numbers = [caller.call("f.slow") for _ in range(3)]
        caller.call("f.never")
        assert await caller.ask("f.quick") == (False, "quick")
        assert not any(caller.answer_to(number) for number in numbers)
        release.set()
        await server.until(lambda: all(caller.answer_to(number) for number in numbers))
        assert len(names) == 3


@on_loop
async def test_an_answer_for_a_connection_that_is_gone_is_dropped() -> None:
    go = asyncio.Event()

    async def wait() -> int:
        await go.wait()
        return 1

    async with connected() as (server, driver):
        caller = Caller(server)
        await driver.serve("f", wait)
        caller.call("f")
        await driver.put(1, path="r")
        server.peer.cut()
        await driver.put(2, path="r")
        go.set()
        assert await caller.ask("f") == (False, 1)
        assert [one.seq_no for one in server.of(Response)] == [2]


@on_loop
async def test_a_function_that_cannot_stand_there() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request):
            peer.answer(message, {"code": "ephemeral_conflict", "message": "no"}, error=True)
        return isinstance(message, Request)

    async with connected() as (server, driver):
        caller = Caller(server)
        for func, path, shown in (
            (1, "f", "400 Bad Request: a Func wraps a callable"),
            (Func("you", max), "f", "400 .* not a function of me"),
            (max, "", "400 .* empty key"),
        ):
            with pytest.raises(CRUDException, match=shown):
                await driver.serve(path, func)
        await driver.serve("f", lambda: "first")
        server.script = script
        for path in ("f", "g"):
            with pytest.raises(CRUDException, match="409 Conflict"):
                await driver.serve(path, lambda: "second")
        server.script = None
        assert await caller.ask("f") == (False, "first"), "the one before goes on"
        assert (await caller.ask("g"))[1]["code"] == "no_such_function"


# Ephemeral nodes after a reconnect


@on_loop
async def test_ephemeral_nodes_are_put_again_before_anything_else() -> None:
    async with connected() as (server, driver):
        driver_watch = driver.watch("w")
        await driver.serve("f", max)
        await driver.put({"x": 1, "y": 2}, ephemeral=True, path="e.a")
        await driver.put(1, path="lasting")
        await driver.put(3, version=0, ephemeral=True, path="e.a.x")
        await driver.delete("e.a.y")
        await driver.put(1, ephemeral=True, path="e.b")
        async with driver.tx() as t:
            t.put(4, ephemeral=True, path="e.c")
            t.delete("e.b")
        server.script = lambda peer, message: (
            peer is server.peers[0] and isinstance(message, Request)
        )
        waiting = asyncio.create_task(driver.put(5, version=-1, ephemeral=True, path="e.d"))
        await server.until(lambda: len(server.transactions()) == 8)
        server.peer.cut()
        await waiting
        first, *rest = server.peer.received[1:]
        assert isinstance(first, Request)
        assert json.loads(first.body)["ops"] == [
            {"ope": "PUT", "path": "f", "instance": "%me.max", "ephemeral": True},
            {"ope": "PUT", "path": "e.a", "instance": {"x": 1, "y": 2}, "ephemeral": True},
            {"ope": "PUT", "path": "e.a.x", "instance": 3, "ephemeral": True},
            {"ope": "DELETE", "path": "e.a.y"},
            {"ope": "PUT", "path": "e.c", "instance": 4, "ephemeral": True},
            {"ope": "PUT", "path": "e.d", "instance": 5, "ephemeral": True},
        ]
        assert isinstance(rest[0], Subscribe)
        assert puts(server)[-1] == [("e.d", 5)]
        await driver_watch.aclose()


@on_loop
async def test_what_cannot_be_put_again_does_not_hold_up_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and b'"e.b"' in message.body:
            peer.answer(message, {"code": "ephemeral_conflict", "message": "taken"}, error=True)
            return True
        return False

    async with connected() as (server, driver):
        for name in "abc":
            await driver.put(1, ephemeral=True, path=f"e.{name}")
        server.applied.clear()
        server.script = script
        server.peer.cut()
        await server.until(lambda: len(server.transactions()) == 7)
        assert [one["path"] for one in server.applied] == ["e.a", "e.c"]
        await driver.put(1, path="r")
    assert "the ephemeral node e.b could not be put again: 409 Conflict: taken" in caplog.text


@on_loop
async def test_too_much_to_be_put_again_at_once() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and len(message.body) > 10_000:
            peer.close(1009, "too big")
            return True
        return False

    async with connected() as (server, driver):
        for name in "abc":
            await driver.put("x" * 5000, ephemeral=True, path=f"e.{name}")
        server.applied.clear()
        server.script = script
        server.peer.cut()
        await server.until(lambda: len(server.applied) == 3)
        await driver.put(1, path="r")
        assert [one["path"] for one in server.applied] == ["e.a", "e.b", "e.c", "r"]


@on_loop
async def test_what_is_put_again_without_an_answer_is_put_once_more() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and peer is server.peers[1]:
            peer.cut()
            return True
        return False

    async with connected() as (server, driver):
        await driver.put(1, ephemeral=True, path="e.a")
        server.script = script
        server.peer.cut()
        await server.until(lambda: len(server.transactions()) == 3)
        await driver.put(1, path="r")
        assert puts(server) == [[("e.a", 1)]] * 3 + [[("r", 1)]]


@on_loop
async def test_a_function_that_went_with_a_connection_is_served_no_more() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and b"DELETE" in message.body:
            peer.answer(message, {"code": code, "message": "it is"}, error=True)
            return True
        return False

    async with connected() as (server, driver):
        server.script = script
        code = "not_found"
        await driver.serve("f", max)
        await driver.unserve("f")
        code = "read_only"
        await driver.serve("f", max)
        with pytest.raises(CRUDException, match="503"):
            await driver.unserve("f")


@on_loop
async def test_what_was_refused_is_not_put_again() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and b'"e.b"' in message.body:
            peer.answer(message, {"code": "collision", "message": "no"}, error=True)
            return True
        return False

    async with connected() as (server, driver):
        await driver.put(1, ephemeral=True, path="e.a")
        server.script = script
        with pytest.raises(CRUDException):
            await driver.put(1, version=5, ephemeral=True, path="e.b")
        server.peer.cut()
        await driver.put(1, path="r")
        assert puts(server)[2:] == [[("e.a", 1)], [("r", 1)]]


def test_operations_on_ephemeral_nodes_give_the_same_nodes_again() -> None:
    """Played into one tree as they come, and as they were kept, they give the same."""

    def play(tree: dict[str, Any], operation: dict[str, Any]) -> None:
        *above, last = parse(operation["path"])
        node = tree
        trail = []
        for key in above:
            trail.append((node, key))
            node = node.setdefault(key, {})
        if operation["ope"] == "PUT":
            node[last] = json.loads(json.dumps(operation["instance"]))
            return
        node.pop(last, None)
        for parent, key in reversed(trail):
            if not parent[key]:
                del parent[key]

    values: list[Any] = [1, {"a": 1}, {"a": {"b": 2}, "b": 3}]
    for seed in range(300):
        rng = random.Random(seed)
        kept, tree = Ephemerals(), {}
        for _ in range(rng.randrange(1, 25)):
            top = rng.choice("xy")
            path = ".".join([top, *(rng.choice("ab") for _ in range(rng.randrange(3)))])
            node: Any = tree
            for key in parse(path)[:-1]:
                node = node.get(key) if isinstance(node, dict) else None
            there = isinstance(node, dict) and parse(path)[-1] in node
            operation: dict[str, Any] = {"ope": "DELETE", "path": path}
            if node is None and len(parse(path)) > 1 and tree.get(top) is not None:
                continue  # a leaf is in the way: the server refuses
            if rng.random() < 0.6 or not there:
                if len(parse(path)) > 1 and not isinstance(node, dict):
                    continue
                operation = {"ope": "PUT", "path": path, "ephemeral": True,
                             "instance": rng.choice(values), "version": 3}  # fmt: skip
            play(tree, operation)
            kept.apply(operation)
        again: dict[str, Any] = {}
        for operation in kept.copy():
            assert "version" not in operation
            play(again, operation)
        assert again == tree
        assert len(kept) <= 14


def test_lasting_operations_are_not_kept() -> None:
    kept = Ephemerals()
    kept.apply({"ope": "PUT", "path": "r", "instance": 1})
    kept.apply({"ope": "DELETE", "path": "r"})
    kept.apply({"ope": "PUT", "path": "e.a", "instance": 1, "ephemeral": True})
    kept.apply({"ope": "DELETE", "path": "r"})
    kept.apply({"ope": "DELETE", "path": "e"})
    assert len(kept) == 0
