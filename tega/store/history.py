"""A root's versions, and the state of a whole database: immutable values that readers hold."""

from __future__ import annotations

from typing import Any, Final

import immutables
import msgspec

from tega.errors import NoSuchVersion, NotFound
from tega.paths import Path, dotted
from tega.store.node import ABSENT, EMPTY, Found, MaybeContent, lookup

#: How many client transaction ids are remembered.
MAX_IDS: Final = 10_000


class Root(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One root: the newest version, and the old ones that are still readable.

    `content` is `ABSENT` in a version that deleted the root. `chain` is a hash over all commits
    that touched the root: two servers with the same chain at a version have the same history.
    """

    name: str
    version: int
    content: MaybeContent
    chain: str
    old: immutables.Map[int, Any] = immutables.Map()

    @property
    def first(self) -> int:
        """The oldest readable version; versions up to the newest follow without a gap."""
        return self.version - len(self.old)

    def next(self, content: MaybeContent, chain: str, maxlen: int) -> Root:
        """The root one version later, `maxlen` old versions kept."""
        old = self.old.set(self.version, self.content)
        first = self.first
        while len(old) > maxlen:
            old = old.delete(first)
            first += 1
        return Root(self.name, self.version + 1, content, chain, old)

    def resolve(self, version: int | None) -> int:
        """A version number: None is the newest, a negative one counts back from it.

        :raises NoSuchVersion: naming the versions that are there
        """
        if version is None:
            return self.version
        wanted = version if version >= 0 else self.version + version
        if not self.first <= wanted <= self.version:
            raise NoSuchVersion(
                f"no version {version} of {dotted((self.name,))}: there are {self.first} to "
                f"{self.version}",
                root=self.name,
                first=self.first,
                newest=self.version,
            )
        return wanted

    def at(self, version: int) -> MaybeContent:
        """The content of a version that `resolve` gave."""
        return self.content if version == self.version else self.old[version]

    def old_versions(self) -> list[int]:
        """The readable versions before the newest, oldest first."""
        return list(range(self.first, self.version))


class Lead(msgspec.Struct, frozen=True, gc=False):
    """Who leads a root that this server follows.

    :ivar leader: its tega id; empty where it has not been heard of yet
    :ivar life: of the leader's database; all versions and chains of the root are of that life
    :ivar seq: the leader's number of the newest commit that came from it
    """

    leader: str = ""
    life: str = ""
    seq: int = 0


class Result(msgspec.Struct, frozen=True, gc=False):
    """What a commit answers: its sequence number, and the version made of each root touched.

    As JSON: ``{"seq": S, "versions": {root: V}}``.
    """

    seq: int
    versions: immutables.Map[str, int]


class Ids(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The newest `MAX_IDS` client transaction ids, each with the result of its commit."""

    results: immutables.Map[str, Result] = EMPTY
    order: immutables.Map[int, str] = immutables.Map()
    last: int = 0

    def add(self, txid: str, result: Result) -> Ids:
        """Remember one more, and forget the oldest where there are too many."""
        known = self.results.get(txid)
        if known is not None:
            # A follower that catches up may get the parts of a transaction one by one.
            versions = known.versions.update(result.versions)
            return Ids(
                self.results.set(txid, Result(result.seq, versions)), self.order, self.last
            )
        results, order = self.results.set(txid, result), self.order.set(self.last, txid)
        if len(order) > MAX_IDS:
            oldest = self.last - MAX_IDS
            results, order = results.delete(order[oldest]), order.delete(oldest)
        return Ids(results, order, self.last + 1)

    def without(self, root: str) -> Ids:
        """Those of transactions that did not touch a root."""
        left = [(txid, result) for txid, result in self.oldest_first()
                if root not in result.versions]
        if len(left) == len(self.order):
            return self
        made = Ids()
        for txid, result in left:
            made = made.add(txid, result)
        return made

    def oldest_first(self) -> list[tuple[str, Result]]:
        """All of them, in the order in which they came."""
        return [(self.order[n], self.results[self.order[n]]) for n in sorted(self.order)]


class State(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A whole database at one moment: what every reader, snapshot and diff works on.

    `life` is the database's identity from one `clear` to the next, `seq` the number of its last
    commit; commits count from 1. `ephemerals` has the paths of the ephemeral nodes of each tega id
    that has any: the topmost only, for all that stands below one is ephemeral too. `following` has
    the roots that other servers lead. `hidden` has, of those, the content that watchers know where
    its ephemeral nodes are left out: nobody can tell whether they are still there.
    """

    life: str
    seq: int = 0
    roots: immutables.Map[str, Root] = EMPTY
    ids: Ids = Ids()
    ephemerals: immutables.Map[str, immutables.Map[Path, bool]] = EMPTY
    following: immutables.Map[str, Lead] = EMPTY
    hidden: immutables.Map[str, Any] = EMPTY

    def life_of(self, name: str) -> str:
        """The life that the versions of a root are of: its leader's, or this database's own."""
        lead = self.following.get(name)
        return self.life if lead is None else lead.life

    def find(self, path: Path, version: int | None = None) -> Found:
        """What stands at `path`, in the root's newest version or another.

        :raises NotFound: where nothing does, or the version is not there
        """
        root = self.roots.get(path[0])
        if root is not None:
            wanted = root.resolve(version)
            found = lookup(root.at(wanted), wanted, path)
            if found is not None:
                return found
        where = "" if version is None else f" in version {version}"
        raise NotFound(f"nothing at {dotted(path)}{where}", path=dotted(path))

    def version_at(self, path: Path) -> int | None:
        """The version of the node at `path` in the newest tree; None where there is no node."""
        root = self.roots.get(path[0])
        found = lookup(root.content, root.version, path) if root is not None else None
        return found.version if found is not None else None

    @property
    def live_count(self) -> int:
        """How many roots have content."""
        return sum([root.content is not ABSENT for root in self.roots.values()])

    def live_roots(self) -> list[Root]:
        """The roots that have content, in order of name."""
        return [
            self.roots[name]
            for name in sorted(self.roots)
            if self.roots[name].content is not ABSENT
        ]
