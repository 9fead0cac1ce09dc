"""Small messages do not wait until those before them are acknowledged (Nagle's algorithm)."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from rawpeer import serving

from tega.web.streams import PlainStream, TornadoStream

HANDSHAKE = (
    b"GET /_pubsub HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("secured", [False, True])
def test_the_server_sends_at_once(tmp_path: Path, secured: bool) -> None:
    settings: dict[str, Any] = {}
    context: ssl.SSLContext | None = None
    if secured:
        authority = Authority(tmp_path)
        pair = authority.issue("127.0.0.1")
        settings = {"tls_cert": pair.cert, "tls_key": pair.key}
        context = ssl.create_default_context(cafile=str(authority.file))

    async def work() -> None:
        async with serving(**settings) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            made = [
                one._transport.get_extra_info("socket") if type(one) is PlainStream
                else one._stream.socket
                for one in gc.get_objects()
                if type(one) in (PlainStream, TornadoStream) and not one.closed()
            ]
            assert len(made) == 1
            assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()

    asyncio.run(work())
