"""What a session subscribes to, who listens to what, and from where to go on.

Where to go on is kept twice. For each listener of a subscription: the sequence number up to which
it has been given what there was, so that nothing comes to it twice. For each subscription: the
number up to which the connection has brought what there was, so that after a reconnect nothing is
lost.

A server that is asked to go on from before *goes back*, for that subscription, and from there on
sends everything in order again. What it has sent just before that comes once more, in its place;
so it must not be taken for what comes after. A ping before the SUBSCRIBE and one behind it are a
`_Fence`: pongs come in order with messages.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from tega import paths, strictjson
from tega.driver.errors import SubscriptionException
from tega.driver.listeners import Callbacks, Listener, Noted
from tega.driver.subscription import Subscription
from tega.errors import Malformed
from tega.paths import Path
from tega.protocol import Error, Notify, PubSubMessage, Since, Subscribe, Unsubscribe
from tega.subscriber import SCOPE

log = logging.getLogger(__name__)

_MISSING: Final[Any] = object()

_decode_notes = msgspec.json.Decoder(list[Noted]).decode


class _Fence(NamedTuple):
    """Subscriptions for which the server goes back between two pongs.

    :ivar strict: where something comes for one of them between the two, ask for it again; otherwise
        the first pong alone counts
    """

    these: list[Subscription]
    first: int
    last: int
    strict: bool


class Subscriptions:
    """All subscriptions of a session.

    :param send: sends a message, as long as there is a connection
    :param ping: sends a ping with a payload, as long as there is a connection
    :ivar life: that of the server's database; None: not known yet
    :ivar newest: the newest sequence number that has been heard of
    """

    def __init__(
        self,
        send: Callable[[Subscribe | Unsubscribe], None],
        ping: Callable[[bytes], None],
    ) -> None:
        self._send = send
        self._ping = ping
        self.life: str | None = None
        self.newest = -1
        #: Of the last NOTIFY since the server went back: all before has come.
        self._notified = -1
        self._open = False
        #: Where the server is still to go back, in the order in which it was asked.
        self._fences: deque[_Fence] = deque()
        self._pings = 0
        self._literals: dict[Path, Subscription] = {}
        self._patterns: dict[str, Subscription] = {}
        #: The next NOTIFY tells how this one stands, if it is still there, as of that number.
        self._resyncing: tuple[Subscription | None, int] | None = None

    def __iter__(self) -> Iterator[Subscription]:
        yield from self._literals.values()
        yield from self._patterns.values()

    def __len__(self) -> int:
        return len(self._literals) + len(self._patterns)

    # -- who listens to what --------------------------------------------------------------------

    def add(
        self,
        listener: Listener,
        text: str,
        regex: bool,
        scope: SCOPE | None = None,
        since: Since | None = None,
    ) -> None:
        """Let somebody listen.

        :param scope: None: as it is, local for a new one
        :param since: give it first what has changed since then
        :raises Malformed: for what is no path or pattern
        """
        made = Subscription(text, regex, scope or SCOPE.LOCAL)
        one = self.find(made.text, regex) or made
        if one is made:
            self._enter(one)
        # The server does not tell of what came before a SUBSCRIBE; but this may be an older one.
        one.heard.setdefault(listener, since or (None if one is made else self._now()))
        widened = scope is not None and scope is not one.scope
        one.scope = scope or one.scope
        if since is not None:
            self._go_back(one, since)
        elif self._open and one is made:
            self._start([one])
        elif self._open and widened:
            self._send(one.message())

    def _enter(self, one: Subscription) -> None:
        if one.regex:
            self._patterns[one.text] = one
        else:
            self._literals[one.levels] = one

    def find(self, text: str, regex: bool) -> Subscription | None:
        """The subscription on a path or pattern."""
        return self._patterns.get(text) if regex else self._literals.get(paths.parse(text))

    def remove(self, listener: Listener, text: str, regex: bool) -> None:
        """Let somebody listen to that no more; nothing where it does not."""
        made = Subscription(text, regex, SCOPE.LOCAL)
        one = self.find(made.text, regex)
        if one is not None and one.heard.pop(listener, _MISSING) is not _MISSING:
            self._drop_unheard([one])

    def remove_all(self, listener: Listener) -> None:
        """Let somebody listen to nothing more."""
        mine = [one for one in self if listener in one.heard]
        for one in mine:
            del one.heard[listener]
        self._drop_unheard(mine)

    def _drop_unheard(self, these: list[Subscription]) -> None:
        over = [one for one in these if not one.heard]
        for one in over:
            if one.regex:
                del self._patterns[one.text]
            else:
                del self._literals[one.levels]
        if not self._open or not over:
            return
        if not self._literals and not self._patterns and len(over) > 1:
            self._send(Unsubscribe())
            return
        for one in over:
            self._send(Unsubscribe(one.text, one.regex))

    def go_on(self, listener: Listener) -> None:
        """Give a listener that was behind what it has missed."""
        for one in self:
            since = one.heard.get(listener)
            if since is not None:
                self._go_back(one, since)

    # -- the connection -------------------------------------------------------------------------

    def opened(self, life: str, newest: int) -> None:
        """There is a connection."""
        self.life = life
        self.newest = newest
        self._notified = -1

    def start(self) -> None:
        """Subscribe to everything."""
        self._open = True
        self._start(list(self))

    def lost(self) -> None:
        """There is none any more."""
        if not self._open:
            return
        self._leave_off()
        self._open = False
        self._resyncing = None
        self._fences.clear()
        for one in self:
            one.awaits = 0

    def _leave_off(self) -> None:
        """Write down from where each is to go on."""
        for one in self:
            if one.seen >= 0:
                one.since = Since(self._come_to(one), self.life)
                one.seen = -1

    def _come_to(self, one: Subscription) -> int:
        """Up to where this connection has brought what there was of a subscription."""
        return one.seen if one.awaits else max(one.seen, self._notified)

    def _keep_places(self) -> None:
        """The server goes back for some: what it sends from now on says nothing of the others."""
        for one in self:
            if one.seen >= 0:
                one.seen = self._come_to(one)
        self._notified = -1

    def _start(self, these: list[Subscription]) -> None:
        """Send SUBSCRIBEs."""
        back = [one for one in these if one.since is not None]
        for one in these:
            if one.since is None:
                self._send(one.message())
                one.seen = self.newest
        if back:
            self._fence(back, True)

    def _fence(self, these: list[Subscription], strict: bool) -> None:
        """Send SUBSCRIBEs for which the server goes back.

        :param strict: make sure that nothing comes between the pings
        """
        first = self._next_ping()
        for one in these:
            self._send(one.message())
            one.awaits += 1
            one.dirty = False
            one.seen = -1
            if one.since is not None and one.since.life in (None, self.life):
                one.seen = one.since.seq
                one.since = None
        self._fences.append(_Fence(these, first, self._next_ping() if strict else first, strict))

    def _next_ping(self) -> int:
        self._pings += 1
        self._ping(b"%d" % self._pings)
        return self._pings

    def ponged(self, payload: bytes) -> None:
        """The server has taken all that was sent before a ping."""
        if not payload.isdigit():
            return
        number = int(payload)
        while self._fences and self._fences[0].last <= number:
            self._passed(self._fences.popleft())
        if self._fences and self._fences[0].first <= number:
            for one in self._fences[0].these:
                # What has come for it until now will come again.
                one.dirty = False

    def _passed(self, fence: _Fence) -> None:
        """From here on all comes in order from where it was asked for."""
        self._keep_places()
        for one in fence.these:
            if not one.awaits:
                continue
            one.awaits -= 1
            if fence.strict and one.dirty and not one.awaits:
                # The SUBSCRIBE and the pings did not arrive together, and what came in between may
                # be either. On its own it is so short that it does not get torn apart.
                one.since = Since(one.seen, self.life)
                self._fence([one], False)

    def _go_back(self, one: Subscription, since: Since) -> None:
        """Subscribe anew, from before."""
        come = one.since
        if one.seen >= 0:
            come = Since(self._come_to(one), self.life)
        if come is not None and come.seq < since.seq and (
            come.life == since.life or None in (come.life, since.life)
        ):
            # Others listen, who must not miss what is between.
            since = come
        one.since = since
        if self._open:
            self._start([one])

    def _now(self) -> Since | None:
        return None if self.life is None else Since(self.newest, self.life)

    # -- what comes -----------------------------------------------------------------------------

    def notify(self, message: Notify) -> None:
        """Hand out the changes of a transaction.

        :raises Malformed: for what is no list of changes
        """
        try:
            notes = _decode_notes(message.body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise Malformed(f"NOTIFY: {error}") from None
        if len(notes) > 1:
            for note in notes:
                # One that waits to be read must not keep all the others.
                note.instance = note.instance.copy()
        told = [(note, _path_of(note)) for note in notes]
        resyncing, self._resyncing = self._resyncing, None
        if resyncing is not None:
            self._resync(*resyncing, notes)
        elif notes:
            seq = notes[0].seq
            self._notified = max(self._notified, seq)
            self.newest = max(self.newest, seq)
            self._hand_out(seq, told)

    def _hand_out(self, seq: int, told: list[tuple[Noted, Path]]) -> None:
        mine: dict[Listener, list[tuple[Noted, Path]]] = {}
        since = Since(seq, self.life)
        heard: dict[Subscription, None] = {}
        for note, path in told:
            found = []
            for one in self._covering(note, path):
                if one.awaits:
                    one.dirty = True
                else:
                    found.append(one)
            # A listener that has heard it by one subscription does not hear it by another.
            known = {who for one in found for who in one.heard if _has_heard(one.heard[who], since)}
            for one in found:
                heard[one] = None
                for who in one.heard:
                    if who not in known and not who.behind:
                        known.add(who)
                        mine.setdefault(who, []).append((note, path))
        for who, changes in mine.items():
            if who.full:
                self._fall_behind(who, seq)
            else:
                who.notice([note for note, _ in self._without_echoes(who, changes)], False)
        for one in heard:
            for who in one.heard:
                if not who.behind and not _has_heard(one.heard[who], since):
                    one.heard[who] = since

    def _covering(self, note: Noted, path: Path) -> Iterator[Subscription]:
        """The subscriptions that a change belongs to."""
        if note.ope == "ROLLBACK":
            yield from [one for one in self if one.covers_root(path[0])]
            return
        if self._literals:
            for depth in range(1, len(path) + 1):
                one = self._literals.get(path[:depth])
                if one is not None:
                    yield one
        for one in self._patterns.values():
            if one.covers(path):
                yield one

    def _fall_behind(self, who: Listener, seq: int) -> None:
        who.behind = True
        before = Since(seq - 1, self.life)
        for one in self:
            heard = one.heard.get(who, _MISSING)
            if heard is not _MISSING and not one.awaits and not _has_heard(heard, before):
                one.heard[who] = before

    def _without_echoes(
        self, who: Listener, changes: list[tuple[Noted, Path]]
    ) -> list[tuple[Noted, Path]]:
        """Leave out what tells again, of a part, what the change before has told of the whole.

        Where one subscription stands below another, the server tells each what it covers. Who
        listens to both gets both; but who listens to the upper one alone is not concerned.
        """
        if len(changes) == 1:
            return changes
        kept: list[tuple[Noted, Path]] = []
        for note, path in changes:
            cut = kept and any(
                len(one.levels) == len(path) and who not in one.heard
                for one in self._covering(note, path)
            )
            if not cut or not _echoes(note, path, *kept[-1]):
                kept.append((note, path))
        return kept

    def _resync(self, one: Subscription | None, seq: int, notes: list[Noted]) -> None:
        """Here is how a subscription stands."""
        if one is None:
            return
        one.since = None
        one.seen = seq
        for who in one.heard:
            if not who.behind:
                one.heard[who] = Since(seq, self.life)
                who.notice(notes, True)

    def gone(self, message: Error) -> None:
        """What has changed since is no longer known; how it stands follows.

        :raises Malformed: for what does not say of which subscription
        """
        body = strictjson.loads(message.body)
        path, regex, seq = body.get("path"), body.get("regex_flag", False), body.get("seq")
        if type(path) is not str or type(seq) is not int:
            raise Malformed("ERROR gone: the body has path and seq")
        life = body.get("life", self.life)
        if life != self.life:
            self._leave_off()
            self.life, self._notified = life, -1
        self.newest = seq
        one = self.find(path, regex)
        self._resyncing = one, seq
        if one is not None:
            if one.seen >= 0:
                # Were the connection lost before it is told how all stands: go on from here.
                one.since = Since(self._come_to(one), self.life)
                one.seen = -1
            one.awaits = 0

    def message(self, message: PubSubMessage) -> None:
        """Hand out a message."""
        path = paths.parse(message.channel)
        known: set[Listener] = set()
        here = self._literals.get(path)
        found: Iterable[Subscription] = [
            *([here] if here is not None else ()),
            *(
                one
                for one in self._patterns.values()
                if len(one.levels) == len(path) and one.covers(path)
            ),
        ]
        for one in found:
            for who in one.heard:
                if who not in known:
                    known.add(who)
                    who.message(message.channel, message.tega_id, message.body)

    def refused(self, error: SubscriptionException) -> bool:
        """The server refuses a subscription: whoever listens gets the error.

        :returns: whether it is about one
        """
        path, regex = error.details.get("path"), error.details.get("regex_flag")
        if type(path) is not str or type(regex) is not bool:
            return False
        one = self.find(path, regex)
        if one is None:
            return False
        for who in list(one.heard):
            log.warning("%s hears nothing: %s", who.name, error)
            who.end(error)
            self.remove(who, path, regex)
        return True

    def hear_of(self, seq: int) -> None:
        """That is a sequence number of a commit."""
        self.newest = max(self.newest, seq)

    def end(self, error: BaseException | None) -> None:
        """Nothing comes any more. Only callbacks may be needed again."""
        for who in {who: None for one in self for who in one.heard}:
            if not isinstance(who, Callbacks):
                who.end(error)
                self.remove_all(who)


def _path_of(note: Noted) -> Path:
    path = paths.parse(note.path)
    if "\\u0020" in note.path:
        note.path = paths.dotted(path)
    return path


def _has_heard(heard: Since | None, since: Since) -> bool:
    return (
        heard is not None and heard.life in (None, since.life) and heard.seq >= since.seq
    )


def _echoes(note: Noted, path: Path, upper: Noted, above: Path) -> bool:
    """Whether a change is what another one, above, does to a part."""
    if len(above) >= len(path) or path[: len(above)] != above or upper.ope == "ROLLBACK":
        return False
    part = strictjson.loads(bytes(upper.instance))
    for key in path[len(above) :]:
        part = part.get(key, _MISSING) if type(part) is dict else _MISSING
    if note.ope != upper.ope:
        return note.ope == "DELETE" and part is _MISSING
    own = strictjson.loads(bytes(note.instance))
    return part is not _MISSING and strictjson.dumps(part) == strictjson.dumps(own)
