"""NATS over its text protocol: messages, of which nothing is stored."""

from __future__ import annotations

import shutil
import socket

from tegabench import values
from tegabench.client import BadReply, Conversation, Subscriber
from tegabench.httpwire import Address
from tegabench.systems.base import Announcer

_SUBJECT = b"bench"


class Nats(Announcer):
    """One server."""

    name = "nats"
    title = "NATS"
    tells_durable = False

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("nats-server"):
            return None
        return "nats-server is not on PATH: apt-get install nats-server"

    def command(self) -> list[str]:
        return ["nats-server", "--addr", self.address[0], "--port", str(self.address[1])]

    def ready(self) -> bool:
        with _connect(self.address):
            return True

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        return self.spread(lambda c: _Publisher(self.address, c, generation), in_flight)

    def subscriber(self, number: int) -> Subscriber:
        return Listener(self.address)


class Frames:
    """Takes what a server sends apart, and answers its pings."""

    def __init__(self) -> None:
        self._buffer = b""
        self._pongs = b""

    def take(self, data: bytes) -> list[bytes]:
        """The operations that these bytes end: their lines, without what messages carry."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        found = []
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line = buffer[at:end]
            end += 2
            if line.startswith(b"MSG "):
                end += int(line[line.rfind(b" ") :]) + 2
                if end > len(buffer):
                    break
            if line == b"PING":
                self._pongs += b"PONG\r\n"
            elif line.startswith(b"-"):
                raise BadReply(line)
            else:
                found.append(line)
            at = end
        self._buffer = buffer[at:]
        return found

    def answer(self) -> bytes:
        """What must be sent back."""
        pongs, self._pongs = self._pongs, b""
        return pongs


class _Publisher(Conversation):
    """Publishes, and is told so: the server says +OK to each."""

    def __init__(self, address: Address, connection: int, generation: int) -> None:
        self._frames = Frames()

        def publish(serial: int) -> bytes:
            document = values.document(values.tag(generation, connection, serial))
            return b"PUB %s %d\r\n%s\r\n" % (_SUBJECT, values.SIZE, document)

        super().__init__(lambda: _connect(address, verbose=True), publish, self._count)

    def feed(self, data: bytes) -> tuple[int, bytes]:
        ended, _ = super().feed(data)
        return ended, self._frames.answer()

    def _count(self, data: bytes) -> int:
        return self._frames.take(data).count(b"+OK")


class Listener(Subscriber):
    """A connection that has subscribed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._frames = Frames()

    def connect(self) -> socket.socket:
        return _connect(self._address, b"SUB %s 1\r\n" % _SUBJECT)

    def feed(self, data: bytes) -> tuple[int, bytes]:
        return len(self._frames.take(data)), self._frames.answer()


def _connect(address: Address, more: bytes = b"", verbose: bool = False) -> socket.socket:
    """Open a connection and do something on it; it is done when this returns."""
    sock = socket.create_connection(address, 10)
    try:
        options = b'CONNECT {"verbose":%s}\r\n' % (b"true" if verbose else b"false")
        sock.sendall(options + more + b"PING\r\n")
        frames = Frames()
        while b"PONG" not in frames.take(data := sock.recv(1 << 16)):
            if not data:
                raise ConnectionResetError("the server closed the connection")
    except BaseException:
        sock.close()
        raise
    return sock
