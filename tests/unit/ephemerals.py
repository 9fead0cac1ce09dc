"""Ephemeral nodes in short, for tests."""

from __future__ import annotations

from typing import Any

from tega.paths import dotted, parse
from tega.store import ephemeral
from tega.store.check import check
from tega.store.commit import (
    Commit,
    Operation,
    Request,
    Rollback,
    Transaction,
    make_delete,
    make_put,
)
from tega.store.history import State
from tega.store.node import ABSENT, MaybeContent, freeze, thaw, walk
from tega.store.staging import replay, stage
from tega.strictjson import loads

TIME = "2026-11-21T01:34:05.123456Z"

#: An operation in short: ``me: put! r.a {...}`` is ephemeral, ``me: put r.a ...`` lasts.
Step = tuple[Any, ...]


def operation(step: Step) -> Operation:
    who, what, path, *value = step
    if what == "delete":
        return make_delete(parse(path), tega_id=who)
    return make_put(parse(path), value[0], tega_id=who, ephemeral=what == "put!")


def request(*steps: Step) -> Transaction:
    return Transaction(tuple([operation(step) for step in steps]), "committer")


def commit(state: State, wanted: Request) -> tuple[State, Commit]:
    """Stage a request, and check what came of it."""
    state, made = stage(state, wanted, TIME, 100)
    check(state)
    return state, made


def after(*steps: Step, state: State | None = None) -> State:
    """The state after operations that are a transaction each."""
    now = state or State("life")
    for step in steps:
        now, _ = commit(now, request(step))
    return now


def whole(state: State, root: str = "r") -> Any:
    """The value of a root; None where it has no content."""
    content = state.roots[root].content
    return None if content is ABSENT else thaw(content)


def lasting(state: State, root: str = "r") -> Any:
    """The value of a root in the lasting tree; None where it has none."""
    content = ephemeral.lasting(state.roots[root].content)
    return None if content is ABSENT else thaw(content)


def versions(content: MaybeContent, version: int) -> dict[str, int]:
    if content is ABSENT:
        return {}
    return {dotted(path): own for path, _, own in walk(content, version, ("r",))}


def owned(state: State) -> dict[str, list[str]]:
    return {
        owner: sorted(map(dotted, paths)) for owner, paths in sorted(state.ephemerals.items())
    }


def roll_back(state: State, backto: int) -> tuple[State, Commit]:
    """Roll root ``r`` back, and check what came of it."""
    return commit(state, Rollback("r", backto, "admin"))


def replayed(state: State, made: Commit, maxlen: int = 100) -> State:
    """The state after a commit as a log gives it back."""
    changes = [
        (change.ope, change.path, freeze(loads(change.record)["instance"]))
        for change in made.changes
        if not change.ephemeral
    ]
    return replay(
        state, made.seq, changes, dict(made.versions), dict(made.chains), made.txid, maxlen,
        made.touched,
    )  # fmt: skip


#: A tree with all that matters: ``r.l`` lasts, ``r.mine`` and ``r.theirs`` are ephemeral, ``r.i``
#: and ``r.j`` are there only for what is ephemeral below them, and ``r.m`` lasts and holds some.
TREE: tuple[Step, ...] = (
    (None, "put", "r.l", {"x": 1, "leaf": 2}),
    (None, "put", "r.m", {"x": 1}),
    ("me", "put!", "r.mine", {"a": {"b": 1}, "leaf": 2}),
    ("you", "put!", "r.theirs", {"a": {"b": 1}}),
    ("me", "put!", "r.i.mine", 1),
    ("you", "put!", "r.j.theirs", 1),
    ("me", "put!", "r.j.mine", 1),
    ("me", "put!", "r.m.mine", 1),
)
