"""Redis 7 over RESP, with every write synced before its answer."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable

from tegabench import values
from tegabench.client import BadReply, Conversation, Subscriber
from tegabench.httpwire import Address, connector
from tegabench.systems.base import BATCH, CONNECTIONS, KEYS, Announcer, Fillable, Kind


def command(*words: bytes) -> bytes:
    """A command as RESP."""
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n" % len(words) + b"".join(parts)


_CHANNEL = b"bench"


class Fixed:
    """Frames replies that all have one length and one beginning.

    :param reply: such a reply; only its first ``judged`` bytes must be the same in all
    """

    def __init__(self, reply: bytes, judged: int | None = None) -> None:
        self._size = len(reply)
        self._start = reply[:judged]
        self._buffer = b""

    def count(self, data: bytes) -> int:
        """How many whole replies these bytes end."""
        buffer = self._buffer + data if self._buffer else data
        whole = len(buffer) // self._size
        for at in range(0, len(buffer), self._size):
            start = buffer[at : at + len(self._start)]
            if not self._start.startswith(start):
                raise BadReply(buffer[at:])
        self._buffer = buffer[whole * self._size :]
        return whole


class Lines:
    """Frames replies of one line each, all with one beginning."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._buffer = b""

    def count(self, data: bytes) -> int:
        """How many whole replies these bytes end."""
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if not line.startswith(self._start):
                raise BadReply(line)
        return len(lines)


class Listener(Subscriber):
    """A connection that has subscribed to the channel."""

    def __init__(self, address: Address) -> None:
        self._address = address
        message = b"*3\r\n$7\r\nmessage\r\n$5\r\nbench\r\n$%d\r\n" % values.SIZE
        self._messages = Fixed(message + bytes(values.SIZE) + b"\r\n", len(message))

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, 10)
        sock.sendall(command(b"SUBSCRIBE", _CHANNEL))
        answer = sock.recv(1024)
        if not answer.startswith(b"*3\r\n$9\r\nsubscribe"):
            raise BadReply(answer)
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        return self._messages.count(data), b""


class Redis(Fillable, Announcer):
    """One server with an append-only file."""

    name = "redis"
    title = "Redis"
    tells_durable = False
    durable = "appendfsync always: one fdatasync before the answers of a turn of its loop"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("redis-server"):
            return None
        return "redis-server is not on PATH: apt-get install redis-server"

    def command(self) -> list[str]:
        return [
            *("redis-server", "--bind", self.address[0], "--port", str(self.address[1])),
            *("--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "always"),
            *("--save", "", "--daemonize", "no", "--loglevel", "warning"),
            # A rewrite of the log in the middle would be measured too.
            *("--auto-aof-rewrite-percentage", "0"),
            # It would disconnect subscribers that are behind.
            *("--client-output-buffer-limit", "pubsub 0 0 0"),
        ]

    def ready(self) -> bool:
        return self._ask(command(b"PING")) == b"+PONG\r\n"

    def prepare(self) -> None:
        document = values.document(values.tag(0, 0, 0))
        pairs = [
            word
            for connection in range(CONNECTIONS)
            for number in range(KEYS)
            for word in (_key(connection, number), document)
        ]
        self._expect_ok(command(b"MSET", *pairs))

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        keys = [_key(connection, number) for number in range(KEYS)]

        def document(serial: int) -> bytes:
            return values.document(values.tag(generation, connection, serial))

        def put(serial: int) -> bytes:
            return command(b"SET", keys[serial % KEYS], document(serial))

        def transaction(serial: int) -> bytes:
            value = document(serial)
            sets = [command(b"SET", name, value) for name in keys[:BATCH]]
            return command(b"MULTI") + b"".join(sets) + command(b"EXEC")

        connect = connector(self.address)
        if kind == "get":
            fixed = [command(b"GET", name) for name in keys]
            reply = b"$%d\r\n%s\r\n" % (values.SIZE, bytes(values.SIZE))
            judged = reply.index(b"\n") + 1
            return Conversation(connect, lambda n: fixed[n % KEYS], Fixed(reply, judged).count)
        if kind == "put":
            return Conversation(connect, put, Fixed(b"+OK\r\n").count)
        reply = b"+OK\r\n" + b"+QUEUED\r\n" * BATCH + b"*%d\r\n" % BATCH + b"+OK\r\n" * BATCH
        return Conversation(connect, transaction, Fixed(reply).count)

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        """PUBLISH, which stores nothing."""

        def make(connection: int) -> Conversation:
            def publish(serial: int) -> bytes:
                document = values.document(values.tag(generation, connection, serial))
                return command(b"PUBLISH", _CHANNEL, document)

            return Conversation(connector(self.address), publish, Lines(b":").count)

        return self.spread(make, in_flight)

    def subscriber(self, number: int) -> Subscriber:
        return Listener(self.address)

    def tags(self, connection: int) -> list[bytes]:
        held = self._get_all([_key(connection, number) for number in range(KEYS)])
        return [values.tag_of(document) for document in held if document is not None]

    def fill(self, leaves: int) -> None:
        for number, body in values.batches(leaves):
            words = [b"MSET"]
            for name, value in json.loads(body).items():
                words += [f"big.c{number}.{name}".encode(), str(value).encode()]
            self._expect_ok(command(*words))

    def leaf_writer(self, ask: Callable[[int], tuple[int, int]], new: bool) -> Conversation:
        def request(serial: int) -> bytes:
            number, value = ask(serial)
            return command(b"SET", _leaf(number), b"%d" % value)

        return Conversation(connector(self.address), request, Fixed(b"+OK\r\n").count)

    def leaf(self, number: int) -> int | None:
        # While it loads its file it answers "-LOADING".
        answer = self._ask(command(b"GET", _leaf(number)))
        return int(answer.split(b"\r\n")[1]) if answer.startswith(b"$") else None

    def leaves(self, count: int) -> list[int]:
        held = self._get_all([_leaf(number) for number in range(count)])
        return [int(value) for value in held if value is not None]

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self.address, 10) as sock:
            sock.sendall(request)
            return sock.recv(1 << 16)

    def _expect_ok(self, request: bytes) -> None:
        answer = self._ask(request)
        if answer != b"+OK\r\n":
            raise BadReply(answer)

    def _get_all(self, keys: list[bytes]) -> list[bytes | None]:
        with socket.create_connection(self.address, 30) as sock, sock.makefile("rb") as lines:
            sock.sendall(command(b"MGET", *keys))
            count = lines.readline()
            if not count.startswith(b"*"):
                raise BadReply(count)
            found: list[bytes | None] = []
            for _ in range(int(count[1:])):
                size = int(lines.readline()[1:])
                found.append(lines.read(size + 2)[:-2] if size >= 0 else None)
            return found


def _key(connection: int, number: int) -> bytes:
    return b"bench.c%d.k%d" % (connection, number)


def _leaf(number: int) -> bytes:
    return b"restart.leaf%06d" % number
