"""Who may lead a root: what the settings say, what local servers claim, and what is given back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tega.database import Database
from tega.errors import LedElsewhere, NotFound, Refused, TegaError
from tega.paths import dotted
from tega.peering.link import Link
from tega.peering.replica import Submit
from tega.pending import Pending
from tega.store.commit import Follow
from tega.store.history import Lead
from tega.web.committer import resolve
from tega.web.later import Later

log = logging.getLogger(__name__)


class Claims:
    """Leadership of roots, as it is remembered in the log.

    :param submit: commits something on this server, and calls back when it is settled
    :param upstream: gives the link that feeds a root
    :param config: the roots that the global server leads
    :param operational: the roots that are led here, or below, and wanted there
    :ivar refused: the roots that the global server does not let this one lead, and why
    """

    def __init__(
        self,
        database: Database,
        submit: Submit,
        upstream: Callable[[str], Link | None],
        config: Sequence[str],
        operational: Sequence[str],
    ) -> None:
        self._database = database
        self._submit = submit
        self._upstream = upstream
        self._config = config
        self._operational = operational
        self.refused: dict[str, str] = {}

    def remember(self) -> None:
        """Who leads which root is in the log from now on.

        :raises LedElsewhere: where it is there otherwise
        """
        following = self._database.staged.following
        for name in self._operational:
            # Another leader may be a local server of this one, for which it stands in.
            if name in following and not following[name].leader:
                raise LedElsewhere(
                    f"{dotted((name,))} was to be led by the global server so far: start without "
                    f"it in --operational, then 'tega-cli release {name}', then start as now",
                    root=name,
                )
        for name in self._config:
            if name not in following:
                self._enter(Follow(name, Lead(), self._database.tega_id))

    def judged(self, link: Link, leaders: dict[str, str]) -> dict[str, str | None]:
        """Of each root that a local server claims why it does not get it, or None."""
        return {name: self._judge(link, name, leader) for name, leader in leaders.items()}

    def _judge(self, link: Link, name: str, leader: str) -> str | None:
        own = self._database.tega_id
        lead = self._database.staged.following.get(name)
        other = self._upstream(name)
        if name in self._config:
            return f"{own} follows it from its own global server"
        if leader == own:
            return "it is led here"
        if lead is not None and lead.leader not in ("", leader):
            return (
                f"{lead.leader} leads it: release it at {own} first if that server is gone for good"
            )
        if other is not None and other.peer != link.peer:
            return f"{other.peer} has it"
        if lead is None:
            self._enter(Follow(name, Lead(leader), own))
        return None

    def refused_by(self, link: Link, reasons: dict[str, str]) -> None:
        """The global server does not let this one lead some roots."""
        for name, reason in reasons.items():
            if self.refused.get(name) != reason:
                log.warning("%s does not follow %s: %s", link.peer, dotted((name,)), reason)
        self.refused = reasons

    def release(self, name: str) -> Later:
        """Lead a root here from now on, whose leader is gone for good.

        :raises NotFound: where it is led here already
        :raises Refused: where its leader is connected, or this server is set to follow it
        """
        lead = self._database.staged.following.get(name)
        if lead is None:
            raise NotFound(
                f"root {dotted((name,))} is led by this server: there is nothing to release",
                path=name,
            )
        if name in self._config:
            raise Refused(
                f"{dotted((name,))} is set to be led by the global server: take it out of --config "
                "first"
            )
        if self._upstream(name) is not None:
            raise Refused(f"{lead.leader}, which leads {dotted((name,))}, is connected")
        answer = Later()
        request = Follow(name, None, self._database.tega_id)
        self._submit(request, lambda pending: resolve(pending, answer))
        return answer

    def _enter(self, request: Follow) -> None:
        def settled(pending: Pending) -> None:
            try:
                pending.result()
            except TegaError as error:
                log.error("who leads %s is not remembered: %s", dotted((request.root,)), error)

        self._submit(request, settled)
