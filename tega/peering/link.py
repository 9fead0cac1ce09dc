"""One connection between two servers: what each message on it is about.

The one that dialed sends REQUEST SYNC first, and again whenever what it follows has to begin anew:
what it has of the roots that it follows, which roots it leads, and what it offers. The answer says
what the other one has of those. From then on each feeds the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from tega import strictjson
from tega.access.who import UNLIMITED, Who
from tega.errors import Malformed, NotUnderstood, OutcomeUnknown, TegaError
from tega.paths import Path, check_tega_id, dotted, parse, wire
from tega.peering import codec
from tega.peering.codec import Offer, Taken, peer
from tega.peering.replica import Replica
from tega.peering.source import MAX_BACKLOG, Source
from tega.peering.wire import Wire
from tega.protocol import (
    Error,
    Message,
    Peer,
    Request,
    Response,
    Subscribe,
    Unsubscribe,
)
from tega.store.commit import Rollback, Transaction
from tega.subscriber import SCOPE
from tega.watch import Hub
from tega.watcher import Publication, Watcher
from tega.web.later import Later

log = logging.getLogger(__name__)

#: Seconds after what had no place until the roots are asked for again.
_PATIENCE: Final = 0.5

#: Most seconds that a call may be given: no clock adds any number.
_LONGEST_CALL: Final = 1e9


class Desk(Protocol):
    """What a link needs of the server that it belongs to."""

    tega_id: str

    def make_source(self, link: Link) -> Source:
        """What feeds the other end."""

    def make_replica(self, link: Link) -> Replica:
        """What takes in what the other end leads."""

    def offers(self, link: Link) -> Offer:
        """The body of a REQUEST SYNC upwards."""

    def asked(self, link: Link, offer: Offer) -> Taken:
        """The other end has said what it has, leads and offers; the answer to that."""

    def answered(self, link: Link, taken: Taken) -> None:
        """It has answered what this end has said."""

    def commit(self, link: Link, request: Transaction | Rollback) -> Later:
        """The other end wants something committed."""

    def how_far(self, link: Link, name: str) -> Later:
        """How far a root is at its leader, and so here: its life and version as JSON."""

    def call(self, link: Link, path: Path, body: bytes, caller: str, seconds: float) -> Later:
        """The other end wants a function called."""

    def heard(self, link: Link, publication: Publication) -> None:
        """The other end passes on a message."""

    def left(self, link: Link, tega_ids: list[str]) -> None:
        """Sessions have ended there that have ephemeral nodes here."""

    def set_above(self, link: Link, tega_ids: list[str]) -> None:
        """The global server says who is above: itself, and its own global servers."""

    def passed(self, link: Link, name: str, versions: dict[str, int]) -> None:
        """Servers that are behind the other end have applied versions of a root."""

    def offered(self, link: Link) -> None:
        """The other end offers other functions now."""

    def gone(self, link: Link) -> None:
        """The connection is over."""

    @property
    def hub(self) -> Hub:
        """Who subscribes here."""


class _Ear(Watcher):
    """Stands for the other end among those who subscribe here: it is told of messages only."""

    def __init__(self, tega_id: str, tell: Callable[[Publication], None]) -> None:
        super().__init__(tega_id)
        self.live = False
        self._tell = tell

    def tell(self, publication: Publication) -> None:
        self._tell(publication)

    def cleared(self) -> None:
        """It is told of messages, which have nothing to do with what is stored."""


class Link:
    """One end of a connection between two servers.

    :param peer: the tega id of the other one
    :param upward: whether that is the global server, and this the local one
    :param who: what the other one may do here; the global server may do everything
    :ivar functions: what the other end offers: path and owner
    :ivar applied: how far each server that is behind it has applied which root
    """

    def __init__(
        self,
        desk: Desk,
        link_wire: Wire,
        peer_id: str,
        upward: bool,
        who: Who = UNLIMITED,
    ) -> None:
        self._desk = desk
        self.who = who
        self.wire = link_wire
        self.peer = peer_id
        self.upward = upward
        self.over = False
        self.source = desk.make_source(self)
        self.replica = desk.make_replica(self)
        self.ear = _Ear(peer_id, self.tell)
        self.ear.rights = who.rights
        self.functions: dict[Path, str] = {}
        self.applied: dict[str, dict[str, int]] = {}
        self.synced = False
        self._loop = asyncio.get_running_loop()
        self._last = 0
        self._last_taken = -1
        self._open: dict[int, Later] = {}
        self._applied: dict[str, dict[str, int]] = {}
        self._again: asyncio.TimerHandle | None = None

    # -- asking ---------------------------------------------------------------------------------

    def ask(self, kind: str, tega_id: str, path: str, body: bytes) -> Later:
        """Send a request; the body of its answer, or the error."""
        answer = Later()
        self._last += 1
        self._open[self._last] = answer
        self.wire.send(Request(self._last, kind, tega_id, path, body))
        return answer

    def sync(self) -> Later:
        """Say what is here, and begin anew. Only upwards."""
        self.synced = False
        body = self._desk.offers(self)
        answer = self.ask("SYNC", self._desk.tega_id, "-", strictjson.dumps(body))

        def answered(answer: Later) -> None:
            if self.over:
                return
            try:
                self._desk.answered(self, codec.read_taken(_bytes(answer)))
                self.synced = True
            except TegaError as error:
                log.warning("%s does not take what is led here: %s", self.peer, error)
                self.wire.close(error.message)

        answer.then(answered)
        return answer

    def again(self, why: str) -> None:
        """What comes has no place here: let it begin anew, in a moment."""
        if self._again is not None or self.over:
            return
        log.warning("what %s sends has no place here, and is asked for again: %s", self.peer, why)
        self._again = self._loop.call_later(_PATIENCE, self._begin_anew)

    def _begin_anew(self) -> None:
        self._again = None
        if self.over:
            return
        if self.upward:
            self.sync()
        else:
            # Only the one who dialed can say what it has.
            self.wire.close("what came had no place")

    # -- what comes -----------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Take a message.

        :raises TegaError: where it cannot be read: the connection is to end then
        """
        if self.over:
            return
        if isinstance(message, Peer):
            _KINDS[message.kind](self, message.body)
        elif isinstance(message, Request):
            self._request(message)
        elif isinstance(message, Response):
            self._response(message)
        elif isinstance(message, Subscribe):
            self._desk.hub.subscribe(self.ear, message.path, SCOPE.GLOBAL, message.regex)
        elif isinstance(message, Unsubscribe) and message.path is not None:
            self._desk.hub.unsubscribe(self.ear, message.path, message.regex)
        elif isinstance(message, Error):
            log.warning("%s says %s: %s", self.peer, message.code, message.body.decode())
        else:
            raise Malformed(f"{message.command} from a server")

    def _request(self, message: Request) -> None:
        if message.seq_no <= self._last_taken:
            # Nothing is done twice, whatever came of the answer.
            log.warning("%s asks %d again", self.peer, message.seq_no)
            return
        self._last_taken = message.seq_no
        try:
            handler = _REQUESTS.get(message.type)
            if handler is None:
                raise NotUnderstood(f"REQUEST {message.type}: servers ask each other no such thing")
            answer = handler(self, message)
        except TegaError as error:
            answer = Later()
            answer.resolve(error=error)
        answer.then(lambda answer: self._answer(message, answer))

    def _answer(self, message: Request, answer: Later) -> None:
        if self.over:
            return
        try:
            body = _bytes(answer)
        except TegaError as error:
            body = strictjson.dumps(self.who.told(error).body()["error"])
            self.wire.send(Response(message.seq_no, message.type, message.tega_id, True, body))
        else:
            self.wire.send(Response(message.seq_no, message.type, message.tega_id, False, body))

    def _sync(self, message: Request) -> Later:
        if self.upward:
            raise Malformed("SYNC goes from a local server to its global one")
        answer = Later()
        self.synced = True
        answer.resolve(strictjson.dumps(self._desk.asked(self, codec.read_offer(message.body))))
        return answer

    def _transact(self, message: Request) -> Later:
        name = codec.barrier_in(message.body)
        if name is not None:
            return self._desk.how_far(self, name)
        done = self._desk.commit(self, codec.read_request(message.body, message.tega_id))
        answer = Later()

        def committed(done: Later) -> None:
            try:
                answer.resolve(strictjson.dumps(done.result()))
            except TegaError as error:
                answer.resolve(error=error)

        done.then(committed)
        return answer

    def _call(self, message: Request) -> Later:
        given = codec.object_in(message.body)
        seconds = given.pop("seconds", None)
        if type(seconds) not in (int, float) or abs(seconds) > _LONGEST_CALL:
            raise Malformed("a call without the seconds that it may take")
        path = parse(message.path)
        return self._desk.call(self, path, strictjson.dumps(given), message.tega_id, seconds)

    def _response(self, message: Response) -> None:
        answer = self._open.pop(message.seq_no, None)
        if answer is None:
            return
        if message.error:
            answer.resolve(error=codec.error_in(message.body, self.peer))
        else:
            answer.resolve(message.body)

    def give_up(self, answer: Later) -> None:
        """Wait for an answer no longer."""
        self._open = {number: one for number, one in self._open.items() if one is not answer}

    # -- kinds of PEER --------------------------------------------------------------------------

    def _take_commit(self, body: bytes) -> None:
        self.replica.commit(body)

    def _take_overlay(self, body: bytes) -> None:
        self.replica.overlay(body)

    def _take_chunk(self, body: bytes) -> None:
        self.replica.chunk(body)

    def _take_above(self, body: bytes) -> None:
        self._desk.set_above(self, codec.read_ids(body))

    def _take_applied(self, body: bytes) -> None:
        for name, versions in codec.read_applied(body).items():
            self.applied.setdefault(name, {}).update(versions)
            # Upwards it is of interest too: whoever leads the root may be there.
            self._desk.passed(self, name, versions)

    def _take_left(self, body: bytes) -> None:
        self._desk.left(self, codec.read_ids(body))

    def _take_functions(self, body: bytes) -> None:
        self.offers(codec.read_functions(body))
        self._desk.offered(self)

    def offers(self, functions: dict[Path, str]) -> None:
        """The other end has these functions; only those count where it may write."""
        self.functions = {}
        for path, owner in functions.items():
            try:
                self.who.check_write(path)
                self.functions[path] = owner
            except TegaError as error:
                log.warning("a function that %s offers is not called: %s", self.peer, error)

    def _take_message(self, body: bytes) -> None:
        given = codec.object_in(body)
        channel, tega_id = given.get("channel"), given.get("tega_id")
        if type(channel) is not str or type(tega_id) is not str or "message" not in given:
            raise Malformed("message: channel, tega_id and message")
        text = strictjson.dumps({"message": given["message"]})
        publication = Publication(parse(channel), check_tega_id(tega_id), text)
        self._desk.heard(self, publication)

    # -- telling --------------------------------------------------------------------------------

    def tell(self, publication: Publication) -> None:
        """Pass on a message, unless the other end does not keep up."""
        if self.wire.backlog > MAX_BACKLOG:
            log.info("a message on %s does not reach %s", dotted(publication.channel), self.peer)
            return
        body = b'{"channel":%b,"tega_id":%b,%b' % (
            strictjson.dumps(wire(publication.channel)),
            strictjson.dumps(publication.tega_id),
            publication.body[1:],
        )
        self.wire.send(Peer("message", body))

    def tell_functions(self, functions: dict[Path, str]) -> None:
        """Say what is offered here."""
        self.wire.send(peer("functions", {"functions": written(functions)}))

    def tell_above(self, tega_ids: list[str]) -> None:
        """Say who is above the other end."""
        self.wire.send(peer("above", {"tega_ids": tega_ids}))

    def tell_left(self, tega_id: str) -> None:
        """Say that a session has ended."""
        self.wire.send(peer("left", {"tega_ids": [tega_id]}))

    def tell_applied(self, name: str, versions: dict[str, int]) -> None:
        """Say how far servers have applied a root; once a turn of the event loop."""
        if not self._applied:
            self._loop.call_soon(self._send_applied)
        self._applied.setdefault(name, {}).update(versions)

    def _send_applied(self) -> None:
        applied, self._applied = self._applied, {}
        if not self.over:
            self.wire.send(peer("applied", applied))

    def drained(self) -> None:
        """The other end has taken what it had still to take."""
        self.source.drained()

    def closed(self, reason: str) -> None:
        """The connection is over."""
        if self.over:
            return
        self.over = True
        if self._again is not None:
            self._again.cancel()
        self._desk.hub.unsubscribe_all(self.ear)
        lost = OutcomeUnknown(
            f"the connection to {self.peer} was lost on the way ({reason}): it may have been done. "
            "Send it again with the same transaction id",
            peer=self.peer,
        )
        self.replica.stop(lost)
        waiting, self._open = self._open, {}
        for answer in waiting.values():
            answer.resolve(error=lost)
        self._desk.gone(self)


def written(functions: dict[Path, str]) -> list[tuple[str, str]]:
    """Functions as they are sent."""
    return [(dotted(path), owner) for path, owner in sorted(functions.items())]


def _bytes(answer: Later) -> bytes:
    body = answer.result()
    assert isinstance(body, bytes)
    return body


_KINDS: Final[dict[str, Callable[[Link, bytes], None]]] = {
    "above": Link._take_above,
    "applied": Link._take_applied,
    "commit": Link._take_commit,
    "functions": Link._take_functions,
    "left": Link._take_left,
    "message": Link._take_message,
    "overlay": Link._take_overlay,
    "root": Link._take_chunk,
}

_REQUESTS: Final[dict[str, Callable[[Link, Request], Later]]] = {
    "SYNC": Link._sync,
    "TX": Link._transact,
    "RPC": Link._call,
}
