"""Comparing two states: what a snapshot holds, and what a replay adds up to."""

from __future__ import annotations

from tega.paths import Path, dotted
from tega.store import encode
from tega.store.history import Root, State
from tega.store.node import ABSENT, MaybeContent, Node, base_of, version_of


def compare(replayed: State, snapped: State) -> str | None:
    """Where a snapshot differs from the replay of the segment before: None for nowhere.

    Contents, versions, chains and transaction ids are compared, and of the old versions those that
    the snapshot has: it may have been made with a smaller ``maxlen``.
    """
    names = sorted({*replayed.roots, *snapped.roots})
    for name in names:
        ours, theirs = replayed.roots.get(name), snapped.roots.get(name)
        if ours is None or theirs is None:
            return f"root {dotted((name,))} is only in one"
        difference = _compare_roots(ours, theirs)
        if difference is not None:
            return difference
    if replayed.ids.oldest_first() != snapped.ids.oldest_first():
        return "the transaction ids"
    return None


def _compare_roots(ours: Root, theirs: Root) -> str | None:
    name = dotted((ours.name,))
    if ours.version != theirs.version:
        return f"{name} has version {ours.version} there and {theirs.version} here"
    if ours.first > theirs.first:
        return f"{name} has version {ours.first} as its oldest there and {theirs.first} here"
    if ours.chain != theirs.chain:
        return f"the hash of {name}"
    seen: set[tuple[int, int, int]] = set()
    for version in range(theirs.first, theirs.version + 1):
        a, b = ours.at(version), theirs.at(version)
        found = _first_difference((ours.name,), a, version, b, version, seen)
        if found is not None:
            return f"{dotted(found)} in version {version}"
    return None


def _first_difference(
    path: Path,
    a: MaybeContent,
    a_above: int,
    b: MaybeContent,
    b_above: int,
    seen: set[tuple[int, int, int]],
) -> Path | None:
    """The first path at which content or version differ.

    :param seen: pairs of containers that were found alike; old versions share most of them
    """
    if a is ABSENT or b is ABSENT:
        return None if a is b else path
    version = version_of(a, a_above)
    if version != version_of(b, b_above) or (type(a) is Node) != (type(b) is Node):
        return path
    if type(a) is not Node or type(b) is not Node:
        return None if encode.text(a) == encode.text(b) else path
    pair = (id(a), id(b), version)
    if pair in seen:
        return None
    seen.add(pair)
    for key in sorted({*a.children, *b.children}):
        ours, theirs = a.children.get(key, ABSENT), b.children.get(key, ABSENT)
        found = _first_difference(
            (*path, key), ours, base_of(a, version), theirs, base_of(b, version), seen
        )
        if found is not None:
            return found
    return None
