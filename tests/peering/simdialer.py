"""The product's `Dialer` on a simulated network."""

from __future__ import annotations

import functools
from random import Random

from faults import DIAL_TIMEOUT, PING_TIMEOUT, Network
from wires import End

from tega.peering.dialer import Connected, Dialer


class SimDialer(Dialer):
    """Has its states, pauses and tries, while its connections are simulated.

    Must be made and started in the `Process` of its server, to end with it.

    :param own_name: of the server that dials, on the network
    :param global_name: of the server that it dials
    :param timeout: seconds for the other one to answer
    """

    def __init__(
        self,
        network: Network,
        own_name: str,
        global_name: str,
        tega_id: str,
        connected: Connected,
        random: Random,
        ping_timeout: float = PING_TIMEOUT,
        timeout: float = DIAL_TIMEOUT,
    ) -> None:
        super().__init__(
            global_name, 0, tega_id, connected,
            proxy=None, ping_interval=ping_timeout / 3, ping_timeout=ping_timeout,
            random=random, timeout=timeout,
        )  # fmt: skip
        self.address = global_name
        dial = functools.partial(
            network.dial, own_name, global_name, tega_id, self._greeted, ping_timeout, timeout
        )
        self._line = functools.partial(_SimLine, dial)  # type: ignore[assignment, arg-type]


class _SimLine:
    """One connection, in place of the `_Line` of a `Dialer`."""

    def __init__(self, dial: functools.partial[End]) -> None:
        self._dial = dial
        self.reason = ""
        self.hopeless = False

    async def run(self, connect: object) -> None:
        """Connect, and stay until it is over; cancelled, take leave."""
        end = self._dial()
        try:
            self.reason = await end.over()
        finally:
            end.close("the other server hangs up")
            await end.over()
