"""The server's end of the wire: handshake, close codes, and clients that send and never read."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Coroutine
from typing import Any

import pytest
from rawpeer import CLOSE, PING, PONG, TEXT, RawPeer, masked, serving

from tega.protocol.frames import frame

HANDSHAKE = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
MIB = 1 << 20


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def session(port: int, tega_id: str = "cli-1") -> RawPeer:
    """A client whose session has begun."""
    peer = await RawPeer.connect(port)
    peer.say(f"SESSION {tega_id} local")
    assert (await peer.hear()).payload.startswith(b"SESSIONACK ")
    return peer


# -- the handshake --------------------------------------------------------------------------------


async def answer(port: int, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """What a handshake is answered: status, and headers with what follows them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} /_pubsub HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 101:
        size = int(head.lower().partition(b"content-length: ")[2].split()[0])
        head += await reader.readexactly(size)
    writer.close()
    return status, head


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Connection": "keep-alive, Upgrade"}, 101),
        ({"Upgrade": "WebSocket"}, 101),
        ({"Origin": "http://localhost/"}, 101),
        ({"Origin": "http://127.0.0.1:8080"}, 101),
        ({"Origin": "http://[::1]"}, 101),
        ({"Sec-WebSocket-Protocol": "chat", "Sec-WebSocket-Extensions": "permessage-deflate"}, 101),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "http://localhost.elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Connection": "keep-alive"}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "é" * 24}, 400),
    ],
)
def test_a_handshake(headers: dict[str, str], status: int) -> None:
    async def work() -> None:
        async with serving() as port:
            found, text = await answer(port, "GET", HANDSHAKE | headers)
            assert found == status
            if status == 101:
                lower = text.lower()
                assert b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in lower
                assert b"protocol:" not in lower
                assert b"extensions:" not in lower
            else:
                code = json.loads(text.partition(b"\r\n\r\n")[2])["error"]["code"]
                assert code == {400: "malformed", 403: "forbidden"}[status]

    run(work())


@pytest.mark.parametrize("name", ["Upgrade", "Connection", "Sec-WebSocket-Version",
                                  "Sec-WebSocket-Key"])  # fmt: skip
def test_a_handshake_without_what_it_needs(name: str) -> None:
    async def work() -> None:
        async with serving() as port:
            without = {key: value for key, value in HANDSHAKE.items() if key != name}
            assert (await answer(port, "GET", without))[0] == 400
            assert (await answer(port, "POST", HANDSHAKE))[0] in (400, 405)

    run(work())


# -- what ends a connection -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"a"), 1002),
        (masked(b"a", TEXT | 0x40), 1002),
        (masked(b"x" * 126, PING), 1002),
        (masked(b"a", 0x0), 1002),
        (masked(b"a", 0x2), 1003),
        (masked(b"\xff"), 1007),
        (struct.pack("!BBQ", 0x81, 0xFF, 1 << 30), 1009),
        (masked(b"", CLOSE), 1000),
        (masked(b"\x03\xe8bye", CLOSE), 1000),
    ],
)
def test_what_ends_a_connection_ends_this_one_alone(data: bytes, code: int) -> None:
    async def work() -> None:
        async with serving() as port:
            other, peer = await session(port, "cli-2"), await session(port)
            peer.write(data)
            opcode, payload = await peer.hear()
            assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
            peer.cut()
            await other.settle()

    run(work())


def test_who_sends_too_much_is_told_so() -> None:
    """It is still sending when it is refused, and must not find the connection just reset."""

    async def work() -> None:
        async with serving(max_body=1000) as port:
            peer = await session(port)
            peer.write(struct.pack("!BBQ", 0x81, 0xFF, 16 * MIB) + b"\0\0\0\0")
            for _ in range(16):
                peer.write(b"x" * MIB)
                await peer.sent()
            opcode, payload = await peer.hear()
            assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1009)

    run(work())


def test_a_ping_is_answered_with_what_it_holds() -> None:
    async def work() -> None:
        async with serving() as port:
            peer = await RawPeer.connect(port)
            peer.write(masked(b"\0\xff" * 60, PING))
            peer.write(masked(b"", PONG))
            peer.write(masked(b"", PING))
            assert await peer.hear() == (PONG, b"\0\xff" * 60)
            assert await peer.hear() == (PONG, b"")

    run(work())


# -- clients that send and never read -------------------------------------------------------------


async def stops_taking(peer: RawPeer, data: bytes, most: int) -> bool:
    """Whether the server stops to take what somebody sends who reads nothing.

    :param most: bytes; far more than the buffers of the network hold
    """
    for _ in range(0, most, len(data)):
        peer.write(data)
        try:
            await asyncio.wait_for(peer.sent(), 1)
        except asyncio.TimeoutError:
            return True
    return False


async def unread(port: int, data: bytes) -> None:
    """Somebody sends this over and over, and never reads: it is stopped, and others go on."""
    other, peer = await session(port, "cli-2"), await session(port)
    peer.read_no_more()
    assert await stops_taking(peer, data, 64 * MIB), "the server takes ever more"
    await other.settle()
    peer.cut()


def test_whoever_pings_and_never_reads_is_stopped() -> None:
    async def work() -> None:
        async with serving() as port:
            await unread(port, masked(b"x" * 125, PING) * 2000)

    run(work())


def test_whoever_is_refused_and_never_reads_is_stopped() -> None:
    async def work() -> None:
        async with serving() as port:
            await unread(port, masked(b"HELLO") * 10_000)

    run(work())


def test_whoever_asks_for_much_and_never_reads_is_stopped() -> None:
    async def work() -> None:
        async with serving() as port:
            writer = await session(port, "cli-3")
            value = {str(number): "x" * 50 for number in range(10_000)}
            put = {"ops": [{"ope": "PUT", "path": "big", "instance": value}]}
            writer.say("REQUEST 1 TX cli-3 -\n" + json.dumps(put))
            assert b" ERROR" not in (await writer.hear()).payload
            # Long, so that few fill the buffers of the network; every number is another one.
            body = '{"ops":[{"ope":"GET","path":"big"}]' + " " * 16_000 + "}"
            asks = b"".join(
                masked(f"REQUEST {number} TX cli-1 -\n{body}".encode()) for number in range(100)
            )
            await unread(port, asks)

    run(work())


def test_a_session_that_is_read_no_further_is_not_silent() -> None:
    """With enough calls open the server does not read, and so cannot say that nothing came."""

    async def work() -> None:
        async with serving(ping_interval=0.2, ping_timeout=1.0, rpc_timeout=2.5) as port:
            owner, caller = await session(port, "owner"), await session(port, "caller")
            put = '[{"ope":"PUT","path":"f","instance":"%owner.f","ephemeral":true}]'
            owner.say(f"NOTIFY\n{put}")
            await owner.settle()
            for number in range(1100):
                caller.say(f"REQUEST {number} RPC caller f\n{{}}")

            async def alive(peer: RawPeer) -> None:
                while True:
                    peer.write(masked(b"", PONG))
                    await asyncio.sleep(0.1)

            beats = [asyncio.create_task(alive(peer)) for peer in (owner, caller)]
            answered = 0
            # The owner answers none of them; each ends as it should, after its own time.
            while answered < 1024:
                opcode, payload = await caller.hear()
                assert opcode != CLOSE, "a client that is alive was taken for silent"
                answered += opcode == TEXT and payload.startswith(b"RESPONSE ")
            for beat in beats:
                beat.cancel()

    run(work())
