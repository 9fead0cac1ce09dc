"""Who takes part in a database: an identity, and what it wants to hear."""

from __future__ import annotations

from enum import Enum

from tega.paths import check_tega_id


class SCOPE(Enum):
    """How far a subscription reaches."""

    #: This server only.
    LOCAL = "local"
    #: All servers that are connected through the global one.
    GLOBAL = "global"


class Subscriber:
    """A participant.

    :param tega_id: its identity: letters, digits, ``-``, ``_`` and ``.``, not starting with ``_``
    :param scope: how far its subscriptions reach unless they say otherwise
    """

    def __init__(self, tega_id: str, scope: SCOPE = SCOPE.LOCAL) -> None:
        self.tega_id = check_tega_id(tega_id)
        self.scope = scope
