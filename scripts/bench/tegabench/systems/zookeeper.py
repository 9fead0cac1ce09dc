"""ZooKeeper 3.8 over its own protocol (jute records in frames with a length)."""

from __future__ import annotations

import json
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from tegabench import values
from tegabench.client import BadReply, Conversation, Subscriber
from tegabench.httpwire import Address
from tegabench.systems.base import BATCH, CONNECTIONS, KEYS, Announcer, Fillable, Kind

_JAR = Path("/usr/share/java/zookeeper.jar")
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

_CREATE, _GET, _SET, _MULTI, _ADD_WATCH = 1, 4, 5, 14, 106

#: Seconds after which a probe of a server that is starting gives up.
_PROBE = 0.2

#: A watch that stays, on a node and all below it.
_PERSISTENT_RECURSIVE = 1

#: Anybody may do anything: permissions 31 for world:anyone.
_OPEN_ACL = struct.pack(">ii", 1, 31) + b"\0\0\0\x05world" + b"\0\0\0\x06anyone"

#: A new session of 30 s: protocol, last zxid seen, timeout, session id, no password.
_HELLO = struct.pack(">iqiqi", 0, 0, 30_000, 0, 16) + bytes(16)


def _buffer(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def _create(path: bytes, data: bytes) -> bytes:
    return _buffer(path) + _buffer(data) + _OPEN_ACL + struct.pack(">i", 0)


def _set(path: bytes, data: bytes) -> bytes:
    return _buffer(path) + _buffer(data) + struct.pack(">i", -1)


def _get(path: bytes) -> bytes:
    return _buffer(path) + b"\0"


def _frame(xid: int, kind: int, body: bytes) -> bytes:
    return struct.pack(">iii", len(body) + 8, xid, kind) + body


def _multi(kind: int, bodies: list[bytes]) -> bytes:
    header = struct.pack(">ibi", kind, 0, -1)
    return b"".join([header + body for body in bodies]) + struct.pack(">ibi", -1, 1, -1)


class Replies:
    """Frames replies; one that carries an error is refused."""

    def __init__(self) -> None:
        self._buffer = b""

    def take(self, data: bytes) -> list[bytes]:
        """The bodies of the replies that these bytes end."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        found = []
        while len(buffer) - at >= 20:
            size, _xid, _zxid, error = struct.unpack_from(">iiqi", buffer, at)
            if len(buffer) - at < size + 4:
                break
            if error:
                raise BadReply(b"ZooKeeper error %d" % error)
            found.append(buffer[at + 20 : at + 4 + size])
            at += size + 4
        self._buffer = buffer[at:]
        return found

    def count(self, data: bytes) -> int:
        """How many replies these bytes end."""
        return len(self.take(data))


class Watch(Subscriber):
    """A session with a watch on everything that is measured."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._replies = Replies()

    def connect(self) -> socket.socket:
        sock = _connect(self._address)
        body = _buffer(b"/bench") + struct.pack(">i", _PERSISTENT_RECURSIVE)
        sock.sendall(_frame(1, _ADD_WATCH, body))
        while not self._replies.count(sock.recv(1024)):
            pass
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        # An event is framed like a reply.
        return self._replies.count(data), b""


class ZooKeeper(Fillable, Announcer):
    """One server in standalone mode."""

    name = "zookeeper"
    title = "ZooKeeper"
    durable = "forceSync: its log is synced before the answers of a group of requests"
    event_only = True

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("java") and _JAR.exists():
            return None
        return "ZooKeeper is not installed: apt-get install zookeeper"

    def command(self) -> list[str]:
        settings = self.directory / "zoo.cfg"
        settings.write_text(
            f"dataDir={self.directory / 'data'}\nclientPort={self.address[1]}\n"
            f"clientPortAddress={self.address[0]}\ntickTime=2000\nmaxClientCnxns=0\n"
            "admin.enableServer=false\n"
        )
        size = ["-Xmx3g", "-Djute.maxbuffer=8000000"]
        return ["java", *size, "-cp", str(_JAR), _MAIN, str(settings)]

    def ready(self) -> bool:
        with _connect(self.address, _PROBE):
            return True

    def prepare(self) -> None:
        document = values.document(values.tag(0, 0, 0))
        self._call(_CREATE, [_create(b"/bench", b"")])
        self._call(_CREATE, [_create(b"/bench/c%d" % c, b"") for c in range(CONNECTIONS)])
        self._call(
            _CREATE,
            [_create(_key(c, n), document) for c in range(CONNECTIONS) for n in range(KEYS)],
        )

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        keys = [_key(connection, number) for number in range(KEYS)]

        def document(serial: int) -> bytes:
            return values.document(values.tag(generation, connection, serial))

        def get(serial: int) -> bytes:
            return _frame(serial, _GET, _get(keys[serial % KEYS]))

        def put(serial: int) -> bytes:
            return _frame(serial, _SET, _set(keys[serial % KEYS], document(serial)))

        def transaction(serial: int) -> bytes:
            value = document(serial)
            return _frame(serial, _MULTI, _multi(_SET, [_set(k, value) for k in keys[:BATCH]]))

        ask = {"get": get, "put": put, "tx": transaction}[kind]
        return Conversation(lambda: _connect(self.address), ask, Replies().count)

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        return self.conversations("put", in_flight, generation)

    def subscriber(self, number: int) -> Subscriber:
        return Watch(self.address)

    def tags(self, connection: int) -> list[bytes]:
        held = self._call(_GET, [_get(_key(connection, number)) for number in range(KEYS)])
        return [values.tag_of(_data(body)) for body in held]

    def fill(self, leaves: int) -> None:
        self._call(_CREATE, [_create(b"/big", b"")])
        for number, body in values.batches(leaves):
            parent = b"/big/c%d" % number
            creates = [_create(parent, b"")]
            for name, value in json.loads(body).items():
                creates.append(_create(parent + b"/" + name.encode(), str(value).encode()))
            self._call(_MULTI, [_multi(_CREATE, creates)])

    def leaf_writer(self, ask: Callable[[int], tuple[int, int]], new: bool) -> Conversation:
        def request(serial: int) -> bytes:
            number, value = ask(serial)
            kind, record = (_CREATE, _create) if new else (_SET, _set)
            return _frame(serial, kind, record(_leaf(number), b"%d" % value))

        return Conversation(lambda: _connect(self.address), request, Replies().count)

    def commits(self, count: int, wide: bool) -> None:
        self._call(_CREATE, [_create(b"/restart", b"")])
        if not wide:
            self._call(_CREATE, [_create(_leaf(number), b"") for number in range(CONNECTIONS)])
        super().commits(count, wide)

    def leaf(self, number: int) -> int | None:
        try:
            return int(_data(self._call(_GET, [_get(_leaf(number))], _PROBE)[0]))
        except BadReply:
            return None

    def leaves(self, count: int) -> list[int]:
        found: list[int] = []
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            held = self._call(_GET, [_get(_leaf(number)) for number in numbers])
            found += [int(_data(body)) for body in held]
        return found

    def _call(self, kind: int, bodies: list[bytes], patience: float = 10.0) -> list[bytes]:
        """Requests outside the measurement, all sent at once; their replies."""
        replies = Replies()
        found: list[bytes] = []
        with _connect(self.address, patience) as sock:
            sock.settimeout(60)
            sock.sendall(b"".join([_frame(n, kind, body) for n, body in enumerate(bodies)]))
            while len(found) < len(bodies):
                data = sock.recv(1 << 18)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                found += replies.take(data)
        return found


def _connect(address: Address, patience: float = 10.0) -> socket.socket:
    """Open a session."""
    sock = socket.create_connection(address, patience)
    try:
        sock.sendall(_buffer(_HELLO))
        # While it starts it may close the connection, or leave it without an answer.
        if len(sock.recv(1024)) < 40:
            raise ConnectionResetError("no session yet")
    except OSError:
        sock.close()
        raise
    return sock


def _key(connection: int, number: int) -> bytes:
    return b"/bench/c%d/k%d" % (connection, number)


def _leaf(number: int) -> bytes:
    return b"/restart/leaf%06d" % number


def _data(body: bytes) -> bytes:
    """The data of a node in the answer to a get."""
    (size,) = struct.unpack_from(">i", body)
    return body[4 : 4 + size]
