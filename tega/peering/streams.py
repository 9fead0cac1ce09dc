"""Which root goes over which link: who feeds it to this server, and whom this server feeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tega.peering.codec import Have
from tega.peering.link import Link
from tega.store.commit import Commit


class Streams:
    """The links by root, so that a commit costs only those that it concerns."""

    def __init__(self) -> None:
        self._feeders: dict[str, Link] = {}
        self._fed: dict[str, dict[Link, None]] = {}

    def feeder(self, name: str) -> Link | None:
        """The link that feeds a root; None where nobody does at present."""
        return self._feeders.get(name)

    def fed(self, name: str) -> list[Link]:
        """The links over which a root goes."""
        return list(self._fed.get(name, ()))

    def take(self, link: Link, names: Iterable[str]) -> None:
        """These roots come over a link from now on."""
        for name in link.replica.roots:
            if self._feeders.get(name) is link:
                del self._feeders[name]
        names = list(names)
        self._feeders.update(dict.fromkeys(names, link))
        link.replica.start(names)

    def feed(self, link: Link, have: Mapping[str, Have | None]) -> None:
        """These roots go over a link from now on, to one that has this of them."""
        self._starve(link)
        for name in have:
            self._fed.setdefault(name, {})[link] = None
        link.source.start(have)

    def end(self, link: Link) -> None:
        """Nothing goes over a link any more."""
        self.take(link, ())
        self._starve(link)
        link.source.stop()

    def _starve(self, link: Link) -> None:
        for name in link.source.roots:
            links = self._fed.get(name, {})
            links.pop(link, None)
            if not links:
                self._fed.pop(name, None)

    def offer(self, commits: Iterable[Commit]) -> None:
        """Pass on what is published to whoever follows it."""
        fed: dict[Link, None] = {}
        for commit in commits:
            names = [name for name, _ in (*commit.versions, *commit.follows)]
            if not commit.versions:
                names += [change.path[0] for change in commit.changes]
            followers = {link: None for name in names for link in self._fed.get(name, ())}
            for link in followers:
                link.source.offer(commit)
            fed.update(followers)
        for link in fed:
            link.source.round_ends()
