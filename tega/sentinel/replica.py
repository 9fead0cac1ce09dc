"""The tree of a tega server as a sentinel follows it, cut into keys. Pure.

A change of tega may be of a place above the keys that the mirror is about, or below one. So the
tree is held here, and each change gives the keys that it touches, each with its value as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tega.paths import Path

#: What stands where nothing does; a leaf may be None.
NOTHING: Final = object()


class Place(NamedTuple):
    """Where keys are in a tree.

    :ivar prefix: what they are under
    :ivar depth: how many keys their paths have; None: every leaf is a key
    """

    prefix: Path
    depth: int | None = None


class Node(NamedTuple):
    """What stands at a key.

    :ivar version: that of its root as it was last changed
    """

    path: Path
    value: Any
    version: int


class Cut:
    """All places where keys are.

    A leaf that stands higher up than a key could is a key too: it is to be seen that it does not
    fit. So is an empty container, where leaves are keys.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = tuple(dict.fromkeys(places))

    @property
    def prefixes(self) -> list[Path]:
        """What keys are under."""
        return [place.prefix for place in self.places]

    def here(self, path: Path, value: Any) -> bool:
        """Whether a key is at a path, where this stands."""
        for prefix, depth in self.places:
            if path[: len(prefix)] != prefix:
                continue
            if depth == len(path):
                return True
            if type(value) is dict:
                if not value and depth is None:
                    return True
            elif depth is None or len(path) < depth:
                return True
        return False

    def deeper(self, path: Path) -> bool:
        """Whether keys may be below a path."""
        for prefix, depth in self.places:
            common = min(len(path), len(prefix))
            if path[:common] == prefix[:common] and (depth is None or len(path) < depth):
                return True
        return False

    def below(self, path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
        """The keys in a part of a tree, with their values.

        :param path: where that part stands
        :param value: what stands there
        """
        if self.here(path, value):
            yield path, value
        if type(value) is dict and self.deeper(path):
            for name, child in value.items():
                yield from self.below((*path, name), child)

    def nodes(self, path: Path, node: dict[str, Any]) -> Iterator[Node]:
        """The keys in a part of a tree that is in its internal form."""
        deeper = self.deeper(path)
        children = [] if "_value" in node else [name for name in node if name[0] != "_"]
        value = dict.fromkeys(children) if deeper and children else plain(node)
        if self.here(path, value):
            yield Node(path, plain(node) if deeper else value, node["_version"])
        if deeper:
            for name in children:
                yield from self.nodes((*path, name), node[name])


def plain(node: dict[str, Any]) -> Any:
    """The value of a part of a tree that is in its internal form."""
    if "_value" in node:
        return node["_value"]
    return {name: plain(child) for name, child in node.items() if name[0] != "_"}


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
        """What stands there, or `NOTHING`."""
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
        touched = self._keys(path)
        self.load(path, value)
        return dict.fromkeys(touched, NOTHING) | self._keys(path)

    def delete(self, path: Path) -> dict[Path, Any]:
        """Remove a part, and what it leaves empty above: as `put`."""
        touched = self._keys(path)
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
        return dict.fromkeys(touched, NOTHING) | self._keys(path)

    def _keys(self, path: Path) -> dict[Path, Any]:
        """The keys above, at and below a path, with their values."""
        found: dict[Path, Any] = {}
        node: Any = self._tree
        for size, key in enumerate(path, 1):
            if type(node) is not dict or key not in node:
                return found
            node = node[key]
            if size < len(path) and self._cut.here(path[:size], node):
                found[path[:size]] = node
        found.update(self._cut.below(path, node))
        return found
