"""The servers that this one is connected to: who leads which root, and the way to each."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tega import strictjson
from tega.access.who import UNLIMITED, Who
from tega.database import Database
from tega.errors import NotFound, Refused, TegaError
from tega.paths import Path, dotted
from tega.peering import codec, guard
from tega.peering.claims import Claims
from tega.peering.codec import Offer, Taken
from tega.peering.guests import Guests
from tega.peering.link import Link, written
from tega.peering.replica import Aside, Replica, Submit
from tega.peering.routing import Routing
from tega.peering.source import Source, have_of
from tega.peering.streams import Streams
from tega.peering.wire import Wire
from tega.peering.writes import Writes, as_json
from tega.pending import Pending
from tega.protocol import Subscribe, Unsubscribe
from tega.store.commit import Hide, Request, Rollback, Transaction
from tega.subscriber import SCOPE
from tega.watch import Hub
from tega.watcher import Publication
from tega.web.committer import resolve
from tega.web.later import Later

log = logging.getLogger(__name__)

#: Calls a function on this server: path, body, caller, seconds, and the link that asks.
Call: TypeAlias = Callable[[Path, bytes, str, float, Link | None], Later]


class Peers:
    """What a server knows of others, and does with them.

    :param submit: commits something on this server, and calls back when it is settled
    :param leave: ends the session that a tega id had at a peer
    :param call: calls a function on this server
    :param aside: keeps what is replaced
    :param config: the roots that the global server leads
    :param operational: the roots that are led here, and wanted there
    :param patience: a peer may be away for so long, seconds, until what is ephemeral of it goes
    :param where: the global server, for people; None where there is none
    """

    def __init__(
        self,
        database: Database,
        submit: Submit,
        leave: Callable[[str, str], None],
        call: Call,
        aside: Aside,
        *,
        config: Sequence[str] = (),
        operational: Sequence[str] = (),
        patience: float = 30.0,
        where: str | None = None,
    ) -> None:
        self.tega_id = database.tega_id
        self.hub: Hub = database.hub
        self.config = tuple(config)
        self.operational = tuple(operational)
        self.where = where
        self._database = database
        self._submit = submit
        self._call = call
        self._aside = aside
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self.up: Link | None = None
        #: The global server, its own one, and so on: this one must not be among them.
        self.above: list[str] = []
        self._down: dict[str, Link] = {}
        self.streams = Streams()
        self.guests = Guests(database, leave, self.links, self.submit)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        #: Tega ids that a second server claimed, and when, by the event loop's clock.
        self.twins: dict[str, float] = {}
        #: Roots that are stale, and since when, by the event loop's clock.
        self.stale: dict[str, float] = {}
        # Who led before a restart may never come back.
        self._timers[""] = self._loop.call_later(patience, self._expire, "", None)
        self._cursor = database.state.seq
        self._life = database.state.life
        self._changed: list[asyncio.Future[None]] = []
        self.writes = Writes(database, self.streams.feeder, self.guests.hold, self._why_away)
        self.routing = Routing(database, lambda: self._down.values(), lambda: self.up, where)
        self.hub.committed = self._committed
        self.hub.relay = lambda publication: self.hub.run(lambda: self._relay(publication))
        self.hub.wanted = lambda *wanted: self.hub.run(lambda: self._wanted(*wanted))
        self.claims = Claims(
            database, submit, self.streams.feeder, self.config, self.operational
        )
        self.claims.remember()

    # -- connections ----------------------------------------------------------------------------

    def connected(self, wire: Wire, tega_id: str) -> Link:
        """There is a connection to the global server."""
        if self.up is not None and not self.up.over:
            self.up.wire.close("a newer connection takes its place")
        link = Link(self, wire, tega_id, upward=True)
        self.up = link
        link.sync()
        return link

    def accepted(self, wire: Wire, tega_id: str, who: Who = UNLIMITED) -> Link:
        """A local server has connected."""
        before = self._down.get(tega_id)
        link = Link(self, wire, tega_id, upward=False, who=who)
        self._down[tega_id] = link
        if before is not None:
            before.wire.close("a newer connection takes its place")
            before.closed("a newer connection takes its place")
        return link

    def links(self) -> list[Link]:
        """All connections."""
        return ([self.up] if self.up is not None else []) + list(self._down.values())

    def _why_away(self, name: str) -> str:
        leader = self._database.staged.following[name].leader
        if any(link.peer == leader for link in self.links()):
            unset = "and this server is not set to follow it: put it into --config, or release it"
            return f"{leader} leads it, {unset}"
        if name in self.config and self.where is not None:
            return f"its leader {leader or ''} is away: {self.where} is not connected".replace(
                "  ", " "
            )
        return f"its leader {leader or 'the global server'} is not connected"

    def make_source(self, link: Link) -> Source:
        return Source(self._database, link.wire.send, lambda: link.wire.backlog)

    def make_replica(self, link: Link) -> Replica:
        def applied(versions: dict[str, int]) -> None:
            for name, version in versions.items():
                link.tell_applied(name, {self.tega_id: version})
            self._change()

        return Replica(
            self._database,
            link.peer,
            self._submit,
            self._aside,
            applied,
            link.again,
            self.guests.put_again,
        )

    def gone(self, link: Link) -> None:
        names = list(link.replica.roots)
        self.streams.end(link)
        if self.up is link:
            self.up = None
            self.above = []
            names = list(self.config)
        if self._down.get(link.peer) is link:
            del self._down[link.peer]
            self.routing.tell()
        elif not link.upward:
            return
        log.info("%s is not connected any more", link.peer)
        self._change()
        self._expire_later(link.peer, names)

    def _expire_later(self, peer: str, names: list[str]) -> None:
        timer = self._timers.get(peer)
        if timer is not None:
            timer.cancel()
        self._timers[peer] = self._loop.call_later(self._patience, self._expire, peer, names)

    def _expire(self, peer: str, names: list[str] | None) -> None:
        """A peer is away for too long: what is ephemeral of it goes, or is hidden.

        :param names: the roots that came from there; None for all that are followed
        """
        del self._timers[peer]
        following = self._database.staged.following
        away = [
            name
            for name in (following if names is None else names)
            if self.streams.feeder(name) is None and name in following
        ]
        for name in away:
            self.stale.setdefault(name, self._loop.time())
            self._submit(Hide(name), functools.partial(self._hidden, name))
        if away:
            log.warning("%s: stale, for nobody tells of it", codec.describe(sorted(away)))
        if peer:
            self.guests.are(peer, [])

    def _hidden(self, name: str, pending: Pending) -> None:
        """What is ephemeral in a root is hidden here: who follows it from here sees none either."""
        try:
            pending.result()
        except TegaError as error:
            log.error("what is ephemeral in %s is not hidden: %s", dotted((name,)), error)
        for link in self.streams.fed(name):
            link.source.restart()

    def _back(self, link: Link) -> None:
        timer = self._timers.pop(link.peer, None)
        if timer is not None:
            timer.cancel()
        for name in link.replica.roots:
            self.stale.pop(name, None)

    # -- beginning ------------------------------------------------------------------------------

    def offers(self, link: Link) -> Offer:
        staged = self._database.staged
        self.streams.take(link, self.config)
        offered = self.routing.offered()
        self.routing.told(offered)
        # Of one that a local server leads, this one stands in for that.
        leads = {name: staged.following.get(name) for name in self.operational}
        return Offer(
            {name: have_of(staged, name) for name in self.config},
            {n: self.tega_id if lead is None else lead.leader for n, lead in leads.items()},
            self.guests.held_at(link.peer),
            written(offered),
            self.hub.in_global_scope(),
        )

    def asked(self, link: Link, offer: Offer) -> Taken:
        """A local server says what it has, leads and offers.

        :raises Forbidden: where it wants what it may not have
        """
        for name in offer.follow:
            link.who.check_whole(name)
        may, judged = guard.may_lead(link.who, offer.lead)
        judged |= self.claims.judged(link, may)
        accepted = [name for name, reason in judged.items() if reason is None]
        refused = {name: reason for name, reason in judged.items() if reason is not None}
        for name, reason in refused.items():
            log.warning("%s does not get to lead %s: %s", link.peer, dotted((name,)), reason)
        staged = self._database.staged
        link.offers(codec.functions_in(offer.functions))
        self.hub.unsubscribe_all(link.ear)
        for text, regex in offer.channels:
            self.hub.subscribe(link.ear, text, SCOPE.GLOBAL, regex)
        self.guests.are(link.peer, guard.spoken_for(link, offer.sessions))
        self.streams.take(link, accepted)
        self._back(link)
        self.streams.feed(link, offer.follow)
        self.routing.tell()
        self._change()
        return Taken(
            [self.tega_id, *self.above],
            {name: have_of(staged, name) for name in accepted},
            refused,
            self.guests.held_at(link.peer),
        )

    def answered(self, link: Link, taken: Taken) -> None:
        """The global server has what it says of the roots that are led here."""
        self.set_above(link, taken.above)
        self.guests.are(link.peer, taken.sessions)
        self.claims.refused_by(link, taken.refused)
        self._back(link)
        self.streams.feed(link, taken.have)
        self._change()

    def set_above(self, link: Link, above: list[str]) -> None:
        """The global server says who is above.

        :raises Refused: where this server is there
        """
        if self.tega_id in above:
            raise Refused(
                f"a circle: this server would be its own global one, by way of {', '.join(above)}"
            )
        if above != self.above:
            self.above = above
            for local in self._down.values():
                local.tell_above([self.tega_id, *above])

    # -- commits --------------------------------------------------------------------------------

    def _enter(self, request: Request) -> None:
        """Commit something that nobody waits for."""

        def settled(pending: Pending) -> None:
            try:
                pending.result()
            except TegaError as error:
                log.error("%s failed: %s", type(request).__name__, error)

        self._submit(request, settled)

    def _committed(self) -> None:
        """Something was published: whoever follows gets it."""
        state = self._database.state
        before, self._cursor = self._cursor, state.seq
        if state.life != self._life:
            self._life = state.life
            self._cleared()
            return
        links = self.links()
        if not links:
            return
        commits = self.hub.kept_after(before)
        if commits is None:
            for link in links:
                link.source.restart()
            return
        self.streams.offer(commits)
        self.routing.tell()

    def _cleared(self) -> None:
        """The database was cleared: what is led here begins anew, the rest is fetched again."""
        for link in list(self._down.values()):
            link.wire.close("cleared")
        if self.up is not None:
            self.up.sync()

    def commit(self, link: Link, request: Transaction | Rollback) -> Later:
        """A peer wants something committed: its `Result` as JSON.

        :raises Forbidden: where it may not
        """
        guard.check_request(link.who, request)
        if isinstance(request, Transaction):
            self.guests.welcome(link.peer, request)
        return as_json(self.submit(request, link.peer))

    def submit(self, request: Transaction | Rollback, through: str = "") -> Later:
        """Commit something where it has to be.

        :raises LedElsewhere, LeaderAway, NoSession: where that cannot be
        """
        elsewhere = self.writes.submit(request, through)
        if elsewhere is not None:
            return elsewhere
        answer = Later()
        self._submit(request, lambda pending: resolve(pending, answer))
        return answer

    def release(self, name: str) -> Later:
        """Lead a root here from now on. See `Claims.release`."""
        self.stale.pop(name, None)
        return self.claims.release(name)

    def barrier(self, name: str) -> Later:
        """What is read here of a root from then on is at least what its leader had just now.

        :raises LeaderAway: where it cannot be asked
        """
        asked = self.writes.barrier(name)
        if asked is not None:
            return asked
        answer = Later()
        answer.resolve()
        return answer

    def how_far(self, link: Link, name: str) -> Later:
        link.who.check_whole(name)
        answer = Later()

        def reached(done: Later) -> None:
            try:
                done.result()
            except TegaError as error:
                answer.resolve(error=error)
                return
            life = self._database.state.life_of(name)
            answer.resolve(strictjson.dumps({"life": life, "version": self.version_of(name)}))

        self.barrier(name).then(reached)
        return answer

    # -- sessions -------------------------------------------------------------------------------

    def left(self, link: Link, tega_ids: list[str]) -> None:
        self.guests.left(link.peer, tega_ids)

    def session_ended(self, tega_id: str) -> None:
        """A session of this server has ended."""
        self.guests.ended(tega_id)

    # -- messages and calls ---------------------------------------------------------------------

    def heard(self, link: Link, publication: Publication) -> None:
        if not guard.passes(link, publication):
            return
        self.hub.tell(publication, link.ear, elsewhere=True)
        if self.up is not None and link is not self.up:
            self.up.tell(publication)

    # What comes after SYNC arrives after it: nothing waits for the answer to that.

    def _relay(self, publication: Publication) -> None:
        if self.up is not None:
            self.up.tell(publication)

    def _wanted(self, text: str, regex: bool, begins: bool) -> None:
        if self.up is not None:
            self.up.wire.send(
                Subscribe(text, "global", regex) if begins else Unsubscribe(text, regex)
            )

    def call(self, link: Link, path: Path, body: bytes, caller: str, seconds: float) -> Later:
        guard.check_call(link.who, path, caller)
        return self._call(path, body, caller, seconds, link)

    def offered(self, link: Link) -> None:
        self.routing.tell()

    def passed(self, link: Link, name: str, versions: dict[str, int]) -> None:
        # Upwards, and to whoever leads it.
        for other in dict.fromkeys((self.up, self.streams.feeder(name))):
            if other is not None and other is not link:
                other.tell_applied(name, versions)
        self._change()

    # -- what is told of it all -----------------------------------------------------------------

    def applied(self, name: str) -> dict[str, int]:
        """How far each server is with a root, by tega id.

        :raises NotFound: where there is no such root
        """
        state = self._database.state
        root = state.roots.get(name)
        found: dict[str, int] = {}
        for link in self.links():
            found |= link.applied.get(name, {})
            if name in link.replica.roots:
                lead = state.following.get(name)
                newest = link.replica.newest(name)
                if lead is not None and lead.leader and newest >= 0:
                    found[lead.leader] = max(newest, found.get(lead.leader, -1))
        if root is not None:
            found[self.tega_id] = root.version
        if not found:
            raise NotFound(f"no root {dotted((name,))}", path=name)
        return found

    def version_of(self, name: str) -> int:
        """The version of a root here; -1 where there is none."""
        root = self._database.state.roots.get(name)
        return -1 if root is None else root.version

    def forwarders(self) -> list[str]:
        """The connected servers that subscriptions are forwarded to."""
        return [self.up.peer] if self.up is not None and self.up.synced else []

    def _change(self) -> None:
        waiting, self._changed = self._changed, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    async def sync(self, seconds: float) -> list[str]:
        """Compare everything with the global server, and wait until both have the same.

        :returns: the roots that have not caught up in time
        """
        assert self.up is not None
        link = self.up
        state = self._database.state
        wanted = {n: state.roots[n].version for n in self.operational if n in state.roots}
        link.sync()
        until = self._loop.time() + seconds
        while True:
            lagging = [name for name in self.config if name not in link.replica.caught_up]
            lagging += [
                name
                for name, version in wanted.items()
                if name not in self.claims.refused
                and link.applied.get(name, {}).get(link.peer, -1) < version
            ]
            left = until - self._loop.time()
            if (not lagging and link.synced) or left <= 0 or link.over:
                return lagging
            turn: asyncio.Future[None] = self._loop.create_future()
            self._changed.append(turn)
            timer = self._loop.call_later(left, self._change)
            await turn
            timer.cancel()

    def close(self) -> None:
        """End all connections."""
        for timer in self._timers.values():
            timer.cancel()
        for link in self.links():
            link.wire.close("the server ends")
        self.hub.committed = self.hub.relay = self.hub.wanted = None
