"""A local server as tega puts it together, but for its HTTP side, and with memory for a disk."""

from __future__ import annotations

import time
from random import Random
from typing import Any

from tega.database import Database, new_life
from tega.errors import NoSuchFunction
from tega.log.memory import MemoryLog
from tega.peering.dialer import Dialer
from tega.peering.peers import Peers
from tega.store.commit import Transaction, make_put
from tega.web.committer import Committer
from tegabench.httpwire import Address


class Local:
    """A local server that dials at once.

    :param root: the root that it follows
    :ivar version: the newest one of that root that is applied here; -1 before the first
    :ivar when: since when that is so, by ``time.perf_counter``
    """

    def __init__(self, address: Address, number: int, root: str, random: Random) -> None:
        tega_id = f"local-{number:05d}"
        self._root = root
        self._own = f"own-{number:05d}"
        self.version = -1
        self.when = 0.0
        self._database = Database(MemoryLog(new_life), tega_id)
        self._committer = Committer(self._database, self._settled)
        host, port = address
        self._peers = Peers(
            self._database, self._committer.enter_here, self._committer.leave, _call, _aside,
            config=(root,), operational=(self._own,), where=f"{host}:{port}",
        )  # fmt: skip
        self._committer.elsewhere = self._peers.writes.submit
        self._committer.left = self._peers.session_ended
        put = make_put((self._own, "number"), number)
        self._committer.submit(Transaction((put,), tega_id))
        self._dialer = Dialer(
            host, port, tega_id, lambda wire, ack: self._peers.connected(wire, ack.tega_id),
            proxy=None, ping_interval=10.0, ping_timeout=30.0, random=random,
        )  # fmt: skip
        self._dialer.start()

    def _settled(self) -> None:
        root = self._database.state.roots.get(self._root)
        if root is not None and root.version != self.version:
            self.version, self.when = root.version, time.perf_counter()

    def has(self, version: int) -> bool:
        """Whether a version of the root that it follows is applied here."""
        return self.version >= version

    @property
    def converged(self) -> bool:
        """Whether it is connected, and each side has what the other one leads."""
        up = self._peers.up
        if up is None or not up.synced or self._root not in up.replica.caught_up:
            return False
        own = self._database.state.roots[self._own]
        return up.applied.get(self._own, {}).get(up.peer) == own.version

    async def stop(self) -> None:
        """End the connection, and be no more."""
        await self._dialer.stop()
        self._peers.close()
        self._committer.close()


def _call(*asked: Any) -> Any:
    raise NoSuchFunction("no function here")


def _aside(*replaced: Any) -> str:
    return "nowhere"
