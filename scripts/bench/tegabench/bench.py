"""One run of the benchmark: what it was asked to do, and the servers that it has started."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tegabench.process import Cores
from tegabench.result import Result, Workload
from tegabench.systems.base import Fillable, Server, System
from tegabench.systems.etcd import Etcd
from tegabench.systems.etcd_grpc import EtcdGrpc
from tegabench.systems.mosquitto import Mosquitto
from tegabench.systems.nats import Nats
from tegabench.systems.ovsdb import Ovsdb
from tegabench.systems.redis import Redis
from tegabench.systems.tega import Tega
from tegabench.systems.zookeeper import ZooKeeper
from tegabench.table import figure

AnyServer = TypeVar("AnyServer", bound=Server)

#: The peers, in the order of the table.
PEERS: tuple[type[Server], ...] = (Etcd, EtcdGrpc, ZooKeeper, Ovsdb, Redis, Nats, Mosquitto)


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    runs: int = 3
    #: Of one run of one contestant.
    seconds: float = 1.0
    #: In a large database.
    leaves: int = 1_000_000
    #: In a wide container.
    siblings: int = 100_000
    #: Before a restart.
    commits: int = 100_000
    #: Kept versions, where there are many.
    versions: int = 1000
    #: That are told of the same writes.
    subscribers: int = 100
    #: That have nothing to do with what is written.
    subscriptions: int = 10_000
    #: That say nothing.
    sessions: int = 5000
    #: Local servers of one global server.
    locals: int = 200
    #: Keys that are mirrored into tables.
    mirrored: int = 100_000


QUICK = Sizes(
    seconds=0.15,
    leaves=50_000,
    siblings=20_000,
    commits=5_000,
    subscriptions=2000,
    sessions=1000,
    locals=40,
    mirrored=5_000,
)


@dataclass
class Bench:
    """Shared by the workloads of one run."""

    directory: Path
    sizes: Sizes = field(default_factory=Sizes)
    cores: Cores = field(default_factory=Cores)
    peers: Sequence[type[Server]] = PEERS
    #: Count the syncs of the durable puts too.
    count_syncs: bool = False
    #: For the foot of the table.
    notes: list[str] = field(default_factory=list)
    quiet: bool = False
    #: Whether anything that was to be measured could not be.
    failed: bool = False

    def __post_init__(self) -> None:
        self._generations = itertools.count(1)
        self._running: list[Server] = []

    def generation(self) -> int:
        """A number for the tags of one measurement."""
        return next(self._generations)

    def say(self, text: str) -> None:
        """A line of progress."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line for the foot of the table, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.say(f"  note: {text}")

    def place(self, name: str) -> Path:
        """A new empty directory."""
        path = self.directory / f"{self.generation():04d}-{name}"
        path.mkdir(parents=True)
        return path

    def make(self, cls: type[AnyServer]) -> AnyServer | None:
        """A server that is not started yet; None, and a note, where it is not installed."""
        reason = cls.missing()
        if reason is not None:
            self.note(f"{cls.title} left out: {reason}")
            return None
        system = cls(self.place(cls.name), self.cores.server)
        self._running.append(system)
        return system

    def start(self, cls: type[AnyServer]) -> AnyServer | None:
        """A running server with a first document at every key; None, and a note, without one."""
        system = self.make(cls)
        return system if system is not None and self.launch(system) else None

    def launch(self, system: Server) -> bool:
        """Start a server and write its first documents; a note where that fails."""
        try:
            self.say(f"  {system.title}: start {system.start():.2f} s")
            system.prepare()
        except Exception as error:  # a contestant that fails must not take the others along
            self.fail(system.title, error)
            system.stop()
            return False
        return True

    def fail(self, title: str, error: Exception) -> str:
        """Say and remember that something did not work; the text that was said."""
        text = " ".join(f"{title} failed: {type(error).__name__}: {error}".split())
        self.failed = True
        self.note(text)
        return text

    def rivals(self) -> list[type[System]]:
        """tega and the chosen stores."""
        return [Tega, *[cls for cls in self.peers if issubclass(cls, System)]]

    def fillable(self) -> list[type[Fillable]]:
        """Those that can be loaded with many small leaves."""
        return [cls for cls in self.rivals() if issubclass(cls, Fillable)]

    @contextmanager
    def servers(self) -> Iterator[None]:
        """Stop at the end of the block every server that was made in it."""
        try:
            yield
        finally:
            while self._running:
                self._running.pop().stop()

    def run(self, workload: Workload) -> Result:
        """Measure the contestants in turn, as often as there are runs."""
        result = Result(workload)
        for run in range(1 if workload.once else self.sizes.runs):
            for contestant in workload.contestants:
                title = contestant.title
                if title in result.failures:
                    continue
                try:
                    sample = contestant.measure()
                except Exception as error:  # as in launch
                    result.failures[title] = self.fail(f"{title} in {workload.title!r}", error)
                    continue
                result.samples.setdefault(title, []).append(sample)
                self.say(f"  run {run + 1}, {title}: {figure(sample.value)} {workload.unit}")
        return result
