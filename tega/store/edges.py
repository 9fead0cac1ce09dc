"""The edges between nodes, for drawing how versions share what did not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tega.paths import Path, dotted
from tega.store.history import Root, State
from tega.store.node import ABSENT, walk


def edges(
    state: State,
    name: str | None,
    old_roots: bool,
    shown: Callable[[Path], bool] = lambda path: True,
) -> Iterator[tuple[str, str]]:
    """Edges between nodes named ``PATH(VERSION)``, each once.

    Every parent gives two a child: to the child, and from the child back to the parent that holds
    it in the newest tree where that very node still stands.

    :param name: of one root; None for all
    :param old_roots: whether to go through the old versions too
    :param shown: says of a path whether the node there, and the edges at it, are to be seen
    """
    for root in state.live_roots() if name is None else [state.roots[name]]:
        yield from _of_root(root, old_roots, shown)


def _of_root(
    root: Root, old_roots: bool, shown: Callable[[Path], bool]
) -> Iterator[tuple[str, str]]:
    holder: dict[tuple[Path, int], str] = {}
    given: set[tuple[str, str]] = set()
    oldest = root.first if old_roots else root.version
    for version in range(root.version, oldest - 1, -1):
        content = root.at(version)
        if content is ABSENT:
            continue
        names: dict[Path, str] = {}
        for path, _, own in walk(content, version, (root.name,)):
            names[path] = label = f"{dotted(path)}({own})"
            if len(path) == 1 or not (shown(path) and shown(path[:-1])):
                continue
            parent = names[path[:-1]]
            back = holder.setdefault((path, own), parent)
            for edge in ((parent, label), (label, back)):
                if edge not in given:
                    given.add(edge)
                    yield edge
