"""A connection between two servers, as the two ends of a `Link` see it, whoever dialed."""

from __future__ import annotations

from typing import Protocol

from tega.protocol import Message


class Wire(Protocol):
    """Takes messages to the other server."""

    @property
    def backlog(self) -> int:
        """Bytes that the other end has still to take."""

    def send(self, message: Message) -> None:
        """Send a message, in order; nothing once it is closed."""

    def close(self, reason: str) -> None:
        """End the connection. `Receiver.closed` follows."""


class Receiver(Protocol):
    """Takes what comes from the other server."""

    def receive(self, message: Message) -> None:
        """Here is a message."""

    def drained(self) -> None:
        """The other end has taken what it had still to take."""

    def closed(self, reason: str) -> None:
        """The connection is over; called once."""
