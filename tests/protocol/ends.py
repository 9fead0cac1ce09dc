"""Both ends of a connection, each fed with what the other one says."""

from __future__ import annotations

import pytest

from tega import protocol
from tega.errors import Malformed
from tega.protocol import Connection, Role

#: How a connection gets into its states.
GREETING = {
    "new": [],
    "greeted": [("client", "SESSION cli-1 local")],
    "open": [
        ("client", "SESSION cli-1 local"),
        ("server", 'SESSIONACK global\n{"life":"9c41","seq":0}'),
    ],
}


class Ends:
    """Both ends of a connection, in a state."""

    def __init__(self, state: str = "new") -> None:
        self.client = Connection(Role.CLIENT)
        self.server = Connection(Role.SERVER)
        for who, wire in GREETING[state]:
            self.say(who, wire)

    def sender(self, who: str) -> Connection:
        return self.client if who == "client" else self.server

    def hearer(self, who: str) -> Connection:
        return self.server if who == "client" else self.client

    def say(self, who: str, wire: str) -> None:
        """One end says something, and the other one hears it."""
        self.hearer(who).receive(self.sender(who).send(protocol.parse(wire)))

    def refusal(self, who: str, wire: str) -> Malformed:
        """What the other end has against something that one end says."""
        with pytest.raises(Malformed) as caught:
            self.hearer(who).receive(wire)
        return caught.value

    def not_sent(self, who: str, wire: str) -> None:
        """One end does not even say it."""
        with pytest.raises(Malformed):
            self.sender(who).send(protocol.parse(wire))

    @property
    def states(self) -> set[str]:
        """The states of the two ends, which should be one."""
        return {self.client.state.value, self.server.state.value}
