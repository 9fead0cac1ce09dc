"""The edges between nodes, for drawing how versions share what did not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tega.paths import Path, dotted
from tega.store.children import in_order
from tega.store.history import Root, State
from tega.store.node import MaybeContent, Node, base_of, version_of


def edges(
    state: State,
    name: str | None,
    old_roots: bool,
    shown: Callable[[Path], bool] = lambda path: True,
) -> Iterator[tuple[str, str] | None]:
    """Edges between nodes named ``PATH(VERSION)``, each once.

    Every parent gives two a child: to the child, and from the child back to the parent that holds
    it in the newest tree where that very node still stands. None in between is a place to pause.

    :param name: of one root; None for all
    :param old_roots: whether to go through the old versions too
    :param shown: says of a path whether the node there, and the edges at it, are to be seen
    """
    for root in state.live_roots() if name is None else [state.roots[name]]:
        yield from _of_root(root, old_roots, shown)


def _of_root(
    root: Root, old_roots: bool, shown: Callable[[Path], bool]
) -> Iterator[tuple[str, str] | None]:
    holder: dict[tuple[Path, int], str] = {}
    given: set[tuple[str, str]] = set()

    def below(
        content: MaybeContent, version: int, path: Path, seen: bool
    ) -> Iterator[tuple[str, str] | None]:
        if type(content) is not Node:
            return
        parent, base = f"{dotted(path)}({version})", base_of(content, version)
        for key in in_order(content.children):
            yield None
            if key is None:
                continue
            child, there = content.children[key], (*path, key)
            own, child_seen = version_of(child, base), shown(there)
            if seen and child_seen:
                label = f"{dotted(there)}({own})"
                # In a single version nothing comes twice.
                back = holder.setdefault((there, own), parent) if old_roots else parent
                for edge in ((parent, label), (label, back)):
                    if edge not in given:
                        yield edge
                    if old_roots:
                        given.add(edge)
            yield from below(child, own, there, child_seen)

    oldest = root.first if old_roots else root.version
    for version in range(root.version, oldest - 1, -1):
        content, path = root.at(version), (root.name,)
        yield from below(content, version_of(content, version), path, shown(path))
