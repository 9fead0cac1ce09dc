"""What becomes of connections that never get as far as TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from scripted import on_loop
from tornado.netutil import bind_sockets

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "behaviour"))
from certificates import Authority

from tega import listener as module
from tega.access.keeper import Keeper
from tega.access.rates import Rates
from tega.listener import Listener, Room
from tega.metrics import Meters
from tega.tls import Certificates
from tega.web.door import Door
from tega.web.http import Call, Service
from tega.web.refusals import Refusals
from tega.web.traffic import Traffic


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[tuple[int, Authority]]:
    """A server that answers every request with its method."""

    def upgrade(*_: object) -> None:
        raise AssertionError("nobody asks for a WebSocket")

    def answer(call: Call) -> str:
        return call.method

    authority = Authority(directory)
    certificates = Certificates(*authority.issue("127.0.0.1"))
    meters = Meters()
    traffic = Traffic(meters, Refusals(meters))
    keeper = Keeper(directory / "tokens.yaml", directory / "access.yaml")
    door = Door(keeper, (), True, Rates(0.0, 1.0))
    service = Service(answer, 1 << 20, 1 << 16, upgrade, door, traffic)
    server = Listener(service, certificates, Room(100, lambda: 0), meters)
    sockets = bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    server.add_sockets(sockets)
    try:
        yield port, authority
    finally:
        server.stop()
        await server.close_all_connections()
        await asyncio.wait_for(until_greeted(server), 5)


async def until_greeted(server: Listener) -> None:
    """Wait until no handshake is under way."""
    if server._greeted:
        await asyncio.wait(server._greeted)


@on_loop
async def test_who_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with listening(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
@on_loop
async def test_who_says_too_little_is_hung_up_on(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HANDSHAKE", 0.05)
    async with listening(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        # Of what it has not read the client hears by a reset.
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


@on_loop
async def test_who_speaks_http_and_stays_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PARTING", 0.05)
    async with listening(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"Connection: close\r\n" in answer
        while not writer.is_closing():
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.01)


@on_loop
async def test_others_are_served_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening(tmp_path) as (port, authority):
        quiet = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        context = ssl.create_default_context(cafile=authority.file)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        for _ in range(3):
            writer.write(b"GET /x/ HTTP/1.1\r\n\r\n")
            assert (await reader.readuntil(b'"GET"')).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        for _, other in quiet:
            other.write(b"\x16\x03\x01\x00\x05xxxxx")
            other.transport.abort()
        await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
