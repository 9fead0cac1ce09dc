"""Calls of functions that other servers have, and what this one offers them."""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Iterable
from typing import TypeAlias

from tega import rpc, strictjson
from tega.database import Database
from tega.errors import CallTimeout, OutcomeUnknown, OwnerGone, TegaError, Unavailable
from tega.paths import Path, dotted, wire
from tega.peering.link import Link
from tega.store.history import State
from tega.store.node import Leaf, lookup, walk
from tega.web.later import Later

log = logging.getLogger(__name__)

#: Of the seconds that a call may take here, so much is left for the next server: so the one where
#: it gets stuck gives up first, and can say so.
_SHARE = 0.9

Links: TypeAlias = Callable[[], Iterable[Link]]


class Routing:
    """Finds the way to functions of other servers.

    :param links: gives the local servers that are connected here, first come first
    :param up: gives the connection to the global server
    :param where: that one, for people; None where there is none
    :ivar conflicts: functions that two local servers offer, for people
    """

    def __init__(
        self,
        database: Database,
        links: Links,
        up: Callable[[], Link | None],
        where: str | None = None,
    ) -> None:
        self._where = where
        self._database = database
        self._links = links
        self._up = up
        self._told: dict[Path, str] = {}
        self._seen: list[object] = []
        self._offered: dict[Path, str] = {}
        self.conflicts: list[str] = []

    # -- what is offered --------------------------------------------------------------------------

    def offered(self) -> dict[Path, str]:
        """What this server offers to its global one: functions of its own, and those below it."""
        state = self._database.state
        links = list(self._links())
        seen = [state.ephemerals, *[link.functions for link in links]]
        # They are replaced, never changed, and seldom that.
        if len(seen) == len(self._seen) and all(map(operator.is_, seen, self._seen)):
            return self._offered
        self._seen = seen
        found: dict[Path, str] = {}
        conflicts = []
        for link in links:
            for path, owner in link.functions.items():
                if found.setdefault(path, owner) != owner:
                    conflicts.append(
                        f"{dotted(path)} is offered by {found[path]} and, in vain, by {owner}"
                    )
        if conflicts != self.conflicts:
            self.conflicts = conflicts
            for one in conflicts:
                log.warning("two local servers offer one function: %s", one)
        self._offered = {**found, **self._registered(state)}
        return self._offered

    def _registered(self, state: State) -> dict[Path, str]:
        found = {}
        for owner, tops in state.ephemerals.items():
            if not self._database.is_live(owner):
                continue
            for top in tops:
                root = state.roots[top[0]]
                there = lookup(root.content, root.version, top)
                assert there is not None
                for path, content, _ in walk(there.content, there.version, top):
                    value = content.value if type(content) is Leaf else content
                    if type(value) is str and value[:1] == "%":
                        function = rpc.parse_function(value)
                        if function is not None:
                            found[path] = function.owner
        return found

    def tell(self) -> None:
        """Tell the global server what is offered, where that has changed."""
        up = self._up()
        if up is None:
            return
        offered = self.offered()
        if offered != self._told:
            self._told = offered
            up.tell_functions(offered)

    def told(self, offered: dict[Path, str]) -> None:
        """The global server knows of these."""
        self._told = offered

    # -- calls --------------------------------------------------------------------------------

    def call(
        self, path: Path, body: bytes, caller: str, seconds: float, came: Link | None
    ) -> Later | None:
        """Call a function of another server.

        :param came: the link that the call came over: it does not go back there
        :returns: the result as JSON; None where nobody is known who may have it
        :raises Unavailable: where the global server may, and is away
        """
        for link in self._links():
            if link is not came and path in link.functions:
                return self._ask(link, path, body, caller, seconds)
        up = self._up()
        if up is not None and up is not came and up.synced:
            return self._ask(up, path, body, caller, seconds)
        if self._where is not None and (up is None or not up.synced):
            raise Unavailable(
                f"no function at {dotted(path)} is known here, and the global server at "
                f"{self._where}, which may know of one, is not connected"
            )
        return None

    def _ask(self, link: Link, path: Path, body: bytes, caller: str, seconds: float) -> Later:
        given = rpc.read_arguments(body)
        share = seconds * _SHARE
        text = strictjson.dumps({"args": given.args, "kwargs": given.kwargs, "seconds": share})
        answer = Later()
        asked = link.ask("RPC", caller, wire(path), text)

        def overdue() -> None:
            link.give_up(asked)
            asked.resolve(
                error=CallTimeout(
                    f"{link.peer} did not answer the call of {dotted(path)} within {seconds:g} s: "
                    "it may still be at it",
                    peer=link.peer,
                )
            )

        timer = asyncio.get_running_loop().call_later(seconds, overdue)

        def answered(asked: Later) -> None:
            timer.cancel()
            try:
                answer.resolve(asked.result())
            except OutcomeUnknown:
                answer.resolve(
                    error=OwnerGone(
                        f"the connection to {link.peer} was lost in the middle of the call of "
                        f"{dotted(path)}: it may have been done",
                        peer=link.peer,
                    )
                )
            except TegaError as error:
                error.details.setdefault("peer", link.peer)
                answer.resolve(error=error)

        asked.then(answered)
        return answer
