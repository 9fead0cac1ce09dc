"""What becomes of a request: checks, versions, collisions, rollback, and the record of it."""

from __future__ import annotations

from typing import Any

import pytest

from tega.errors import Collision, LeafInTheWay, Malformed, NotFound, TegaError
from tega.paths import parse
from tega.store.commit import Commit, Operation, Rollback, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.node import ABSENT, freeze, thaw, walk
from tega.store.staging import candidate, replay, stage
from tega.strictjson import loads

TIME = "2026-11-21T01:34:05.123456Z"


def put(path: str, value: Any, expected: int | None = None) -> Operation:
    return make_put(parse(path), value, expected)


def delete(path: str, expected: int | None = None) -> Operation:
    return make_delete(parse(path), expected)


def commit(state: State, *operations: Operation) -> tuple[State, Commit]:
    return stage(state, Transaction(operations, "me"), TIME, 10)


def after(*transactions: Operation | list[Operation], state: State | None = None) -> State:
    """The state after transactions, one or a list of operations each."""
    now = state or State("life")
    for operations in transactions:
        listed = operations if isinstance(operations, list) else [operations]
        now, _ = commit(now, *listed)
    return now


def roll_back(state: State, root: str, backto: int) -> tuple[State, Commit]:
    return stage(state, Rollback(root, backto, "me"), TIME, 10)


def value(state: State, path: str, version: int | None = None) -> Any:
    return thaw(state.find(parse(path), version).content)


def versions(state: State, root: str) -> dict[str, int]:
    found = state.roots[root]
    assert found.content is not ABSENT
    return {".".join(p): own for p, _, own in walk(found.content, found.version, (root,))}


# -- malformed input ------------------------------------------------------------------------------


def nested(levels: int, one: Any, innermost: Any = 1) -> Any:
    for _ in range(levels):
        innermost = one(innermost)
    return innermost


def in_object(value: Any) -> Any:
    return {"k": value}


def in_list(value: Any) -> Any:
    return [value]


def in_object_in_list(value: Any) -> Any:
    return [{"_free": value}]


PATH = tuple("p" * 65)


@pytest.mark.parametrize(
    ("path", "levels", "one"),
    [
        (PATH[:64], 0, in_object),
        (PATH[:1], 63, in_object),
        (PATH[:1], 63, in_list),
        (PATH[:40], 24, in_object),
        (PATH[:40], 24, in_list),
        (PATH[:2], 31, in_object_in_list),
    ],
    ids=["path", "value", "lists", "path and value", "path and lists", "objects in lists"],
)
def test_a_depth_of_64_is_taken_and_of_65_refused(path: Any, levels: int, one: Any) -> None:
    state, _ = commit(State("life"), make_put(path, nested(levels, one)))
    assert versions(state, "p")["p"] == 0
    with pytest.raises(Malformed, match="depth limit"):
        make_put((*path, "p"), nested(levels, one))
    with pytest.raises(Malformed, match="depth limit"):
        make_put(path, nested(levels, one, in_object(1)))
    with pytest.raises(Malformed, match="depth limit"):
        make_put(path, nested(levels, one, in_list(1)))


def test_depth_counts_for_delete_too() -> None:
    make_delete(PATH[:64])
    with pytest.raises(Malformed, match="path of 65 keys: the depth limit is 64"):
        make_delete(PATH)


def test_depth_is_a_setting() -> None:
    make_put(PATH[:2], {"a": 1}, max_depth=3)
    with pytest.raises(Malformed, match="depth limit"):
        make_put(PATH[:3], {"a": 1}, max_depth=3)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(Malformed, match="empty path"):
        make_put((), 1)
    with pytest.raises(Malformed, match="empty path"):
        make_delete(())


@pytest.mark.parametrize("expected", [-2, -10])
def test_a_put_takes_no_version_below_minus_one(expected: int) -> None:
    with pytest.raises(Malformed, match=f"version {expected}"):
        put("r", 1, expected)


@pytest.mark.parametrize("expected", [-1, -2])
def test_a_delete_takes_no_version_below_zero(expected: int) -> None:
    with pytest.raises(Malformed, match=f"version {expected}"):
        delete("r", expected)


@pytest.mark.parametrize(("tega_id", "txid"), [("a b", None), ("é", None), ("me", "\ud800")])
def test_ids_that_the_log_could_not_hold_are_refused(tega_id: str, txid: str | None) -> None:
    state = after(put("r", 1), put("r", 2))
    operation = put("r", 3)
    for request in (Transaction((operation,), tega_id, txid), Rollback("r", -1, tega_id, txid)):
        with pytest.raises(Malformed):
            stage(state, request, TIME, 10)


# -- transactions ---------------------------------------------------------------------------------


def test_a_transaction_is_one_version_of_each_root_touched() -> None:
    state, made = commit(after(put("a", 1)), put("a", 2), put("b.x", 1), put("b.y", 2), put("a", 3))
    assert dict(made.versions) == {"a": 1, "b": 0}
    assert made.result().seq == made.seq == state.seq == 2
    assert dict(made.result().versions) == {"a": 1, "b": 0}
    assert value(state, "a") == 3
    assert versions(state, "b") == {"b": 0, "b.x": 0, "b.y": 0}


def test_a_refusal_leaves_nothing_behind() -> None:
    state = after(put("a", 1))
    with pytest.raises(NotFound):
        commit(state, put("a", 2), put("b", 1), delete("c"))
    assert value(state, "a") == 1
    assert list(state.roots) == ["a"]


def test_operations_are_judged_with_those_before_them_applied() -> None:
    state = after([put("r.a", 1), delete("r.a"), put("r.a.b", 2), delete("r.a.b"), put("r.c", 3)])
    assert value(state, "r") == {"c": 3}
    with pytest.raises(LeafInTheWay, match=r"a leaf stands at s\.a,"):
        commit(state, put("s.a", 1), put("s.a.b", 2))
    with pytest.raises(NotFound):
        commit(state, delete("r"), delete("r.c"))


def test_a_root_deleted_and_made_again_in_one_transaction() -> None:
    state = after(put("r.a", 1), [delete("r"), put("r.b", 2)])
    assert versions(state, "r") == {"r": 1, "r.b": 1}
    assert value(state, "r", 0) == {"a": 1}


def test_what_one_transaction_puts_carries_one_version() -> None:
    state = after(put("r", {"x": 1}), [put("r", {"a": 1}), put("r.b", 2), put("r.b", {"c": 3})])
    assert versions(state, "r") == {"r": 1, "r.a": 1, "r.b": 1, "r.b.c": 1}


def test_what_a_transaction_makes_and_deletes_is_a_version_without_content() -> None:
    state, made = commit(State("life"), put("r.a", 1), delete("r.a"))
    assert dict(made.versions) == {"r": 0}
    assert state.roots["r"].content is ABSENT
    assert state.live_roots() == []


# -- collisions -----------------------------------------------------------------------------------

STORED = after(put("r", {"a": 1, "b": 2}), put("r.a", 3), put("gone", 1), delete("gone"))


@pytest.mark.parametrize(
    "operation",
    [
        put("r.a", 1, 1),
        put("r.b", 1, 0),
        put("r", 1, 1),
        delete("r.b", 0),
        put("r.c", 1, -1),
        put("gone", 1, -1),
        put("new.x", 1, -1),
    ],
)
def test_the_version_that_is_there_is_no_collision(operation: Operation) -> None:
    state, _ = commit(STORED, operation)
    assert state.seq == STORED.seq + 1


@pytest.mark.parametrize(
    ("operation", "path", "expected", "found"),
    [
        (put("r.a", 1, 0), "r.a", 0, 1),
        (put("r.b", 1, 1), "r.b", 1, 0),
        (put("r", 1, 0), "r", 0, 1),
        (put("r.b", 1, -1), "r.b", -1, 0),
        (put("r.c", 1, 0), "r.c", 0, None),
        (put("gone", 1, 0), "gone", 0, None),
        (put("gone", 1, 1), "gone", 1, None),
        (put("new", 1, 0), "new", 0, None),
        (put("r.a.x", 1, 0), "r.a.x", 0, None),
        (delete("r.a", 0), "r.a", 0, 1),
        (delete("r.c", 0), "r.c", 0, None),
        (put('r."a.b"', 1, 0), 'r."a.b"', 0, None),
    ],
)
def test_a_collision_names_path_expected_and_found_version(
    operation: Operation, path: str, expected: int, found: int | None
) -> None:
    with pytest.raises(Collision) as caught:
        commit(STORED, put("other", 1), operation)
    assert caught.value.details == {"path": path, "expected": expected, "found": found}
    message = str(caught.value)
    assert f"collision at {path}: " in message
    assert f"version {expected}" in message if expected >= 0 else "nothing there" in message
    assert f"found version {found}" in message if found is not None else "found nothing" in message


def test_versions_are_judged_against_the_tree_before_the_transaction() -> None:
    twice = [put("r.b", 9), put("r.b", 8, 0), put("r.c", 1, -1), put("r.c", 2, -1)]
    state = after(twice, state=STORED)
    assert value(state, "r") == {"a": 3, "b": 8, "c": 2}
    with pytest.raises(Collision):
        commit(STORED, put("r.b", 9), put("r.b", 8, 2))


# -- versions -------------------------------------------------------------------------------------


def test_versions_count_from_zero_and_go_on_after_a_delete() -> None:
    state = after(put("r", 1), delete("r"))
    assert state.roots["r"].version == 1
    assert state.live_roots() == []
    assert state.version_at(("r",)) is None
    state = after(put("r.x", 2), state=state)
    assert versions(state, "r") == {"r": 2, "r.x": 2}
    assert state.roots["r"].old_versions() == [0, 1]
    assert value(state, "r", -2) == 1
    with pytest.raises(NotFound, match="nothing at r in version -1"):
        state.find(("r",), -1)
    with pytest.raises(NotFound, match="nothing at r in version 1"):
        state.find(("r",), 1)


def test_sequence_numbers_go_over_all_roots() -> None:
    state = State("life")
    for number, path in enumerate(["a", "b", "a", "c"], 1):
        state, made = commit(state, put(path, number))
        assert made.seq == state.seq == number


# -- rollback -------------------------------------------------------------------------------------


def test_rollback_makes_the_fewest_changes() -> None:
    state = after(put("r", {"a": {"x": 1, "y": 2}, "b": 1}), put("r.a.x", 5), put("r.c", 1))
    state, made = roll_back(state, "r", 0)
    assert value(state, "r") == {"a": {"x": 1, "y": 2}, "b": 1}
    assert versions(state, "r") == {"r": 3, "r.a": 3, "r.a.x": 3, "r.a.y": 0, "r.b": 0}
    assert sorted((c.ope, ".".join(c.path)) for c in made.changes) == [
        ("DELETE", "r.c"), ("PUT", "r.a.x"),
    ]  # fmt: skip
    assert made.rolled_back == ("r", 2)


@pytest.mark.parametrize(
    ("backto", "expected"), [(-1, 2), (-2, 1), (-3, 0), (0, 0), (2, 2), (3, 3)]
)
def test_rollback_counts_back_or_takes_a_version(backto: int, expected: int) -> None:
    state, made = roll_back(after(put("r", 0), put("r", 1), put("r", 2), put("r", 3)), "r", backto)
    assert value(state, "r") == expected
    assert dict(made.versions) == {"r": 4}
    assert [value(state, "r", version) for version in range(4)] == [0, 1, 2, 3]


def test_a_rollback_can_be_rolled_back() -> None:
    state, _ = roll_back(after(put("r", 0), put("r", 1)), "r", -1)
    state, _ = roll_back(state, "r", -1)
    assert value(state, "r") == 1
    assert state.roots["r"].version == 3


def test_a_rollback_to_the_newest_is_a_version_too() -> None:
    state, made = roll_back(after(put("r", {"a": 1}), put("r.b", 2)), "r", 1)
    assert made.changes == ()
    assert versions(state, "r") == {"r": 2, "r.a": 0, "r.b": 1}


def test_rollback_brings_a_deleted_root_back() -> None:
    state, _ = roll_back(after(put("r", {"a": {"b": 1}}), delete("r")), "r", -1)
    assert versions(state, "r") == {"r": 2, "r.a": 2, "r.a.b": 2}


def test_rollback_to_a_version_without_content_deletes() -> None:
    state, made = roll_back(after(put("r", 1), delete("r"), put("r", 2)), "r", 1)
    assert state.live_roots() == []
    assert [c.ope for c in made.changes] == ["DELETE"]
    assert dict(made.versions) == {"r": 3}


def test_rollback_leaves_the_other_roots_alone() -> None:
    state = after(put("r", 1), put("s", 1), [put("r", 2), put("s", 2)])
    state, made = roll_back(state, "r", 0)
    assert dict(made.versions) == {"r": 2}
    assert value(state, "s") == 2


@pytest.mark.parametrize(
    ("root", "backto", "message"),
    [
        ("r", -3, "no version -3 of r: there are 0 to 2"),
        ("r", 3, "no version 3 of r: there are 0 to 2"),
        ("x", -1, "no root x to roll back"),
    ],
)
def test_rollback_to_what_is_not_there(root: str, backto: int, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        roll_back(after(put("r", 1), put("r", 2), put("r", 3)), root, backto)


# -- candidates -----------------------------------------------------------------------------------


def test_a_candidate_shows_each_touched_root_and_changes_nothing() -> None:
    state = after(put("r", {"a": 1}), put("s", 1))
    roots = candidate(state, [put("t.x", 1), put("r.b", 2), delete("s")])
    assert [(name, version) for name, version, _ in roots] == [("r", 1), ("s", 1), ("t", 0)]
    contents = [c if c is ABSENT else thaw(c) for _, _, c in roots]
    assert contents == [{"a": 1, "b": 2}, ABSENT, {"x": 1}]
    assert value(state, "r") == {"a": 1}


def test_a_candidate_that_could_not_be_is_refused() -> None:
    with pytest.raises(LeafInTheWay):
        candidate(after(put("r", 1)), [put("r.a", 2)])


# -- records --------------------------------------------------------------------------------------


def test_a_commit_records_what_took_place() -> None:
    state = after(put("r", {"a": 1, "old": {"x": 1}}))
    request = Transaction((put('r."ge-0/0/0"."10.0.0.1"', 2), delete("r.old")), "cli-1", "tx-9")
    state, made = stage(state, request, TIME, 10)
    assert [loads(change.record) for change in made.changes] == [
        {"ope": "PUT", "path": 'r.ge-0/0/0."10.0.0.1"', "tega_id": "cli-1", "instance": 2,
         "version": 1},
        {"ope": "DELETE", "path": "r.old", "tega_id": "cli-1", "instance": {"x": 1}, "version": 1},
    ]  # fmt: skip
    assert (made.seq, made.time, made.tega_id, made.txid) == (2, TIME, "cli-1", "tx-9")
    assert dict(made.chains) == {"r": state.roots["r"].chain}


def test_an_operation_may_be_of_another_tega_id() -> None:
    _, made = commit(State("life"), make_put(("r",), 1, tega_id="plugin"), put("s", 1))
    assert [change.tega_id for change in made.changes] == ["plugin", "me"]


def test_the_record_of_a_huge_delete_leaves_the_content_out() -> None:
    state = after(put("r.a", {f"k{n}": "x" * 1000 for n in range(1200)}))
    _, made = commit(state, delete("r.a"))
    assert loads(made.changes[0].record) == {
        "ope": "DELETE", "path": "r.a", "tega_id": "me", "version": 1,
    }  # fmt: skip


def test_chains_tell_histories_apart() -> None:
    one, same, other = (after(put("r", 1), put("r", n)).roots["r"].chain for n in (2, 2, 3))
    assert one == same != other
    assert after(put("r", 1), state=State("another life")).roots["r"].chain != one


def test_a_replay_makes_the_same_state() -> None:
    state = State("life")
    for operations in ([put("r", {"a": 1})], [put("r.b", {}), put("s", 1)], [delete("r.a")]):
        now, made = commit(state, *operations)
        again = replayed(state, made)
        assert again.seq == now.seq
        for name, root in now.roots.items():
            assert versions(again, name) == versions(now, name)
            assert again.roots[name].chain == root.chain
        state = now


def test_a_replay_that_does_not_fit_is_refused() -> None:
    state, made = commit(after(put("r", 1)), put("r", 2))
    with pytest.raises(TegaError, match="makes versions"):
        replayed(state, made)


def replayed(state: State, made: Commit) -> State:
    changes = [(c.ope, c.path, freeze(loads(c.record)["instance"])) for c in made.changes]
    return replay(
        state, made.seq, changes, dict(made.versions), dict(made.chains), made.txid, maxlen=10
    )
