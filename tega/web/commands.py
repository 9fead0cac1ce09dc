"""What an entry in the table of URLs says."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from tega.web.context import Context
from tega.web.http import Call
from tega.web.later import Answer

Endpoint: TypeAlias = Callable[[Context, Call], Answer]


class Needs(enum.Enum):
    """What somebody must be to use a command, beside what the rules say of paths.

    :cvar NOTHING: it tells nothing that is worth anything, even to who is not known
    :cvar RIGHTS: it is judged by the rules, in the handler
    :cvar MONITOR: it shows the server's own state
    :cvar MANAGE: it concerns the server as a whole
    """

    NOTHING = "nothing"
    RIGHTS = "rights"
    MONITOR = "monitor"
    MANAGE = "manage"


class Command(NamedTuple):
    """A management command, or what is done with documents.

    :ivar methods: the HTTP methods that it is offered with
    :ivar params: the parameters that it takes beside ``tega_id``, which all do
    """

    needs: Needs
    handler: Endpoint
    methods: tuple[str, ...]
    params: tuple[str, ...] = ()
