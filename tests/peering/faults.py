"""A simulated network between named servers: slow, unreliable, and the same again for a seed.

Each message goes as text, in order, after a delay that changes. It is lost only together with its
connection. Faults are methods of `Network`; `Network.trouble` picks some at random.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from virtual import VirtualLoop
from wires import REFUSED, End, Route

from tega.peering.wire import Receiver, Wire
from tega.protocol import Message, Role, Session, SessionAck

#: Seconds until a server that says nothing is gone, and until one that has not answered is absent.
PING_TIMEOUT: Final = 30.0
DIAL_TIMEOUT: Final = 10.0


@dataclass
class _Listener:
    accept: Callable[[Wire, str], Receiver]
    ack: Callable[[], SessionAck]
    ping_timeout: float
    context: contextvars.Context


class Network:
    """The routes and the connections between servers.

    Whoever listens or dials is called in the context in which it did: see `virtual.Process`.

    :param random: decides whatever is left to chance
    :param trace: is told what happens
    :param latency: least and most seconds from one server to another, both more than 0
    :param duplicable: whether a message may come twice
    :param duplicates: the share of those which do
    :ivar delivered: how many messages have arrived
    :ivar plan: what to do right before the message of that number arrives; it may prevent that
    :ivar refusals: what receivers have raised, each time the end of its connection
    """

    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        trace: Callable[[str], None],
        latency: tuple[float, float] = (0.001, 2.0),
        duplicable: Callable[[Message], bool] = lambda message: False,
        duplicates: float = 0.1,
    ) -> None:
        self.loop = loop
        self.random = random
        self.trace = trace
        self.latency = latency
        self.duplicable = duplicable
        self.duplicates = duplicates
        self.context = contextvars.copy_context()
        self.delivered = 0
        self.plan: dict[int, Callable[[], None]] = {}
        self.refusals: list[str] = []
        self._dialed = 0
        self._routes: dict[tuple[str, str], Route] = {}
        self._listeners: dict[str, _Listener] = {}
        self._ends: list[End] = []

    # -- connections ----------------------------------------------------------------------------

    def listen(
        self,
        name: str,
        accept: Callable[[Wire, str], Receiver],
        ack: Callable[[], SessionAck],
        ping_timeout: float = PING_TIMEOUT,
    ) -> None:
        """Be there for whoever dials a name, until a crash.

        :param accept: gets the wire and the tega id of who dials, once `ack` is on its way
        """
        self._listeners[name] = _Listener(accept, ack, ping_timeout, contextvars.copy_context())

    def ignore(self, name: str) -> None:
        """Listen no more. Connections stay."""
        self._listeners.pop(name, None)

    def dial(
        self,
        source: str,
        target: str,
        tega_id: str,
        connected: Callable[[Wire, SessionAck], Receiver],
        ping_timeout: float = PING_TIMEOUT,
        timeout: float = DIAL_TIMEOUT,
    ) -> End:
        """Begin to connect one server to another. See `End.over` for when nothing comes of it.

        :param connected: is called when the other one has answered, before anything else comes
        """

        def acknowledged(end: End, message: Message) -> Receiver:
            assert isinstance(message, SessionAck)
            return connected(end, message)

        number = self._dialed = self._dialed + 1
        near = End(self, number, Role.CLIENT, source, target, acknowledged, ping_timeout)
        far = End(self, number, Role.SERVER, target, source, self._greet, PING_TIMEOUT)
        near.other, far.other = far, near
        far.context = self.context.copy()
        self._ends += (near, far)
        near.allow(timeout)
        if self.route(source, target).refused:
            far.close(REFUSED)
        near.send(Session(tega_id, "global"))
        return near

    def _greet(self, end: End, message: Message) -> Receiver | None:
        assert isinstance(message, Session)
        listener = self._listeners.get(end.here)
        if listener is None:
            end.close(REFUSED)
            return None
        end.ping_timeout = listener.ping_timeout
        end.context = listener.context
        end.send(listener.context.run(listener.ack))
        return listener.context.run(listener.accept, end, message.tega_id)

    def route(self, source: str, target: str) -> Route:
        """The way from one server to another."""
        if (source, target) not in self._routes:
            self._routes[source, target] = Route(self)
        return self._routes[source, target]

    def ends(self, *names: str) -> list[End]:
        """The ends of what connects two servers, or one with all others, or all."""
        return [end for end in self._ends if {*names} <= {end.here, end.there}]

    def forget(self, end: End) -> None:
        """An end is over."""
        if end.other.is_over:
            self._ends.remove(end)
            self._ends.remove(end.other)

    def interrupted(self) -> bool:
        """A message arrives: do what is planned for that.

        :returns: whether something was, so that the message may be gone
        """
        action = self.plan.pop(self.delivered + 1, None)
        if action is None:
            self.delivered += 1
            return False
        action()
        return True

    # -- faults ---------------------------------------------------------------------------------

    def cut(self, one: str, two: str) -> None:
        """Break all connections of two servers. Both are told, later; new ones can be made."""
        self.trace(f"cut {one} {two}")
        for end in self.ends(one, two):
            end.sever()

    def refuse(self, one: str, two: str) -> None:
        """Let no new connections be made until `heal`."""
        self.trace(f"refuse {one} {two}")
        self.route(one, two).refused = self.route(two, one).refused = True

    def blackhole(self, source: str, target: str, both: bool = True) -> None:
        """Let nothing arrive any more until `heal`, without telling anybody.

        What is still connected then gets it after all; but ends close when they hear nothing.

        :param both: otherwise only what goes from `source` to `target` is held up
        """
        self.trace(f"blackhole {source} {target}{' both' if both else ''}")
        self.route(source, target).holed = True
        if both:
            self.route(target, source).holed = True
        for end in self.ends(source, target):
            if both or end.here == target:
                end.halt()

    def slow(self, one: str, two: str, rate: float) -> None:
        """Let only so many bytes a second through, in each direction, until `heal`."""
        self.trace(f"slow {one} {two} {rate:.0f}")
        self.route(one, two).rate = self.route(two, one).rate = rate

    def heal(self, *names: str) -> None:
        """Undo the faults between two servers, or of one of them, or all."""
        self.trace(f"heal {' '.join(names)}")
        for pair, route in self._routes.items():
            if {*names} <= {*pair}:
                route.heal()
        for end in self.ends(*names):
            end.resume()

    def orphan(self, dialer: str, listener: str) -> None:
        """Let the dialing end of each connection go, while the other one hears nothing of it.

        So it is where a router on the way forgets a connection. A new one comes beside the old one.
        """
        self.trace(f"orphan {dialer} {listener}")
        for end in self.ends(dialer, listener):
            if end.here == dialer:
                end.other.sever(None)
                end.finish("connection lost")

    def crash(self, name: str, told: bool | None = None) -> None:
        """Let all ends of a server vanish. It is not told, and listens no more.

        Who dials, and all else that the server does, ends with its `Process`.

        :param told: whether the others are, later; None: at random
        """
        if told is None:
            told = self.random.random() < 0.5
        self.trace(f"crash {name}{' told' if told else ''}")
        self.ignore(name)
        for end in self.ends(name):
            if end.here == name:
                if told:
                    end.other.sever()
                else:
                    end.other.sever(None)
                end.vanish()

    def trouble_once(self, dialer: str, listener: str) -> None:
        """A fault at random; where something is amiss already, as often the end of it."""
        routes = self.route(dialer, listener), self.route(listener, dialer)
        some = self.random.randrange(8)
        if any(route.troubled for route in routes) and self.random.random() < 0.5:
            self.heal(dialer, listener)
        elif some <= 1:
            self.cut(dialer, listener)
        elif some == 2:
            self.refuse(dialer, listener)
            self.cut(dialer, listener)
        elif some == 3:
            self.blackhole(dialer, listener)
        elif some == 4:
            source, target = self.random.sample([dialer, listener], 2)
            self.blackhole(source, target, both=False)
        elif some == 5:
            self.orphan(dialer, listener)
        else:
            self.slow(dialer, listener, 10 ** self.random.uniform(2, 5))

    async def trouble(
        self,
        pairs: Sequence[tuple[str, str]],
        seconds: float,
        pause: float = 5.0,
        others: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Faults at random for some time; then all is healed.

        :param pairs: who dials, and whom
        :param pause: seconds from one to the next, on average
        :param others: other things to do now and then, such as to crash and restart a server
        """
        until = self.loop.time() + seconds
        while True:
            await asyncio.sleep(self.random.expovariate(1 / pause))
            if self.loop.time() >= until:
                break
            if others and self.random.random() < 0.2:
                self.random.choice(others)()
            else:
                self.trouble_once(*self.random.choice(pairs))
        self.heal()
