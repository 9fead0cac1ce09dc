"""The sessions of a server: who is connected, under which tega id, and whether it still is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from tega.access.who import Who
from tega.database import Database
from tega.errors import OverLimit, Refused
from tega.web.later import Later
from tega.web.outbox import PING_FRAME, Outbox, Outboxes

log = logging.getLogger(__name__)

#: How often it is looked who is silent and which calls are overdue, seconds.
_LOOK: Final = 1.0

#: Close codes, of the range that RFC 6455 leaves to applications.
TAKEN_OVER, SILENT, NOT_OURS, REVOKED = 4001, 4002, 4003, 4004

#: RFC 6455: the server is going away.
GOING_AWAY: Final = 1001


#: Says who somebody is now, by the digest of the token that came along. See `Keeper.again`.
Again: TypeAlias = Callable[[Who, str | None], Who | None]


class Client(Protocol):
    """A session, as far as it concerns all of them."""

    tega_id: str
    scope: str
    heard: float
    outbox: Outbox

    def call(self, path: str, body: bytes, caller: str, timeout: float) -> Later:
        """Ask the client to run a function."""

    def look(self, now: float) -> None:
        """A moment has passed."""

    def taken_over(self) -> None:
        """Another connection has the tega id now."""

    def judge_again(self, again: Again) -> None:
        """The rules are others now, or the credentials: `again` says what holds for whom."""

    def close(self, code: int, reason: str) -> None:
        """End the connection."""


class Sessions:
    """All sessions, by tega id.

    :param ping_interval: a connection that is silent for so long is pinged, seconds
    :param ping_timeout: one that is silent for so long is gone, seconds
    :param most: how many there may be
    """

    def __init__(
        self, database: Database, ping_interval: float, ping_timeout: float, most: int = 100_000
    ) -> None:
        self.database = database
        self._most = most
        self.outboxes = Outboxes()
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._loop = asyncio.get_running_loop()
        self._all: dict[Client, None] = {}
        self._by_id: dict[str, Client] = {}
        self._reserved: set[str] = {database.tega_id}
        #: Whether nothing more is taken from clients.
        self.ending = False
        self._due = self._loop.time() + _LOOK
        self._timer = self._loop.call_later(_LOOK, self._look)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def entered(self) -> int:
        """How many have a tega id."""
        return len(self._by_id)

    @property
    def backlog(self) -> int:
        """Bytes that all clients have still to take."""
        return sum([session.outbox.backlog for session in self._all])

    def reserve(self, tega_ids: set[str]) -> None:
        """No session can have these tega ids, which are plugins', nor the server's own."""
        self._reserved = {self.database.tega_id, *tega_ids}
        for tega_id in tega_ids & self._by_id.keys():
            log.warning("session %s had the tega id of a plugin: it ends", tega_id)
            self._by_id.pop(tega_id).taken_over()

    def check_room(self, opening: int) -> None:
        """Refuse one more.

        :param opening: how many are let in, and not here yet
        :raises OverLimit: where there are too many
        """
        if len(self._all) + opening >= self._most:
            raise OverLimit(
                f"this server has {self._most} sessions, the limit: try again later",
                "sessions",
                limit=self._most,
            )

    def add(self, session: Client) -> None:
        """A connection has come; it has no tega id yet."""
        self._all[session] = None

    def enter(self, session: Client, tega_id: str) -> None:
        """A session gives its tega id. One that has it already is ended; its nodes stay.

        :raises Refused: where no session can have that id
        """
        if tega_id in self._reserved:
            raise Refused(f"{tega_id!r} is the server's own id or a plugin's: choose another")
        before = self._by_id.get(tega_id)
        self._by_id[tega_id] = session
        self.database.join(tega_id)
        if before is not None:
            log.info("session %s is taken over by a new connection", tega_id)
            before.taken_over()

    def get(self, tega_id: str) -> Client | None:
        """The session with a tega id."""
        return self._by_id.get(tega_id)

    def remove(self, session: Client) -> bool:
        """A connection has ended.

        :returns: whether its tega id went with it
        """
        self._all.pop(session, None)
        if self._by_id.get(session.tega_id) is not session:
            return False
        del self._by_id[session.tega_id]
        return True

    def scopes(self) -> dict[str, str]:
        """The scope that each session gave, by tega id."""
        return {tega_id: one.scope for tega_id, one in sorted(self._by_id.items())}

    def _look(self) -> None:
        now = self._loop.time()
        # What a server that stood still did not hear was said all the same, and is to be read yet.
        late = now - self._due
        self._due = now + _LOOK
        self._timer = self._loop.call_later(_LOOK, self._look)
        for session in list(self._all):
            if late > _LOOK:
                session.heard += late
            session.look(now)
            silent = now - session.heard
            if silent > self._ping_timeout:
                log.info("session %s was silent for %d s: it ends", session.tega_id, silent)
                session.close(SILENT, "silent")
            elif silent > self._ping_interval:
                session.outbox.send(PING_FRAME)

    def judge_again(self, again: Again) -> None:
        """The rules are others now, or the credentials."""
        for session in list(self._all):
            session.judge_again(again)

    def end(self) -> None:
        """Take no more, and tell every client that the server goes away."""
        self.ending = True
        self._timer.cancel()
        for session in list(self._all):
            session.close(GOING_AWAY, "the server ends")
