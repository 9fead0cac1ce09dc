"""What comes from a leader: commits, roots and ephemeral nodes, on their way into the database.

Everything is submitted in the order in which it comes, so whatever has no place shows at once that
the two ends have gone apart; then the whole is asked for again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec

from tega.database import Database
from tega.errors import Diverged, Malformed, TegaError
from tega.log import roots
from tega.log.roots import Record
from tega.paths import dotted
from tega.peering import codec
from tega.pending import Pending
from tega.store.commit import Adoption, Change, Hide, Overlay, Request
from tega.store.history import Lead, Root
from tega.store.node import ABSENT
from tega.web.later import Later

log = logging.getLogger(__name__)

Submit: TypeAlias = Callable[[Request, Callable[[Pending], None]], None]

#: Sets a root aside before it is replaced; gives the place, for people.
Aside: TypeAlias = Callable[[Root, str], str]

#: Numbers of the peer whose own ones are remembered, for answers that come after what they are of.
_RECENT = 4096

_record = msgspec.json.Decoder(Record)


class Replica:
    """The roots that one peer feeds.

    :param peer: its tega id
    :param submit: commits something, and calls back when it is settled
    :param applied: is called with the versions of roots that are durable here now
    :param lost: is called with a reason where what comes has no place here
    :param dropped: is called with the ephemeral nodes that were here, and are not at the peer
    """

    def __init__(
        self,
        database: Database,
        peer: str,
        submit: Submit,
        aside: Aside,
        applied: Callable[[dict[str, int]], None],
        lost: Callable[[str], None],
        dropped: Callable[[list[Change]], None],
    ) -> None:
        self._database = database
        self._peer = peer
        self._submit = submit
        self._aside = aside
        self._applied = applied
        self._lost = lost
        self._dropped = dropped
        #: The newest version submitted of each root; None where what is here is not of its leader.
        self._position: dict[str, int] = {}
        self._texts: dict[str, list[str]] = {}
        self._hidden: set[str] = set()
        #: The roots that are as the peer has them, but for what is on its way.
        self.caught_up: set[str] = set()
        # How far the peer's own sequence is applied here, and who waits for which number of it.
        self._at = 0
        self._recent: dict[int, int] = {}
        self._barriers: list[tuple[str, str, int, Later]] = []
        self._waiting: list[tuple[int, Later]] = []

    def start(self, names: Iterable[str]) -> None:
        """These roots are about to come, from the beginning or from where they are here."""
        state = self._database.staged
        self._texts.clear()
        self._hidden.clear()
        self.caught_up.clear()
        self._position = {
            name: state.roots[name].version if name in state.roots else -1 for name in names
        }

    @property
    def roots(self) -> Iterable[str]:
        """What comes from there."""
        return self._position.keys()

    def newest(self, name: str) -> int:
        """The newest version of a root that has come, or was here before; -1 for none."""
        return self._position.get(name, -1)

    def wait_for(self, at: int) -> Later:
        """What the peer had at a sequence number of its own is durable here: the number here."""
        answer = Later()
        if at <= self._at:
            answer.resolve(self._recent.get(at, self._database.state.seq))
        else:
            self._waiting.append((at, answer))
        return answer

    def reaches(self, name: str, life: str, version: int) -> Later:
        """Resolved once a root is here at least as far as this."""
        answer = Later()
        self._barriers.append((name, life, version, answer))
        self._let_through()
        return answer

    def _let_through(self) -> None:
        state = self._database.state
        barriers, self._barriers = self._barriers, []
        for name, life, version, answer in barriers:
            root = state.roots.get(name)
            here = -1 if root is None else root.version
            if state.life_of(name) == life and here >= version:
                answer.resolve()
            else:
                self._barriers.append((name, life, version, answer))

    def stop(self, error: TegaError) -> None:
        """Nothing more comes from there."""
        waiting, self._waiting = self._waiting, []
        barriers, self._barriers = self._barriers, []
        for answer in [one[-1] for one in waiting] + [one[-1] for one in barriers]:
            answer.resolve(error=error)

    # -- what comes -----------------------------------------------------------------------------

    def commit(self, body: bytes) -> None:
        """A commit.

        :raises Malformed: where it cannot be read
        """
        request, at = codec.read_commit(body)
        versions = request.versions
        if not versions.keys() <= self._position.keys():
            raise Malformed(f"a commit on {codec.describe(versions)}, which nobody asked for")
        if all(version <= self._position[name] for name, version in versions.items()):
            # Sent twice, over a connection that ended and its successor.
            return
        if not request.whole:
            for name in versions.keys() - self._hidden:
                self._hidden.add(name)
                self._submit(Hide(name), _nothing)
        self._position.update(versions)
        self._enter(request, versions, at)

    def overlay(self, body: bytes) -> None:
        """The ephemeral nodes of a root, which is as the peer has it now.

        :raises Malformed: where they cannot be read
        """
        given = codec.read_overlay(body)
        if given.root not in self._position:
            raise Malformed(f"{given.root[:64]!r} is not asked for")

        self._hidden.discard(given.root)
        request = Overlay(given.root, given.version, given.laid(), self._peer)
        self._enter(request, {given.root: given.version}, given.at, whole=given.root)

    def chunk(self, body: bytes) -> None:
        """A piece of a root that comes whole.

        :raises Malformed: where it cannot be read
        """
        chunk = codec.read_chunk(body)
        name = chunk.root
        if name not in self._position:
            raise Malformed(f"{name[:64]!r} is not asked for")
        texts = self._texts.setdefault(name, [])
        if not chunk.last:
            texts.append(chunk.text)
            return
        del self._texts[name]
        root = self._read(name, "".join(texts))
        lead = Lead(*chunk.lead)
        here = self._database.state.roots.get(name)
        if here is not None and here.content is not ABSENT and not _same(here, root):
            try:
                place = self._aside(here, f"{lead.leader} leads it")
            except OSError as error:
                self._lost(f"{dotted((name,))} cannot be set aside: {error}")
                return
            log.warning(
                "%s version %d is replaced by what %s has; what was here is in %s",
                dotted((name,)), here.version, lead.leader, place,
            )  # fmt: skip
        self._position[name] = -1 if root is None else root.version
        request = Adoption(name, lead, root, self._peer)
        self._enter(request, {}, 0)

    def _read(self, name: str, text: str) -> Root | None:
        if not text:
            return None
        try:
            records = [_record.decode(line) for line in text.splitlines()]
            found = roots.read(records, self._database.maxlen)
        except (msgspec.DecodeError, KeyError) as error:
            raise Malformed(f"root {name[:64]!r}: {error}") from None
        if list(found) != [name]:
            raise Malformed(f"root {name[:64]!r} comes under other names")
        return found[name]

    def _enter(
        self, request: Request, versions: dict[str, int], at: int, whole: str | None = None
    ) -> None:
        """Commit what the peer had at a number of its own.

        :param whole: the root that is as the peer has it then
        """

        def settled(pending: Pending) -> None:
            try:
                pending.result()
            except Diverged as error:
                self._lost(error.message)
            except TegaError as error:
                log.error("what %s sends cannot be kept: %s", self._peer, error)
                self._lost(error.message)
            else:
                if whole is not None:
                    self.caught_up.add(whole)
                    told = pending.commit.changes if pending.commit is not None else ()
                    self._dropped([change for change in told if change.ope == "DELETE"])
                self._durable(versions, at, pending.result().seq)

        self._submit(request, settled)

    def _durable(self, versions: dict[str, int], at: int, seq: int) -> None:
        self._at = max(self._at, at)
        self._recent[at] = seq
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        if versions:
            self._applied(versions)
        ready = [answer for number, answer in self._waiting if number <= self._at]
        self._waiting = [one for one in self._waiting if one[0] > self._at]
        for answer in ready:
            answer.resolve(seq)
        self._let_through()


def _same(here: Root, root: Root | None) -> bool:
    return root is not None and (here.version, here.chain) == (root.version, root.chain)


def _nothing(pending: Pending) -> None:
    pending.result()
