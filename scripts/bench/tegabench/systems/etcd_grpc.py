"""etcd 3.4 over gRPC, by the least of HTTP/2 and protobuf that unary calls and a watch need.

Headers go as literals, so that there is no compression state; those of the answers are not read:
a call that failed is one whose stream ends without data.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

from tegabench import values
from tegabench.client import BadReply, Conversation, Subscriber
from tegabench.httpwire import Address
from tegabench.systems.base import BATCH, KEYS, Announcer, Kind
from tegabench.systems.etcd import Member, key

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


#: As much as the protocol can say, so that answers never wait for a window.
_WIDE = (1 << 31) - 1
_STREAM_WINDOW = 4
_HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _STREAM_WINDOW, _WIDE))
    + _frame(_WINDOW, 0, 0, struct.pack(">I", _WIDE - 65_535))
)


def _literal(start: bytes, *texts: bytes) -> bytes:
    return start + b"".join([bytes([len(text)]) + text for text in texts])


def _headers(method: bytes) -> bytes:
    """The head of a call.

    :param method: service and method, such as ``KV/Put``
    """
    return (
        b"\x83\x86"  # :method POST, :scheme http, from the static table
        + _literal(b"\x04", b"/etcdserverpb." + method)
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


def _begin(stream: int, headers: bytes, body: bytes, flags: int = 0) -> bytes:
    """The frames that open a stream with one message."""
    return _frame(_HEADERS, _END_HEADERS, stream, headers) + _frame(
        _DATA, flags, stream, struct.pack(">BI", 0, len(body)) + body
    )


class _Frames:
    """Takes frames apart, and answers those that ask for it."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer = b""

    def take(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and body of the frames of streams that these bytes end."""
        buffer = self._buffer + data
        at = 0
        while len(buffer) - at >= 9:
            start = at + 9
            end = start + int.from_bytes(buffer[at : at + 3], "big")
            if end > len(buffer):
                break
            kind, flags, body = buffer[at + 3], buffer[at + 4], buffer[start:end]
            if kind in (_DATA, _HEADERS):
                yield kind, flags, body
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._answer += _frame(kind, _ACK, 0, body if kind == _PING else b"")
            elif kind in (_RESET, _GOAWAY):
                raise BadReply(buffer[at:end])
            at = end
        self._buffer = buffer[at:]

    def answer(self) -> bytes:
        """What must be sent back."""
        answer, self._answer = self._answer, b""
        return answer


def _connect(address: Address) -> socket.socket:
    sock = socket.create_connection(address, 10)
    sock.sendall(_HELLO)
    return sock


class Call(Conversation):
    """Unary calls on one connection, one at a time.

    :param method: service and method
    :param message: the protobuf of the n-th request
    """

    def __init__(
        self,
        address: tuple[str, int],
        method: bytes,
        message: Callable[[int], bytes],
    ) -> None:
        headers = _headers(method)
        self._frames = _Frames()
        self._data = False

        def request(serial: int) -> bytes:
            return _begin(2 * serial + 1, headers, message(serial), _END_STREAM)

        super().__init__(lambda: _connect(address), request, lambda data: 0)

    def feed(self, data: bytes) -> tuple[int, bytes]:
        ended = 0
        for kind, flags, body in self._frames.take(data):
            if kind == _DATA:
                self._data = True
            elif flags & _END_STREAM:
                if not self._data:
                    raise BadReply(body)
                self._data = False
                ended += 1
        self.done += ended
        return ended, self._frames.answer()


class Watch(Subscriber):
    """A watch on a connection of its own.

    :param prefix: of the keys that are watched
    """

    def __init__(self, address: Address, prefix: bytes) -> None:
        self._address = address
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        self._create = _field(1, _field(1, prefix) + _field(2, end))
        self._frames = _Frames()
        self._messages = b""

    def connect(self) -> socket.socket:
        sock = _connect(self._address)
        sock.sendall(_begin(1, _headers(b"Watch/Watch"), self._create))
        created = False
        while not created:
            data = sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            created = any(_count(message, _CREATED) for message in self._take(data))
            sock.sendall(self._frames.answer())
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        # An answer carries one event or several.
        events = sum([_count(message, _EVENT) for message in self._take(data)])
        return events, self._frames.answer()

    def _take(self, data: bytes) -> list[bytes]:
        """The messages that these bytes end; each says its length, whatever frames it is in."""
        for kind, flags, body in self._frames.take(data):
            if kind == _DATA:
                self._messages += body
            elif flags & _END_STREAM:
                raise BadReply(body)
        buffer, at = self._messages, 0
        found = []
        while len(buffer) - at >= 5:
            end = at + 5 + int.from_bytes(buffer[at + 1 : at + 5], "big")
            if end > len(buffer):
                break
            found.append(buffer[at + 5 : end])
            at = end
        self._messages = buffer[at:]
        return found


#: Fields of a WatchResponse, with their kinds: a truth, and messages.
_CREATED = 3 << 3
_EVENT = 11 << 3 | 2


def _count(message: bytes, wanted: int) -> int:
    """How often a field is in a message of protobuf that has numbers and messages only."""
    at = count = 0
    while at < len(message):
        field = message[at]
        count += field == wanted
        number, at = _varint(message, at + 1)
        if field & 7 == 2:
            at += number
    return count


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    while message[at] > 127:
        number |= (message[at] & 127) << shift
        shift += 7
        at += 1
    return number | message[at] << shift, at + 1


class EtcdGrpc(Member, Announcer):
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
            return Call(self.address, b"KV/Range", lambda serial: keys[serial % KEYS])
        if kind == "put":
            return Call(self.address, b"KV/Put", lambda serial: put(serial % KEYS, serial))
        return Call(self.address, b"KV/Txn", transaction)

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        return self.conversations("put", in_flight, generation)

    def subscriber(self, number: int) -> Subscriber:
        return Watch(self.address, b"/bench/")
