"""Writes on roots that another server leads: there they are judged, and here waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import immutables

from tega import strictjson
from tega.database import Database
from tega.errors import LeaderAway, LedElsewhere, OutcomeUnknown, TegaError
from tega.paths import dotted
from tega.peering import codec
from tega.peering.link import Link
from tega.store.commit import Rollback, Transaction
from tega.store.history import Result
from tega.web.later import Later

#: Gives the link that feeds a root; None where nobody does at present.
Upstream: TypeAlias = Callable[[str], Link | None]

#: Takes the peer that a request goes to, the request, and the peer that it comes from.
Hold: TypeAlias = Callable[[str, Transaction | Rollback, str], None]

#: A leader may take so long, seconds.
_PATIENCE: Final = 30.0


class Writes:
    """Passes requests on to the leaders of the roots that they change.

    :param upstream: gives the link that feeds a root
    :param hold: remembers who gets ephemeral nodes at a peer
    :param away: says why the leader of a root is away
    """

    def __init__(
        self,
        database: Database,
        upstream: Upstream,
        hold: Hold,
        away: Callable[[str], str],
    ) -> None:
        self._database = database
        self._upstream = upstream
        self._hold = hold
        self._away = away

    def submit(
        self, request: Transaction | Rollback, through: str = ""
    ) -> Later | None:
        """Have a request committed by whoever leads what it changes.

        :param through: the peer that it comes from
        :returns: its `Result`, with the sequence number that it got here; None where all is led
            here
        :raises LedElsewhere: where several servers would have to agree
        :raises LeaderAway: where the leader cannot be asked
        """
        following = self._database.staged.following
        if not following:
            return None
        names = list(codec.touches(request))
        followed = [name for name in names if name in following]
        if not followed:
            return None
        if request.txid is not None:
            known = self._database.state.ids.results.get(request.txid)
            if known is not None:
                answer = Later()
                answer.resolve(known)
                return answer
        leaders = {name: following[name].leader for name in followed}
        if len(followed) < len(names) or len(set(leaders.values())) > 1:
            raise self._several(names, leaders)
        link = self._reachable(followed)
        self._hold(link.peer, request, through)
        return self._ask(link, request)

    def _reachable(self, names: list[str]) -> Link:
        """The link to the leader of roots.

        :raises LeaderAway: where there is none at present
        """
        links = {self._upstream(name) for name in names}
        link = links.pop()
        if link is None or not link.synced or links:
            raise self._leader_away(names)
        return link

    def _leader_away(self, names: list[str]) -> LeaderAway:
        return LeaderAway(
            f"{codec.describe(names)}: {self._away(names[0])}. Nothing is done, nor queued: ask "
            "again once that has changed",
            root=names[0],
            leader=self._database.staged.following[names[0]].leader,
        )

    def barrier(self, name: str) -> Later | None:
        """Wait until a root is here as its leader has it now; None where it is led here.

        :raises LeaderAway: where the leader cannot be asked
        """
        if name not in self._database.staged.following:
            return None
        link = self._reachable([name])
        answer = Later()
        asked = link.ask("TX", self._database.tega_id, "-", strictjson.dumps({"barrier": name}))
        overdue = asyncio.get_running_loop().call_later(_PATIENCE, self._late, link, asked, answer)

        def answered(asked: Later) -> None:
            try:
                body = asked.result()
                assert isinstance(body, bytes)
                given = codec.object_in(body)
                link.replica.reaches(name, given["life"], given["version"]).then(done)
            except TegaError:
                overdue.cancel()
                if not answer.done:
                    answer.resolve(error=self._leader_away([name]))

        def done(reached: Later) -> None:
            overdue.cancel()
            if answer.done:
                return
            try:
                reached.result()
                answer.resolve()
            except TegaError:
                answer.resolve(error=self._leader_away([name]))

        asked.then(answered)
        return answer

    def _late(self, link: Link, asked: Later, answer: Later) -> None:
        link.give_up(asked)
        if not answer.done:
            answer.resolve(
                error=LeaderAway(f"{link.peer} did not say within {_PATIENCE:g} s how far it is")
            )

    def _several(self, names: list[str], leaders: Mapping[str, str]) -> LedElsewhere:
        who = [
            f"{dotted((name,))} by {leaders.get(name, self._database.tega_id) or 'the global'}"
            for name in names
        ]
        return LedElsewhere(
            "the roots of one transaction have one leader; these are led differently: "
            + ", ".join(who),
            leaders={name: leaders.get(name, self._database.tega_id) for name in names},
        )

    def _ask(self, link: Link, request: Transaction | Rollback) -> Later:
        answer = Later()
        asked = link.ask("TX", request.tega_id, "-", codec.request_body(request))
        overdue = asyncio.get_running_loop().call_later(_PATIENCE, self._give_up, link, asked)

        def answered(asked: Later) -> None:
            try:
                body = asked.result()
                assert isinstance(body, bytes)
                given = codec.object_in(body)
                versions = immutables.Map(given["versions"])
                applied = link.replica.wait_for(given["seq"])
            except TegaError as error:
                overdue.cancel()
                answer.resolve(error=error)
                return
            applied.then(lambda applied: done(applied, versions))

        def done(applied: Later, versions: immutables.Map[str, int]) -> None:
            overdue.cancel()
            try:
                seq = applied.result()
                assert isinstance(seq, int)
                answer.resolve(Result(seq, versions))
            except TegaError as error:
                answer.resolve(error=error)

        asked.then(answered)
        return answer

    def _give_up(self, link: Link, asked: Later) -> None:
        error = OutcomeUnknown(
            f"{link.peer}, which leads it, did not answer within {_PATIENCE:g} s: it may have been "
            "done. Send it again with the same transaction id",
            peer=link.peer,
        )
        if asked.done:
            link.replica.stop(error)
        else:
            link.give_up(asked)
            asked.resolve(error=error)


def as_json(done: Later) -> Later:
    """A `Result` to come, as other servers are told it."""
    answer = Later()

    def committed(done: Later) -> None:
        try:
            result = done.result()
            assert isinstance(result, Result)
            answer.resolve({"seq": result.seq, "versions": dict(result.versions)})
        except TegaError as error:
            answer.resolve(error=error)

    done.then(committed)
    return answer
