"""The tree of a tega server as a sentinel follows it, cut into keys. Pure.

A change of tega may be of a place above the keys that the mirror is about, or below one. So the
tree is held here, and each change gives the keys that it touches, each with its value as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tega.paths import Path


class Cut:
    """Where keys are in a tree.

    :param depths: how many keys the paths have that are mirrored; none: every leaf is
    :param prefixes: what they are under
    """

    def __init__(self, prefixes: Iterable[Path], depths: Iterable[int] = ()) -> None:
        self.prefixes = tuple(prefixes)
        self.depths = tuple(sorted(set(depths)))

    def below(self, path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
        """The keys in a part of a tree, with their values.

        :param path: where that part stands
        :param value: what stands there
        """
        if self._is_key(path, value):
            yield path, value
        if type(value) is dict and not (self.depths and len(path) >= self.depths[-1]):
            for name, child in value.items():
                yield from self.below((*path, name), child)

    def _is_key(self, path: Path, value: Any) -> bool:
        # An empty container is like a leaf: there is nothing in it that could stand for it.
        here = len(path) in self.depths if self.depths else not (type(value) is dict and value)
        return here and any(path[: len(prefix)] == prefix for prefix in self.prefixes)

    def above(self, path: Path) -> Iterator[Path]:
        """The keys that a path stands below, as far as that can be seen of the path."""
        for depth in self.depths:
            if depth < len(path) and self._is_key(path[:depth], NOTHING):
                yield path[:depth]


#: What stands where nothing does; a leaf may be None.
NOTHING: Final = object()


class Replica:
    """The tree."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._tree: dict[str, Any] = {}

    def load(self, path: Path, value: Any) -> None:
        """Put something there, telling nobody."""
        *above, last = path
        node = self._tree
        for key in above:
            child = node.get(key)
            if type(child) is not dict:
                child = node[key] = {}
            node = child
        node[last] = value

    def get(self, path: Path) -> Any:
        """What stands there; `NOTHING` where nothing does."""
        node: Any = self._tree
        for key in path:
            if type(node) is not dict or key not in node:
                return NOTHING
            node = node[key]
        return node

    def put(self, path: Path, value: Any) -> dict[Path, Any]:
        """Replace a part.

        :returns: the keys that this touches, each with what it has now, or `NOTHING`
        """
        touched = self._touched(path)
        self.load(path, value)
        return self._now(path, touched)

    def delete(self, path: Path) -> dict[Path, Any]:
        """Remove a part, and what it leaves empty above: as `put`."""
        touched = self._touched(path)
        nodes: list[dict[str, Any]] = [self._tree]
        for key in path[:-1]:
            child = nodes[-1].get(key)
            if type(child) is not dict:
                return {}
            nodes.append(child)
        for node, key in zip(reversed(nodes), reversed(path), strict=True):
            node.pop(key, None)
            if node:
                break
        return self._now(path, touched)

    def _touched(self, path: Path) -> dict[Path, Any]:
        """The keys that may go with what stands at a path."""
        touched = {}
        there = self.get(path)
        if there is not NOTHING:
            touched = dict.fromkeys([key for key, _ in self._cut.below(path, there)], NOTHING)
        if not self._cut.depths:
            # An empty container above is a key no more once something is put into it.
            for size in range(1, len(path)):
                if self.get(path[:size]) == {}:
                    touched[path[:size]] = NOTHING
        return touched

    def _now(self, path: Path, touched: dict[Path, Any]) -> dict[Path, Any]:
        for key in self._cut.above(path):
            touched[key] = self.get(key)
        there = self.get(path)
        if there is not NOTHING:
            touched.update(self._cut.below(path, there))
        return touched

