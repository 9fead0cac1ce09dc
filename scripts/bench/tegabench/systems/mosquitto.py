"""Mosquitto over MQTT 3.1.1: messages, of which nothing is stored."""

from __future__ import annotations

import shutil
import socket
import struct

from tegabench import values
from tegabench.client import BadReply, Conversation, Subscriber
from tegabench.httpwire import Address
from tegabench.systems.base import Announcer

_TOPIC = b"bench"

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90

#: In the first byte of a PUBLISH: the server answers it.
_AT_LEAST_ONCE = 0x02


class Mosquitto(Announcer):
    """One server; publishers are answered (QoS 1), subscribers do not answer (QoS 0)."""

    name = "mosquitto"
    title = "Mosquitto"
    tells_durable = False

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("mosquitto"):
            return None
        return "mosquitto is not on PATH: apt-get install mosquitto"

    def command(self) -> list[str]:
        settings = self.directory / "mosquitto.conf"
        settings.write_text(
            f"listener {self.address[1]} {self.address[0]}\nallow_anonymous true\n"
            "persistence false\nset_tcp_nodelay true\nlog_type error\n"
            # Without these it drops messages under load.
            "max_queued_messages 0\nmax_inflight_messages 0\n"
        )
        return ["mosquitto", "-c", str(settings)]

    def ready(self) -> bool:
        with _connect(self.address, "probe"):
            return True

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        def make(connection: int) -> Conversation:
            def publish(serial: int) -> bytes:
                document = values.document(values.tag(generation, connection, serial))
                number = struct.pack(">H", serial % 65_535 + 1)
                return _packet(_PUBLISH | _AT_LEAST_ONCE, _text(_TOPIC) + number + document)

            name = f"publisher-{connection}"
            return Conversation(
                lambda: _connect(self.address, name), publish, Packets(_PUBACK).count
            )

        return self.spread(make, in_flight)

    def subscriber(self, number: int) -> Subscriber:
        return Listener(self.address, f"subscriber-{number}")


class Packets:
    """Frames what a server sends; anything but one kind is refused."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._buffer = b""

    def count(self, data: bytes) -> int:
        """How many packets these bytes end."""
        buffer = self._buffer + data if self._buffer else data
        at = count = 0
        while len(buffer) - at >= 2:
            if buffer[at] != self._kind:
                raise BadReply(buffer[at:])
            size, start = buffer[at + 1], at + 2
            if size > 127:
                # No packet here is longer than two bytes of length can say.
                if start == len(buffer):
                    break
                size, start = size - 128 + (buffer[start] << 7), start + 1
            if start + size > len(buffer):
                break
            at = start + size
            count += 1
        self._buffer = buffer[at:]
        return count


class Listener(Subscriber):
    """A connection that has subscribed."""

    def __init__(self, address: Address, name: str) -> None:
        self._address = address
        self._name = name
        self._packets = Packets(_PUBLISH)

    def connect(self) -> socket.socket:
        sock = _connect(self._address, self._name)
        sock.sendall(_packet(_SUBSCRIBE, b"\0\1" + _text(_TOPIC) + b"\0"))
        _expect(sock, bytes((_SUBACK, 3, 0, 1, 0)))
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        return self._packets.count(data), b""


def _text(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def _packet(kind: int, body: bytes) -> bytes:
    size = len(body)
    length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    return bytes((kind,)) + length + body


def _connect(address: Address, name: str) -> socket.socket:
    """Open a clean session that need not be kept alive."""
    sock = socket.create_connection(address, 10)
    try:
        sock.sendall(_packet(_CONNECT, _text(b"MQTT") + b"\x04\x02\0\0" + _text(name.encode())))
        _expect(sock, bytes((_CONNACK, 2, 0, 0)))
    except BaseException:
        sock.close()
        raise
    return sock


def _expect(sock: socket.socket, wanted: bytes) -> None:
    answer = sock.recv(len(wanted))
    if not answer:
        raise ConnectionResetError("the server closed the connection")
    if answer != wanted:
        raise BadReply(answer)
