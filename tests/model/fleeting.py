"""Ephemeral nodes in plain dicts: the lasting tree, and beside it what goes with each session.

The full tree is never kept: it is the lasting tree with every ephemeral value written over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from plain import Path, Refusal, Result, Version, nodes, text


@dataclass(frozen=True)
class Put:
    """Replace what stands at `path`; `tega_id` is that of the transaction where it is None."""

    path: Path
    value: Any
    ephemeral: bool = False
    tega_id: str | None = None
    expected: int | None = None


@dataclass(frozen=True)
class Delete:
    """Remove what stands at `path`."""

    path: Path
    tega_id: str | None = None
    expected: int | None = None


Operation = Put | Delete


def above(upper: Path, lower: Path) -> bool:
    """Whether `upper` is `lower`, or one of its parents."""
    return lower[: len(upper)] == upper


@dataclass
class Tree:
    """One version of a root.

    :ivar lasting: the lasting tree, with the version of each of its nodes
    :ivar tops: the ephemeral nodes: owner and value by path
    :ivar versions: the version of every node of the full tree
    """

    lasting: Version = field(default_factory=Version)
    tops: dict[Path, tuple[str, Any]] = field(default_factory=dict)
    versions: dict[Path, int] = field(default_factory=dict)

    def full(self) -> dict[str, Any]:
        """The root's name to its value; empty where there is none."""
        tree = deepcopy(self.lasting.tree)
        for path, (_, value) in self.tops.items():
            here = tree
            for key in path[:-1]:
                here = here.setdefault(key, {})
            here[path[-1]] = deepcopy(value)
        return tree

    def paths(self) -> set[Path]:
        """The paths of all nodes of the full tree."""
        return {path for name, value in self.full().items() for path in nodes(value, (name,))}

    def put(self, operation: Put, owner: str, version: int) -> None:
        """Replace what stands at the path."""
        path, value = operation.path, deepcopy(operation.value)
        inside = [top for top in self.tops if above(top, path)]
        if inside:
            [top] = inside
            if not operation.ephemeral or self.tops[top][0] != owner:
                raise Refusal("ephemeral_conflict")
            self._put_inside(top, path, value)
        elif operation.ephemeral:
            if path in self.paths():
                raise Refusal("ephemeral_conflict")
            # The lasting tree says whether a leaf is in the way.
            deepcopy(self.lasting).put(path, value, version)
            self.tops[path] = owner, value
        else:
            if any(above(path, top) for top in self.tops):
                raise Refusal("ephemeral_conflict")
            self.lasting.put(path, value, version)
        self._renew_lasting(path, version)
        self._renew(path, version)

    def _put_inside(self, top: Path, path: Path, value: Any) -> None:
        inner = Version({"": deepcopy(self.tops[top][1])}, {})
        inner.put(("", *path[len(top) :]), value, 0)
        self.tops[top] = self.tops[top][0], inner.tree[""]

    def delete(self, path: Path, owner: str, version: int) -> None:
        """Remove what stands at the path, and the parents that this empties."""
        if path not in self.paths():
            raise Refusal("not_found")
        inside = [top for top in self.tops if above(top, path)]
        below = [top for top in self.tops if above(path, top)]
        if any(self.tops[top][0] != owner for top in [*inside, *below]):
            raise Refusal("ephemeral_conflict")
        if inside:
            [top] = inside
            value = self.tops[top][1]
            inner = Version({"": value}, dict.fromkeys(nodes(value, ("",)), 0))
            inner.delete(("", *path[len(top) :]), 0)
            if inner.tree:
                self.tops[top] = owner, inner.tree[""]
            else:
                del self.tops[top]
        else:
            for top in below:
                del self.tops[top]
            if path in self.lasting.versions:
                self.lasting.delete(path, version)
        self._renew_lasting(path, version)
        self._renew(path, version)

    def roll_back(self, target: Version, version: int) -> None:
        """Make the content of a lasting tree this one's."""
        for top in self.tops:
            for length in range(1, len(top) + 1):
                path = top[:length]
                in_the_way = path == top or not isinstance(value_at(target, path), dict)
                if path in target.versions and in_the_way:
                    raise Refusal("ephemeral_conflict")
        before = self.lasting
        versions = {}
        for path in target.versions:
            same = path in before.versions and text(before.value_at(path)) == text(
                target.value_at(path)
            )
            versions[path] = before.versions[path] if same else version
        self.lasting = Version(deepcopy(target.tree), versions)
        for path in self.paths():
            if path in versions:
                self.versions[path] = versions[path]
            elif path in before.versions:
                self.versions[path] = version
        self._touch(version)
        self._forget()

    def _renew_lasting(self, path: Path, version: int) -> None:
        """What is ephemeral gives the lasting containers above it a new version too."""
        for length in range(1, len(path)):
            if path[:length] in self.lasting.versions:
                self.lasting.versions[path[:length]] = version

    def _touch(self, version: int) -> None:
        for versions in (self.lasting.versions, self.versions):
            for path in versions:
                if len(path) == 1:
                    versions[path] = version

    def _renew(self, path: Path, version: int) -> None:
        """Let all that is above `path`, at it or below it carry `version`."""
        for there in self.paths():
            if above(there, path) or above(path, there):
                self.versions[there] = version
        self._forget()

    def _forget(self) -> None:
        there = self.paths()
        self.versions = {path: v for path, v in self.versions.items() if path in there}

    def is_ephemeral(self, path: Path) -> bool:
        """Whether a node goes with a session."""
        return any(above(top, path) for top in self.tops)


def value_at(tree: Version, path: Path) -> Any:
    """The value at a path; None where nothing stands there."""
    return tree.value_at(path) if path in tree.versions else None


class Fleeting:
    """A database of plain dicts, with sessions.

    :ivar past: every version of each root, from 0 on
    :ivar first: the oldest readable version of each root
    :ivar live: the tega ids that have a session
    """

    def __init__(self, maxlen: int) -> None:
        self.maxlen = maxlen
        self.seq = 0
        self.past: dict[str, list[Tree]] = {}
        self.first: dict[str, int] = {}
        self.live: set[str] = set()

    def newest(self, root: str) -> int:
        """The newest version number of a root; -1 where it never was."""
        return len(self.past.get(root, [])) - 1

    def tops(self) -> dict[Path, str]:
        """All ephemeral nodes there are now, and their owners."""
        return {
            path: owner
            for past in self.past.values()
            for path, (owner, _) in past[-1].tops.items()
        }

    def commit(self, operations: Sequence[Operation], tega_id: str) -> Result:
        """A transaction: all of it, or a refusal."""
        if not operations:
            return Result(self.seq, {})
        for operation in operations:
            past = self.past.get(operation.path[0])
            found = past[-1].versions.get(operation.path) if past else None
            if operation.expected is not None and operation.expected != found:
                raise Refusal("collision")
        return self._publish(self.candidate(operations, tega_id))

    def candidate(self, operations: Iterable[Operation], tega_id: str) -> dict[str, Tree]:
        """The roots that the operations touch, as they would be."""
        drafts: dict[str, Tree] = {}
        for operation in operations:
            root = operation.path[0]
            owner = operation.tega_id or tega_id
            version = self.newest(root) + 1
            draft = drafts[root] if root in drafts else self._draft(root)
            if isinstance(operation, Put):
                if operation.ephemeral and owner not in self.live:
                    raise Refusal("no_session")
                draft.put(operation, owner, version)
            else:
                draft.delete(operation.path, owner, version)
            drafts[root] = draft
        return drafts

    def _draft(self, root: str) -> Tree:
        return deepcopy(self.past[root][-1]) if root in self.past else Tree()

    def leave(self, tega_id: str) -> Result:
        """End a session: its nodes go in one transaction."""
        self.live.discard(tega_id)
        mine = [path for path, owner in self.tops().items() if owner == tega_id]
        return self.commit([Delete(path) for path in sorted(mine)], tega_id)

    def rollback(self, root: str, backto: int) -> Result:
        """The lasting content of an old version as a new one."""
        if root not in self.past:
            raise Refusal("not_found")
        wanted = backto if backto >= 0 else self.newest(root) + backto
        if not self.first[root] <= wanted <= self.newest(root):
            raise Refusal("no_such_version")
        draft = self._draft(root)
        draft.roll_back(self.past[root][wanted].lasting, self.newest(root) + 1)
        return self._publish({root: draft})

    def _publish(self, drafts: dict[str, Tree]) -> Result:
        for root, draft in drafts.items():
            draft._touch(self.newest(root) + 1)
            self.past.setdefault(root, []).append(draft)
            self.first.setdefault(root, 0)
        self._age()
        self.seq += 1
        return Result(self.seq, {root: self.newest(root) for root in drafts})

    def _age(self) -> None:
        for root in self.past:
            self.first[root] = max(self.first[root], self.newest(root) - self.maxlen)

    def restart(self, maxlen: int) -> None:
        """Close and open again: only what lasts is left."""
        self.maxlen = maxlen
        self.live.clear()
        self._age()
        for root, past in self.past.items():
            self.past[root] = [
                Tree(tree.lasting, {}, dict(tree.lasting.versions)) for tree in past
            ]
