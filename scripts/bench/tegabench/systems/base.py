"""What the harness asks of a server: start, be asked in its own protocol, show what it holds."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from tegabench import values
from tegabench.client import Conversation, Subscriber, drive
from tegabench.process import BenchError, Process, free_port

#: A limit is the bare machine or library; tega is what this is about; a peer is another store.
Role = Literal["limit", "tega", "peer"]

#: One document read, one durable write, ten durable writes as one transaction.
Kind = Literal["get", "put", "tx"]

#: Documents that each connection has for itself, so that it knows what each must hold.
KEYS = 16

#: Puts in a transaction.
BATCH = 10

#: Most connections of a measurement.
CONNECTIONS = 64


class Server(ABC):
    """A server, started for this run on 127.0.0.1 with its data in ``directory``."""

    #: For the command line and the file system.
    name: ClassVar[str]
    #: For people.
    title: ClassVar[str]
    role: ClassVar[Role] = "peer"
    #: Whether one connection can have several requests under way.
    pipelined: ClassVar[bool] = True

    def __init__(self, directory: Path, cores: frozenset[int] | None) -> None:
        self.directory = directory
        self.address = ("127.0.0.1", free_port())
        self._cores = cores
        self._process: Process | None = None

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Why it cannot run here and what to install; None when it can."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that serves ``directory`` at ``address``."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers; OSError while nobody listens."""

    def prepare(self) -> None:  # noqa: B027 - most that keep nothing need none
        """Make it ready to be measured, once it runs."""

    @property
    def process(self) -> Process:
        """The running server."""
        if self._process is None:
            raise BenchError(f"{self.title} is not running")
        return self._process

    def start(self, ready: Callable[[], bool] | None = None) -> float:
        """Start it and wait until it answers.

        :param ready: asked instead of :meth:`ready`
        :returns: the seconds that it took
        :raises BenchError: when it does not come up
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self._process = Process(self.command(), self.directory / "output.txt", self._cores)
        try:
            self._process.wait_ready(ready or self.ready)
        except BenchError as error:
            self.stop()
            raise BenchError(f"{self.title}: {error}") from None
        return time.perf_counter() - started

    def stop(self) -> None:
        """End the server, if it runs, and wait for its end."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would, and wait for its end."""
        self.process.kill()
        self._process = None

    def spread(self, make: Callable[[int], Conversation], in_flight: int) -> list[Conversation]:
        """So many operations in flight: over up to 8 connections where one carries several.

        :param make: gives the conversation of a connection, by its number
        """
        connections = min(in_flight, 8) if self.pipelined else in_flight
        made = [make(connection) for connection in range(connections)]
        for conversation in made:
            conversation.depth = in_flight // connections
        return made


class System(Server):
    """A store."""

    #: What makes its acknowledged writes durable.
    durable: ClassVar[str]

    @abstractmethod
    def prepare(self) -> None:
        """Write a first document at every key."""

    @abstractmethod
    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        """Operations of one kind on the keys of one connection.

        :param generation: of the tags that are written
        """

    @abstractmethod
    def tags(self, connection: int) -> list[bytes]:
        """The tags of the documents that the server holds for that connection, key by key."""

    def revision(self) -> int | None:
        """How many commits of documents it counts so far; None where it does not count."""
        return None

    def conversations(self, kind: Kind, in_flight: int, generation: int) -> list[Conversation]:
        """So many operations in flight, each connection on keys of its own."""
        return self.spread(lambda c: self.conversation(kind, c, generation), in_flight)


class Announcer(Server):
    """A server that tells its subscribers what was written or published."""

    #: Whether what it tells was written durably before.
    tells_durable: ClassVar[bool] = True
    #: Whether it tells only that there was a write, and where.
    event_only: ClassVar[bool] = False
    #: Finds in what a subscriber got the numbers that must rise.
    order: ClassVar[re.Pattern[bytes] | None] = None

    @abstractmethod
    def announcements(self, in_flight: int, generation: int) -> list[Conversation]:
        """Operations each of which is one notification for every subscriber."""

    @abstractmethod
    def subscriber(self, number: int) -> Subscriber:
        """One that is told of all announcements."""


class Fillable(System):
    """A server that can be loaded with many small leaves."""

    @abstractmethod
    def fill(self, leaves: int) -> None:
        """Write so many leaves, in transactions as large as the server allows, up to 1000."""

    @abstractmethod
    def leaf_writer(self, ask: Callable[[int], tuple[int, int]], new: bool) -> Conversation:
        """Commits of one small leaf each.

        :param ask: gives for the n-th operation the number of the leaf and what to write to it
        :param new: whether each leaf is written once, so that it is not there before
        """

    @abstractmethod
    def leaf(self, number: int) -> int | None:
        """What a leaf holds; None when it is absent, OSError while nobody listens."""

    @abstractmethod
    def leaves(self, count: int) -> list[int]:
        """What the leaves from number 0 on hold."""

    def commits(self, count: int, wide: bool) -> None:
        """Make so many commits of one small leaf, over 64 connections.

        The n-th writes ``n``, to a leaf of its own in a wide tree, or else to one of 64.
        """

        def writer(connection: int) -> Conversation:
            def ask(serial: int) -> tuple[int, int]:
                n = connection + serial * CONNECTIONS
                return (n if wide else connection), n

            made = self.leaf_writer(ask, wide)
            made.limit = len(range(connection, count, CONNECTIONS))
            return made

        drive([writer(connection) for connection in range(CONNECTIONS)], seconds=300, most=count)


def committed(count: int, wide: bool) -> list[int]:
    """What the leaves must hold after so many :meth:`Fillable.commits`."""
    if wide:
        return list(range(count))
    return [max(range(c, count, CONNECTIONS)) for c in range(CONNECTIONS)]


def expected(kind: Kind, connection: int, generation: int, done: int) -> Mapping[int, bytes]:
    """What the keys of a connection must hold after so many acknowledged operations.

    :returns: key number to tag, for the keys that were written
    """
    if kind == "get" or not done:
        return {}
    if kind == "tx":
        last = values.tag(generation, connection, done - 1)
        return dict.fromkeys(range(BATCH), last)
    return {
        serial % KEYS: values.tag(generation, connection, serial)
        for serial in range(max(0, done - KEYS), done)
    }
