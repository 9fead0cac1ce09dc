"""What a session is answered, and refused; and when it is read no further."""

from __future__ import annotations

import logging
from asyncio import Future
from typing import Any

from tega import strictjson
from tega.access.who import Who
from tega.errors import TegaError
from tega.peering.link import Link
from tega.protocol import Connection, Message, Request, Role, Subscribe
from tega.protocol.frames import frame
from tega.web.bugs import internal
from tega.web.context import Context
from tega.web.feed import Feed
from tega.web.outbox import Outbox
from tega.web.turns import Pieces

log = logging.getLogger(__name__)


class Answering(Feed):
    """A feed whose client asks for something, too.

    :param address: where that one is
    """

    def __init__(self, context: Context, outbox: Outbox, who: Who, address: str) -> None:
        super().__init__(context.database, outbox, context.limits, who)
        self.address = address
        self._context = context
        self._connection = Connection(Role.SERVER)
        self._unanswered = 0
        self._room: Future[None] | None = None
        # So long it is read no further, for it asks too often.
        self._late = 0.0
        # Whether something long is being read.
        self._reading = False
        #: Where this is a connection of another server, its other half.
        self.link: Link | None = None

    # -- how much it may ask ----------------------------------------------------------------------

    @property
    def _open(self) -> int:
        """What it has asked for that is not done yet."""
        return self._connection.was_asked + self._unanswered

    def room(self) -> Future[None] | None:
        """What to wait for before more is read; None where there is room."""
        if self.over:
            return None
        if self.link is not None:
            # Answers have to get through, whatever is open.
            return None
        if self._reading:
            self._room = self._loop.create_future()
            return self._room
        if self._late:
            rest = self._loop.create_future()
            self._loop.call_later(self._late, _finish, rest)
            self._late = 0.0
            return rest
        if self._open >= self.limits.open_requests or self.outbox.backlog > self.limits.backlog:
            self._room = self._loop.create_future()
            return self._room
        return None

    def _make_room(self) -> None:
        room = self._room
        if room is None or room.done():
            return
        limits = self.limits
        if self._open <= limits.open_requests // 2 and self.outbox.backlog <= limits.backlog:
            room.set_result(None)

    # -- refusals ---------------------------------------------------------------------------------

    def _fail(self, message: Message | None, error: Exception, text: str) -> None:
        """A message could not be done."""
        if not isinstance(error, TegaError):
            error = internal(error, f"{text[:512]!r} from {self.tega_id}")
        self._refuse(message, error)

    def _refuse(self, message: Message | None, error: TegaError) -> None:
        if isinstance(message, Request):
            self._answer_error(message, error)
            return
        if isinstance(message, Subscribe):
            # So that the client knows which of its subscriptions it has not.
            self.refuse(error, message.command, path=message.path, regex_flag=message.regex)
        else:
            self.refuse(error, "a message" if message is None else message.command)

    def note_refusal(self, error: TegaError, what: str) -> None:
        """Something that it sent is refused."""
        who = self.who.called(self.tega_id)
        self._context.refusals.refused(error, who, self.address, what)

    def refuse(self, error: TegaError, what: str, **known: Any) -> None:
        """Tell what is wrong with something that has no answer.

        :param what: it was
        :param known: details that the client has given itself
        """
        self.note_refusal(error, what)
        body = self.who.told(error).body()["error"] | known
        self.say(body.pop("code"), **body)

    # -- answers ----------------------------------------------------------------------------------

    def _answer(self, message: Request, body: bytes) -> None:
        self._connection.answered(message.seq_no)
        self.outbox.send(frame(_head(message) + body))
        self._make_room()

    def _answer_pieces(self, message: Request, pieces: Pieces) -> None:
        def whole() -> Pieces:
            yield _head(message)
            yield from pieces

        self._connection.answered(message.seq_no)
        self.outbox.send_pieces(whole())
        self._make_room()

    def _answer_error(self, message: Request, error: TegaError) -> None:
        self.note_refusal(error, f"{message.type} {message.path}")
        self._connection.answered(message.seq_no)
        body = strictjson.dumps(self.who.told(error).body()["error"])
        self.outbox.send(frame(_head(message, " ERROR") + body))
        self._make_room()


def _finish(turn: Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _head(message: Request, error: str = "") -> bytes:
    return f"RESPONSE {message.seq_no} {message.type} {message.tega_id}{error}\n".encode()
