"""One session: what a client sends, and what it is answered."""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from tega.access.rules import CALL, PUBLISH, READ, SUBSCRIBE
from tega.access.who import UNLIMITED, Who
from tega.errors import (
    Malformed,
    NoPeer,
    NotUnderstood,
    OverLimit,
    TegaError,
)
from tega.paths import parse
from tega.pending import Pending
from tega.protocol import (
    Connection,
    Message,
    Notify,
    Peer,
    Publish,
    Request,
    Response,
    Role,
    Rollback,
    Session,
    SessionAck,
    StateOfConnection,
    Subscribe,
    Unsubscribe,
    is_message,
)
from tega.protocol.frames import frame
from tega.store import commit as commits
from tega.subscriber import SCOPE
from tega.watcher import Publication
from tega.web import batch
from tega.web.answering import Answering
from tega.web.asked import Asked
from tega.web.bodies import SHORT
from tega.web.context import Context
from tega.web.later import Later
from tega.web.outbox import PING_FRAME, Outbox
from tega.web.peerwire import PeerWire
from tega.web.sessions import GOING_AWAY, NOT_OURS, REVOKED, TAKEN_OVER, Again

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Most messages that may wait for that.
_MAX_HELD: Final = 256

#: A server whose tega id another one claims has so long to answer a ping, seconds.
_PROBE: Final = 2.0


class ServerSession(Answering):
    """The server's end of one connection.

    :param outbox: takes what is to be sent
    :param hang_up: closes the connection, with a code and a reason
    :param widen: lets longer messages come from now on
    :param who: whoever has come
    :param token: the digest of the token shown; None where there was none
    :param address: where from
    :ivar heard: when something came last, by the event loop's clock
    """

    def __init__(
        self,
        context: Context,
        outbox: Outbox,
        hang_up: Callable[[int, str], None],
        widen: Callable[[], None],
        who: Who = UNLIMITED,
        token: str | None = None,
        address: str = "",
    ) -> None:
        super().__init__(context, outbox, who, address)
        self.widen = widen
        self._token = token
        self._hang_up = hang_up
        self.scope = "local"
        self.heard = self._loop.time()
        self._asked = Asked(self.send, lambda number: self._connection.give_up(number))
        # What came while it is seen whether the tega id is free, or something long is read.
        self._held: list[str] | None = None
        context.sessions.add(self)

    # -- what comes -----------------------------------------------------------------------------

    def receive(self, text: str) -> None:
        """Take a message."""
        if self.over or self._context.sessions.ending:
            return
        if self._held is not None:
            self._held.append(text)
            if len(self._held) > _MAX_HELD:
                self.close(NOT_OURS, "too much before the session began")
            return
        if self.limits.rates.rate:
            name = self.who.counted_as(self.address)
            self._late = self.limits.rates.take(name, self._loop.time(), granted=True)
        message: Message | None = None
        try:
            message = self._connection.receive(text)
            self._meters.messages[message.command] += 1
            if self.link is not None:
                self._from_peer(message)
                return
            _HANDLERS[type(message)](self, message)
        except Exception as error:
            self._fail(message, error, text)
            if self._connection.state is StateOfConnection.NEW and not is_message(text):
                # Not even the first message is one of ours.
                self.close(NOT_OURS, "not understood")

    def _read(
        self, message: Message, body: bytes, read: Callable[[], T], then: Callable[[T], None]
    ) -> None:
        """Read a body, and go on with what it says. What comes meanwhile waits."""
        reading = self._context.bodies.later(body, read)
        if reading is None:
            then(read())
            return

        def done(reading: Future[T]) -> None:
            self._reading = False
            try:
                given = reading.result()
                if not self.over:
                    then(given)
            except Exception as error:
                self._fail(message, error, message.text())
            self._take_held()
            self._make_room()

        self._reading = True
        self._held = []
        reading.add_done_callback(done)

    def _take_held(self) -> None:
        """Take what had to wait."""
        held, self._held = self._held or [], None
        for text in held:
            self.receive(text)

    def _begin(self, message: Session) -> None:
        try:
            self.who.goes_by(message.tega_id)
        except TegaError:
            # It may try again with another id.
            self._connection = Connection(Role.SERVER)
            raise
        before = self._context.sessions.get(message.tega_id)
        if isinstance(before, ServerSession) and before.link is not None and not before.over:
            # Two servers with one id, a cloned disk perhaps; or one, whose old connection has died
            # without a word. The one that answers a ping stays.
            asked = self._loop.time()
            before.outbox.send(PING_FRAME)
            self._held = []
            self._loop.call_later(_PROBE, self._begin_if_gone, message, before, asked)
        else:
            self._enter(message)

    def _begin_if_gone(self, message: Session, before: ServerSession, asked: float) -> None:
        if self.over:
            return
        if before.over or before.heard <= asked:
            try:
                self._enter(message)
            except TegaError as error:
                self.refuse(error, message.command)
            self._take_held()
            return
        text = f"two servers have the tega id {message.tega_id}"
        log.error("%s: the newer one is refused", text)
        self._context.peers.twins[message.tega_id] = self._loop.time()
        before.say("refused", message=f"{text}: another one was refused")
        self.say("refused", message=f"{text}, and the other is connected: give this one another")
        self.close(NOT_OURS, "the tega id is taken")

    def _enter(self, message: Session) -> None:
        try:
            self._context.sessions.enter(self, message.tega_id)
        except TegaError:
            # It may try again with another id.
            self._connection = Connection(Role.SERVER)
            raise
        self.tega_id = message.tega_id
        self.scope = message.scope
        state = self.database.state
        ack = SessionAck(self.database.tega_id, state.life, state.seq)
        self.outbox.send(frame(self._connection.send(ack).encode()))
        log.info("session %s begins", self.tega_id)

    def _subscribe(self, message: Subscribe) -> None:
        if not message.regex:
            self.who.check_sight(parse(message.path), READ, SUBSCRIBE)
        self.subscribe(message.path, SCOPE(message.scope), message.regex, message.since)

    def _unsubscribe(self, message: Unsubscribe) -> None:
        if message.path is None:
            self._hub.unsubscribe_all(self)
        else:
            self._hub.unsubscribe(self, message.path, message.regex)

    def _publish(self, message: Publish) -> None:
        channel = parse(message.channel)
        self.who.check(PUBLISH, channel)
        self._hub.tell(Publication(channel, self.tega_id, message.body), self)

    def _changes(self, message: Notify) -> None:
        read = partial(
            batch.read_changes, message.body, self.tega_id, self.database.max_depth, self.who
        )
        self._read(message, message.body, read, lambda request: (
            self._commit(request, message.command)
        ))

    def _roll_back(self, message: Rollback) -> None:
        self.who.check_write((message.root,))
        self._commit(
            commits.Rollback(message.root, message.backto, self.tega_id), message.command
        )

    def _commit(self, request: commits.Request, what: str) -> None:
        """Commit what has no answer, unless it is refused."""
        begun = self.heard

        def settled(pending: Pending) -> None:
            self._unanswered -= 1
            self._took(what, begun)
            try:
                pending.check()
            except TegaError as error:
                self.refuse(error, what)
            self._make_room()

        self._unanswered += 1
        self._context.committer.enter(request, settled)

    # -- what is to be answered -----------------------------------------------------------------

    def _request(self, message: Request) -> None:
        if message.tega_id != self.tega_id:
            raise Malformed(
                f"a REQUEST of {message.tega_id!r}: this session is {self.tega_id!r}"
            )
        if message.type == "TX":
            self._transact(message)
        elif message.type == "SYNC" and self.scope == "global":
            if not self.who.peer:
                raise self.who.refused("be another server's peer")
            log.info("%s is a server, and gets its roots from here", self.tega_id)
            self.widen()
            self.link = self._context.peers.accepted(PeerWire(self), self.tega_id, self.who)
            self._from_peer(message)
        elif message.type == "RPC":
            begun = self.heard
            path = parse(message.path)
            self.who.check(CALL, path)
            call = self._context.calls.submit(path, message.body, self.tega_id)
            call.then(lambda answer: self._answer_call(message, answer, begun))
        else:
            raise NoPeer(
                f"{message.type} is for servers among themselves, which have the scope global"
            )

    def _from_no_peer(self, message: Peer) -> None:
        raise NotUnderstood("PEER is for servers among themselves, after REQUEST SYNC")

    def _from_peer(self, message: Message) -> None:
        assert self.link is not None
        try:
            self.link.receive(message)
        except TegaError as error:
            log.warning("%s sends what cannot be: %s", self.tega_id, error)
            self.close(NOT_OURS, error.message[:100])

    def send(self, message: Message) -> None:
        """Send a message."""
        if not self.over:
            self.outbox.send(frame(self._connection.send(message).encode()))

    def _transact(self, message: Request) -> None:
        given = (message.body, self.tega_id, self.database.max_depth, self.who)
        if len(message.body) <= SHORT:
            # Straight on: most of all that comes is this.
            self._bring(message, *batch.read(*given))
        else:
            read = partial(batch.read, *given)
            self._read(message, message.body, read, lambda found: self._bring(message, *found))

    def _bring(
        self, message: Request, request: commits.Transaction, reads: list[batch.Read]
    ) -> None:
        """Do a TX once what it reads consistently is here as its leaders have it now."""
        names = batch.to_ask_for(self.database.state, reads, self.who) if reads else None
        if names:
            self._ask_leaders(message, names, lambda: self._do(message, request, reads))
        else:
            self._do(message, request, reads)

    def _ask_leaders(self, message: Request, names: list[str], then: Callable[[], None]) -> None:
        """Go on once some followed roots are here as their leaders have them now."""

        def there(answer: Later) -> None:
            if self.over:
                return
            try:
                answer.result()
                if names[1:]:
                    self._ask_leaders(message, names[1:], then)
                else:
                    then()
            except Exception as error:
                self._fail(message, error, message.text())

        self._context.peers.barrier(names[0]).then(there)

    def _do(
        self, message: Request, request: commits.Transaction, reads: list[batch.Read]
    ) -> None:
        begun = self.heard

        def settled(pending: Pending) -> None:
            self._took("TX", begun)
            try:
                made = pending.made()
            except TegaError as error:
                self._answer_error(message, error)
                return
            if reads:
                self._answer_pieces(message, batch.answer(*made, pending.before, reads, self.who))
            else:
                self._answer(message, batch.text(*made))

        self._context.committer.enter(request, settled)

    def _took(self, what: str, begun: float) -> None:
        """Something is done.

        :param begun: when what it came with was read
        """
        self._meters.session_seconds[what].observe(self._loop.time() - begun)

    def _answer_call(self, message: Request, answer: Later, begun: float) -> None:
        self._took("RPC", begun)
        try:
            body = answer.result()
        except TegaError as error:
            self._answer_error(message, error)
        else:
            self._answer(message, body)

    def drained(self) -> None:
        super().drained()
        self._make_room()
        if self.link is not None:
            self.link.drained()

    # -- calls of its functions -----------------------------------------------------------------

    def call(self, path: str, body: bytes, caller: str, timeout: float) -> Later:
        """Ask the client to run a function.

        :param path: where the function stands, without any space
        :param body: ``{"args", "kwargs"}`` as JSON
        :returns: the result as JSON, or the error that the caller gets
        :raises OverLimit: where too many calls are open
        """
        most = self.limits.open_requests
        if len(self._asked) >= most:
            raise OverLimit(
                f"{self.tega_id} has {most} calls open, the limit: try again later", "calls"
            )
        if self.outbox.backlog > self.limits.backlog:
            raise OverLimit(
                f"{self.tega_id} does not take the calls that it has: try again later", "backlog"
            )
        return self._asked.ask(path, body, caller, timeout)

    def _response(self, message: Response) -> None:
        self._asked.answered(self.tega_id, message)

    def look(self, now: float) -> None:
        """Give up the calls that take too long."""
        if self._room is not None and not self._room.done() and not self.outbox.busy:
            # It is not read, so it may well have something to say.
            self.heard = now
        self._asked.look(self.tega_id, now)

    # -- the end --------------------------------------------------------------------------------

    def judge_again(self, again: Again) -> None:
        """The rules are others now, or the credentials."""
        who = again(self.who, self._token)
        if who is None or not who.may_stay(self.tega_id, self.link is not None):
            self.say("unauthorized", message="the credential is not valid any more")
            self.close(REVOKED, "the credential is not valid any more")
        elif self.link is not None and who is not self.who:
            # What goes over was judged at its beginning.
            self.close(GOING_AWAY, "the rules have changed")
        else:
            self.who = who
            self.rights = who.rights

    def taken_over(self) -> None:
        """Another connection has this session's tega id now."""
        self.say("taken_over", message="another connection has taken over this tega id")
        self.close(TAKEN_OVER, "taken over")

    def close(self, code: int, reason: str) -> None:
        """End the session, and with it the connection."""
        self._hang_up(code, reason)
        self.ended()

    def ended(self) -> None:
        """The connection is gone, or going."""
        if self.over:
            return
        self.over = True
        self._hub.unsubscribe_all(self)
        if self.link is not None:
            self.link.closed("the connection is over")
        self._asked.gone(self.tega_id)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._context.sessions.remove(self) and not self._context.sessions.ending:
            log.info("session %s has ended", self.tega_id)
            self._context.committer.leave(self.tega_id)


_HANDLERS: Final[dict[type, Callable[[ServerSession, Any], None]]] = {
    Session: ServerSession._begin,
    Subscribe: ServerSession._subscribe,
    Unsubscribe: ServerSession._unsubscribe,
    Publish: ServerSession._publish,
    Notify: ServerSession._changes,
    Rollback: ServerSession._roll_back,
    Request: ServerSession._request,
    Response: ServerSession._response,
    Peer: ServerSession._from_no_peer,
}
