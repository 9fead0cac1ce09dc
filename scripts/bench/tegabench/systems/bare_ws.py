"""The bare Tornado WebSocket handlers as servers under measurement."""

from __future__ import annotations

import socket

from tegabench import values, wswire
from tegabench.client import Conversation, Subscriber
from tegabench.httpwire import Address
from tegabench.systems.bare import Bare
from tegabench.systems.base import Announcer, Kind
from tegabench.systems.tega_ws import transaction


class Echo(Bare):
    """Sends every message back: the limit of what Tornado can answer over a WebSocket."""

    name = "echo"
    title = "bare Tornado WebSocket echo"
    pipelined = True

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        """The very messages that tega is asked with."""
        return Conversation(
            lambda: wswire.connect(self.address, "/_echo"),
            transaction(kind, connection, generation),
            wswire.Frames().count,
        )


class Idle(Subscriber):
    """A connection to the echo that says one thing."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def connect(self) -> socket.socket:
        sock = wswire.connect(self._address, "/_echo")
        wswire.ask(sock, b"idle")
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        return 1, b""


class Fan(Bare, Announcer):
    """Sends every message to all listeners: the limit of what Tornado can tell."""

    name = "fan"
    title = "bare Tornado WebSocket fan-out"
    pipelined = True
    tells_durable = False

    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        def make(connection: int) -> Conversation:
            return Conversation(
                lambda: wswire.connect(self.address, "/_fan"),
                lambda serial: wswire.frame(
                    values.document(values.tag(generation, connection, serial))
                ),
                wswire.Frames().count,
            )

        return self.spread(make, in_flight)

    def subscriber(self, number: int) -> Subscriber:
        return Listener(self.address)


class Listener(Subscriber):
    """One that is told by the fan."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._frames = wswire.Frames()

    def connect(self) -> socket.socket:
        sock = wswire.connect(self._address, "/_fan")
        wswire.ask(sock, b"listen")
        return sock

    def feed(self, data: bytes) -> tuple[int, bytes]:
        return self._frames.count(data), b""
