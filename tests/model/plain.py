"""The data model in plain dicts: what a database must do, worked out in the most naive way.

Every version of a root is kept whole, with the version of each of its nodes beside it. Nothing
here is shared with tega but the codes of its errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]


class Refusal(Exception):
    """What must be refused, and the code of the error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Put:
    """Replace what stands at `path`."""

    path: Path
    value: Any
    expected: int | None = None


@dataclass(frozen=True)
class Delete:
    """Remove what stands at `path`."""

    path: Path
    expected: int | None = None


Operation = Put | Delete


@dataclass
class Version:
    """One version of a root.

    :ivar tree: the root's name to its JSON value; empty where this version deleted the root
    :ivar versions: the version of every node
    """

    tree: dict[str, Any] = field(default_factory=dict)
    versions: dict[Path, int] = field(default_factory=dict)

    def put(self, path: Path, value: Any, version: int) -> None:
        """Replace the subtree at `path`, making the parents that it needs."""
        here = self.tree
        for key in path[:-1]:
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                raise Refusal("leaf_in_the_way")
        here[path[-1]] = deepcopy(value)
        self._forget(path)
        self.versions |= dict.fromkeys(nodes(value, path), version)
        self._renew(path, version)

    def delete(self, path: Path, version: int) -> None:
        """Remove the subtree at `path`, and the parents that this empties."""
        if path not in self.versions:
            raise Refusal("not_found")
        del self.value_at(path[:-1])[path[-1]]
        self._forget(path)
        while len(path) > 1 and self.value_at(path[:-1]) == {}:
            path = path[:-1]
            del self.value_at(path[:-1])[path[-1]]
            del self.versions[path]
        self._renew(path, version)

    def value_at(self, path: Path) -> Any:
        """The JSON value of a node that is there; of the empty path the whole tree."""
        here: Any = self.tree
        for key in path:
            here = here[key]
        return here

    def _forget(self, path: Path) -> None:
        self.versions = {p: v for p, v in self.versions.items() if p[: len(path)] != path}

    def _renew(self, path: Path, version: int) -> None:
        """Let all parents of `path` carry `version`."""
        for length in range(1, len(path)):
            self.versions[path[:length]] = version


def nodes(value: Any, path: Path) -> Iterator[Path]:
    """The paths of all nodes of a JSON value that stands at `path`."""
    yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from nodes(child, (*path, key))


def text(value: Any) -> str:
    """A JSON value as text: equal texts for equal values, which ``==`` takes 1, 1.0, True for."""
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Result:
    """What a commit answers."""

    seq: int
    versions: dict[str, int]


class Plain:
    """A database of plain dicts.

    :ivar past: every version of each root, from 0 on
    :ivar first: the oldest readable version of each root
    """

    def __init__(self, maxlen: int) -> None:
        self.maxlen = maxlen
        self.clear()

    def clear(self) -> None:
        self.seq = 0
        self.past: dict[str, list[Version]] = {}
        self.first: dict[str, int] = {}
        self.results: dict[str, Result] = {}

    # -- reading ------------------------------------------------------------------------------

    def newest(self, root: str) -> int:
        """The newest version number of a root; -1 where it never was."""
        return len(self.past.get(root, [])) - 1

    def live(self) -> dict[str, int]:
        """The roots that have content, and their versions."""
        return {root: self.newest(root) for root in sorted(self.past) if self.past[root][-1].tree}

    def readable(self, root: str) -> range:
        """The version numbers of a root that can be read."""
        return range(self.first[root], self.newest(root) + 1)

    def resolve(self, root: str, version: int | None) -> int:
        """The number of a version given as it is, counted back from the newest, or left out."""
        if root not in self.past:
            raise Refusal("not_found")
        newest = self.newest(root)
        wanted = newest if version is None else version if version >= 0 else newest + version
        if wanted not in self.readable(root):
            raise Refusal("no_such_version")
        return wanted

    def get(self, path: Path, version: int | None = None) -> tuple[Any, int]:
        """The JSON value at `path`, and the node's version."""
        found = self.past[path[0]][self.resolve(path[0], version)] if path[0] in self.past else None
        if found is None or path not in found.versions:
            raise Refusal("not_found")
        return found.value_at(path), found.versions[path]

    def version_at(self, path: Path) -> int | None:
        """The version of a node in the newest tree; None where there is no node."""
        past = self.past.get(path[0])
        return past[-1].versions.get(path) if past else None

    # -- writing ------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], txid: str | None = None) -> Result:
        """A transaction: all of it, or a refusal."""
        if txid in self.results:
            return self.results[txid]
        if not operations:
            return Result(self.seq, {})
        for operation in operations:
            if operation.expected is not None:
                found = self.version_at(operation.path)
                if operation.expected != (-1 if found is None else found):
                    raise Refusal("collision")
        return self._publish(self.candidate(operations), txid)

    def candidate(self, operations: Iterable[Operation]) -> dict[str, Version]:
        """The roots that the operations touch, as they would be."""
        drafts: dict[str, Version] = {}
        for operation in operations:
            root = operation.path[0]
            if root not in drafts:
                past = self.past.get(root)
                drafts[root] = deepcopy(past[-1]) if past else Version()
            version = self.newest(root) + 1
            if isinstance(operation, Put):
                drafts[root].put(operation.path, operation.value, version)
            else:
                drafts[root].delete(operation.path, version)
        return drafts

    def rollback(self, root: str, backto: int, txid: str | None = None) -> Result:
        """The content of an old version as a new one, by the fewest changes."""
        if txid in self.results:
            return self.results[txid]
        wanted = self.resolve(root, backto)
        target, now = self.past[root][wanted], self.past[root][-1]
        versions = {}
        for path in target.versions:
            same = path in now.versions and text(now.value_at(path)) == text(target.value_at(path))
            versions[path] = now.versions[path] if same else self.newest(root) + 1
        if target.tree:
            versions[root,] = self.newest(root) + 1
        return self._publish({root: Version(deepcopy(target.tree), versions)}, txid)

    def _publish(self, drafts: dict[str, Version], txid: str | None) -> Result:
        for root, draft in drafts.items():
            self.past.setdefault(root, []).append(draft)
            self.first.setdefault(root, 0)
        self._age()
        self.seq += 1
        result = Result(self.seq, {root: self.newest(root) for root in drafts})
        if txid is not None:
            self.results[txid] = result
        return result

    def _age(self) -> None:
        for root in self.past:
            self.first[root] = max(self.first[root], self.newest(root) - self.maxlen)

    def restart(self, maxlen: int) -> None:
        """Close and open again, with another number of old versions kept."""
        self.maxlen = maxlen
        self._age()
