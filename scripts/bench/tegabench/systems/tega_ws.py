"""tega's own server, over its WebSocket."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from tegabench import httpwire, values, wswire
from tegabench.client import BadReply, Conversation, Subscriber
from tegabench.httpwire import Address, Ask
from tegabench.systems.base import BATCH, KEYS, Announcer, Kind
from tegabench.systems.tega import Tega

_PATH = "/_pubsub"


class TegaWs(Tega, Announcer):
    """Asked with REQUEST TX: any number of them under way on a connection."""

    name = "tega-ws"
    pipelined = True
    order = re.compile(rb'"seq":\s*(\d+)')

    @classmethod
    def beside(cls, server: Tega) -> TegaWs:
        """The same running server, asked in this way."""
        made = cls(server.directory, None)
        made.address = server.address
        made._process = server.process
        return made

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        if kind == "get":
            return super().conversation(kind, connection, generation)
        name = _writer(connection, generation)
        return _Transactions(self.address, name, transaction(kind, connection, generation))

    def newcomer(self, generation: int) -> Conversation:
        """Puts of one document each, every one at a key of the root that was not there before."""
        name = _writer(0, generation)
        start = b'{"ope":"PUT","path":"bench.%s","instance":'

        def put(serial: int) -> bytes:
            tag = values.tag(generation, 0, serial)
            operation = start % _new_key(tag) + values.document(tag) + b"}"
            return _request(serial, name.encode(), operation)

        return _Transactions(self.address, name, put)

    def newcomers(self) -> set[bytes]:
        """The tags of the documents that such puts have left, where they are at the right key."""
        held = httpwire.call_json(self.address, "GET", "/bench/")
        tags = {key: child["tag"].encode() for key, child in held.items() if "tag" in child}
        return {tag for key, tag in tags.items() if key.encode() == _new_key(tag)}

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        return self.conversations("put", in_flight, generation)

    def subscriber(self, number: int) -> Subscriber:
        return Session(self.address, f"subscriber-{number}", [("bench", False)])


def transaction(kind: Kind, connection: int, generation: int) -> Ask:
    """A REQUEST TX as one frame: a put on the keys of the connection in turn, or ten of one
    document."""
    name = _writer(connection, generation).encode()
    start = b'{"ope":"PUT","path":"bench.c%d.k%d","instance":'
    starts = [start % (connection, key) for key in range(KEYS)]

    def put(serial: int) -> bytes:
        document = values.document(values.tag(generation, connection, serial))
        return _request(serial, name, starts[serial % KEYS] + document + b"}")

    def batch(serial: int) -> bytes:
        document = values.document(values.tag(generation, connection, serial))
        return _request(serial, name, b",".join([s + document + b"}" for s in starts[:BATCH]]))

    return put if kind == "put" else batch


def _new_key(tag: bytes) -> bytes:
    """It begins like the patterns of subscriptions that are looked through in vain."""
    return b"x7_new-%s" % tag


def _writer(connection: int, generation: int) -> str:
    return f"writer-{generation}-{connection}"


def _request(serial: int, name: bytes, operations: bytes) -> bytes:
    return wswire.frame(_text(serial, name, operations))


def _text(serial: int, name: bytes, operations: bytes = b"") -> bytes:
    return b'REQUEST %d TX %s -\n{"ops":[%s]}' % (serial, name, operations)


def _refused(response: bytes) -> bool:
    head = response.partition(b"\n")[0]
    return not head.startswith(b"RESPONSE ") or head.endswith(b" ERROR")


class _Transactions(Conversation):
    """A session that makes transactions."""

    def __init__(self, address: Address, name: str, ask: Ask) -> None:
        self._frames = wswire.Frames()
        super().__init__(lambda: _session(address, name), ask, self._count)

    def feed(self, data: bytes) -> tuple[int, bytes]:
        ended, _ = super().feed(data)
        return ended, self._frames.answer()

    def _count(self, data: bytes) -> int:
        messages = self._frames.take(data)
        for message in messages:
            if _refused(message):
                raise BadReply(message)
        return len(messages)


class Session(Subscriber):
    """A session that is told of changes.

    :param name: its tega id
    :param subscriptions: each a path, and whether that is a pattern
    """

    def __init__(
        self, address: Address, name: str, subscriptions: Sequence[tuple[str, bool]]
    ) -> None:
        self._address = address
        self._name = name
        self._subscriptions = subscriptions
        self._frames = wswire.Frames()

    def connect(self) -> socket.socket:
        sock = _session(self._address, self._name)
        subscribes = [
            f"SUBSCRIBE {path} local {flag}".encode() for path, flag in self._subscriptions
        ]
        # A connection's messages are taken in order: the answer shows that all of them hold.
        answer = wswire.ask(sock, *subscribes, _text(0, self._name.encode()))[0]
        if _refused(answer):
            raise BadReply(answer)
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        messages = self._frames.take(data)
        for message in messages:
            if not message.startswith(b"NOTIFY"):
                raise BadReply(message)
        return len(messages), self._frames.answer()


def _session(address: Address, name: str) -> socket.socket:
    sock = wswire.connect(address, _PATH)
    (answer,) = wswire.ask(sock, f"SESSION {name} local".encode())
    if not answer.startswith(b"SESSIONACK "):
        raise BadReply(answer)
    return sock
