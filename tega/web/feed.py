"""What one connection is told: notices as they come, or caught up from history, and messages.

A feed is *live* as long as its client takes what it is sent. Past a limit it falls behind: it keeps
only the sequence number that it has come to, and goes on from there, out of what the hub keeps, as
fast as the client takes it. So a client that never reads costs no more than that limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any, Final, Literal

from tega import strictjson
from tega.access.who import Who
from tega.database import Database
from tega.notices import Notice, standing
from tega.paths import wire
from tega.protocol import Since
from tega.protocol.frames import frame
from tega.subscriber import SCOPE
from tega.watcher import Publication, Run, Subscription, Watcher
from tega.web.limits import Limits
from tega.web.outbox import FRAGMENT, Outbox

log = logging.getLogger(__name__)

#: Most bytes of a notice that is kept for all who get it.
_KEPT: Final = 1 << 20

#: So long the text of such a notice may take to be made, seconds.
_AT_ONCE: Final = 0.02


class Feed(Watcher):
    """A watcher at the other end of a connection.

    :param outbox: takes what is to be sent
    :ivar who: whoever is told
    """

    takes_runs = True

    def __init__(self, database: Database, outbox: Outbox, limits: Limits, who: Who) -> None:
        super().__init__("")
        self.limits = limits
        self.who = who
        self.rights = who.rights
        self.database = database
        self.outbox = outbox
        self._hub = database.hub
        self._meters = database.meters
        self._loop = asyncio.get_running_loop()
        self._cursor = 0
        self._scheduled = False
        self._losing = False
        self.over = False

    def subscribe(self, path: str, scope: SCOPE, regex: bool, since: Since | None) -> None:
        """Be told of a path or pattern, and first of what was missed since then.

        :raises Malformed, OverLimit: as `Hub.subscribe`
        """
        hub = self._hub
        if since is None:
            hub.subscribe(self, path, scope, regex)
        elif since.life in (None, self.database.state.life) and hub.resumes_from(since.seq):
            self._leave_off()
            hub.subscribe(self, path, scope, regex, since.seq)
            self._cursor = min(self._cursor, since.seq)
        else:
            self._gone(hub.subscribe(self, path, scope, regex))

    def say(self, code: str, **body: Any) -> None:
        """Tell the client what it has not asked for."""
        self.outbox.send(frame(b"ERROR %b\n%b" % (code.encode(), strictjson.dumps(body))))

    # -- live -----------------------------------------------------------------------------------

    def notify(self, notice: Notice) -> None:
        if self._full():
            log.info(
                "%s falls behind at number %d", self.tega_id, notice.seq, extra={"seq": notice.seq}
            )
            self._meters.behind += 1
            self._leave_off(notice.seq - 1)
            self.say(
                "behind",
                seq=self._cursor,
                message="more came than you took: what follows is caught up from history",
            )
        else:
            self._send(notice)

    def notify_run(self, run: Run) -> None:
        if run.frames is None:
            run.frames = _joined(run.notices)
        if run.frames is False or self._full():
            super().notify_run(run)
        else:
            self._meters.notices += len(run.notices)
            self.outbox.send(run.frames)

    def _full(self) -> bool:
        """Whether the client has not taken what it was sent."""
        if self.outbox.backlog > self.limits.backlog:
            # A lot may be waiting for the end of this turn only.
            self.outbox.flush()
        return self.outbox.backlog > self.limits.backlog

    def _send(self, notice: Notice) -> None:
        made = _framed(notice)
        if made is False:
            self.outbox.send_pieces(_after(b"NOTIFY\n", notice.chunks()))
        elif made:
            self.outbox.send(made)
        else:
            return
        self._meters.notices += 1

    def tell(self, publication: Publication) -> None:
        if self._full():
            if not self._losing:
                self._losing = True
                self.say("behind", message="more came than you took: messages are lost meanwhile")
            return
        if publication.frame is None:
            channel, tega_id = wire(publication.channel), publication.tega_id
            head = f"MESSAGE {channel} {tega_id}\n".encode()
            publication.frame = frame(head + publication.body)
        self._meters.publications += 1
        self.outbox.send(publication.frame)

    # -- catching up ----------------------------------------------------------------------------

    @property
    def cursor(self) -> int | None:
        return None if self.live else self._cursor

    def _leave_off(self, upto: int | None = None) -> None:
        """Be live no more, but catch up.

        :param upto: what has been told; by default all that live watchers were told
        """
        if self.live:
            self.live = False
            self._cursor = self._hub.delivered if upto is None else upto
        # What was told of some subscriptions must not be told again for the sake of others.
        for one in self.subscriptions.values():
            one.since = max(one.since, self._cursor)
        self._go_on()

    def _go_on(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Not at once: several subscriptions that resume together catch up together.
            self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Send of what was missed as much as the client takes at once."""
        self._scheduled = False
        if self.live or self.over or self.outbox.busy:
            return
        for seq, notice in self._hub.missed(self, self._cursor):
            if seq != self._cursor + 1:
                break
            if notice is not None:
                self._send(notice)
            self._cursor = seq
            if self.outbox.backlog > FRAGMENT:
                self.outbox.flush()
                if not self.outbox.busy:
                    self._go_on()
                return
        if self._cursor < self._hub.delivered:
            # What comes next is kept no more.
            self.cleared()
        self.live = True

    def drained(self) -> None:
        """The client has taken all that it was sent."""
        self._losing = False
        if not self.live:
            self._go_on()

    # -- starting over --------------------------------------------------------------------------

    def cleared(self) -> None:
        self.live = True
        for subscription in self.subscriptions.values():
            self._gone(subscription)

    def _gone(self, subscription: Subscription) -> None:
        """Tell that changes are missing, and all that stands there now."""
        state = self.database.state
        self._hub.begin_at(self, subscription, state.seq)
        self.say(
            "gone",
            path=subscription.text,
            regex_flag=subscription.regex,
            seq=state.seq,
            life=state.life,
            message="what has changed since is no longer known: what follows is all there is",
        )
        levels, regex = subscription.levels, subscription.regex
        there = standing(state, levels, regex, self.database.tega_id, self.rights)
        self.outbox.send_pieces(_after(b"NOTIFY\n", there))


def _framed(notice: Notice) -> bytes | Literal[False]:
    """A notice as it is sent to all who get it; empty where it says nothing.

    False: it is too long for that, and is made anew for each, piece by piece.
    """
    if notice.frame is None:
        whole = _bounded(notice.chunks())
        if whole is None:
            notice.frame = False
        else:
            notice.frame = frame(b"NOTIFY\n" + whole) if whole else b""
    made: bytes | Literal[False] = notice.frame
    return made


def _joined(notices: list[Notice]) -> bytes | Literal[False]:
    """Several notices as they are sent; False where one has to be sent by itself."""
    found: list[bytes] = []
    size = 0
    for notice in notices:
        made = _framed(notice)
        if not made:
            return False
        size += len(made)
        if size > FRAGMENT:
            # For one that is nearly full that would be too much at once.
            return False
        found.append(made)
    return b"".join(found)


def _after(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces with something before them, unless they come to nothing."""
    for piece in pieces:
        if piece:
            yield head
            yield piece
            break
        yield piece
    yield from pieces


def _bounded(chunks: Iterator[bytes]) -> bytes | None:
    """All of them, unless that is too much, or takes too long."""
    until = time.monotonic() + _AT_ONCE
    size = 0
    found = []
    for chunk in chunks:
        size += len(chunk)
        if size > _KEPT or time.monotonic() > until:
            return None
        found.append(chunk)
    return b"".join(found)
