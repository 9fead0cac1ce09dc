"""What a server has for its clients, at most."""

from __future__ import annotations

import msgspec

from tega.access.rates import Rates


class Limits(msgspec.Struct, frozen=True, eq=False):
    """Limits of sessions, and of what each of them may take.

    :ivar sessions: how many there may be
    :ivar open_requests: requests of one client that may be under way; it is read no further until
        half of them are done
    :ivar backlog: bytes that a client may have still to take: past that it falls behind, and is
        read no further
    :ivar rates: how often each may ask
    """

    sessions: int
    open_requests: int
    backlog: int
    rates: Rates
