"""Trees: what may stand in one, and what put, delete and diff make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.errors import LeafInTheWay, Malformed, NotFound
from tega.store import node
from tega.store.node import ABSENT, Content, MaybeContent, Node, freeze, lookup, thaw


def tree(value: Any, *changes: tuple[str, Any]) -> tuple[MaybeContent, int]:
    """Content of a root named `r`, put at version 0, then one version for each change.

    A change is a path below the root and a value, or ``ABSENT`` to delete.
    """
    content: MaybeContent = freeze(value)
    version = 0
    for text, new in changes:
        content = changed(content, version, text, new)
        version += 1
    return content, version


def changed(content: MaybeContent, version: int, text: str, new: Any) -> MaybeContent:
    path = ("r", *text.split("."))
    if new is ABSENT:
        return node.delete(content, version, path, version + 1)[0]
    return node.put(content, version, path, freeze(new), version + 1)[0]


def versions(content: Content, version: int) -> dict[str, int]:
    return {".".join(path): own for path, _, own in node.walk(content, version, ("r",))}


def nested(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = {"k": value}
    return value


def in_lists(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = [value]
    return value


# -- what may stand in a tree ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, 1, -(2**70), 10**4200, 0.5, -0.0, "", "é\0\n", "%me.f(1)", [], {},
        [[], [[]], {}], [{"_free": 1, "": 2, "a.b": [{}]}], {"a": {}, "b": [None]},
    ],
)  # fmt: skip
def test_json_goes_in_and_comes_out(value: Any) -> None:
    shown = json.dumps(thaw(freeze(value)), sort_keys=True)
    assert shown == json.dumps(value, sort_keys=True)


def test_a_list_comes_out_as_a_tuple() -> None:
    assert thaw(freeze({"a": [1, [2]]})) == {"a": (1, (2,))}


def test_what_was_given_is_not_kept() -> None:
    value: Any = {"a": {"b": 1}, "l": [{"x": [1]}]}
    content = freeze(value)
    value["a"]["b"] = 2
    value["l"][0]["x"].append(2)
    out = thaw(content)
    assert out == {"a": {"b": 1}, "l": ({"x": (1,)},)}
    out["a"]["b"] = 3
    out["l"][0]["x"] = 3
    assert thaw(content) == {"a": {"b": 1}, "l": ({"x": (1,)},)}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [lambda n: n, lambda n: {"a": n}, lambda n: [{"a": [n]}]])
def test_non_finite_numbers_are_refused(number: float, where: Any) -> None:
    with pytest.raises(Malformed, match="not a finite number"):
        freeze(where(number))


@pytest.mark.parametrize("where", [lambda n: n, lambda n: -n, lambda n: [n], lambda n: [{"a": n}]])
def test_an_integer_of_5000_digits_is_refused(where: Any) -> None:
    with pytest.raises(Malformed, match="integer too long"):
        freeze(where(10**5000))


@pytest.mark.parametrize("key", ["_x", "_version"])
@pytest.mark.parametrize("where", [lambda o: o, lambda o: {"a": o}, lambda o: {"a": {"b": o}}])
def test_reserved_keys_are_refused_by_name(key: str, where: Any) -> None:
    with pytest.raises(Malformed, match=f"reserved key '{key}'"):
        freeze(where({"ok": 1, key: 1}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"": 1}, "empty key"),
        ({"k" * 256: 1}, "key too long"),
        ({"é" * 128: 1}, "key too long"),
        ({1: 1}, "key 1 is int"),
        ([{1: 1}], "key 1 is int"),
        ({"\ud800": 1}, "lone surrogate"),
        ({"a": "\ud800"}, "lone surrogate"),
        (["\udfff"], "lone surrogate"),
        ([{"\udfff": 1}], "lone surrogate"),
        (b"x", "a bytes cannot be stored"),
        ({1, 2}, "a set cannot be stored"),
        ([object()], "a object cannot be stored"),
    ],
)
def test_what_is_no_value_is_refused(value: Any, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        freeze(value)


def test_keys_of_255_bytes_are_taken() -> None:
    assert thaw(freeze({"k" * 255: 1, "é" * 127 + "k": 2})) == {"k" * 255: 1, "é" * 127 + "k": 2}


@pytest.mark.parametrize("value", [nested(4), in_lists(4), nested(2, in_lists(2)), [nested(3)]])
def test_nesting_counts_in_containers_and_in_lists(value: Any) -> None:
    freeze(value, room=4)
    with pytest.raises(Malformed, match="too deep"):
        freeze(value, room=3)


@pytest.mark.parametrize("empty", [{}, []])
def test_what_is_empty_adds_no_level(empty: Any) -> None:
    freeze(nested(4, empty), room=4)
    freeze(empty, room=0)


# -- put ------------------------------------------------------------------------------------------


def test_a_root_may_be_a_leaf() -> None:
    content, version = tree(7)
    assert lookup(content, version, ("r",)) == (7, 0, False)
    assert lookup(content, version, ("r", "a")) is None


def test_an_empty_container_is_there() -> None:
    content, version = tree({"a": {}})
    found = lookup(content, version, ("r", "a"))
    assert found is not None
    assert thaw(found.content) == {}


def test_put_replaces_and_does_not_merge() -> None:
    content, _ = tree({"a": {"x": 1, "y": 2}}, ("a", {"x": 3}))
    assert thaw(content) == {"a": {"x": 3}}


def test_put_makes_missing_parents() -> None:
    assert thaw(node.put(ABSENT, 0, ("r", "a", "b"), 1, 0)[0]) == {"a": {"b": 1}}
    content, _ = tree({"x": 1}, ("a.b.c", 2))
    assert thaw(content) == {"x": 1, "a": {"b": {"c": 2}}}


@pytest.mark.parametrize(
    ("value", "path", "leaf"),
    [
        (1, ("r", "a"), "r"),
        ([], ("r", "0"), "r"),
        (None, ("r", "a", "b"), "r"),
        ({"a": 1}, ("r", "a", "b"), "r.a"),
        ({"a": {"b.c": []}}, ("r", "a", "b.c", "d", "e"), 'r.a."b.c"'),
    ],
)
def test_a_leaf_in_the_way_is_an_error_that_names_it(
    value: Any, path: tuple[str, ...], leaf: str
) -> None:
    with pytest.raises(LeafInTheWay) as caught:
        node.put(freeze(value), 0, path, 2, 1)
    assert f"a leaf stands at {leaf}," in str(caught.value)
    assert caught.value.details == {"path": leaf}


def test_a_leaf_may_become_a_container_and_back() -> None:
    content, version = tree({"a": 1}, ("a", {"b": 2}))
    assert thaw(content) == {"a": {"b": 2}}
    assert thaw(changed(content, version, "a", [])) == {"a": ()}


def test_the_node_and_its_parents_carry_the_new_version() -> None:
    content, version = tree({"a": {"x": 1, "y": 2}, "b": {"z": 3}}, ("a.x", 9))
    assert versions(content, version) == {
        "r": 1, "r.a": 1, "r.a.x": 1, "r.a.y": 0, "r.b": 0, "r.b.z": 0,
    }  # fmt: skip


def test_all_of_a_new_subtree_carries_the_new_version() -> None:
    content, version = tree({"a": 1, "b": 2}, ("a", {"x": {"y": 1}}), ("c", 3), ("a.x.z", 4))
    assert versions(content, version) == {
        "r": 3, "r.a": 3, "r.a.x": 3, "r.a.x.y": 1, "r.a.x.z": 3, "r.b": 0, "r.c": 2,
    }  # fmt: skip


def test_an_equal_value_is_a_change_like_any_other() -> None:
    content, version = tree({"a": 1, "b": 2}, ("a", 1))
    assert versions(content, version) == {"r": 1, "r.a": 1, "r.b": 0}


def test_siblings_are_shared() -> None:
    before = freeze({"a": {"x": 1}, "b": {"y": {"z": 1}}})
    after: Content = changed(before, 0, "a.x", 2)
    assert after.children["b"] is before.children["b"]
    assert thaw(before) == {"a": {"x": 1}, "b": {"y": {"z": 1}}}


# -- delete ---------------------------------------------------------------------------------------


def test_delete_removes_the_subtree() -> None:
    content, version = tree({"a": {"x": {"y": 1}}, "b": {"c": 1, "d": 2}}, ("b.c", ABSENT))
    assert thaw(content) == {"a": {"x": {"y": 1}}, "b": {"d": 2}}
    assert versions(content, version) == {
        "r": 1, "r.a": 0, "r.a.x": 0, "r.a.x.y": 0, "r.b": 1, "r.b.d": 0,
    }  # fmt: skip


def test_delete_takes_the_parents_that_it_leaves_empty() -> None:
    content, version = tree({"a": {"b": {"c": 1}}, "x": 1}, ("a.b.c", ABSENT))
    assert thaw(content) == {"x": 1}
    assert versions(content, version) == {"r": 1, "r.x": 0}


def test_delete_of_the_last_leaf_takes_the_root() -> None:
    content, _ = tree({"a": {"b": {"c": 1}}}, ("a.b.c", ABSENT))
    assert content is ABSENT


def test_delete_leaves_an_empty_container_that_was_put() -> None:
    content, _ = tree({"a": {"b": 1, "e": {}}}, ("a.b", ABSENT))
    assert thaw(content) == {"a": {"e": {}}}


@pytest.mark.parametrize("below", ["x", "a.x", "a.b.x", "l.0", "l.0.y"])
def test_delete_of_what_is_absent_is_not_found(below: str) -> None:
    content, path = freeze({"a": {"b": 1}, "l": [1]}), ("r", *below.split("."))
    with pytest.raises(NotFound, match="nothing at r"):
        node.delete(content, 0, path, 1)
    with pytest.raises(NotFound):
        node.delete(ABSENT, 0, path, 1)


# -- reading --------------------------------------------------------------------------------------


def test_what_stands_in_a_list_has_no_path() -> None:
    content = freeze({"l": [{"a": 1}]})
    assert lookup(content, 0, ("r", "l", "0")) is None
    assert lookup(content, 0, ("r", "l", "a")) is None


def test_names_of_methods_are_keys_like_others() -> None:
    value = {name: {"get": 1} for name in ("items", "get", "keys", "children", "version")}
    content = freeze(value)
    assert thaw(content) == value
    assert lookup(content, 0, ("r", "items", "get")) == (1, 0, False)
    assert lookup(content, 0, ("r", "children", "values")) is None


def test_walk_goes_parents_first_and_in_order_of_key() -> None:
    content = freeze({"b": {"y": 1, "x": 2}, "a": 3, "B": 4, "é": 5})
    paths = [".".join(path) for path, _, _ in node.walk(content, 0, ("r",))]
    assert paths == ["r", "r.B", "r.a", "r.b", "r.b.x", "r.b.y", "r.é"]


# -- diff -----------------------------------------------------------------------------------------


def shown_diff(old: Any, new: Any) -> list[tuple[str, Any]]:
    return [
        (".".join(path), ABSENT if content is ABSENT else thaw(content))
        for path, content in node.diff(
            old if old is ABSENT else freeze(old), new if new is ABSENT else freeze(new), ("r",)
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({}, {}, []),
        (ABSENT, ABSENT, []),
        ([1, {"a": 2}], [1, {"a": 2}], []),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, [("r.b", 3)]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, [("r.a.c", ABSENT)]),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, [("r.a.c", 2), ("r.a.b", ABSENT)]),
        ({"a": {"b": 1}}, {"a": {}}, [("r.a", {})]),
        ({"a": {}}, {"a": {"b": 1}}, [("r.a.b", 1)]),
        ({"a": {"b": 1}}, {"a": 1}, [("r.a", 1)]),
        ({"a": 1}, {"a": {"b": 1}}, [("r.a", {"b": 1})]),
        ({"a": {"b": 1}, "c": 1}, {"c": 1}, [("r.a", ABSENT)]),
        ({"a": 1}, ABSENT, [("r", ABSENT)]),
        (ABSENT, {"a": 1}, [("r", {"a": 1})]),
        (1, True, [("r", True)]),
        (1, 1.0, [("r", 1.0)]),
        (0.0, -0.0, [("r", -0.0)]),
        ("1", 1, [("r", 1)]),
        ([], {}, [("r", {})]),
        ([1], [True], [("r", (True,))]),
    ],
)
def test_diff_gives_the_fewest_changes(old: Any, new: Any, changes: list[Any]) -> None:
    assert repr(shown_diff(old, new)) == repr(changes)


keys = st.sampled_from("abc")
values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([0, 1, True, 1.0, (), (1,), None]) | st.just({}),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(values | st.just(ABSENT), values | st.just(ABSENT))
def test_the_changes_of_a_diff_make_the_new_tree(old: Any, new: Any) -> None:
    content: MaybeContent = old if old is ABSENT else freeze(old)
    target: MaybeContent = new if new is ABSENT else freeze(new)
    for path, change in node.diff(content, target, ("r",)):
        if change is ABSENT:
            content, _ = node.delete(content, 1, path, 1)
        else:
            content, _ = node.put(content, 1, path, change, 1)
    assert repr(normal(content)) == repr(normal(target))


def normal(content: MaybeContent) -> Any:
    return content if content is ABSENT else json.dumps(thaw(content), sort_keys=True)


def test_what_a_diff_puts_is_fresh() -> None:
    content, _ = tree({"a": 1}, ("b.c", 1), ("b.d", 2))
    [(_, put)] = node.diff(freeze({"a": 1}), content, ("r",))
    assert type(put) is Node
    assert versions(put, 7) == {"r": 7, "r.c": 7, "r.d": 7}
