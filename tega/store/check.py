"""A walk over a whole state that compares it with what must hold."""

from __future__ import annotations

from tega.paths import Path, check_key, dotted
from tega.store.ephemeral import tops
from tega.store.history import MAX_IDS, Root, State
from tega.store.node import (
    ABSENT,
    Content,
    Node,
    base_of,
    mark_of,
    thaw,
    version_of,
)
from tega.strictjson import dumps, loads


def check(state: State) -> None:
    """Compare a state with the invariants of the data model.

    :raises AssertionError: naming the root, path and rule
    """
    for name, root in state.roots.items():
        assert name == root.name, f"{root.name} is filed under {name}"
        _check_root(root)
    _check_ephemerals(state)
    ids = state.ids
    assert len(ids.results) == len(ids.order) <= MAX_IDS, "transaction ids and their order differ"
    for txid, result in ids.oldest_first():
        assert result.seq <= state.seq, f"transaction {txid} is of the future"
        for name, version in result.versions.items():
            assert version <= state.roots[name].version, f"transaction {txid} made no {name}"


def _check_ephemerals(state: State) -> None:
    found = [
        one for root in state.roots.values() for one in tops(root.content, (root.name,))
    ]
    filed = [(path, owner) for owner, paths in state.ephemerals.items() for path in paths]
    assert sorted(found) == sorted(filed), "the ephemeral nodes differ from their index"
    assert all(state.ephemerals.values()), "the index has a tega id without ephemeral nodes"


def _check_root(root: Root) -> None:
    expected = range(root.first, root.version)
    assert sorted(root.old) == list(expected), f"old versions of {root.name} have a gap"
    # What versions share is walked once.
    seen: set[tuple[int, int]] = set()
    for version in (*expected, root.version):
        content = root.at(version)
        if content is not ABSENT:
            own = version_of(content, version)
            assert own == version, f"root {root.name} has version {own} in version {version}"
            _check_content(content, own, (root.name,), version, seen)


def _check_content(
    content: Content, own: int, path: Path, version: int, seen: set[tuple[int, int]]
) -> None:
    where = f"{dotted(path)} in version {version}"
    check_key(path[-1])
    _check_mark(where, content)
    if type(content) is not Node:
        value = thaw(content)
        assert not isinstance(value, dict | list), f"{where} holds a {type(value).__name__}"
        assert dumps(loads(dumps(value))) == dumps(value), f"{where} is not JSON"
        return
    if (id(content), own) in seen:
        return
    seen.add((id(content), own))
    base = base_of(content, own)
    for key, child in content.children.items():
        found = version_of(child, base)
        assert 0 <= found <= own, f"{where} has version {own}, {key} in it {found}"
        _check_content(child, found, (*path, key), version, seen)


def _check_mark(where: str, content: Content) -> None:
    """Compare a node's mark with those of its children."""
    mark = mark_of(content)
    children = content.children if type(content) is Node else {}
    below = {
        key: not of_child.lasts
        for key, child in children.items()
        if (of_child := mark_of(child)) is not None
    }
    if mark is None:
        assert not below, f"{where} has no mark, and a child that has one"
        return
    assert dict(mark.below) == below, f"the mark of {where} is not that of its children"
    assert mark.transient == sum(below.values()), f"{where} counts {mark.transient} transient"
    if mark.owner is not None:
        assert not below, f"in the ephemeral {where} a child has a mark"
        assert not mark.implicit, f"the ephemeral {where} is implicit"
    else:
        assert below, f"{where} has a mark, and no child that has one"
        # A lasting container without lasting children is one that was put empty.
        assert not mark.implicit or mark.transient == len(children), f"{where} is implicit"
