"""WebSocket frames (RFC 6455), for both ends and without I/O; as much as tega has use for.

Tornado reads a frame in three or four steps through its stream. Here a chunk from the network,
which under load holds many frames, is taken apart at once: a small message costs half as much.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from hashlib import sha1
from typing import Final, TypeAlias

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION: Final = 0x0

_LAST, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F

#: The first byte of a message that is one frame.
_TEXT_FRAME: Final = _LAST | TEXT

#: Most bytes of a control frame's payload.
_CONTROL: Final = 125

#: Close codes of the RFC: it violates the protocol, is no UTF-8, is too big, of a type not taken.
NORMAL, VIOLATION, NOT_UTF8, TOO_BIG, NOT_TAKEN = 1000, 1002, 1007, 1009, 1003

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Violation(Exception):
    """The other end does not keep to the RFC, or to the limit.

    :ivar code: to close the connection with
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


#: What has come: TEXT and the text of a whole message, however many fragments it had, or another
#: opcode and the bytes of a control frame.
Frame: TypeAlias = tuple[int, str | bytes]


def accept_value(key: str) -> str:
    """The value of ``Sec-WebSocket-Accept`` that answers a ``Sec-WebSocket-Key``."""
    return base64.b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def frame(payload: bytes, opcode: int = TEXT, last: bool = True) -> bytes:
    """A frame as a server sends it: not masked."""
    return _head(opcode | (_LAST if last else 0), len(payload), 0) + payload


def masked_frame(payload: bytes, mask: bytes, opcode: int = TEXT) -> bytes:
    """A whole message as a client sends it.

    :param mask: four bytes that nobody can guess
    """
    head = _head(opcode | _LAST, len(payload), _MASKED)
    return head + mask + _unmasked(payload, mask)


def _head(first: int, size: int, masked: int) -> bytes:
    if size < 126:
        return bytes((first, masked | size))
    if size < 1 << 16:
        return struct.pack("!BBH", first, masked | 126, size)
    return struct.pack("!BBQ", first, masked | 127, size)


def close_frame(code: int, reason: str) -> bytes:
    """A frame that ends the connection."""
    return frame(struct.pack("!H", code) + reason.encode()[: _CONTROL - 2], CLOSE)


class Reader:
    """Takes a stream of bytes apart.

    :param limit: most bytes of a message
    :param masked: whether frames must be masked, as those of a client are, or must not
    """

    __slots__ = ("_chunks", "_fragments", "_have", "_masked", "_size", "_wanted", "limit")

    def __init__(self, limit: int, masked: bool = True) -> None:
        self.limit = limit
        self._masked = _MASKED if masked else 0
        # What has come of a frame that is not whole, and how many bytes that needs at least.
        self._chunks: list[bytes] = []
        self._have = 0
        self._wanted = 2
        self._fragments: list[bytes] | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Take more bytes, and give what is whole now.

        To be read to its end before more is fed.

        :raises Violation: where the connection cannot go on
        """
        self._chunks.append(chunk)
        self._have += len(chunk)
        if self._have < self._wanted:
            return
        data = b"".join(self._chunks)
        size = len(data)
        start = 0
        while True:
            wanted = start + 2
            if size < wanted:
                break
            first, second = data[start], data[start + 1]
            length = second & _LENGTH
            position = start + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                wanted = position + wide
                if size < wanted:
                    break
                length = int.from_bytes(data[position : position + wide], "big")
                position += wide
            # Most frames are messages of one frame each.
            plain = first == _TEXT_FRAME and self._fragments is None
            if not plain or second & _MASKED != self._masked or length > self.limit:
                self._check(first, second, length)
            begin = position + 4 if self._masked else position
            wanted = end = begin + length
            if size < end:
                break
            payload = data[begin:end]
            if self._masked:
                mask = data[position:begin]
                if mask != b"\0\0\0\0":
                    payload = _unmasked(payload, mask)
            start = end
            if plain:
                yield TEXT, _text(payload)
            elif (opcode := first & _OPCODE) >= CLOSE:
                yield opcode, payload
            else:
                self._keep(payload)
                if first & _LAST:
                    yield TEXT, _text(self._joined())
        self._chunks = [data[start:]] if start < size else []
        self._have = size - start
        self._wanted = wanted - start

    def _check(self, first: int, second: int, length: int) -> None:
        """Refuse a frame by its head, before its payload has come."""
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise Violation(VIOLATION, "reserved bits are set: no extension was agreed on")
        if second & _MASKED != self._masked:
            raise Violation(VIOLATION, "a client's frames must be masked, a server's must not")
        if opcode >= CLOSE:
            if opcode > PONG or length > _CONTROL or not first & _LAST:
                raise Violation(VIOLATION, "a malformed control frame")
        elif opcode == BINARY:
            raise Violation(NOT_TAKEN, "messages are text, not binary")
        elif opcode > BINARY or (opcode == CONTINUATION) is (self._fragments is None):
            raise Violation(VIOLATION, "an unknown frame, or a fragment out of order")
        elif length + self._size > self.limit:
            raise Violation(TOO_BIG, f"a message of more than {self.limit} bytes")

    def _keep(self, payload: bytes) -> None:
        if self._fragments is None:
            self._fragments = []
        # An empty fragment costs memory too.
        self._size += max(len(payload), 64)
        self._fragments.append(payload)

    def _joined(self) -> bytes:
        assert self._fragments is not None
        payload = b"".join(self._fragments)
        self._fragments = None
        self._size = 0
        return payload


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Violation(NOT_UTF8, "a text that is not UTF-8") from None


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    # As one long integer, which Python takes together in words.
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
