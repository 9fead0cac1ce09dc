"""The two ends of a simulated connection, and the ways between servers. See `faults.Network`."""

from __future__ import annotations

import asyncio
import contextvars
import math
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tega.errors import TegaError
from tega.peering.wire import Receiver, Wire
from tega.protocol import Connection, Message, Role, parse

if TYPE_CHECKING:
    from faults import Network

T = TypeVar("T")

#: Why an end is closed.
SILENT: Final = "ping timeout"
RESET: Final = "connection reset"
REFUSED: Final = "connection refused"
UNANSWERED: Final = "no answer to SESSION"


class Route:
    """The way from one server to another.

    :ivar holed: nothing arrives, and nobody is told
    :ivar refused: no connection is made
    :ivar rate: bytes a second
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._latency = 0.0
        self._until = -1.0
        self.heal()

    def heal(self) -> None:
        """Be as good as new."""
        self.holed = False
        self.refused = False
        self.rate = math.inf

    @property
    def troubled(self) -> bool:
        """Whether there is anything to heal."""
        return self.holed or self.refused or self.rate < math.inf

    def delay(self) -> float:
        """How long the next message is under way, seconds."""
        random, (low, high) = self._network.random, self._network.latency
        now = self._network.loop.time()
        if now > self._until:
            self._latency = low * (high / low) ** random.random()
            self._until = now + random.uniform(1, 60)
        return min(high, max(low, self._latency * random.uniform(0.5, 1.5)))


@dataclass
class _Parcel:
    """A message under way, or the end of the connection.

    :ivar at: when it arrives, if what was sent before it has
    :ivar weight: bytes of the sender's backlog; 0: the sender does not know of it
    :ivar farewell: why the connection ends
    """

    text: bytes
    weight: int
    farewell: str | None = None
    at: float = 0.0


class End(Wire):
    """One end of a connection, and what is under way to it.

    :param number: of the connection, for the trace
    :param greeted: gets the first message, and gives what reads all others
    :ivar here: the server that has it
    :ivar there: the server that has the other end
    :ivar other: the other end
    :ivar open: it has not been closed, nor the server crashed
    :ivar receiver: what it is read by, once the two have greeted each other
    :ivar context: what the receiver runs in
    :ivar ping_timeout: seconds of silence
    """

    other: End

    def __init__(
        self,
        network: Network,
        number: int,
        role: Role,
        here: str,
        there: str,
        greeted: Callable[[End, Message], Receiver | None],
        ping_timeout: float,
    ) -> None:
        self._network = network
        self._loop = network.loop
        self._number = number
        self.here = here
        self.there = there
        self._greeted = greeted
        self.ping_timeout = ping_timeout
        self.open = True
        self.receiver: Receiver | None = None
        self.context = contextvars.copy_context()
        self._connection = Connection(role)
        self._backlog = 0
        self._over: asyncio.Future[str] = self._loop.create_future()
        # What comes, and when the last of it will be on its way.
        self._route = network.route(there, here)
        self._coming: deque[_Parcel] = deque()
        self._written = 0.0
        self._arrival: asyncio.TimerHandle | None = None
        # Whether nothing comes any more, and how long to wait for it.
        self._severed = False
        self._patience: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"{self.there}>{self.here}#{self._number}"

    # -- as a wire ------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        return self._backlog

    def send(self, message: Message) -> None:
        """See `Wire`.

        :raises NotUnderstood: for a message that may not come now; it is not sent
        """
        if not self.open:
            return
        text = self._connection.send(message).encode()
        self._backlog += len(text)
        self.other.expect(text, len(text))
        network = self._network
        if network.duplicable(message) and network.random.random() < network.duplicates:
            network.trace(f"{self.other} duplicate")
            self.other.expect(text, 0)

    def close(self, reason: str) -> None:
        """End the connection. What was sent before may still arrive; nothing arrives here."""
        if self.open:
            self.other.expect(b"", 0, reason)
            self.finish(reason)

    async def over(self) -> str:
        """Wait until it is closed, and the receiver knows.

        :returns: why
        """
        await asyncio.wait({self._over})
        return self._over.result()

    @property
    def is_over(self) -> bool:
        """Whether it is closed and the receiver knows, or the server crashed."""
        return self._over.done()

    # -- what happens to it ---------------------------------------------------------------------

    def allow(self, seconds: float) -> None:
        """Close it if it is not greeted in time."""
        self._wait(seconds, UNANSWERED)

    def halt(self) -> None:
        """The route is holed: what is under way stays where it is."""
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        self.watch()

    def resume(self) -> None:
        """The route is as it was: what is under way is sent again."""
        self.halt()
        parcels, self._coming = self._coming, deque()
        self._written = 0.0
        for parcel in parcels:
            self._plan(parcel)

    def sever(self, reason: str | None = RESET) -> None:
        """Lose what is under way from somewhere on, and whatever is still sent.

        :param reason: the end is told so; None: it has to find out
        """
        if self._severed or not self.open:
            return
        lost = self._network.random.randint(0, len(self._coming))
        for _ in range(lost):
            self._coming.pop()
        self._network.trace(f"{self} severed, lost {lost}")
        if reason is not None:
            self.expect(b"", 0, reason)
        self._severed = True
        self.watch()

    def finish(self, reason: str) -> None:
        """Be closed, without a word to the other end."""
        if not self.open:
            return
        self.open = False
        self._coming.clear()
        for timer in (self._arrival, self._patience):
            if timer is not None:
                timer.cancel()
        self._arrival = self._patience = None
        self._network.trace(f"{self} closed: {reason}")
        self._loop.call_soon(self._closed, reason, context=self.context)

    def vanish(self) -> None:
        """The server has crashed: there is nobody to be told."""
        self.receiver = None
        self.finish("crashed")
        self._closed("crashed")

    def _closed(self, reason: str) -> None:
        if self._over.done():
            return
        try:
            if self.receiver is not None:
                self.receiver.closed(reason)
        finally:
            self._over.set_result(reason)
            self._network.forget(self)

    # -- signs of life --------------------------------------------------------------------------

    def watch(self) -> None:
        """See whether there are still signs of life. The pings themselves are not simulated."""
        if self.receiver is None and self._patience is not None:
            return
        silent = self._severed or self._route.holed
        if silent and self._patience is None and self.open:
            self._wait(self.ping_timeout * self._network.random.uniform(1, 1.25), SILENT)
        elif not silent:
            self._be_patient()

    def _wait(self, seconds: float, reason: str) -> None:
        context = self._network.context
        self._patience = self._loop.call_later(seconds, self.close, reason, context=context)

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # -- what comes -----------------------------------------------------------------------------

    def expect(self, text: bytes, weight: int, farewell: str | None = None) -> None:
        """Something is under way to here."""
        if self.open and not self._severed:
            self._plan(_Parcel(text, weight, farewell))

    def _plan(self, parcel: _Parcel) -> None:
        written = max(self._loop.time(), self._written) + len(parcel.text) / self._route.rate
        self._written = written
        parcel.at = written + self._route.delay()
        self._coming.append(parcel)
        self._set_arrival()

    def _set_arrival(self) -> None:
        if self._arrival is None and self._coming and not self._route.holed:
            self._arrival = self._loop.call_at(
                self._coming[0].at, self._arrive, context=self._network.context
            )

    def _arrive(self) -> None:
        self._arrival = None
        now = self._loop.time()
        try:
            while self._coming and self._coming[0].at <= now and not self._route.holed:
                if self._coming[0].farewell is not None:
                    self.finish(self._coming[0].farewell)
                elif not self._network.interrupted():
                    self._take(self._coming.popleft())
        finally:
            self._set_arrival()

    def _take(self, parcel: _Parcel) -> None:
        text = parcel.text.decode()
        head = text.partition("\n")[0]
        self._network.trace(f"{self} {head} {zlib.crc32(parcel.text):08x}")
        # What the other side of a connection cannot read is an error of the simulation.
        message = self._connection.receive(text) if parcel.weight else parse(text)
        if self.receiver is not None:
            self.context.run(self._guarded, self.receiver.receive, message)
        else:
            self.receiver = self.context.run(self._guarded, self._greeted, self, message)
        if self.open:
            self._be_patient()
            self.watch()
        self.other.taken(parcel.weight)

    def taken(self, weight: int) -> None:
        """The other end has taken so many bytes."""
        self._backlog -= weight
        if weight and self._backlog == 0 and self.open:
            self._loop.call_soon(self._drained, context=self.context)

    def _drained(self) -> None:
        if self.open and self._backlog == 0 and self.receiver is not None:
            self._guarded(self.receiver.drained)

    def _guarded(self, work: Callable[..., T], *args: Any) -> T | None:
        """Let the receiver do something. If it refuses, that is the end of the connection."""
        try:
            return work(*args)
        except TegaError as error:
            self._network.refusals.append(f"{self}: {error}")
            self.close(str(error))
            return None
