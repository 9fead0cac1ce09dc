"""Trees as text: plain, with attributes, and exactly as snapshots need them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.errors import Malformed, TegaError
from tega.store import encode
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.store.encode import internal, packed, packed_since, plain, text, unpacked
from tega.store.history import State
from tega.store.node import ABSENT, Content, MaybeContent, freeze, thaw, walk
from tega.store.staging import stage
from tega.strictjson import dumps, loads

TIME = "2026-11-21T01:34:05.123456Z"

documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([{"b": [], "a": {}}]),
    lambda inner: st.dictionaries(
        st.text(min_size=1, max_size=3).filter(lambda key: key[0] != "_"), inner, max_size=5
    ),
    max_leaves=30,
)

keys = st.sampled_from(["a", "b", "c", "A", "é.x"])
leaves = st.sampled_from([0, 1, 2**70, "x", None, True, 1.0]) | st.just([1, {"_free": []}])
values: st.SearchStrategy[Any] = st.recursive(
    leaves | st.just({}),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
paths = st.lists(keys, max_size=3).map(lambda below: ("r", *below))
operations = st.builds(make_put, paths, values) | st.builds(make_delete, paths)
requests = st.lists(operations, min_size=1, max_size=3).map(
    lambda listed: Transaction(tuple(listed), "me")
) | st.integers(-3, -1).map(lambda backto: Rollback("r", backto, "me"))


def after(state: State, listed: list[Any]) -> State:
    """The state after these requests, those left out that are refused."""
    for request in listed:
        with suppress(TegaError):
            state, _ = stage(state, request, TIME, 100)
    return state


def history(state: State) -> list[tuple[int, MaybeContent]]:
    if "r" not in state.roots:
        return []
    root = state.roots["r"]
    return [(version, root.at(version)) for version in range(root.first, root.version + 1)]


def whole(pieces: Iterator[bytes]) -> bytes:
    return b"".join(pieces)


def shown(content: MaybeContent, version: int) -> Any:
    """All that readers can tell of a tree: values and versions."""
    if content is ABSENT:
        return None
    return [(path, own) for path, _, own in walk(content, version, ("r",))], dumps(thaw(content))


# -- values ---------------------------------------------------------------------------------------


@given(documents)
def test_text_is_the_value_with_sorted_keys(value: Any) -> None:
    expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text(freeze(value)) == whole(plain(freeze(value))) == expected.encode()


@given(documents)
def test_piece_borders_do_not_show(value: Any) -> None:
    content = freeze(value)

    def texts() -> list[bytes]:
        forms = plain(content), packed(content), internal(content, 3, "r", None)
        return [whole(pieces) for pieces in forms]

    expected = texts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "PIECE", 2)
        assert texts() == expected


def test_keys_are_sorted_where_they_are_sorted_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "PIECE", 3)
    value = {f"k{n * 7919 % 1000}": n for n in range(200)}
    assert whole(plain(freeze(value))) == dumps(value)


@pytest.mark.parametrize(
    "pieces",
    [
        plain,
        packed,
        lambda content: internal(content, 0, "r", None),
        lambda content: packed_since(freeze({"x": "L"}), content),
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        {f"k{n}": "L" for n in range(3_500)},
        {f"k{n}": {"a": "L", "b": {"c": "L"}} for n in range(1_500)},
        {"a": {f"k{n}": "L" for n in range(2_500)}, "b": "L", "c": dict.fromkeys("de", "L")},
    ],
    ids=["wide", "nested", "mixed"],
)
def test_no_piece_has_more_than_its_share_of_leaves(
    pieces: Callable[[Content], Iterator[bytes]], value: Any
) -> None:
    counts = [piece.count(b'"L"') for piece in pieces(freeze(value))]
    assert sum(counts) >= 2_500
    assert max(counts) <= encode.PIECE == 1_000


# -- with attributes ------------------------------------------------------------------------------


def test_the_internal_form_of_a_tree() -> None:
    state = State("life")
    for path, value in [(("r", "b"), 3), (("r", "c", "d"), [1])]:
        state, _ = stage(state, Transaction((make_put(path, value),), "me"), TIME, 10)
    root = state.roots["r"]
    assert loads(whole(internal(root.content, root.version, "r", None))) == {
        "_ephemeral": False, "_oid": "r", "_parent": None, "_version": 1,
        "b": {"_ephemeral": False, "_oid": "b", "_parent": "r", "_value": 3, "_version": 0},
        "c": {
            "_ephemeral": False, "_oid": "c", "_parent": "r", "_version": 1,
            "d": {"_ephemeral": False, "_oid": "d", "_parent": "c", "_value": [1], "_version": 1},
        },
    }  # fmt: skip


def test_the_internal_form_of_a_leaf() -> None:
    assert loads(whole(internal(freeze(None), 4, "b", "r"))) == {
        "_ephemeral": False, "_oid": "b", "_parent": "r", "_value": None, "_version": 4,
    }  # fmt: skip


# -- exactly --------------------------------------------------------------------------------------


@given(st.lists(requests, max_size=8))
def test_packed_is_exact(listed: list[Any]) -> None:
    for version, content in history(after(State("life"), listed)):
        if content is not ABSENT:
            again = unpacked(loads(whole(packed(content))))
            assert shown(again, version) == shown(content, version)
            assert whole(packed(again)) == whole(packed(content))


@given(st.lists(requests, max_size=8), st.integers(1, 4))
def test_packed_since_is_exact(listed: list[Any], step: int) -> None:
    past = history(after(State("life"), listed))
    for (_, old), (version, new) in zip(past, past[step:], strict=False):
        if new is not ABSENT:
            again = unpacked(loads(whole(packed_since(old, new))), old)
            assert shown(again, version) == shown(new, version)
            assert whole(packed(again)) == whole(packed(new))


@given(st.lists(requests, min_size=1, max_size=6), st.lists(requests, min_size=1, max_size=4))
def test_what_was_packed_goes_on_like_the_original(first: list[Any], then: list[Any]) -> None:
    state = after(State("life"), first)
    roots = state.roots
    for name, root in state.roots.items():
        content: MaybeContent = ABSENT
        for version in range(root.first, root.version + 1):
            new = root.at(version)
            if new is ABSENT:
                content = ABSENT
            else:
                content = unpacked(loads(whole(packed_since(content, new))), content)
        roots = roots.set(
            name, type(root)(root.name, root.version, content, root.chain, root.old)
        )
    copy = State(state.life, state.seq, roots, state.ids)
    going_on = zip(history(after(state, then)), history(after(copy, then)), strict=True)
    for (version, content), (other_version, other) in going_on:
        assert version == other_version
        assert shown(content, version) == shown(other, version)


def test_packed_since_holds_only_what_changed() -> None:
    listed = [make_put(("r",), {"wide": {f"k{n}": n for n in range(500)}, "x": 1})]
    state = after(State("life"), [Transaction(tuple(listed), "me")])
    old = state.roots["r"].content
    changes = make_put(("r", "wide", "k7"), -1), make_delete(("r", "wide", "k8"))
    new = after(state, [Transaction(changes, "me")]).roots["r"].content
    assert loads(whole(packed_since(old, new))) == {
        "_base": 0, "_changed": True, "_version": 1,
        "wide": {
            "_base": 0, "_changed": True, "_gone": ["k8"], "_version": 1,
            "k7": {"_value": -1, "_version": 1},
        },
    }  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0.0, -0.0), ([1], [True])])
def test_packed_since_tells_apart_what_python_takes_for_equal(old: Any, new: Any) -> None:
    before, content = freeze({"a": old}), freeze({"a": new})
    again = unpacked(loads(whole(packed_since(before, content))), before)
    assert repr(thaw(again)) == repr(thaw(content))


def test_a_change_of_nothing_is_refused() -> None:
    with pytest.raises(Malformed, match="where there was none"):
        unpacked({"a": {"_changed": True, "b": 1}, "_changed": True}, freeze({"a": 1}))


def test_what_came_in_under_another_depth_limit_is_unpacked() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    content = freeze({"a": value}, room=101)
    assert thaw(unpacked(loads(whole(packed(content))))) == thaw(content)
