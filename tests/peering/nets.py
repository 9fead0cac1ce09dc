"""A simulated network with receivers that only keep what they hear."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from faults import Network
from virtual import Simulation, run
from wires import End

from tega.peering.wire import Wire
from tega.protocol import Message, Notify, SessionAck

#: Seconds until an end that hears nothing is closed.
PING = 10.0


@dataclass
class Ear:
    """A receiver that keeps what it gets."""

    wire: Wire
    time: Callable[[], float]
    peer: str = ""
    heard: list[tuple[float, int]] = field(default_factory=list)
    drains: int = 0
    ends: list[tuple[float, str]] = field(default_factory=list)
    on_number: Callable[[int], None] = lambda number: None

    def receive(self, message: Message) -> None:
        assert not self.ends
        assert isinstance(message, Notify)
        number = int(message.body)
        self.heard.append((self.time(), number))
        self.on_number(number)

    def drained(self) -> None:
        assert not self.ends
        assert self.wire.backlog == 0
        self.drains += 1

    def closed(self, reason: str) -> None:
        self.ends.append((self.time(), reason))

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.heard]

    @property
    def end(self) -> tuple[float, str]:
        (end,) = self.ends
        return end

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.wire.send(Notify(str(number).encode()))


class Net:
    """A network on which g listens, and whoever dials it."""

    def __init__(self, simulation: Simulation, **options: Any) -> None:
        self.simulation = simulation
        self.loop = simulation.loop
        self.network = Network(simulation.loop, simulation.random, simulation.trace, **options)
        self.accepted: list[Ear] = []
        self.connected: list[Ear] = []
        self.listen()

    def listen(self) -> None:
        self.network.listen("g", self.accept, lambda: SessionAck("global", "life", 7), PING)

    def ear(self, wire: Wire, peer: str) -> Ear:
        return Ear(wire, self.loop.time, peer)

    def accept(self, wire: Wire, tega_id: str) -> Ear:
        self.accepted.append(self.ear(wire, tega_id))
        return self.accepted[-1]

    def connect(self, wire: Wire, ack: SessionAck) -> Ear:
        self.connected.append(self.ear(wire, ack.tega_id))
        return self.connected[-1]

    def dial(self, name: str = "a") -> End:
        return self.network.dial(name, "g", f"id-{name}", self.connect, PING)

    async def pair(self, name: str = "a") -> tuple[Ear, Ear]:
        """Connect: the ears of the two ends."""
        count = len(self.connected)
        self.dial(name)
        while len(self.connected) == count:
            await self.wait(0.01)
        return self.connected[-1], self.accepted[-1]

    async def wait(self, seconds: float) -> None:
        ended = self.loop.create_future()
        self.loop.call_later(seconds, ended.set_result, None)
        await ended

    def check_quiet(self) -> None:
        """Nothing is left of any connection."""
        assert self.network.ends() == []
        assert self.loop.pending_timers() == []
        assert len(self.loop.pending_tasks()) == 1


def on_net(work: Callable[[Net], Coroutine[Any, Any, None]], seed: int = 0, **options: Any) -> None:
    async def scenario(simulation: Simulation) -> None:
        await work(Net(simulation, **options))

    run(scenario, seed)
