"""A session over a server that plays a script: requests, lost connections, ends."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from scripted import PATIENCE, Peer, Scripted, Wire, on_loop

from tega.driver import (
    AsyncDriver,
    CRUDException,
    SessionException,
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
        assert [ops[0] for ops in server.transactions()] == [
            {"ope": "GET", "path": "r.b.c", "version": -1, "internal": True},
            {"ope": "GET", "path": "r.b.c", "internal": True},
            {"ope": "GET", "path": "r.b.c"},
            {"ope": "GET", "path": r"r\.b\.(c)", "internal": True, "regex_flag": True},
            {"ope": "GET", "path": "r", "internal": True, "regex_flag": True},
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


# Lost connections


@on_loop
async def test_changes_and_reads_are_sent_again_and_done_once() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and peer is server.peers[0]:
            if json.loads(message.body)["ops"][0]["path"] != "r.unseen":
                server.transact(json.loads(message.body))
            if len(server.of(Request)) == 4:
                peer.cut()
            return True
        return False

    async with connected() as (server, driver):
        server.script = script
        done = await asyncio.gather(
            driver.put(1, path="r.x"),
            driver.put(2, path="r.y"),
            driver.put(3, path="r.unseen"),
            driver.get("r.x", python_dict=True),
        )
        assert [one["instance"] for one in server.applied] == [1, 2, 3]
        assert done[3] == 1
        first, second = server.peers
        assert [one for one in first.received if isinstance(one, Request)] == [
            one for one in second.received if isinstance(one, Request)
        ]


def test_tries_to_connect_come_slower_and_slower() -> None:
    for _ in range(20):
        waits = [wait for wait, _ in zip(module.pauses(), range(12), strict=False)]
        assert waits[0] == 0.0
        for count, wait in enumerate(waits[1:]):
            most = min(module.FIRST_PAUSE * 2**count, module.LONGEST_PAUSE)
            assert most / 2 <= wait <= most


@on_loop
async def test_after_a_good_connection_the_next_is_tried_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1000.0)
    monkeypatch.setattr(module, "_GOOD", 0.0)
    async with connected() as (server, driver):
        for _ in range(3):
            server.peer.cut()
            await driver.put(1, path="r")


@on_loop
async def test_a_call_is_never_sent_again() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and message.type == "RPC":
            peer.cut()
            return True
        return False

    async with connected() as (server, driver):
        server.script = script
        with pytest.raises(ConnectionError, match=r"was lost; it may have been done"):
            await driver.rpc("r.f")
        await driver.put(1, path="r.x")
        assert len(server.peers) == 2
        assert len([one for one in server.of(Request) if one.type == "RPC"]) == 1


@on_loop
async def test_what_was_done_in_another_life_is_not_done_again() -> None:
    def script(peer: Peer, message: Message) -> bool:
        return isinstance(message, Request) and peer is server.peers[0]

    async with connected() as (server, driver):
        server.script = script
        put = asyncio.create_task(driver.put(1, path="r.x"))
        get = asyncio.create_task(driver.get("r.x", python_dict=True))
        await server.until(lambda: len(server.of(Request)) == 2)
        server.life = "second"
        server.peer.cut()
        with pytest.raises(ConnectionError, match=r"was cleared meanwhile; it may have been done"):
            await put
        with pytest.raises(CRUDException, match="404"):
            await get
        assert server.applied == []
        assert driver.life == "second"


@on_loop
async def test_what_is_asked_while_there_is_no_connection_waits_for_one() -> None:
    server = Scripted()
    async with server.running():
        driver = AsyncDriver("127.0.0.1", server.port, timeout=PATIENCE)
        await driver.connect()
    put = asyncio.create_task(driver.put(1, path="r.x"))
    await asyncio.sleep(0)
    async with server.running():
        assert (await put)["seq"] == 1
        await driver.close()


@pytest.mark.parametrize("way", ["down", "up"])
@on_loop
async def test_a_wire_that_is_cut_at_any_byte(way: str) -> None:
    """Cut within the handshake, within frames and between them: all is done once, in order."""
    async with Scripted().running() as server, Wire(server.port).strung() as wire:

        async def story(cut: int | None) -> None:
            server.history.clear()
            server.applied.clear()
            # So that the first connection is made, and the second one is cut too.
            wire.cuts = [None if cut is None else (way, cut), (way, (cut or 0) + 40)]
            driver = AsyncDriver("127.0.0.1", wire.port, "me", timeout=PATIENCE)
            while True:
                try:
                    await driver.connect()
                    break
                except ConnectionError:
                    assert cut is not None
            watch = driver.watch("w", since=f"{server.seq}@first")
            seqs = [server.commit({"path": "w.x", "instance": n}) for n in range(3)]
            puts = [asyncio.create_task(driver.put(n, path="r.x")) for n in range(3)]
            assert [(await watch.__anext__()).seq for _ in seqs] == seqs
            await asyncio.gather(*puts)
            last = server.commit({"path": "w.y"}, {"path": "w.z"})
            told = [await watch.__anext__() for _ in range(2)]
            assert [(one.seq, one.path) for one in told] == [(last, "w.y"), (last, "w.z")]
            assert [one["instance"] for one in server.applied] == [0, 1, 2]
            await driver.close()

        wire.cuts = []
        await story(None)
        whole = wire.carried[0][way]
        assert whole > 500
        for cut in range(1, whole + 1, 7):
            await story(cut)


@on_loop
async def test_a_server_that_falls_silent_is_left() -> None:
    async with Scripted().running() as server, Wire(server.port).strung() as wire:
        driver = AsyncDriver(
            "127.0.0.1", wire.port, ping_interval=0.05, ping_timeout=0.3, timeout=PATIENCE
        )
        async with driver:
            await server.until(lambda: server.peer.pings > 3)
            assert len(server.peers) == 1, "a server that answers pings is there"
            wire.silent = True
            put = asyncio.create_task(driver.put(1, path="r.x"))
            await server.until(lambda: server.peers[0].gone.is_set())
            wire.silent = False
            assert (await put)["seq"] == 1


@on_loop
async def test_garbage_is_answered_with_a_new_connection() -> None:
    async with connected() as (server, driver):
        watch = driver.watch("w")
        for count, garbage in enumerate(
            ("hello", "NOTIFY\n{", 'NOTIFY\n[{"ope": 1}]', "SESSIONACK x\n{}", "ERROR gone\n{}",
             "SESSION you local", 'MESSAGE w x\n{"no": 1}'), 2,
        ):  # fmt: skip
            peer = server.peer
            peer.say(garbage)
            await peer.gone.wait()
            seq = server.commit({"path": "w"})
            assert (await watch.__anext__()).seq == seq
            assert len(server.peers) == count


@on_loop
async def test_what_comes_twice_counts_once() -> None:
    async with connected() as (server, driver):
        async with driver.watch("w") as watch:
            server.commit({"path": "w", "instance": 1})
            server.peer.say(f"NOTIFY\n{json.dumps(server.history[0])}")
            server.commit({"path": "w", "instance": 2})
            assert [(await watch.__anext__()).instance for _ in range(2)] == [1, 2]
        put = await driver.put(1, path="r")
        request = server.of(Request)[-1]
        server.peer.say(f"RESPONSE {request.seq_no} TX me\n{json.dumps(put)}")
        await driver.put(2, path="r")
        assert len(server.peers) == 1


@on_loop
async def test_a_request_that_is_too_large_for_the_server_fails_alone() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Request) and len(message.body) > 10_000:
            peer.close(1009, "too big")
            return True
        return False

    async with connected() as (server, driver):
        server.script = script
        done = await asyncio.gather(
            driver.put(1, path="r.x"),
            driver.put("x" * 20_000, path="r.y"),
            driver.put("x" * 30_000, path="r.z"),
            driver.put(2, path="r.x"),
            return_exceptions=True,
        )
        for refusal in done[1:3]:
            assert isinstance(refusal, CRUDException)
            assert (refusal.status, refusal.code) == (413, "too_large")
        assert [one["instance"] for one in server.applied] == [1, 2]


# Ends


@pytest.mark.parametrize("said", [True, False])
@on_loop
async def test_a_session_that_was_taken_over_does_not_fight(said: bool) -> None:
    async with connected() as (server, driver):
        server.script = ignoring("TX")
        watch = driver.watch("w")
        put = asyncio.create_task(driver.put(1, path="r.x"))
        await server.until(lambda: len(server.transactions()) == 1)
        if said:
            server.peer.say('ERROR taken_over\n{"message": "by another connection"}')
        server.peer.close(4001, "taken over")
        with pytest.raises(SessionException, match=r"taken over|by another") as caught:
            await put
        assert caught.value.code == "taken_over"
        assert "it may have been done" in str(caught.value)
        with pytest.raises(SessionException):
            await watch.__anext__()
        for call in (driver.put(1, path="r"), driver.rpc("r.f"), driver.publish("c", 1)):
            with pytest.raises(SessionException):
                await call
        with pytest.raises(SessionException):
            driver.watch("w")
        assert len(server.peers) == 1
        server.script = None
        await driver.connect()
        await driver.put(1, path="r.x")
        assert len(server.peers) == 2, "asked to, it begins anew"


@on_loop
async def test_a_server_that_closes_a_silent_client_is_called_again() -> None:
    async with connected() as (server, driver):
        server.peer.close(4002, "silent")
        await driver.put(1, path="r.x")
        assert len(server.peers) == 2


@on_loop
async def test_a_session_that_is_refused() -> None:
    def script(peer: Peer, message: Message) -> bool:
        peer.say('ERROR refused\n{"message": "the id is reserved"}')
        return True

    async with Scripted().running() as server:
        server.script = script
        driver = AsyncDriver("127.0.0.1", server.port, timeout=PATIENCE)
        with pytest.raises(SessionException, match="409 Conflict: the id is reserved"):
            await driver.connect()
        with pytest.raises(ConnectionError, match="closed"):
            await driver.put(1, path="r")
        assert len(server.peers) == 1
        server.script = None
        async with driver:
            await driver.put(1, path="r")


@pytest.mark.parametrize(
    ("answer", "kind", "shown"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", SessionException, "404 Not Found"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", ConnectionError, "503 Service"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ConnectionError, "no WebSocket server"),
        (b"220 mail.example ESMTP\r\n\r\n", ConnectionError, "no HTTP: '220 mail"),
        (b"x" * 70_000, ConnectionError, "no HTTP"),
        (b"", ConnectionError, "hung up"),
    ],
)
@on_loop
async def test_what_is_no_tega_server(answer: bytes, kind: type[Exception], shown: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(kind, match=shown) as caught:
        await AsyncDriver("127.0.0.1", port, timeout=PATIENCE).connect()
    assert f"127.0.0.1:{port}" in str(caught.value)
    server.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@on_loop
async def test_a_refused_connection_is_told_at_once(host: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        driver = AsyncDriver(host, port)
        for call in (driver.connect, driver.roots):
            with pytest.raises(ConnectionRefusedError, match=f"{host}:{port}: Connection refused"):
                await call()


@on_loop
async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        driver = AsyncDriver("127.0.0.1", deaf.getsockname()[1], timeout=0.1)
        for call in (driver.connect, driver.roots):
            with pytest.raises(TimeoutError, match="timed out"):
                await call()


@on_loop
async def test_before_and_after_there_is_no_session() -> None:
    async with connected() as (server, driver):
        put = asyncio.create_task(driver.put(1, path="r"))
        server.script = ignoring("TX")
        await server.until(lambda: server.of(Request))
        await driver.close()
        with pytest.raises(ConnectionError, match=r"is closed; it may have been done"):
            await put
        with pytest.raises(ConnectionError, match="is closed"):
            await driver.put(1, path="r")
    with pytest.raises(ConnectionError, match="connect first"):
        await AsyncDriver("127.0.0.1", 1).put(1, path="r")


def descriptors() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")}  # fmt: skip


@on_loop
async def test_close_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    async with Scripted().running() as server:
        before = descriptors()
        driver = AsyncDriver("127.0.0.1", server.port, timeout=PATIENCE)
        tasks = asyncio.all_tasks()
        await driver.connect()
        await driver.serve("f", lambda: 1)
        await driver.serve("slow", asyncio.Event().wait)
        server.peer.say('REQUEST 1 RPC x f\n{"args": []}')
        server.peer.say("REQUEST 2 RPC x slow\n{}")
        watch = driver.watch("w")
        waiting = asyncio.create_task(watch.__anext__())
        server.peer.cut()
        await driver.put(1, path="r")
        await driver.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        await server.until(lambda: all(peer.gone.is_set() for peer in server.peers))
        gc.collect()
        assert {task for task in asyncio.all_tasks() - tasks if "tega" in repr(task)} == set()
        assert descriptors() <= before
    for _ in range(1000):
        if threading.active_count() <= threads:
            break
        await asyncio.sleep(0.01)
    assert threading.active_count() <= threads
