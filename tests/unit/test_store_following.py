"""Following a leader: its commits made again, roots taken over, ephemeral nodes laid on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.errors import Diverged, TegaError
from tega.log import record
from tega.paths import parse
from tega.store import encode, following
from tega.store.check import check
from tega.store.commit import (
    Adoption,
    Commit,
    Follow,
    Hide,
    Operation,
    Overlay,
    Peers,
    Replicated,
    Rollback,
    Transaction,
    make_delete,
    make_put,
)
from tega.store.ephemeral import lasting
from tega.store.history import Lead, State
from tega.store.node import ABSENT, thaw
from tega.store.overlay import laid_on, taken_off
from tega.store.staging import stage

TIME = "2026-11-21T01:34:05.123456Z"


def led(*requests: Transaction | Rollback) -> tuple[State, list[Commit]]:
    """A leader that has done these things, as far as they can be done."""
    state, commits = State("leaders life"), []
    for request in requests:
        try:
            state, commit = stage(state, request, TIME, 10)
        except TegaError:
            continue
        commits.append(commit)
    return state, commits


def tx(*operations: Operation, tega_id: str = "me", txid: str | None = None) -> Transaction:
    return Transaction(operations, tega_id, txid)


def replicated(commit: Commit, **changed: Any) -> Replicated:
    changes = tuple([
        make_put(c.path, thaw(c.content), tega_id=c.tega_id, ephemeral=c.ephemeral)
        if c.ope == "PUT" else make_delete(c.path, tega_id=c.tega_id)
        for c in commit.changes
    ])  # fmt: skip
    given: dict[str, Any] = {
        "leader": "leader", "seq": commit.seq, "time": commit.time, "tega_id": commit.tega_id,
        "txid": commit.txid, "versions": dict(commit.versions), "chains": dict(commit.chains),
        "changes": changes, "touched": commit.touched, "rolled_back": commit.rolled_back,
    }  # fmt: skip
    return Replicated(**{**given, **changed})


def follower(name: str = "r") -> State:
    state, _ = apply(State("own life"), Follow(name, Lead("leader", "leaders life"), "me"))
    return state


def apply(state: State, request: Peers) -> tuple[State, Commit | None]:
    state, commit = following.stage(state, request, TIME, 10)
    check(state)
    return state, commit


def shown(state: State, name: str = "r") -> Any:
    root = state.roots.get(name)
    if root is None:
        return None
    if root.content is ABSENT:
        return root.version, root.chain
    whole = b"".join(encode.internal(root.content, root.version, name, None))
    return root.version, root.chain, whole


PATHS = st.sampled_from(["r", "r.a", "r.a.b", "r.a.b.c", "r.x", "r.x.y", "r.e", "r.e.f"])
OPERATIONS = st.builds(
    lambda path, value, owner: (
        make_delete(parse(path)) if value is None
        else make_put(parse(path), value, tega_id=owner, ephemeral=owner is not None)
    ),
    PATHS,
    st.none() | st.integers() | st.dictionaries(st.sampled_from("abc"), st.integers()),
    st.sampled_from([None, None, "one", "two"]),
)  # fmt: skip
REQUESTS = st.builds(lambda *ops: tx(*ops), OPERATIONS) | st.builds(
    lambda one, two: tx(one, two), OPERATIONS, OPERATIONS
) | st.builds(lambda back: Rollback("r", -back, "me"), st.integers(1, 3))  # fmt: skip


@given(st.lists(REQUESTS, max_size=12))
def test_the_commits_of_a_leader_make_the_same_root(requests: list[Transaction]) -> None:
    state, commits = led(*requests)
    here = follower()
    for commit in commits:
        here, made = apply(here, replicated(commit))
        assert made is not None
        assert (made.time, made.versions, made.chains) == (TIME, commit.versions, commit.chains)
    assert shown(here) == shown(state)
    assert here.following["r"].seq == (commits[-1].seq if commits else 0)


@given(st.lists(REQUESTS, max_size=12))
def test_ephemeral_nodes_taken_off_and_laid_on_again(requests: list[Transaction]) -> None:
    state, _ = led(*requests)
    root = state.roots.get("r")
    if root is None:
        return
    nodes = list(taken_off(root.content, root.version, ("r",)))
    again = laid_on(lasting(root.content), nodes)
    assert (again is ABSENT) == (root.content is ABSENT)
    if root.content is not ABSENT:
        before, after = (
            b"".join(encode.internal(content, root.version, "r", None))
            for content in (root.content, again)
        )
        assert before == after


@given(st.lists(REQUESTS, max_size=8), st.lists(REQUESTS, max_size=8))
def test_a_root_is_taken_over_whole(before: list[Transaction], after: list[Transaction]) -> None:
    """From its lasting content, then the ephemeral nodes: and so it is in the log."""
    state, _ = led(*before, *after)
    here, _ = led(*before)
    here, _ = apply(here, Follow("r", Lead("leader"), "me"))
    base = here
    root = state.roots.get("r")
    bare = None if root is None else type(root)(
        root.name, root.version, lasting(root.content), root.chain, root.old
    )  # fmt: skip
    lead = Lead("leader", "leaders life", state.seq)
    here, adopted = apply(here, Adoption("r", lead, bare, "leader"))
    version = -1 if root is None else root.version
    nodes = () if root is None else tuple(taken_off(root.content, root.version, ("r",)))
    here, laid = apply(here, Overlay("r", version, nodes, "leader"))
    assert shown(here) == shown(state)
    assert adopted is not None
    replayed = base
    for commit in (adopted, laid):
        if commit is not None:
            text = record.encode(commit, commit.seq - 1, base.life)
            replayed = record.apply(replayed, record.read_one(text, 0), 10)
    assert replayed.seq == here.seq
    assert replayed.following == here.following
    if root is not None:
        there = replayed.roots["r"]
        assert (there.version, there.chain) == (root.version, root.chain)
        assert there.old_versions() == root.old_versions()
        assert encode_or_none(there.content) == encode_or_none(lasting(root.content))


def encode_or_none(content: Any) -> bytes | None:
    return None if content is ABSENT else b"".join(encode.packed(content))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"leader": "other"}, "other does not lead r"),
        ({"versions": {"r": 7}}, "makes the versions"),
        ({"chains": {"r": "0"}}, "is not the one made here"),
        ({"changes": ()}, "is not the one made here"),
        ({"changes": (make_delete(("r", "nothing")),)}, "has no place"),
    ],
)
def test_what_does_not_follow_is_refused(changed: dict[str, Any], message: str) -> None:
    _, (commit,) = led(tx(make_put(("r", "x"), 1)))
    here = follower()
    with pytest.raises(Diverged, match=message):
        apply(here, replicated(commit, **changed))
    apply(here, replicated(commit))


def test_hidden_nodes_are_told_of_again() -> None:
    state, commits = led(
        tx(make_put(("r", "x"), 1), make_put(("r", "e"), 2, tega_id="one", ephemeral=True)),
        tx(make_put(("r", "g"), 3, tega_id="two", ephemeral=True)),
    )
    here = follower()
    for commit in commits:
        here, _ = apply(here, replicated(commit))
    hidden, made = apply(here, Hide("r"))
    assert made is None
    assert (hidden.seq, hidden.roots["r"].version) == (here.seq, 1)
    assert shown(hidden) != shown(here)
    assert not hidden.ephemerals
    (e, _) = taken_off(state.roots["r"].content, 1, ("r",))
    back, told = apply(hidden, Overlay("r", 1, (e,), "leader"))
    assert told is not None
    assert [(c.ope, c.path) for c in told.changes] == [("DELETE", ("r", "g")), ("PUT", ("r", "e"))]
    assert set(back.ephemerals) == {"one"}
    again, nothing = apply(back, Overlay("r", 1, (e,), "leader"))
    assert nothing is None
    assert shown(again) == shown(back)


def test_a_root_given_back_is_led_here_with_its_versions() -> None:
    _, commits = led(tx(make_put(("r", "e"), 2, tega_id="one", ephemeral=True)),
                     tx(make_put(("r", "x"), 1)))  # fmt: skip
    here = follower()
    for commit in commits:
        here, _ = apply(here, replicated(commit))
    with pytest.raises(TegaError, match="r is led by leader"):
        stage(here, tx(make_put(("r", "y"), 1)), TIME, 10)
    here, told = apply(here, Follow("r", None, "me"))
    assert told is not None
    assert [(c.ope, c.path) for c in told.changes] == [("DELETE", ("r", "e"))]
    here, mine = stage(here, tx(make_put(("r", "y"), 1)), TIME, 10)
    assert mine.versions == (("r", 2),)
    assert "r" not in here.following
    check(here)
