"""Servers in a simulation: database, committer and peers of the product, no sockets, no disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeGuard

from faults import Network
from simdialer import SimDialer
from virtual import Process, Simulation

from tega import strictjson
from tega.database import Database
from tega.errors import NoSuchFunction, TegaError
from tega.log import record, snapshot
from tega.log.base import Progress, Settings, Snapshot
from tega.log.memory import MemoryLog
from tega.paths import Path, dotted
from tega.peering.link import Link
from tega.peering.peers import Peers
from tega.peering.wire import Receiver, Wire
from tega.protocol import Message, Request, SessionAck
from tega.store.commit import Own, Rollback, Transaction
from tega.store.history import Result, Root, State
from tega.web.committer import Committer
from tega.web.later import Later

#: Seconds until what is ephemeral of a silent server goes.
PATIENCE = 30.0


class _Committer(Committer):
    """Judges everything on the loop: when a thread is done, chance would decide."""

    def _is_long(self, request: Any) -> TypeGuard[Own]:
        return False


class SimLog(MemoryLog):
    """A log that outlives the crashes of its server, and whose snapshots forget what was before."""

    def __init__(self, new_life: Callable[[], str]) -> None:
        super().__init__(new_life)
        self._base = b""

    def recover(self, settings: Settings, progress: Progress | None = None) -> State:
        if self._base:
            self._start = snapshot.read(record.read_one(self._base, 0), settings.maxlen)
        return super().recover(settings, progress)

    def snapshot(self, state: State) -> Snapshot:
        return _Snapshot(self, state)

    def clear(self, state: State) -> None:
        super().clear(state)
        self._base = _written(state)

    def replace(self, state: State) -> None:
        """Let a state be all that there is."""
        self._base = _written(state)
        self._texts = []


class _Snapshot(Snapshot):
    def __init__(self, log: SimLog, state: State) -> None:
        self._log = log
        self._state = state

    def steps(self) -> Iterator[None]:
        return iter(())

    def install(self) -> None:
        self._log.replace(self._state)

    def discard(self) -> None:
        """Nothing was made yet."""


def _written(state: State) -> bytes:
    pieces: list[bytes] = []
    for _ in snapshot.write(state, "sim", "2026-11-21T00:00:00.000000Z", pieces.append):
        pass
    return b"".join(pieces)


class Server:
    """A server that can crash and start again with its log.

    :param up: the name of its global server
    """

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        name: str,
        up: str | None = None,
        config: tuple[str, ...] = (),
        operational: tuple[str, ...] = (),
        resume: int = 40,
    ) -> None:
        self.name = name
        self.up = up
        self.config = config
        self.operational = operational
        self._resume = resume
        self._simulation = simulation
        self._network = network
        self._random: Random = simulation.random
        self.log = SimLog(self._new_life)
        self.aside: list[tuple[str, int]] = []
        #: Calls that functions here have run, by the number in their arguments.
        self.ran: list[int] = []
        self.started: list[Callable[[Server], None]] = []
        self.alive = False
        self.sessions: set[str] = set()
        self._tick = 0

    def _new_life(self) -> str:
        return f"{self._random.getrandbits(64):016x}"

    def _clock(self) -> str:
        self._tick += 1
        return f"2026-11-21T00:00:00.{self._tick % 1_000_000:06d}Z"

    # -- life and death -------------------------------------------------------------------------

    def start(self) -> None:
        """Start with what the log has."""
        self.process = Process(self._simulation.loop, self.name)
        self.process.run(self._start)

    def _start(self) -> None:
        self._simulation.trace(f"start {self.name}")
        self.database = Database(
            self.log, self.name, maxlen=4, clock=self._clock, resume=self._resume,
            lives=self._new_life,
        )  # fmt: skip
        self.committer = _Committer(self.database)
        self.peers = Peers(
            self.database, self.committer.enter_here, self.committer.leave, self._call,
            self._set_aside, config=self.config, operational=self.operational,
            patience=PATIENCE, where=self.up,
        )  # fmt: skip
        self.committer.elsewhere = self.peers.writes.submit
        self.committer.left = self.peers.session_ended
        self.functions: dict[Path, str] = {}
        self.alive = True
        for begun in self.started:
            begun(self)
        self._network.listen(self.name, self._accept, self._ack, PATIENCE)
        self.dialer: SimDialer | None = None
        if self.up is not None:
            self.dialer = SimDialer(
                self._network, self.name, self.up, self.name,
                lambda wire, ack: self.peers.connected(wire, ack.tega_id), self._random, PATIENCE,
            )  # fmt: skip
            self.dialer.start()

    def crash(self) -> None:
        """End at once: what is not in the log is lost."""
        self.alive = False
        self.sessions.clear()
        self.process.kill()
        self._network.crash(self.name)

    def _ack(self) -> SessionAck:
        return SessionAck(self.name, self.database.state.life, self.database.state.seq)

    def _accept(self, wire: Wire, tega_id: str) -> Receiver:
        return _Session(self, wire, tega_id)

    def _set_aside(self, root: Root, why: str) -> str:
        self.aside.append((root.name, root.version))
        return f"aside of {self.name}"

    # -- what users do --------------------------------------------------------------------------

    def commit(self, request: Transaction | Rollback) -> Later:
        """Have something committed, as a client of this server: its `Result`."""
        answer = Later()

        def settled(pending: Any) -> None:
            try:
                result = pending.result()
                assert isinstance(result, Result)
                answer.resolve(result)
            except TegaError as error:
                answer.resolve(error=error)

        self.process.run(self.committer.enter, request, settled)
        return answer

    def join(self, tega_id: str) -> None:
        """A session begins."""
        self.sessions.add(tega_id)
        self.database.join(tega_id)

    def leave(self, tega_id: str) -> None:
        """A session ends."""
        self.sessions.discard(tega_id)
        self.process.run(self.committer.leave, tega_id)

    def clear(self) -> None:
        """Forget everything."""
        self.process.run(self.database.clear)

    def call(self, path: Path, number: int) -> Later:
        """Call a function, as a client of this server."""
        body = strictjson.dumps({"args": [number], "kwargs": {}})
        return self.process.run(self._call, path, body, "caller", 10.0, None)

    def _call(
        self, path: Path, body: bytes, caller: str, seconds: float, came: Link | None
    ) -> Later:
        """As `tega.web.calls` does, with functions that only count."""
        owner = self.functions.get(path)
        if owner is not None:
            (number,) = strictjson.loads(body)["args"]
            self.ran.append(number)
            answer = Later()
            answer.resolve(strictjson.dumps([self.name, number]))
            return answer
        elsewhere = self.peers.routing.call(path, body, caller, seconds, came)
        if elsewhere is None:
            raise NoSuchFunction(f"{self.name} has no function at {dotted(path)}")
        return elsewhere


class _Session:
    """The accepting end of a connection, as a session of the server does it."""

    def __init__(self, server: Server, wire: Wire, tega_id: str) -> None:
        self._server = server
        self._wire = wire
        self._tega_id = tega_id
        self._link: Link | None = None

    def receive(self, message: Message) -> None:
        if self._link is None:
            assert isinstance(message, Request)
            assert message.type == "SYNC"
            self._link = self._server.peers.accepted(self._wire, self._tega_id)
        self._link.receive(message)

    def drained(self) -> None:
        if self._link is not None:
            self._link.drained()

    def closed(self, reason: str) -> None:
        if self._link is not None:
            self._link.closed(reason)
