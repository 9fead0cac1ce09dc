"""Sessions of one server with ephemeral nodes on another: the nodes go when the session does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from tega.database import Database
from tega.errors import NoSession, TegaError
from tega.paths import dotted
from tega.peering.link import Link
from tega.store.commit import Change, Put, Rollback, Transaction, make_put
from tega.store.node import thaw
from tega.web.later import Later

log = logging.getLogger(__name__)


class Guests:
    """Who is a guest here, and who of here is one elsewhere; peers go by their tega ids.

    :param leave: ends the session that a tega id had at a peer
    :param links: gives the connected peers
    :param submit: commits something where it has to be
    """

    def __init__(
        self,
        database: Database,
        leave: Callable[[str, str], None],
        links: Callable[[], Iterable[Link]],
        submit: Callable[[Transaction], Later],
    ) -> None:
        self._submit = submit
        self._database = database
        self._leave = leave
        self._links = links
        self._here: dict[str, set[str]] = {}
        self._there: dict[str, set[str]] = {}

    # -- of others, here --------------------------------------------------------------------------

    def welcome(self, peer: str, request: Transaction) -> None:
        """Let those sessions at a peer that a request is of have ephemeral nodes here."""
        for owner in _owners(request):
            self._here.setdefault(peer, set()).add(owner)
            self._database.join(owner, peer)

    def are(self, peer: str, tega_ids: Iterable[str]) -> None:
        """A peer says which of its sessions with ephemeral nodes here are live."""
        live = set(tega_ids)
        for tega_id in sorted(live):
            self._here.setdefault(peer, set()).add(tega_id)
            self._database.join(tega_id, peer)
        self.left(peer, self._here.get(peer, set()) - live)

    def left(self, peer: str, tega_ids: Iterable[str]) -> None:
        """Sessions at a peer have ended."""
        here = self._here.get(peer, set())
        for tega_id in sorted(here & set(tega_ids)):
            here.discard(tega_id)
            self._leave(tega_id, peer)
            self.ended(tega_id)

    # -- of here, at others -----------------------------------------------------------------------

    def hold(self, peer: str, request: Transaction | Rollback, through: str) -> None:
        """Remember who gets ephemeral nodes at a peer.

        :param through: the peer that the request comes from
        :raises NoSession: where somebody has no live session
        """
        for owner in _owners(request):
            if not self._database.is_live(owner, through):
                raise NoSession(
                    f"{owner} has no live session, so it cannot have an ephemeral node: start a "
                    "session first, or put it without ephemeral",
                    tega_id=owner,
                )
            self._there.setdefault(peer, set()).add(owner)

    def held_at(self, peer: str) -> list[str]:
        """The live sessions that may have ephemeral nodes at a peer."""
        held = self._there.get(peer, set())
        held &= set(self._database.live_ids())
        return sorted(held)

    def ended(self, tega_id: str) -> None:
        """A session has ended: peers where it has ephemeral nodes are told, unless it has more."""
        if tega_id in self._database.live_ids():
            return
        for link in self._links():
            there = self._there.get(link.peer, set())
            if tega_id in there:
                there.discard(tega_id)
                link.tell_left(tega_id)


    def put_again(self, dropped: Iterable[Change]) -> None:
        """A leader has lost ephemeral nodes, in a restart: those of sessions that live return."""
        for change in dropped:
            owner = change.tega_id
            if not self._database.is_live(owner):
                continue
            log.info("%s of %s is put again", dotted(change.path), owner)
            value = thaw(change.content)
            operation = make_put(change.path, value, None, owner, ephemeral=True)
            try:
                self._submit(Transaction((operation,), owner)).then(_tell_refusal)
            except TegaError as error:
                log.warning("%s of %s is lost: %s", dotted(change.path), owner, error)


def _tell_refusal(done: Later) -> None:
    try:
        done.result()
    except TegaError as error:
        log.warning("an ephemeral node is lost: %s", error)


def _owners(request: Transaction | Rollback) -> list[str]:
    """Who gets ephemeral nodes by a request."""
    if isinstance(request, Rollback):
        return []
    return [
        one.tega_id or request.tega_id
        for one in request.operations
        if isinstance(one, Put) and one.ephemeral
    ]

