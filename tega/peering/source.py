"""What goes to a follower: the commits that it misses or the whole root, then every new one.

A source knows how far its follower is. It first brings it up to the newest state, in as many rounds
as that takes, and then is live: it passes on each commit as it is published. One that its follower
does not keep up with stops, and catches up again once there is room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tega.database import Database
from tega.log import roots
from tega.log.record import Logged
from tega.peering import codec
from tega.peering.codec import Chunk, Have
from tega.protocol import Peer
from tega.store.commit import Commit
from tega.store.history import Lead, State
from tega.store.node import ABSENT
from tega.store.overlay import taken_off

log = logging.getLogger(__name__)

#: A follower that has so many bytes still to take is not live.
MAX_BACKLOG: Final = 1 << 20

#: Characters of a root's text in one message.
_CHUNK: Final = 1 << 16

#: Commits that are sent one by one, most; from there on the whole root is less.
_MOST: Final = 20_000

#: So many commits of the log are read before others get their turn.
_PAUSE: Final = 100


def have_of(state: State, name: str) -> Have | None:
    """What there is of a root; None where its leader has not said yet."""
    life = state.life_of(name)
    root = state.roots.get(name)
    if not life:
        return None
    return Have(life, -1, "") if root is None else Have(life, root.version, root.chain)


class Source:
    """Feeds one follower.

    :param send: takes messages to it
    :param backlog: gives the bytes that it has still to take
    """

    def __init__(
        self, database: Database, send: Callable[[Peer], None], backlog: Callable[[], int]
    ) -> None:
        self._database = database
        self._send = send
        self._backlog = backlog
        self._position: dict[str, Have | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        # Nothing up to this number is news.
        self._cursor = 0
        self._stale_overlays: set[str] = set()
        self.live = False

    @property
    def roots(self) -> Iterable[str]:
        """What it feeds."""
        return self._position.keys()

    def start(self, have: Mapping[str, Have | None]) -> None:
        """Feed these roots from now on, to one that has this of them."""
        self._position = dict(have)
        self._begin()

    def stop(self) -> None:
        """Feed nothing more."""
        self.live = False
        self._position = {}
        if self._task is not None:
            self._task.cancel()

    def restart(self) -> None:
        """News are missing: bring the follower up again."""
        self._begin()

    def drained(self) -> None:
        """The follower has taken all that it was sent."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _begin(self) -> None:
        self.live = False
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._catch_up())

    # -- live -----------------------------------------------------------------------------------

    def offer(self, commit: Commit) -> None:
        """Pass on a commit that is published, as far as it is about what is fed."""
        if not self.live or commit.seq <= self._cursor:
            return
        names = {name for name, _ in commit.versions} & self._position.keys()
        if commit.adopted or (commit.follows and not commit.versions):
            if any(name in self._position for name, _ in commit.follows):
                self._begin()
            return
        if not commit.versions:
            # Ephemeral nodes that came or went with no version of the root.
            self._stale_overlays |= {
                change.path[0] for change in commit.changes
            } & self._position.keys()
        if not names:
            return
        if self._backlog() > MAX_BACKLOG:
            log.info("a follower falls behind at number %d", commit.seq)
            self._begin()
            return
        self._pass(commit, names, whole=True)

    def round_ends(self) -> None:
        """All that is published has been offered."""
        names, self._stale_overlays = self._stale_overlays, set()
        if self.live:
            for name in sorted(names):
                self._lay(name, self._database.state)

    def _pass(self, commit: Commit, names: set[str], whole: bool) -> None:
        lead = next((lead for name, lead in commit.follows if name in names), None)
        if lead is None:
            lead = Lead(self._database.tega_id, self._database.state.life, commit.seq)
        self._send(codec.commit_of(commit, names, lead.leader, lead.seq, whole))
        chains = dict(commit.chains)
        for name, version in commit.versions:
            if name in names:
                self._position[name] = Have(lead.life, version, chains[name])

    def _lay(self, name: str, state: State) -> None:
        root = state.roots.get(name)
        if root is None:
            self._send(codec.overlay_of(name, -1, state.seq, ()))
            return
        nodes = () if root.content is ABSENT else taken_off(root.content, root.version, (name,))
        self._send(codec.overlay_of(name, root.version, state.seq, nodes))

    # -- catching up ----------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        while True:
            state = self._database.state
            missing = [name for name in sorted(self._position) if not self._is_at(name, state)]
            if not missing:
                break
            await self._bring(missing, state)
        for name in sorted(self._position):
            if have_of(state, name) is not None:
                self._lay(name, state)
        self._cursor = state.seq
        self._stale_overlays.clear()
        self._database.hub.hold()
        self.live = True

    def _is_at(self, name: str, state: State) -> bool:
        have = have_of(state, name)
        return have is None or have == self._position[name]

    async def _bring(self, names: list[str], state: State) -> None:
        """Bring the follower nearer to a state."""
        behind = {}
        whole = []
        for name in names:
            have, there = self._position[name], have_of(state, name)
            assert there is not None
            if have is not None and have.life == there.life and have.version < there.version:
                behind[name] = have
            else:
                whole.append(name)
        left = await self._from_memory(behind, state)
        led_here = {n: have for n, have in left.items() if n not in state.following}
        unknown = await self._from_history(led_here, state)
        for name in sorted({*whole, *unknown, *(left.keys() - led_here.keys())}):
            await self._whole(name, state)

    async def _from_memory(self, behind: dict[str, Have], state: State) -> dict[str, Have]:
        """Send what the commits in memory lead on with.

        :returns: the roots of which they do not reach back far enough
        """
        commits = [one for one in self._database.hub.kept() if one.seq <= state.seq]
        anchors: dict[str, int] = {}
        for commit in commits:
            chains = dict(commit.chains)
            for name, version in commit.versions:
                have = behind.get(name)
                if have is not None and have == Have(have.life, version, chains[name]):
                    anchors[name] = commit.seq
            for name, _ in commit.adopted:
                if anchors.get(name) != commit.seq:
                    anchors.pop(name, None)
        for commit in commits:
            names = {n for n, _ in commit.versions if anchors.get(n, commit.seq) < commit.seq}
            if names:
                self._pass(commit, names, whole=False)
                await self._wait_for_room()
        return {name: have for name, have in behind.items() if name not in anchors}

    async def _from_history(self, behind: dict[str, Have], state: State) -> set[str]:
        """Send what the commits in the log lead on with.

        :returns: the roots of which they do not reach back far enough
        """
        if not behind:
            return set()
        found: list[Logged] = []
        anchors: dict[str, int] = {}
        wanted = {name: have.version - 1 for name, have in behind.items()}
        for logged in self._database.history(wanted):
            if logged is None or len(found) % _PAUSE == _PAUSE - 1:
                await asyncio.sleep(0)
            if logged is None:
                continue
            if logged.seq > state.seq or len(found) > _MOST:
                break
            for name, version in logged.extras.versions.items():
                have = behind.get(name)
                if have is None:
                    continue
                if name in logged.extras.adopted:
                    anchors.pop(name, None)
                if version == have.version and logged.extras.chain[name] == have.chain:
                    anchors[name] = logged.seq
            found.append(logged)
        if len(found) > _MOST:
            anchors = {}
        for logged in found:
            names = {
                n for n in logged.extras.versions if anchors.get(n, logged.seq) < logged.seq
            }
            if names:
                self._send(codec.logged_of(logged, names, self._database.tega_id))
                for name in names:
                    version, chain = logged.extras.versions[name], logged.extras.chain[name]
                    self._position[name] = Have(state.life, version, chain)
                await self._wait_for_room()
        return behind.keys() - anchors.keys()

    async def _whole(self, name: str, state: State) -> None:
        """Send a root as it is, with its history."""
        lead = state.following.get(name) or Lead(self._database.tega_id, state.life, state.seq)
        told = (lead.leader, lead.life, lead.seq)
        root = state.roots.get(name)
        if root is not None:
            log.info("%s is sent whole, %d versions", name, root.version - root.first + 1)
            text = ""
            for piece in roots.lines(root, lead.leader):
                text += piece.decode()
                if len(text) >= _CHUNK:
                    self._send(codec.chunk_of(Chunk(name, told, text)))
                    text = ""
                    await self._wait_for_room()
            self._send(codec.chunk_of(Chunk(name, told, text)))
        self._send(codec.chunk_of(Chunk(name, told, last=True)))
        self._position[name] = have_of(state, name)
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._backlog() > MAX_BACKLOG:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

