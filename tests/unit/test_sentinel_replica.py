"""A tega tree as the sentinel follows it: keys that changes touch, against a plain dict."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tega.paths import Path
from tega.sentinel.replica import NOTHING, Cut, Node, Place, Replica, plain

NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda keys: ("r", *keys))
VALUES = st.recursive(
    st.sampled_from([1, None, "x", [1]]), lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CUTS = st.sampled_from([
    Cut([Place(("r",))]),
    Cut([Place(("r",), 3)]),
    Cut([Place(("r", "a"), 3), Place(("r", "b"))]),
    Cut([Place(("r",), 2), Place(("r", "a"), 4)]),
])


def keys(cut: Cut, tree: Any) -> dict[Path, Any]:
    return {} if tree is NOTHING else copy.deepcopy(dict(cut.below(("r",), tree)))


def blocked(replica: Replica, path: Path) -> bool:
    """Whether a leaf stands above: tega refuses that."""
    above = [replica.get(path[:size]) for size in range(1, len(path))]
    return any(value is not NOTHING and type(value) is not dict for value in above)


@settings(max_examples=300, deadline=None)
@given(CUTS, st.lists(st.tuples(PATHS, st.none() | st.tuples(VALUES)), max_size=12))
def test_touched_keys_are_all_that_changed(
    cut: Cut, changes: list[tuple[Path, tuple[Any] | None]]
) -> None:
    replica = Replica(cut)
    for path, given_ in changes:
        if blocked(replica, path):
            continue
        before = keys(cut, replica.get(("r",)))
        if given_ is None:
            if replica.get(path) is NOTHING:
                continue
            touched = replica.delete(path)
            assert replica.get(path) is NOTHING
        else:
            touched = replica.put(path, copy.deepcopy(given_[0]))
            assert replica.get(path) == given_[0]
        after = keys(cut, replica.get(("r",)))
        expected = before | {key: value for key, value in touched.items() if value is not NOTHING}
        for key, value in touched.items():
            if value is NOTHING:
                expected.pop(key, None)
        assert expected == after


@settings(max_examples=200, deadline=None)
@given(CUTS, VALUES)
def test_the_internal_form_gives_the_same_keys(cut: Cut, value: Any) -> None:
    found = {node.path: node for node in cut.nodes(("r",), internal(value, 7))}
    assert found == {path: Node(path, v, 7) for path, v in cut.below(("r",), value)}
    assert plain(internal(value, 7)) == value


def internal(value: Any, version: int) -> dict[str, Any]:
    node: dict[str, Any] = {"_version": version, "_ephemeral": False}
    if type(value) is dict:
        return node | {name: internal(child, version) for name, child in value.items()}
    return node | {"_value": value}


def test_deleting_prunes_what_it_leaves_empty() -> None:
    replica = Replica(Cut([Place(("r",))]))
    replica.put(("r",), {"a": {"b": {"c": 1}}, "d": {}})
    assert replica.delete(("r", "a", "b", "c")) == {("r", "a", "b", "c"): NOTHING}
    assert replica.get(("r",)) == {"d": {}}
    assert replica.put(("r", "d", "e"), 1) == {("r", "d"): NOTHING, ("r", "d", "e"): 1}


def test_a_leaf_above_the_keys_is_one_that_will_not_fit() -> None:
    cut = Cut([Place(("r",), 3)])
    assert dict(cut.below(("r",), {"a": 5, "b": {}, "c": {"d": {"e": 1}}})) == {
        ("r", "a"): 5, ("r", "c", "d"): {"e": 1},
    }  # fmt: skip
