"""Lost connections, and the end of sessions, over a server that plays a script."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading

import pytest
from scripted import PATIENCE, Peer, Scripted, Wire, on_loop
from test_driver_session import connected, ignoring

from tega.driver import AsyncDriver, CRUDException, SessionException
from tega.driver import session as module
from tega.protocol import Message, Publish, Request


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


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


@on_loop
async def test_a_message_that_is_too_large_for_the_server_fails_no_request() -> None:
    def script(peer: Peer, message: Message) -> bool:
        if isinstance(message, Publish):
            peer.close(1009, "too big")
        return peer is server.peers[0]

    async with connected() as (server, driver):
        server.script = script
        put = asyncio.create_task(driver.put(1, path="r.x"))
        await asyncio.sleep(0)
        await driver.publish("r.y", "x" * 20_000)
        await put
        assert [one["instance"] for one in server.applied] == [1]
        assert len(server.peers) == 2


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
