"""etcd 3.4 over gRPC, by the least of HTTP/2 and protobuf that unary calls need.

Headers go as literals, so that there is no compression state; those of the answers are not read:
a call that failed is one whose stream ends without data.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from tegabench import values
from tegabench.client import BadReply, Conversation
from tegabench.systems.base import BATCH, KEYS, Kind
from tegabench.systems.etcd import Member, key

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


_HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(_SETTINGS, 0, 0, b"")
    # As much as the protocol can say, so that answers never wait for it.
    + _frame(_WINDOW, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65_535))
)


def _literal(start: bytes, *texts: bytes) -> bytes:
    return start + b"".join([bytes([len(text)]) + text for text in texts])


def _headers(method: bytes) -> bytes:
    return (
        b"\x83\x86"  # :method POST, :scheme http, from the static table
        + _literal(b"\x04", b"/etcdserverpb.KV/" + method)
        + _literal(b"\x01", b"bench")
        + _literal(b"\x0f\x10", b"application/grpc")
        + _literal(b"\x00", b"te", b"trailers")
    )


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    size = len(data)
    varint = bytearray()
    while size > 127:
        varint.append(size & 127 | 128)
        size >>= 7
    varint.append(size)
    return bytes([number << 3 | 2]) + varint + data


class Call(Conversation):
    """Unary calls on one connection, one at a time.

    :param method: of the service ``KV``
    :param message: the protobuf of the n-th request
    """

    def __init__(
        self,
        address: tuple[str, int],
        method: bytes,
        message: Callable[[int], bytes],
    ) -> None:
        headers = _headers(method)
        self._buffer = b""
        self._data = False

        def connect() -> socket.socket:
            sock = socket.create_connection(address, 10)
            sock.sendall(_HELLO)
            return sock

        def request(serial: int) -> bytes:
            stream = 2 * serial + 1
            body = message(serial)
            return _frame(_HEADERS, _END_HEADERS, stream, headers) + _frame(
                _DATA, _END_STREAM, stream, struct.pack(">BI", 0, len(body)) + body
            )

        super().__init__(connect, request, lambda data: 0)

    def feed(self, data: bytes) -> tuple[int, bytes]:
        buffer = self._buffer + data
        at = ended = 0
        answer = b""
        while len(buffer) - at >= 9:
            size = int.from_bytes(buffer[at : at + 3], "big")
            kind, flags = buffer[at + 3], buffer[at + 4]
            end = at + 9 + size
            if len(buffer) < end:
                break
            if kind == _DATA:
                self._data = True
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                body = buffer[at + 9 : end] if kind == _PING else b""
                answer += _frame(kind, _ACK, 0, body)
            elif kind in (_RESET, _GOAWAY):
                raise BadReply(buffer[at:end])
            elif kind == _HEADERS and flags & _END_STREAM:
                if not self._data:
                    raise BadReply(buffer[at:end])
                self._data = False
                ended += 1
            at = end
        self._buffer = buffer[at:]
        self.done += ended
        return ended, answer


class EtcdGrpc(Member):
    """Asked over gRPC, on a connection for each operation in flight."""

    name = "etcd-grpc"
    title = "etcd gRPC"

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        keys = [_field(1, key(connection, number)) for number in range(KEYS)]

        def put(number: int, serial: int) -> bytes:
            document = values.document(values.tag(generation, connection, serial))
            return keys[number] + _field(2, document)

        def transaction(serial: int) -> bytes:
            puts = [_field(2, _field(2, put(number, serial))) for number in range(BATCH)]
            return b"".join(puts)

        if kind == "get":
            return Call(self.address, b"Range", lambda serial: keys[serial % KEYS])
        if kind == "put":
            return Call(self.address, b"Put", lambda serial: put(serial % KEYS, serial))
        return Call(self.address, b"Txn", transaction)
