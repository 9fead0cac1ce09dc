"""The WebSocket side of the lean client: handshake, masked frames out, frames of a server in."""

from __future__ import annotations

import socket
import struct

from tegabench.client import BadReply
from tegabench.httpwire import Address

_CLOSE, _PING, _PONG = 0x88, 0x89, 0x8A
_TEXT = 0x81

#: With a mask of zeros, which the protocol allows, masking changes nothing and costs nothing.
_MASK = bytes(4)


def frame(payload: bytes, kind: int = _TEXT) -> bytes:
    """A whole message of a client in one frame."""
    size = len(payload)
    if size < 126:
        return bytes((kind, 0x80 | size)) + _MASK + payload
    if size < 1 << 16:
        return struct.pack(">BBH", kind, 0xFE, size) + _MASK + payload
    return struct.pack(">BBQ", kind, 0xFF, size) + _MASK + payload


class Frames:
    """Frames what a server sends; a message in several frames, and a close, are refused."""

    def __init__(self) -> None:
        self._buffer = b""
        self._pongs = b""

    def take(self, data: bytes) -> list[bytes]:
        """The text messages that these bytes end."""
        buffer = self._buffer + data if self._buffer else data
        found = []
        at, length = 0, len(buffer)
        while length - at >= 2:
            size = buffer[at + 1]
            start = at + 2
            if size > 125:
                wide = 2 if size == 126 else 8
                start += wide
                if start > length:
                    break
                size = int.from_bytes(buffer[start - wide : start], "big")
            end = start + size
            if end > length:
                break
            if buffer[at] == _TEXT:
                found.append(buffer[start:end])
            elif buffer[at] == _PING:
                self._pongs += frame(buffer[start:end], _PONG)
            elif buffer[at] != _PONG:
                raise BadReply(buffer[at:])
            at = end
        self._buffer = buffer[at:]
        return found

    def answer(self) -> bytes:
        """What must be sent back for the pings that have arrived."""
        pongs, self._pongs = self._pongs, b""
        return pongs

    def count(self, data: bytes) -> int:
        """How many text messages these bytes end."""
        return len(self.take(data))


def connect(address: Address, path: str) -> socket.socket:
    """Open a WebSocket.

    :raises BadReply: where the server does not offer one there
    """
    sock = socket.create_connection(address, 30)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(4096)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            head += data
            if not head.startswith(b"HTTP/1.1 101"[: len(head)]):
                raise BadReply(head)
    except BaseException:
        sock.close()
        raise
    return sock


def ask(sock: socket.socket, *messages: bytes, answers: int = 1) -> list[bytes]:
    """Send messages outside the measurement, all at once, and wait for so many answers."""
    frames = Frames()
    found: list[bytes] = []
    sock.sendall(b"".join([frame(message) for message in messages]))
    while len(found) < answers:
        data = sock.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        found += frames.take(data)
        if pongs := frames.answer():
            sock.sendall(pongs)
    return found
