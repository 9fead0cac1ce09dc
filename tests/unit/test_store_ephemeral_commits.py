"""Ephemeral nodes: their commits, what the walk over all finds, and what they cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import immutables
import msgspec
import pytest
from ephemerals import (
    TIME,
    TREE,
    Step,
    after,
    commit,
    lasting,
    replayed,
    request,
    roll_back,
    whole,
)

from tega.errors import EphemeralConflict, NotFound, TegaError
from tega.paths import parse
from tega.store.check import check
from tega.store.commit import Transaction, make_put
from tega.store.history import State
from tega.store.node import ABSENT, Content, Leaf, Mark, Node, freeze, thaw
from tega.store.staging import replay, stage
from tega.strictjson import loads

# -- changes and records --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "replaced"),
    [
        ((None, "put", "r.l", 1), {"x": 1, "leaf": 2}),
        ((None, "put", "r.l.new", 1), ABSENT),
        ((None, "put", "new", 1), ABSENT),
        (("me", "put!", "r.new.deep", 1), ABSENT),
        (("me", "put!", "r.mine", 1), {"a": {"b": 1}, "leaf": 2}),
        (("me", "put!", "r.mine.a.b", 2), 1),
        (("me", "delete", "r.mine.a"), {"b": 1}),
        (("me", "delete", "r.m"), {"x": 1, "mine": 1}),
        ((None, "delete", "r.l"), {"x": 1, "leaf": 2}),
    ],
)
def test_a_change_tells_what_it_replaced(step: Step, replaced: Any) -> None:
    change = commit(after(*TREE), request(step))[1].changes[-1]
    assert (ABSENT if change.replaced is ABSENT else thaw(change.replaced)) == replaced
    if change.ope == "DELETE":
        assert change.replaced is change.content


def test_what_is_replaced_counts_the_transactions_own_operations() -> None:
    _, made = commit(State("life"), request((None, "put", "r.a", 1), (None, "put", "r.a", 2)))
    assert [change.replaced for change in made.changes] == [ABSENT, 1]
    _, made = roll_back(after((None, "put", "r", 1), (None, "put", "r", 2)), 0)
    assert made.changes[-1].replaced == 2


def test_the_record_of_a_lasting_delete_leaves_out_what_is_ephemeral() -> None:
    _, made = commit(after(*TREE), request(("me", "delete", "r.m")))
    change = made.changes[-1]
    assert not change.ephemeral
    assert thaw(change.content) == {"x": 1, "mine": 1}
    assert loads(change.record)["instance"] == {"x": 1}
    # Of what is ephemeral as a whole the record is as whole as any.
    _, made = commit(after(*TREE), request(("me", "delete", "r.i")))
    assert loads(made.changes[-1].record)["instance"] == {"mine": 1}


def test_a_rollback_tells_of_what_lasts() -> None:
    state = after((None, "put", "r.b", 1), (None, "put", "r.a.x", 1), ("me", "put!", "r.a.e", 1))
    state, made = roll_back(state, 0)
    [change] = made.changes
    assert (change.ope, thaw(change.content), change.ephemeral) == ("DELETE", {"x": 1}, False)
    assert change.replaced is change.content
    assert loads(change.record)["instance"] == {"x": 1}
    _, made = roll_back(state, -1)
    [change] = made.changes
    assert (change.ope, thaw(change.content), thaw(change.replaced)) == ("PUT", {"x": 1}, {"e": 1})


def test_a_commit_says_which_lasting_containers_got_a_version_by_what_is_ephemeral() -> None:
    state = after((None, "put", "r", {"a": {"b": {"x": 1}}, "c": {}}))
    state, made = commit(
        state,
        request(
            ("me", "put!", "r.a.b.i.e", 1), ("me", "put!", "r.a.b.f", 1), ("me", "put!", "r.g", 1),
            ("me", "put!", "s.t.e", 1),
        ),
    )  # fmt: skip
    assert made.touched == (("r", "a", "b"),)
    _, made = commit(state, request(("me", "delete", "r.a.b")))
    assert made.touched == ()
    # Not what the same commit took away.
    leaf = ("me", "delete", "r.a.b.f"), ("me", "delete", "r.a.b"), (None, "put", "r.a", 1)
    _, made = commit(state, request(*leaf))
    assert made.touched == ()


def test_the_chain_knows_nothing_of_what_is_ephemeral() -> None:
    one, other = (after(("me", "put!", "r.e", value), (None, "put", "r.x", 1)) for value in (1, 2))
    assert one.roots["r"].chain == other.roots["r"].chain
    lasting_one, lasting_other = (after((None, "put", "r.e", value)) for value in (1, 2))
    assert lasting_one.roots["r"].chain != lasting_other.roots["r"].chain


def test_what_took_place_elsewhere_leaves_ephemeral_nodes_in_peace() -> None:
    elsewhere, made = commit(State("life"), request((None, "put", "r.a.x", 1)))
    here = replayed(State("life"), made)
    there = elsewhere
    here, _ = commit(here, request(("me", "put!", "r.a.e", 1)))
    there, made = commit(there, request((None, "put", "r.b", 1)))
    # Numbered alike, since it is the leader that gives versions.
    made = msgspec.structs.replace(made, seq=3, versions=(("r", 2),))
    here = replayed(here, made)
    assert whole(here) == {"a": {"x": 1, "e": 1}, "b": 1}
    here = replay(here, 4, [("DELETE", ("r", "a"), None)], {"r": 3}, {"r": "x"}, None, 10)
    check(here)
    assert whole(here) == {"a": {"e": 1}, "b": 1}
    assert lasting(here) == {"b": 1}
    here = replay(here, 5, [("PUT", ("r", "b"), freeze({"c": 1}))], {"r": 4}, {"r": "x"}, None, 10)
    here = replay(here, 6, [], {"r": 5}, {"r": "x"}, None, 10, [("r", "b")])
    check(here)
    assert [here.version_at(parse(path)) for path in ("r", "r.b", "r.b.c", "r.a")] == [5, 5, 4, 3]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("PUT", ("r", "mine"), 1), "ephemeral_conflict"),
        (("PUT", ("r", "mine", "a"), 1), "ephemeral_conflict"),
        (("PUT", ("r", "m"), 1), "ephemeral_conflict"),
        (("PUT", ("r", "l", "leaf", "x"), 1), "leaf_in_the_way"),
        (("DELETE", ("r", "mine"), None), "not_found"),
        (("DELETE", ("r", "mine", "a"), None), "ephemeral_conflict"),
        (("DELETE", ("r", "i"), None), "not_found"),
        (("DELETE", ("r", "new"), None), "not_found"),
        (("DELETE", ("r", "l", "leaf", "x"), None), "not_found"),
    ],
)
def test_what_took_place_elsewhere_may_not_fit(change: Any, code: str) -> None:
    with pytest.raises(TegaError) as caught:
        replay(after(*TREE), 9, [change], {"r": 8}, {"r": "x"}, None, 10)
    assert caught.value.code == code


@pytest.mark.parametrize("path", [("r", "x"), ("r", "a", "x"), ("r", "a", "x", "y"), ("new", "a")])
def test_only_a_container_gets_a_version_without_a_change(path: tuple[str, ...]) -> None:
    state = after((None, "put", "r.a.x", 1))
    with pytest.raises(NotFound, match="no container at"):
        replay(state, 2, [], {"r": 1}, {"r": "x"}, None, 10, [path])


# -- the walk over it all -------------------------------------------------------------------------


def broken(content: Content, tops: dict[str, list[str]] | None = None) -> State:
    """A state with this content in root ``r``, and this index of ephemeral nodes."""
    state = after((None, "put", "r", 1))
    root = msgspec.structs.replace(state.roots["r"], content=content)
    index = immutables.Map({
        owner: immutables.Map({parse(path): True for path in paths})
        for owner, paths in (tops or {}).items()
    })
    return State(state.life, 1, immutables.Map({"r": root}), state.ids, index)


def container(mark: Mark | None = None, **children: Any) -> Node:
    return Node(immutables.Map(children), mark=mark)


def below(**transient: bool) -> immutables.Map[str, bool]:
    return immutables.Map(transient)


MINE = Leaf(1, 0, Mark("me"))
IMPLICIT = Mark(None, True, below(e=True), 1)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (broken(container(None, e=MINE), {"me": ["r.e"]}), "has no mark, and a child that has"),
        (broken(container(Mark(None, True, below(e=False)), e=MINE), {"me": ["r.e"]}), "not that"),
        (broken(container(Mark(None, True, below(e=True)), e=MINE), {"me": ["r.e"]}), "counts 0"),
        (broken(container(IMPLICIT, e=MINE, x=1), {"me": ["r.e"]}), "is implicit"),
        (broken(container(Mark(), x=1)), "no child that has one"),
        (broken(container(Mark("me", False, below(e=True), 1), e=MINE), {"me": ["r"]}), "a child"),
        (broken(container(Mark("me", True), x=1), {"me": ["r"]}), "is implicit"),
        (broken(container(IMPLICIT, e=MINE)), "differ from their index"),
        (broken(container(IMPLICIT, e=MINE), {"you": ["r.e"]}), "differ from their index"),
        (broken(container(None, x=1), {"me": ["r.x"]}), "differ from their index"),
        (broken(container(None, x=1), {"me": []}), "without ephemeral nodes"),
    ],
)
def test_a_walk_finds_marks_that_do_not_agree(state: State, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(state)


def test_a_walk_takes_what_agrees() -> None:
    check(broken(container(IMPLICIT, e=MINE), {"me": ["r.e"]}))


# -- costs ----------------------------------------------------------------------------------------


def test_fresh_leaves_stay_plain_and_carry_no_mark() -> None:
    root = after(("me", "put!", "r.e", {"a": 1, "b": {"c": 2}})).roots["r"].content
    assert type(root.children["e"].children["a"]) is int
    assert type(root.children["e"].children["b"].children["c"]) is int
    root = after(*TREE, (None, "put", "r.new.x", 1)).roots["r"].content
    assert type(root.children["new"].children["x"]) is int


def calls(act: Callable[[], Any]) -> int:
    """How many functions, of C too, an act calls."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "step",
    [
        (None, "put", "r.a.x", 2),
        (None, "put", "r.a.new", 2),
        (None, "delete", "r.a.x"),
        ("me", "put!", "r.a.new", 2),
        ("me", "put!", "r.a.e7", 2),
        ("me", "delete", "r.a.e7"),
    ],
)
def test_siblings_cost_nothing(step: Step) -> None:
    def cost(siblings: int) -> int:
        made = [make_put(("r", "a", f"e{n}"), n, ephemeral=True) for n in range(siblings)]
        state, _ = stage(
            State("life"), Transaction((make_put(("r", "a", "x"), 1), *made), "me"), TIME, 10
        )
        wanted = request(step)
        # What is remembered of the paths is so now.
        stage(state, wanted, TIME, 10)
        return calls(lambda: stage(state, wanted, TIME, 10))

    assert cost(5_000) == cost(100)


def test_to_refuse_a_put_over_many_ephemeral_nodes_costs_no_more_than_over_few() -> None:
    def cost(nodes: int) -> int:
        made = [make_put(("r", "a", f"e{n}"), n, ephemeral=True) for n in range(nodes)]
        state, _ = stage(State("life"), Transaction(tuple(made), "me"), TIME, 10)

        def refused() -> None:
            with pytest.raises(EphemeralConflict):
                stage(state, request((None, "put", "r.a", 2)), TIME, 10)

        return calls(refused)

    assert abs(cost(5_000) - cost(10)) < 20
