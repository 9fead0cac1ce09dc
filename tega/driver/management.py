"""The management commands, written once for both drivers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from tega.driver import exchange

#: What a command gives: status, reason and data; or something to await for that.
Answer = TypeVar("Answer")


class Management(ABC, Generic[Answer]):
    """Management commands.

    Each gives status, reason and data, and raises `CRUDException` for a refusal.
    """

    @abstractmethod
    def _manage(self, method: str, command: str, **params: Any) -> Answer:
        """Carry a command out."""

    def rollback(self, root_oid: str, backto: int) -> Answer:
        """Make the content of an old version of a root its newest.

        :param root_oid: name of the root
        :param backto: the version; negative: counted back from the newest
        :returns: status, reason, and data as `put` gives it
        :raises CRUDException: 404 where there is no such root or version
        """
        return self._manage(
            "POST", "rollback", key=exchange.new_key(), root_oid=root_oid, backto=backto
        )

    def clear(self) -> Answer:
        """Empty the database: everything that this server leads."""
        # Sent twice it could take with it what others have put in between.
        return self._manage("POST", "clear", retry=False)

    def ss(self) -> Answer:
        """Save a snapshot; the answer says that it is on disk."""
        return self._manage("POST", "ss")

    def sync(self) -> Answer:
        """Wait until every replicated root has caught up with its leader.

        :raises CRUDException: 404 where no peer is configured
        """
        return self._manage("POST", "sync")

    def applied(self, root_oid: str) -> Answer:
        """How far each server is that has a root: ``{tega id: version}``.

        :param root_oid: name of the root
        :raises CRUDException: 404 where the server has no such root
        """
        return self._manage("GET", "applied", root_oid=root_oid)

    def release(self, root_oid: str) -> Answer:
        """Give a tree back to this server, which a server led that is gone for good.

        :param root_oid: name of the root
        :raises CRUDException: 404 where there is no such root, or no other server leads it
        """
        # Sent twice, the second one would be refused although it is done.
        return self._manage("POST", "release", retry=False, root_oid=root_oid)

    def roots(self) -> Answer:
        """The roots: ``{root: version}``."""
        return self._manage("GET", "roots")

    def old(self) -> Answer:
        """The old versions, oldest first: ``[{root: [version, ...]}, ...]``."""
        return self._manage("GET", "old")

    def channels(self) -> Answer:
        """Who subscribes to each channel: ``{path pattern: [tega id, ...]}``."""
        return self._manage("GET", "channels")

    def subscribers(self) -> Answer:
        """What each subscribes to: ``{tega id: [path pattern, ...]}``."""
        return self._manage("GET", "subscribers")

    def ids(self) -> Answer:
        """The tega ids of live sessions and plugins: ``[tega id, ...]``."""
        return self._manage("GET", "ids")

    def global_(self) -> Answer:
        """The channels of global scope: ``[[path pattern, scope], ...]``.

        Also there as ``getattr(driver, "global")``.
        """
        return self._manage("GET", "global")

    def forwarders(self) -> Answer:
        """The connected peers that subscriptions are forwarded to: ``[tega id, ...]``."""
        return self._manage("GET", "forwarders")

    def plugins(self) -> Answer:
        """The plugins: ``{tega id: scope}``."""
        return self._manage("GET", "plugins")

    def reload(self) -> Answer:
        """Load the plugins anew."""
        return self._manage("POST", "reload", retry=False)

    def edges(self, root_oid: str | None = None, old_roots: bool = False) -> Answer:
        """Pairs of nodes for drawing: ``[[from, to], ...]``, each node as ``PATH(VERSION)``.

        :param root_oid: name of one root; None: all of them
        :param old_roots: old versions as well
        """
        return self._manage("GET", "edges", root_oid=root_oid, old_roots=old_roots)


# A name that Python's grammar has taken.
setattr(Management, "global", Management.global_)
