"""A walk over a whole state that compares it with what must hold."""

from __future__ import annotations

from tega.paths import MAX_KEY, check_key, dotted
from tega.store.history import MAX_IDS, Root, State
from tega.store.node import ABSENT, MaybeContent, Node, thaw, walk
from tega.strictjson import dumps, loads


def check(state: State) -> None:
    """Compare a state with the invariants of the data model.

    :raises AssertionError: naming the root, path and rule
    """
    for name, root in state.roots.items():
        assert name == root.name, f"{root.name} is filed under {name}"
        _check_root(root)
    ids = state.ids
    assert len(ids.results) == len(ids.order) <= MAX_IDS, "transaction ids and their order differ"
    for txid, result in ids.oldest_first():
        assert result.seq <= state.seq, f"transaction {txid} is of the future"
        for name, version in result.versions.items():
            assert version <= state.roots[name].version, f"transaction {txid} made no {name}"


def _check_root(root: Root) -> None:
    expected = range(root.first, root.version)
    assert sorted(root.old) == list(expected), f"old versions of {root.name} have a gap"
    for version in (*expected, root.version):
        _check_content(root.name, version, root.at(version))


def _check_content(name: str, version: int, content: MaybeContent) -> None:
    if content is ABSENT:
        return
    above: dict[tuple[str, ...], int] = {}
    for path, node, own in walk(content, version, (name,)):
        where = f"{dotted(path)} in version {version}"
        parent = above.get(path[:-1], version)
        assert 0 <= own <= parent, f"{where} has version {own}, its parent {parent}"
        if len(path) == 1:
            assert own == version, f"root {where} has version {own}"
        for key in path[-1:]:
            check_key(key)
            assert len(key.encode()) <= MAX_KEY
        if type(node) is Node:
            above[path] = own
        else:
            value = thaw(node)
            assert not isinstance(value, dict | list), f"{where} holds a {type(value).__name__}"
            assert dumps(loads(dumps(value))) == dumps(value), f"{where} is not JSON"
