"""Requests of a session, over a server that plays a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from scripted import PATIENCE, Peer, Scripted, on_loop

from tega.driver import (
    AsyncDriver,
    CRUDException,
    TransactionException,
)
from tega.driver import session as module
from tega.protocol import Message, Request, Session
from tega.tree import Cont


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Scripted, AsyncDriver]]:
    async with Scripted().running() as server:
        given = {"tega_id": "me", "timeout": PATIENCE} | options
        async with AsyncDriver("127.0.0.1", server.port, **given) as driver:
            yield server, driver


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


def ignoring(kind: str) -> Any:
    """A script that leaves requests of a type without an answer."""

    def script(peer: Peer, message: Message) -> bool:
        return isinstance(message, Request) and message.type == kind

    return script


# Requests


@on_loop
async def test_a_session_begins_with_its_tega_id() -> None:
    async with connected() as (server, driver):
        assert server.received == [Session("me", "local")]
        assert driver.life == "first"


@on_loop
async def test_what_is_sent_and_what_comes_back() -> None:
    r = Cont("r")
    r["a b"].x = {"y": [1, None]}
    async with connected() as (server, driver):
        assert await driver.put(1, path="r.x") == {"seq": 1, "versions": {}}
        await driver.put(r["a b"].x, version=-1)
        await driver.put(None, version=3, ephemeral=True, path="r.n")
        assert await driver.get("r.x", python_dict=True) == 1
        await driver.delete("r.x", version=0)
        assert server.transactions() == [
            [{"ope": "PUT", "path": "r.x", "instance": 1}],
            [{"ope": "PUT", "path": 'r."a b".x', "instance": {"y": [1, None]}, "version": -1}],
            [{"ope": "PUT", "path": "r.n", "instance": None, "version": 3, "ephemeral": True}],
            [{"ope": "GET", "path": "r.x"}],
            [{"ope": "DELETE", "path": "r.x", "version": 0}],
        ]
        requests = server.of(Request)
        assert {(one.type, one.tega_id, one.path) for one in requests} == {("TX", "me", "-")}
        assert len({one.seq_no for one in requests}) == len(requests)
        assert len({json.loads(one.body)["txid"] for one in requests}) == len(requests)


@on_loop
async def test_get_gives_documents_plain_values_and_matches() -> None:
    leaf = {"_value": 3, "_version": 4, "_oid": "c", "_parent": "b", "_ephemeral": False}
    results: list[Any] = [
        {"instance": leaf, "version": 4},
        {"instance": leaf, "version": 4},
        {"instance": 3, "version": 4},
        {"instance": {"r.b.c": {"groups": [["c"]], "instance": leaf}}},
        {"instance": {}},
        {"instance": 3, "version": 4},
    ]

    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request):
            peer.answer(message, {"seq": 4, "versions": {}, "results": [results.pop(0)]})
        return isinstance(message, Request)

    async with connected() as (server, driver):
        server.script = script
        c = await driver.get("r.b.c", version=-1)
        assert (c, c._version, c.qname_()) == (3, 4, ["r", "b", "c"])
        assert await driver.get("r.b.c", internal=True) == leaf
        assert await driver.get("r.b.c", python_dict=True) == 3
        found = await driver.get(r"r\.b\.(c)", regex_flag=True)
        assert found["r.b.c"]["groups"] == [["c"]]
        assert found["r.b.c"]["instance"].qname_() == ["r", "b", "c"]
        assert await driver.get("r", regex_flag=True) == {}
        assert await driver.get("r.b.c", python_dict=True, consistent=True) == 3
        assert [ops[0] for ops in server.transactions()] == [
            {"ope": "GET", "path": "r.b.c", "version": -1, "internal": True},
            {"ope": "GET", "path": "r.b.c", "internal": True},
            {"ope": "GET", "path": "r.b.c"},
            {"ope": "GET", "path": r"r\.b\.(c)", "internal": True, "regex_flag": True},
            {"ope": "GET", "path": "r", "internal": True, "regex_flag": True},
            {"ope": "GET", "path": "r.b.c", "consistent": True},
        ]


@pytest.mark.parametrize("value", [0, "", False, None, [], {}, 0.0])
@on_loop
async def test_falsy_values_arrive_as_themselves(value: Any) -> None:
    def script(peer: Peer, message: Message) -> bool:
        called = isinstance(message, Request) and message.type == "RPC"
        if called:
            peer.answer(message, value)
        return called

    async with connected() as (server, driver):
        server.script = script
        await driver.put(value, path="r")
        for got in (await driver.get("r", python_dict=True), await driver.rpc("r.f")):
            assert (got, type(got)) == (value, type(value))


@on_loop
async def test_refusals_carry_what_the_table_of_errors_says() -> None:
    body = {"code": "collision", "message": "it is another", "path": "r.x", "expected": 1}

    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request):
            peer.answer(message, body, error=True)
        return isinstance(message, Request)

    async with connected() as (server, driver):
        with pytest.raises(CRUDException, match="404 Not Found: no r") as caught:
            await driver.get("r", python_dict=True)
        assert caught.value.code == "not_found"
        server.script = script
        for call in (driver.put(1, version=1, path="r.x"), driver.rpc("r.f")):
            with pytest.raises(CRUDException) as caught:
                await call
            assert str(caught.value) == "409 Conflict: it is another"
            assert caught.value.code == "collision"
            assert caught.value.details == {"path": "r.x", "expected": 1}
        body["code"] = "of_the_future"
        with pytest.raises(CRUDException, match=r"^it is another$") as caught:
            await driver.put(1, path="r.x")
        assert (caught.value.status, caught.value.code) == (None, "of_the_future")


@on_loop
async def test_what_cannot_be_is_refused_unsent() -> None:
    async with connected() as (server, driver):
        for call, shown in (
            (driver.put(float("nan"), path="r"), "not a finite number"),
            (driver.put({"a": 1}), "stands nowhere"),
            (driver.put(1, path="r._version"), "reserved key"),
            (driver.get("r..x"), "empty key"),
            (driver.get("r.*", version=1, regex_flag=True), "spans roots"),
            (driver.delete(""), "empty key"),
            (driver.rpc("r.f", {1, 2}), "type set"),
            (driver.rpc(""), "empty key"),
        ):
            with pytest.raises(CRUDException, match=shown) as caught:
                await call
            assert (caught.value.status, caught.value.code) == (400, "malformed")
        assert not server.of(Request)


@on_loop
async def test_a_call_carries_its_arguments() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request):
            peer.answer(message, json.loads(message.body))
        return isinstance(message, Request)

    async with connected() as (server, driver):
        server.script = script
        assert await driver.rpc('r."a b".f', 1, "x", path="p") == {
            "args": [1, "x"], "kwargs": {"path": "p"}
        }  # fmt: skip
        (request,) = server.of(Request)
        assert (request.type, request.tega_id, request.path) == ("RPC", "me", 'r."a\\u0020b".f')


@on_loop
async def test_a_transaction_goes_as_a_whole() -> None:
    async with connected() as (server, driver):
        await driver.put("there", path="r.c")
        async with driver.tx() as t:
            t.put(1, path="r.a")
            t.get("r.c", python_dict=True)
            t.delete("r.b", version=2)
            t.get("r.none")
            assert len(server.transactions()) == 1
        assert [one["ope"] for one in server.transactions()[1]] == ["PUT", "GET", "DELETE", "GET"]
        assert t.result == {"seq": 2, "versions": {}}
        found, missing = t.results
        assert found == "there"
        assert (missing.status, missing.code) == (404, "not_found")
        with pytest.raises(TransactionException, match="has ended"):
            t.put(1, path="r.a")

        async def change_of_mind() -> None:
            async with driver.tx() as t:
                t.put(1, path="r.a")
                raise KeyError("no")

        with pytest.raises(KeyError):
            await change_of_mind()
        assert len(server.transactions()) == 2


@on_loop
async def test_a_refused_transaction_raises_at_its_end() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request):
            peer.answer(message, {"code": "collision", "message": "no"}, error=True)
        return isinstance(message, Request)

    async with connected() as (server, driver):
        server.script = script
        with pytest.raises(TransactionException, match="409 Conflict: no") as caught:
            async with driver.tx() as t:
                t.put(1, path="r.a")
        assert caught.value.code == "collision"
        assert (t.result, t.results) == (None, [])


@on_loop
async def test_ten_thousand_requests_and_no_more_than_the_limit_at_a_time() -> None:
    held: list[Message] = []
    seen = 0

    def script(peer: Peer, message: Message) -> bool:
        nonlocal seen
        seen += 1
        held.append(message)
        assert len(held) <= 1024
        if len(held) == 1024 or seen == 10_000:
            waiting, held[:] = held[:], []
            for request in waiting:
                server.play(peer, request)
        return True

    async with connected() as (server, driver):
        server.script = script
        done = await asyncio.gather(*[driver.put(n, path="r.x") for n in range(10_000)])
        assert sorted(one["seq"] for one in done) == list(range(1, 10_001))
        assert [one["instance"] for one in server.applied] == list(range(10_000))


@on_loop
async def test_who_gives_up_gives_its_place_to_another() -> None:
    async with connected() as (server, driver):
        server.script = ignoring("TX")
        tasks = [asyncio.create_task(driver.put(n, path="r.x")) for n in range(1500)]
        await server.until(lambda: len(server.transactions()) == 1024)
        for task in tasks[:1000] + tasks[1024:1400]:
            task.cancel()
        await server.until(lambda: len(server.transactions()) == 1124)
        server.script = None
        server.peer.cut()
        await asyncio.gather(*tasks[1000:1024], *tasks[1400:])
        assert len(server.applied) == 124, "what was given up is not sent again"


@on_loop
async def test_no_answer_comes_to_an_end() -> None:
    async with connected(timeout=0.2) as (server, driver):
        server.script = ignoring("TX")
        with pytest.raises(TimeoutError, match=r"no answer from 127.* within 0.2 s; it may have"):
            await driver.put(1, path="r.x")
        with pytest.raises(TimeoutError, match=r"0.2 s$"):
            await driver.get("r.x")
        server.script = None
        late = server.of(Request)[0]
        server.peer.answer(late, {"seq": 1, "versions": {}, "results": []})
        assert (await driver.put(2, path="r.x"))["seq"] == 1
        assert len(server.peers) == 1, "an answer that comes late does no harm"
