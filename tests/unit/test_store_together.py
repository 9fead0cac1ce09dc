"""Shortcuts make what the long way makes: puts done together, and values that may be kept."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tega.errors import Malformed, TegaError
from tega.paths import parse
from tega.store import staging
from tega.store.commit import Commit, Operation, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.node import ABSENT, Leaf, Node, adopt, freeze
from tega.store.staging import Draft, stage
from tega.strictjson import dumps, loads

TIME = "2026-11-21T01:34:05.123456Z"


def shape(content: Any) -> Any:
    """All of a tree: values, versions, marks, and of which type the children are held in."""
    if content is ABSENT:
        return ABSENT
    if isinstance(content, Node):
        children = {key: shape(child) for key, child in content.children.items()}
        kind = type(content.children).__name__
        return kind, sorted(children.items()), content.version, content.base, repr(content.mark)
    if isinstance(content, Leaf):
        return shape(content.value), content.version, repr(content.mark)
    return repr(content)


def shown(commit: Commit) -> Any:
    changes = [msgspec.structs.asdict(one) for one in commit.changes]
    for one in changes:
        one["content"], one["replaced"] = shape(one["content"]), shape(one["replaced"])
    return msgspec.structs.replace(commit, changes=()), changes


def staged(state: State, operations: list[Operation]) -> Any:
    try:
        after, made = stage(state, Transaction(tuple(operations), "me"), TIME, 3, {"me"})
    except TegaError as error:
        return str(error)
    roots = [(one.name, shape(one.content), one.version, one.chain) for one in after.roots.values()]
    commit, changes = shown(made)
    return repr(commit), changes, roots, repr(after.ephemerals)


def one_by_one(draft: Draft, operations: Any) -> None:
    for operation in operations:
        draft.apply(operation)


names = st.sampled_from(["r.a", "r.b", "r.a.x", "r.a.y", "r.a.z", "r.b.x", "r", "s", "s.x", "s.y"])
values = st.sampled_from([1, "x", {"x": 1}, {"x": {"y": 2}, "z": True}, {}, {"k": {}}])
wide = st.integers(0, 40).map(lambda n: f"r.wide.k{n}")
puts = st.builds(
    lambda path, value, ephemeral: make_put(parse(path), value, ephemeral=ephemeral),
    names | wide, values, st.sampled_from([False, False, False, True]),
)  # fmt: skip
deletes = st.builds(lambda path: make_delete(parse(path)), names | wide)
transactions = st.lists(st.lists(puts | puts | deletes, max_size=12), max_size=4)


def plain(*paths: str) -> list[Operation]:
    return [make_put(parse(path), {"n": number}) for number, path in enumerate(paths)]


@given(transactions)
@example([plain("r.a.x"), plain("r.a.x", "r.a.y", "r.a.x", "r.b.x", "r.b.y", "r.b.x")])
@example([plain("r.a", "r.b"), plain("r.a.n.x", "r.a.n.y")])
@example([plain(*[f"r.wide.k{n}" for n in range(30)]), plain(*[f"r.wide.k{n}" for n in range(40)])])
@example([plain("r", "s"), plain("r", "s", "r"), plain("r.n.x", "r.n.y")])
def test_puts_into_one_container_make_what_they_make_one_after_the_other(
    given: list[list[Operation]],
) -> None:
    state = State("life")
    with pytest.MonkeyPatch.context() as patch:
        for operations in given:
            together = staged(state, operations)
            patch.setattr(staging.Draft, "apply_all", one_by_one)
            assert together == staged(state, operations)
            patch.undo()
            if not isinstance(together, str):
                request = Transaction(tuple(operations), "me")
                state, _ = stage(state, request, TIME, 3, {"me"})


def test_a_container_that_gets_much_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = stage(
        State("life"), Transaction(tuple(plain(*[f"r.k{n}" for n in range(50)])), "me"), TIME, 3
    )
    singles = 0
    apply = Draft.apply

    def counted(self: Draft, operation: Operation) -> None:
        nonlocal singles
        singles += 1
        apply(self, operation)

    monkeypatch.setattr(Draft, "apply", counted)
    many = plain(*[f"r.k{n}" for n in range(20)], "s.a", "r.k1")
    stage(state, Transaction(tuple(many), "me"), TIME, 3)
    assert singles == 2


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**4250),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4) | st.sampled_from(["a", "_a", ""]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json, st.integers(0, 4))
@example({f"k{n}": n for n in range(40)}, 4)
@example({f"k{n}": {"x": n} for n in range(40)}, 4)
@example({"a": {"b": {}, "c": {"d": 1}}}, 2)
@example({"a": [{"_free": [1]}], "b": 1.5, "c": None}, 4)
def test_a_value_that_may_be_kept_becomes_the_same(value: Any, room: int) -> None:
    def tried(make: Any) -> Any:
        try:
            return shape(make(loads(dumps(value)), room))
        except Malformed as error:
            return str(error)

    assert tried(adopt) == tried(freeze)


@given(json)
def test_a_value_that_is_kept_is_not_changed(value: Any) -> None:
    given = loads(dumps(value))
    with suppress(Malformed):
        adopt(given)
    assert repr(given) == repr(loads(dumps(value)))
