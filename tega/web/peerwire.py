"""A session of another server, as its half of a connection between servers sees it."""

from __future__ import annotations

from typing import Protocol

from tega.protocol import Message
from tega.protocol.frames import NORMAL
from tega.web.outbox import Outbox


class _Session(Protocol):
    outbox: Outbox

    def send(self, message: Message) -> None: ...

    def close(self, code: int, reason: str) -> None: ...


class PeerWire:
    """The connection of a session as a `Wire`."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    @property
    def backlog(self) -> int:
        return self._session.outbox.backlog

    def send(self, message: Message) -> None:
        self._session.send(message)

    def close(self, reason: str) -> None:
        self._session.close(NORMAL, reason[:100])
