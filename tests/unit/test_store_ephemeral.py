"""Ephemeral nodes: what is allowed around them, what goes when, and what a rollback makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ephemerals import (
    TREE,
    Step,
    after,
    commit,
    lasting,
    operation,
    owned,
    replayed,
    request,
    roll_back,
    versions,
    whole,
)

from tega.errors import EphemeralConflict, TegaError
from tega.paths import dotted, parse
from tega.store import ephemeral
from tega.store.commit import Lapse, Request, Rollback, Transaction
from tega.store.encode import internal
from tega.store.history import State
from tega.store.node import ABSENT, freeze, thaw, walk
from tega.store.staging import candidate
from tega.strictjson import loads

CONFLICT = "ephemeral_conflict"


def shown_ephemeral(state: State) -> list[str]:
    """The paths in root ``r`` that a reader is shown as ephemeral, by all ways of reading."""
    root = state.roots["r"]
    if root.content is ABSENT:
        return []
    form = loads(b"".join(internal(root.content, root.version, "r", None)))
    paths = sorted(_flagged(form, ("r",)))
    for path, _, _ in walk(root.content, root.version, ("r",)):
        found = state.find(path)
        assert found.ephemeral == (dotted(path) in paths)
        alone = b"".join(internal(found.content, found.version, path[-1], None, found.ephemeral))
        assert sorted(_flagged(loads(alone), path)) == [
            shown for shown in paths if parse(shown)[: len(path)] == path
        ]
    return paths


def _flagged(form: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    if form["_ephemeral"]:
        yield dotted(path)
    for key, child in form.items():
        if key[0] != "_":
            yield from _flagged(child, (*path, key))


# -- the rules ------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("step", "code"),
    [
        # an ephemeral put
        (("me", "put!", "r.l.new", 1), None),
        (("me", "put!", "r.l.new.deep", 1), None),
        (("me", "put!", "s", 1), None),
        (("me", "put!", "r.i.new", 1), None),
        (("me", "put!", "r.l", 1), CONFLICT),
        (("me", "put!", "r.l.x", 1), CONFLICT),
        (("me", "put!", "r.m", 1), CONFLICT),
        (("me", "put!", "r.i", 1), CONFLICT),
        (("me", "put!", "r", 1), CONFLICT),
        (("me", "put!", "r.mine", 1), None),
        (("me", "put!", "r.mine.a", 1), None),
        (("me", "put!", "r.mine.new.deep", 1), None),
        (("me", "put!", "r.mine.leaf.x", 1), "leaf_in_the_way"),
        (("me", "put!", "r.l.leaf.x", 1), "leaf_in_the_way"),
        (("me", "put!", "r.i.mine.x", 1), "leaf_in_the_way"),
        (("me", "put!", "r.theirs", 1), CONFLICT),
        (("me", "put!", "r.theirs.a", 1), CONFLICT),
        (("me", "put!", "r.theirs.new", 1), CONFLICT),
        (("me", "put!", "r.j.theirs.x", 1), CONFLICT),
        # a lasting put
        (("me", "put", "r.l", 1), None),
        (("me", "put", "r.i.new", 1), None),
        (("me", "put", "r.m.x", 1), None),
        (("me", "put", "r.m", 1), CONFLICT),
        (("me", "put", "r", 1), CONFLICT),
        (("me", "put", "r.i", {}), CONFLICT),
        (("me", "put", "r.mine", 1), CONFLICT),
        (("me", "put", "r.mine.a", 1), CONFLICT),
        (("me", "put", "r.mine.new", 1), CONFLICT),
        (("me", "put", "r.mine.leaf.x", 1), CONFLICT),
        (("me", "put", "r.theirs", 1), CONFLICT),
        (("me", "put", "r.theirs.a.b", 1), CONFLICT),
        (("me", "put", "r.l.leaf.x", 1), "leaf_in_the_way"),
        # a delete
        (("me", "delete", "r.l"), None),
        (("me", "delete", "r.mine"), None),
        (("me", "delete", "r.mine.a"), None),
        (("me", "delete", "r.mine.a.b"), None),
        (("me", "delete", "r.i"), None),
        (("me", "delete", "r.m"), None),
        (("me", "delete", "r.m.x"), None),
        (("you", "delete", "r.m.x"), None),
        (("me", "delete", "r"), CONFLICT),
        (("me", "delete", "r.j"), CONFLICT),
        (("you", "delete", "r.m"), CONFLICT),
        (("you", "delete", "r.i"), CONFLICT),
        (("me", "delete", "r.theirs"), CONFLICT),
        (("me", "delete", "r.theirs.a"), CONFLICT),
        (("me", "delete", "r.theirs.a.b"), CONFLICT),
        (("me", "delete", "r.theirs.x"), "not_found"),
        (("me", "delete", "r.mine.x"), "not_found"),
        (("me", "delete", "r.i.x"), "not_found"),
        (("me", "delete", "r.i.mine.x"), "not_found"),
    ],
)
def test_what_is_allowed(step: Step, code: str | None) -> None:
    state = after(*TREE)

    who, *rest = step
    # Who commits counts only where the operation does not say.
    anonymous = operation((None, *rest))
    attempts: list[Callable[[], Any]] = [
        lambda: commit(state, request(step)),
        lambda: candidate(state, [operation(step)]),
        lambda: commit(state, Transaction((anonymous,), who)),
        lambda: candidate(state, [anonymous], who),
    ]
    for attempt in attempts:
        if code is None:
            attempt()
            continue
        with pytest.raises(TegaError) as caught:
            attempt()
        assert caught.value.code == code
        assert caught.value.status == (404 if code == "not_found" else 409)


def test_a_conflict_names_the_ephemeral_node_and_its_owner() -> None:
    state = after(*TREE)
    with pytest.raises(EphemeralConflict, match=r"^r\.j .* at r\.j\.theirs .* of you,") as caught:
        commit(state, request(("me", "delete", "r.j")))
    assert caught.value.details == {
        "path": "r.j", "ephemeral": "r.j.theirs", "tega_id": "you",
    }  # fmt: skip
    with pytest.raises(EphemeralConflict, match=r"^what stands at r\.l was not put as ephemeral"):
        commit(state, request(("me", "put!", "r.l", 1)))
    with pytest.raises(EphemeralConflict, match=r"^what stands at r\.i was not put as ephemeral"):
        commit(state, request(("me", "put!", "r.i", 1)))


def test_a_transaction_is_judged_with_its_own_operations_applied() -> None:
    state, made = commit(
        after(*TREE),
        request(
            ("you", "delete", "r.j.theirs"),
            ("me", "delete", "r.j"),
            (None, "put", "r.j.lasting", 1),
            ("me", "put!", "r.j.again", {"a": 1}),
            ("me", "delete", "r.mine"),
            ("you", "put!", "r.mine", 2),
        ),
    )
    assert whole(state)["j"] == {"lasting": 1, "again": {"a": 1}}
    assert owned(state) == {
        "me": ["r.i.mine", "r.j.again", "r.m.mine"], "you": ["r.mine", "r.theirs"],
    }  # fmt: skip
    assert [change.ephemeral for change in made.changes] == [True, True, False, True, True, True]
    assert lasting(state) == {"l": {"x": 1, "leaf": 2}, "m": {"x": 1}, "j": {"lasting": 1}}


def test_a_refused_transaction_leaves_nothing() -> None:
    state = after(*TREE)
    with pytest.raises(EphemeralConflict):
        commit(state, request(("me", "put!", "r.new", 1), ("me", "put", "r.theirs", 1)))
    assert owned(state)["me"] == ["r.i.mine", "r.j.mine", "r.m.mine", "r.mine"]
    assert not any(path == ("r", "new") for path, _, _ in walk(state.roots["r"].content, 9, ("r",)))


# -- what is there --------------------------------------------------------------------------------


def test_all_below_an_ephemeral_node_is_ephemeral_and_nothing_above() -> None:
    assert shown_ephemeral(after(*TREE)) == [
        "r.i.mine", "r.j.mine", "r.j.theirs", "r.m.mine", "r.mine", "r.mine.a", "r.mine.a.b",
        "r.mine.leaf", "r.theirs", "r.theirs.a", "r.theirs.a.b",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [1, {}, {"a": {"b": 1}}, [1, {"a": 2}], None])
def test_a_root_may_be_ephemeral(value: Any) -> None:
    state = after(("me", "put!", "r", value))
    assert (lasting(state), owned(state)) == (None, {"me": ["r"]})
    assert "r" in shown_ephemeral(state)
    state = after(("me", "put!", "r", value), state=state)
    found = state.find(("r",))
    assert (thaw(found.content), found.version, found.ephemeral) == (thaw(freeze(value)), 1, True)
    state = after(("me", "delete", "r"), state=state)
    assert (whole(state), owned(state), state.roots["r"].version) == (None, {}, 2)


def test_nodes_and_those_above_carry_the_new_version() -> None:
    state = after(
        (None, "put", "r", {"a": {"x": 1}, "b": {"y": 1}}),
        ("me", "put!", "r.a.e.f", {"g": 1}),
        ("me", "put!", "r.a.e.f.h", 2),
    )
    assert versions(state.roots["r"].content, 2) == {
        "r": 2, "r.a": 2, "r.a.e": 2, "r.a.e.f": 2, "r.a.e.f.g": 1, "r.a.e.f.h": 2, "r.a.x": 0,
        "r.b": 0, "r.b.y": 0,
    }  # fmt: skip


def test_an_ephemeral_put_inside_takes_the_place_of_what_was_there() -> None:
    state = after(("me", "put!", "r.e", {"a": {"x": 1}, "b": 1}), ("me", "put!", "r.e.a", 5))
    assert whole(state) == {"e": {"a": 5, "b": 1}}
    state = after(("me", "put!", "r.e", 7), state=state)
    assert (whole(state), owned(state)) == ({"e": 7}, {"me": ["r.e"]})


# -- pruning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "full", "lasts"),
    [
        # Implicit parents go with the last ephemeral node below them.
        ([("me", "put!", "r.a.b.e", 1), ("me", "delete", "r.a.b.e")], None, None),
        (
            [("me", "put!", "r.a.b.e", 1), ("me", "put!", "r.a.f", 1), ("me", "delete", "r.a.b.e")],
            {"a": {"f": 1}},
            None,
        ),
        # Inside an ephemeral node containers go up to and including it.
        ([("me", "put!", "r.e", {"a": {"b": 1}}), ("me", "delete", "r.e.a.b")], None, None),
        (
            [("me", "put!", "r.e", {"a": {"b": 1}, "c": {}}), ("me", "delete", "r.e.a.b")],
            {"e": {"c": {}}},
            None,
        ),
        # A lasting container was put empty, and stays so.
        (
            [(None, "put", "r.a", {}), ("me", "put!", "r.a.e", 1), ("me", "delete", "r.a.e")],
            {"a": {}},
            {"a": {}},
        ),
        ([(None, "put", "r", {}), ("me", "put!", "r.e", 1), ("me", "delete", "r.e")], {}, {}),
        (
            [(None, "put", "r.a", {}), ("me", "put!", "r.a.b.e", 1), ("me", "delete", "r.a.b")],
            {"a": {}},
            {"a": {}},
        ),
        # A lasting delete prunes the lasting tree; what is ephemeral keeps its parents.
        (
            [(None, "put", "r.a.b.x", 1), ("me", "put!", "r.a.b.e", 1),
             (None, "delete", "r.a.b.x")],
            {"a": {"b": {"e": 1}}},
            None,
        ),
        (
            [
                (None, "put", "r", {"a": {"b": {"x": 1}}, "c": 1}),
                ("me", "put!", "r.a.e", 1),
                (None, "delete", "r.a.b.x"),
            ],
            {"a": {"e": 1}, "c": 1},
            {"c": 1},
        ),
        (
            [
                (None, "put", "r.a", {"x": 1, "y": 1}),
                ("me", "put!", "r.a.e", 1),
                (None, "delete", "r.a.x"),
            ],
            {"a": {"y": 1, "e": 1}},
            {"a": {"y": 1}},
        ),
        # A parent that turned implicit goes like any other such.
        (
            [
                (None, "put", "r.a.x", 1),
                ("me", "put!", "r.a.e", 1),
                (None, "delete", "r.a.x"),
                ("me", "delete", "r.a.e"),
            ],
            None,
            None,
        ),
        # A lasting put makes implicit parents last.
        (
            [
                ("me", "put!", "r.a.b.e", 1),
                (None, "put", "r.a.b.x", 1),
                ("me", "delete", "r.a.b.e"),
            ],
            {"a": {"b": {"x": 1}}},
            {"a": {"b": {"x": 1}}},
        ),
        (
            [("me", "put!", "r.a.b.e", 1), (None, "put", "r.a.x", 1)],
            {"a": {"b": {"e": 1}, "x": 1}},
            {"a": {"x": 1}},
        ),
        # A delete of what lasts takes its own ephemeral nodes along.
        (
            [(None, "put", "r", {"a": {"x": 1}, "b": 1}), ("me", "put!", "r.a.e.f", 1),
             ("me", "delete", "r.a")],
            {"b": 1},
            {"b": 1},
        ),
    ],
)  # fmt: skip
def test_what_a_delete_leaves(steps: list[Step], full: Any, lasts: Any) -> None:
    state = copy = State("life")
    for step in steps:
        state, made = commit(state, request(step))
        copy = replayed(copy, made)
        root, again = state.roots["r"], copy.roots["r"]
        kept = ephemeral.lasting(root.content)
        assert versions(kept, root.version) == versions(again.content, again.version)
    assert (whole(state), lasting(state), whole(copy)) == (full, lasts, lasts)


# -- sessions that end ----------------------------------------------------------------------------


def test_all_nodes_of_an_owner_go_in_one_commit() -> None:
    state, made = commit(after(*TREE, ("me", "put!", "s", 1)), Lapse("me"))
    assert whole(state) == {
        "l": {"x": 1, "leaf": 2}, "m": {"x": 1}, "theirs": {"a": {"b": 1}}, "j": {"theirs": 1},
    }  # fmt: skip
    assert owned(state) == {"you": ["r.j.theirs", "r.theirs"]}
    assert [(c.ope, dotted(c.path), c.tega_id, c.ephemeral) for c in made.changes] == [
        ("DELETE", path, "me", True)
        for path in ("r.i.mine", "r.j.mine", "r.m.mine", "r.mine", "s")
    ]
    assert (made.tega_id, made.txid, dict(made.versions)) == ("me", None, {"r": 8, "s": 1})


# -- rollback -------------------------------------------------------------------------------------


def test_a_rollback_neither_brings_back_nor_removes_ephemeral_nodes() -> None:
    state = after(
        (None, "put", "r", {"a": {"x": 1}}),
        ("me", "put!", "r.a.gone", 1),
        ("me", "delete", "r.a.gone"),
        ("me", "put!", "r.a.e", 1),
        (None, "put", "r.a.x", 2),
        (None, "put", "r.b", 3),
    )
    back, made = roll_back(state, 1)
    assert whole(back) == {"a": {"x": 1, "e": 1}}
    assert whole(state) == {"a": {"x": 2, "e": 1}, "b": 3}
    assert [(c.ope, dotted(c.path), c.ephemeral) for c in made.changes] == [
        ("PUT", "r.a.x", False), ("DELETE", "r.b", False),
    ]  # fmt: skip
    # What is gone goes on being read in the version that had it.
    assert thaw(back.find(("r", "a", "gone"), 1).content) == 1
    assert back.find(("r", "a", "gone"), 1).ephemeral


@pytest.mark.parametrize(
    ("steps", "backto", "full", "lasts"),
    [
        # A lasting container goes around the ephemeral nodes in it.
        (
            [(None, "put", "r", {"b": 1}), (None, "put", "r.a", {"x": 1, "c": {"y": 1}}),
             ("me", "put!", "r.a.c.e", 1)],
            0,
            {"a": {"c": {"e": 1}}, "b": 1},
            {"b": 1},
        ),
        # A root that has only ephemeral content gets its lasting content back.
        (
            [(None, "put", "r", {"a": {"x": 1}}), (None, "delete", "r"),
             ("me", "put!", "r.a.e", 1)],
            0,
            {"a": {"x": 1, "e": 1}},
            {"a": {"x": 1}},
        ),
        # An empty container keeps the ephemeral nodes that are in it now.
        (
            [(None, "put", "r.a", {}), (None, "put", "r.a.x", 1), ("me", "put!", "r.a.e", 1)],
            0,
            {"a": {"e": 1}},
            {"a": {}},
        ),
        # To a version without content, and to one with only ephemeral content.
        (
            [(None, "put", "r.x", 1), (None, "delete", "r"), (None, "put", "r.y", 1),
             ("me", "put!", "r.e", 1)],
            1,
            {"e": 1},
            None,
        ),
        ([("me", "put!", "r.e", 1), (None, "put", "r.y", 1)], 0, {"e": 1}, None),
        ([("me", "put!", "r.e", 1), ("me", "delete", "r.e"), (None, "put", "r.y", 1)], 0, None,
         None),
    ],
)  # fmt: skip
def test_what_a_rollback_makes(steps: list[Step], backto: int, full: Any, lasts: Any) -> None:
    state = copy = State("life")
    requests: list[Request] = [request(step) for step in steps]
    for wanted in (*requests, Rollback("r", backto, "admin")):
        state, made = commit(state, wanted)
        copy = replayed(copy, made)
    assert (whole(state), lasting(state), whole(copy)) == (full, lasts, lasts)
    kept = ephemeral.lasting(state.roots["r"].content)
    number = state.roots["r"].version
    assert versions(kept, number) == versions(copy.roots["r"].content, number)


def test_what_a_rollback_leaves_alone_keeps_its_version() -> None:
    state = after(
        (None, "put", "r.b", 1),
        ("me", "put!", "r.a", {"deep": 1}),
        ("me", "delete", "r.a"),
        (None, "put", "r.a.x", 1),
    )
    # What is put with the version of its parent carries none itself.
    state, _ = commit(
        state,
        request(
            (None, "delete", "r.a"), ("me", "put!", "r.a.i.e", 1), ("me", "put!", "r.a.f", {}),
            ("me", "put!", "r.a.g", 1), (None, "put", "r.a.x", 1),
        ),
    )  # fmt: skip
    state, _ = roll_back(state, 0)
    assert versions(state.roots["r"].content, 5) == {
        "r": 5, "r.a": 5, "r.a.i": 4, "r.a.i.e": 4, "r.a.f": 4, "r.a.g": 4, "r.b": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "steps",
    [
        [(None, "put", "r.a", 1), (None, "put", "r", {}), ("me", "put!", "r.a", 2)],
        [(None, "put", "r.a", 1), (None, "put", "r", {}), ("me", "put!", "r.a.b.c", 2)],
        [(None, "put", "r.a.b", 1), (None, "put", "r", {}), ("me", "put!", "r.a.b", 2)],
        [(None, "put", "r.a.b.c", 1), (None, "put", "r", {}), ("me", "put!", "r.a.b", 2)],
        [(None, "put", "r", 1), (None, "delete", "r"), ("me", "put!", "r.a", 2)],
        [(None, "put", "r", 1), (None, "delete", "r"), ("me", "put!", "r", 2)],
    ],
)
def test_a_rollback_does_not_put_where_an_ephemeral_node_stands(steps: list[Step]) -> None:
    state = after(*steps)
    with pytest.raises(EphemeralConflict, match="an ephemeral node of me"):
        roll_back(state, 0)
