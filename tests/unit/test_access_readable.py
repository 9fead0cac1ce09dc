"""Trees cut down to what may be read, beside a filter of plain dicts, gone through by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.access import readable
from tega.access.rules import Place, Rights, Rule
from tega.store import encode
from tega.store.commit import Commit, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.node import Content
from tega.store.staging import stage

TIME = "2026-11-21T01:34:05.123456Z"
KEYS = ("a", "b", "ab")
NOTHING: Any = object()

keys = st.sampled_from(KEYS)
leaves = st.integers(0, 9) | st.sampled_from(["x", None, [], [1, {"a": 2}]])
values = st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=12)
roots = st.dictionaries(keys, values, max_size=3)
written = st.lists(st.sampled_from((*KEYS, "*", "a*")), min_size=1, max_size=4).map(".".join)
rule_lists = st.lists(st.tuples(written, st.sampled_from(("r", "", "w", "rw"))), max_size=6)
paths = st.lists(keys, max_size=2).map(tuple)


def rights_of(given: list[tuple[str, str]]) -> Rights:
    return Rights(Rule(n, ("x",), on, may) for n, (on, may) in enumerate(given, 1))


def reads(given: list[tuple[str, str]], path: tuple[str, ...]) -> bool:
    """The definition: the first rule on the path or on one above it says whether."""
    for on, may in given:
        levels = on.split(".")
        if len(levels) <= len(path) and all(
            level == key or (level[-1] == "*" and key.startswith(level[:-1]))
            for level, key in zip(levels, path, strict=False)
        ):
            return "r" in may
    return False


def cut(value: Any, given: list[tuple[str, str]], path: tuple[str, ...]) -> Any:
    """The definition: what may be read stays, and containers with something below that does."""
    if type(value) is not dict:
        return value if reads(given, path) else NOTHING
    below = {key: cut(child, given, (*path, key)) for key, child in value.items()}
    seen = {key: child for key, child in below.items() if child is not NOTHING}
    return seen if seen or reads(given, path) else NOTHING


def cut_internal(value: Any, given: list[tuple[str, str]], path: tuple[str, ...]) -> Any:
    """The same for the internal form."""
    if "_value" in value:
        return value if reads(given, path) else NOTHING
    below = {
        key: cut_internal(child, given, (*path, key)) if key[0] != "_" else child
        for key, child in value.items()
    }
    seen = {key: child for key, child in below.items() if child is not NOTHING}
    shown = any(key[0] != "_" for key in seen) or reads(given, path)
    return seen if shown else NOTHING


def stored(*steps: Any) -> tuple[Content, int]:
    """The root ``a`` after some operations, and its version."""
    state, commit = State("life"), None
    for step in steps:
        state, commit = stage(state, Transaction((step,), "me"), TIME, 10, {"me"})
    assert isinstance(commit, Commit)
    found = state.find(("a",))
    return found.content, found.version


def shows(content: Content, place: Place) -> bool:
    looking = readable.look(content, place)
    while True:
        try:
            next(looking)
        except StopIteration as end:
            return bool(end.value)


def text(pieces: Any) -> Any:
    return json.loads(b"".join(pieces))


@given(roots, roots, rule_lists, paths)
def test_what_is_shown_is_what_the_definition_says(
    value: dict[str, Any], more: dict[str, Any], given: list[tuple[str, str]], below: tuple[str]
) -> None:
    content, version = stored(
        make_put(("a",), value), make_put(("a", "ab"), more), make_put(("a", "z"), 1),
        make_put(("a", "y"), {"b": 1}, ephemeral=True), make_delete(("a", "z")),
    )  # fmt: skip
    whole = {**value, "ab": more, "y": {"b": 1}}
    internal = text(encode.internal(content, version, "a", None))
    place, path = rights_of(given).at(("a",)), ("a",)
    for key in below:
        # At a place below too, as a GET of that has it.
        children = getattr(content, "children", {})
        if key not in children:
            break
        content, whole, internal = children[key], whole[key], internal[key]
        place, path = place.child(key), (*path, key)
        version = internal["_version"]
    expected = cut(whole, given, path)
    assert shows(content, place) == (expected is not NOTHING)
    if expected is NOTHING:
        return
    assert text(readable.plain(content, place)) == expected
    parent = internal["_parent"]
    ephemeral = internal["_ephemeral"]
    made = readable.internal(content, version, path[-1], parent, place, ephemeral)
    assert text(made) == cut_internal(internal, given, path)


def wide(size: int) -> Content:
    content, _ = stored(make_put(("a",), {f"k{n:06}": {"s": n, "p": -n} for n in range(size)}))
    return content


def test_a_wide_container_comes_in_bounded_pieces() -> None:
    content = wide(30_000)
    # Some of each child is hidden; then all of most; then of some, by name.
    for rules in (
        [("a.*.s", ""), ("*", "r")],
        [("a.k00001*", "r"), ("b", "r")],
        [("a.k000001", ""), ("a", "r")],
    ):
        place = rights_of(rules).at(("a",))
        pieces = list(readable.plain(content, place))
        assert max(map(len, pieces)) < 64 * encode.PIECE
        assert json.loads(b"".join(pieces)) == {
            f"k{n:06}": {
                key: value
                for key, value in (("s", n), ("p", -n))
                if reads(rules, ("a", f"k{n:06}", key))
            }
            for n in range(30_000)
            if reads(rules, ("a", f"k{n:06}", "p"))
        }


def test_what_one_rule_decides_is_written_as_if_there_were_none() -> None:
    content = wide(2_000)
    place = rights_of([("b", ""), ("*", "r")]).at(("a",))
    assert list(readable.plain(content, place)) == list(encode.plain(content))
    made = readable.internal(content, 0, "a", None, place)
    assert list(made) == list(encode.internal(content, 0, "a", None))


def deep(size: int) -> Content:
    branches = {f"b{n:03}": {f"k{m:03}": {"s": m} for m in range(size)} for n in range(size)}
    return stored(make_put(("a",), branches))[0]


@pytest.mark.parametrize(
    "rules",
    [
        [("a.none*", "r")],
        [("a.*.none", "r"), ("a.*.*.none", "r")],
        [("*.*.*.none*", "r")],
        [("a.zzz*", "r"), ("a.*.*.s", "")],
    ],
)
@pytest.mark.parametrize("content", [wide(20_000), deep(100)], ids=["wide", "deep"])
def test_a_large_hidden_tree_is_looked_through_in_small_steps(
    content: Content, rules: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody has to wait for whoever asks for what may not be seen."""
    steps = [0]
    child = Place.child

    def counted(self: Place, key: str) -> Place:
        steps[-1] += 1
        return child(self, key)

    monkeypatch.setattr(Place, "child", counted)
    place = rights_of(rules).at(("a",))
    for work in (readable.look(content, place), readable.plain(content, place)):
        for _ in work:
            steps.append(0)
    assert max(steps) <= 200
    assert sum(steps) > 200
    assert not shows(content, place)
