"""A database and a plain model do the same things at random, and must always look the same."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path as FilePath
from typing import Any

import plain
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from plain import Path, Plain, Refusal

from tega.database import Database, new_life
from tega.errors import TegaError
from tega.log.base import Log
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.paths import parse
from tega.store import encode
from tega.store.commit import Operation, Request, Rollback, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.node import ABSENT, MaybeContent, thaw

ROOTS = ["r", "items", "10.0.0.0/24", 'say "é"']
FEW_KEYS = ["a", "b", "c"]
NASTY_KEYS = [
    "A", "ge-0/0/0", "eth0.100", "2001:db8::1", "two words", 'a "quote"', "it's", "back\\slash",
    "tab\tnul\0", "é", "e\u0301", "日本", "\U0001f600", "\u2028", "items", "get", "keys", "..",
    "%41", "k" * 255, "é" * 127,
]  # fmt: skip
keys = st.sampled_from(FEW_KEYS) | st.sampled_from(FEW_KEYS + NASTY_KEYS)
paths = st.builds(
    lambda root, below: (root, *below), st.sampled_from(ROOTS), st.lists(keys, max_size=4)
)

scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 1e16, 2**63, -(2**64) - 1, 10**300, "%me.f(1)"])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
free_keys = st.text(max_size=3) | st.just("_free")
lists = st.recursive(
    st.lists(scalars, max_size=3),
    lambda inner: st.lists(
        scalars | inner | st.dictionaries(free_keys, scalars | inner, max_size=2), max_size=3
    ),
    max_leaves=4,
)
leaves = st.sampled_from([0, 1, True, 1.0, "x", None]) | scalars | lists
values = st.recursive(
    leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
maxlens = st.sampled_from([0, 1, 2, 10])
txids = st.none() | st.sampled_from(["t0", "t1", "t2", "t3", "a b\n\"é"])

ATTRIBUTES = {"_ephemeral", "_oid", "_parent", "_value", "_version"}


def seen(name: str, content: MaybeContent, version: int) -> plain.Version:
    """A root as readers see it, in the terms of the model."""
    if content is ABSENT:
        return plain.Version()
    found = plain.Version()
    shown = json.loads(b"".join(encode.internal(content, version, name, None)))
    found.tree[name] = _seen(shown, (name,), found.versions)
    assert plain.text(thaw(content)) == plain.text(found.tree[name])
    return found


def _seen(shown: dict[str, Any], path: Path, versions: dict[Path, int]) -> Any:
    assert shown["_oid"] == path[-1]
    assert shown["_parent"] == (path[-2] if len(path) > 1 else None)
    versions[path] = shown["_version"]
    if "_value" in shown:
        return shown["_value"]
    children = {key: child for key, child in shown.items() if key not in ATTRIBUTES}
    assert list(children) == sorted(children)
    return {key: _seen(child, (*path, key), versions) for key, child in children.items()}


def assert_same(found: plain.Version, expected: plain.Version) -> None:
    assert plain.text(found.tree) == plain.text(expected.tree)
    assert found.versions == expected.versions


def outcome(attempt: Callable[[], Any]) -> tuple[str, Any]:
    """What an attempt gives, or the code that it is refused with."""
    try:
        return "done", attempt()
    except (Refusal, TegaError) as refusal:
        return "refused", refusal.code


def told(commit: Callable[[], Any]) -> tuple[str, Any]:
    """The outcome of a commit, in the terms of the model."""
    kind, result = outcome(commit)
    return kind, plain.Result(result.seq, dict(result.versions)) if kind == "done" else result


def transaction(operations: list[plain.Operation], txid: str | None) -> Transaction:
    return Transaction(tuple(made(operations)), "me", txid)


def made(operations: list[plain.Operation]) -> list[Operation]:
    return [
        make_put(o.path, o.value, o.expected)
        if isinstance(o, plain.Put)
        else make_delete(o.path, o.expected)
        for o in operations
    ]


class DatabaseMachine(RuleBasedStateMachine):
    """The rules, on a log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(new_life)
        self.held: list[tuple[State, dict[str, plain.Version]]] = []

    def open_log(self) -> Log:
        return self.log

    @initialize(maxlen=maxlens)
    def start(self, maxlen: int) -> None:
        self.db = Database(self.open_log(), "me", maxlen)
        self.model = Plain(maxlen)

    # -- what is drawn from the state -----------------------------------------------------------

    def draw_path(self, data: st.DataObject, choices: str) -> Path:
        """A path: `t` for one that is there, `b` for one just below it, `a` for any."""
        there = [path for past in self.model.past.values() for path in past[-1].versions]
        choice = data.draw(st.sampled_from(choices), label="which path") if there else "a"
        if choice == "a":
            return data.draw(paths, label="any path")
        path = data.draw(st.sampled_from(sorted(there)), label="path that is there")
        return (*path, data.draw(keys, label="key")) if choice == "b" else path

    def draw_operation(self, data: st.DataObject) -> plain.Operation:
        kind = data.draw(st.sampled_from(["put", "put", "put", "delete"]), label="kind")
        path = self.draw_path(data, "tttba" if kind == "delete" else "tbba")
        found = self.model.version_at(path)
        expected = data.draw(
            st.sampled_from([None] * 6 + [found] * 3 + [0, self.model.newest(path[0]) + 1]),
            label="expected",
        )
        if kind == "delete":
            return plain.Delete(path, expected)
        if expected is None and data.draw(st.sampled_from([False, False, False, True])):
            expected = -1
        return plain.Put(path, data.draw(values, label="value"), expected)

    def draw_backto(self, data: st.DataObject, root: str) -> int:
        newest = max(self.model.newest(root), 0)
        return data.draw(st.integers(-3, -1) | st.integers(0, newest + 1), label="backto")

    def draw_request(self, data: st.DataObject) -> tuple[Request, Callable[[], plain.Result]]:
        """A request to the database, and the same one to the model."""
        txid = data.draw(txids, label="txid")
        if data.draw(st.sampled_from(["change", "change", "roll back"])) == "roll back":
            root = data.draw(st.sampled_from(sorted(self.model.past) or ROOTS), label="root")
            backto = self.draw_backto(data, root)
            return (
                Rollback(root, backto, "me", txid),
                lambda: self.model.rollback(root, backto, txid),
            )
        count = data.draw(st.sampled_from([2, 3, 1, 4, 0]), label="count")
        operations = [self.draw_operation(data) for _ in range(count)]
        return transaction(operations, txid), lambda: self.model.commit(operations, txid)

    # -- changes ------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 6))
    def change(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            operation = self.draw_operation(data)
            self.commit_both([operation])

    @rule(count=st.integers(2, 12), path=paths, data=st.data())
    def change_often(self, count: int, path: Path, data: st.DataObject) -> None:
        """Old versions age."""
        for _ in range(count):
            self.commit_both([plain.Put(path, data.draw(leaves, label="value"))])

    def commit_both(self, operations: list[plain.Operation]) -> None:
        request = transaction(operations, None)
        assert told(lambda: self.db.commit(request)) == outcome(
            lambda: self.model.commit(operations)
        )

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        request, expected = self.draw_request(data)
        assert told(lambda: self.db.commit(request)) == outcome(expected)

    @rule(data=st.data(), count=st.integers(2, 4))
    def commit_a_batch(self, data: st.DataObject, count: int) -> None:
        """What is submitted is judged by what was submitted before it, and read after `flush`."""
        before = self.db.state
        submitted = []
        for _ in range(count):
            request, expected = self.draw_request(data)
            submitted.append((self.db.submit(request), outcome(expected)))
        assert self.db.state is before
        self.db.flush()
        for pending, expected_outcome in submitted:
            assert told(pending.result) == expected_outcome

    @rule(data=st.data(), root=st.sampled_from(ROOTS))
    def roll_back(self, data: st.DataObject, root: str) -> None:
        backto = self.draw_backto(data, root)
        assert told(lambda: self.db.commit(Rollback(root, backto, "me"))) == outcome(
            lambda: self.model.rollback(root, backto)
        )

    @precondition(lambda self: self.model.results)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """A transaction id seen before gives its first result, whatever comes with it."""
        txid = data.draw(st.sampled_from(sorted(self.model.results)), label="txid")
        operation = self.draw_operation(data)
        before = self.db.state
        again = told(lambda: self.db.commit(transaction([operation], txid)))
        assert again == ("done", self.model.results[txid])
        assert self.db.state is before

    @precondition(lambda self: self.model.seq >= 30)
    @rule()
    def clear(self) -> None:
        life = self.db.state.life
        self.db.clear()
        self.model.clear()
        assert self.db.state.life != life

    # -- what must change nothing -------------------------------------------------------------

    @rule(data=st.data())
    def show_candidate(self, data: st.DataObject) -> None:
        operations = [self.draw_operation(data) for _ in range(data.draw(st.integers(1, 3)))]
        kind, found = outcome(lambda: self.db.candidate(made(operations)))
        if kind == "done":
            found = {name: (version, content) for name, version, content in found}
        expected_kind, expected = outcome(lambda: self.model.candidate(operations))
        assert kind == expected_kind
        if kind == "refused":
            assert found == expected
            return
        assert list(found) == sorted(expected)
        for name, (version, content) in found.items():
            assert version == self.model.newest(name) + 1
            assert_same(seen(name, content, version), expected[name])

    @rule(data=st.data(), version=st.none() | st.integers(-3, 12))
    def get(self, data: st.DataObject, version: int | None) -> None:
        path = self.draw_path(data, "tttba")
        kind, found = outcome(lambda: self.db.find(path, version))
        if kind == "done":
            found = plain.text(thaw(found.content)), found.version
        expected_kind, expected = outcome(lambda: self.model.get(path, version))
        if kind == "done":
            expected = plain.text(expected[0]), expected[1]
        assert (kind, found) == (expected_kind, expected)
        self.hold()

    def hold(self) -> None:
        """A reader keeps what it sees now."""
        newest = {root: past[-1] for root, past in self.model.past.items()}
        self.held = [*self.held[-3:], (self.db.state, newest)]

    @precondition(lambda self: self.model.seq > 0)
    @rule()
    def snapshot(self) -> None:
        self.db.snapshot()

    @precondition(lambda self: self.model.seq > 0)
    @rule(maxlen=maxlens)
    def restart(self, maxlen: int) -> None:
        before, grown = self.db.state, maxlen > self.model.maxlen
        self.db.close()
        self.db = Database(self.open_log(), "me", maxlen)
        self.model.restart(maxlen)
        assert self.db.state.life == before.life
        for name, root in self.db.state.roots.items():
            assert root.chain == before.roots[name].chain
            # With more versions to keep, a log without a snapshot gives back some that had gone.
            if grown and root.first < self.model.first[name]:
                self.model.first[name] = root.first

    @precondition(lambda self: self.model.seq > 0)
    @rule(data=st.data(), root=st.sampled_from(ROOTS))
    def read_back_the_log(self, data: st.DataObject, root: str) -> None:
        """Each logged commit makes its version of the version before."""
        after = data.draw(st.integers(-1, max(self.model.newest(root), 0)), label="after")
        made_versions = []
        for logged in self.db.commits_after(root, after):
            version = logged.extras.versions[root]
            made_versions.append(version)
            past = self.model.past[root]
            changed = deepcopy(past[version - 1]) if version > 0 else plain.Version()
            for record in logged.records:
                path = parse(record.path)
                if path[0] == root and record.ope == "PUT":
                    changed.put(path, record.instance, version)
                elif path[0] == root:
                    changed.delete(path, version)
            if logged.rolled_back is not None:
                name, back = logged.rolled_back
                target = past[version - 1 - back]
                assert (name, plain.text(changed.tree)) == (root, plain.text(target.tree))
                if changed.tree:
                    changed.versions[root,] = version
            assert_same(changed, past[version])
        newest = self.model.newest(root)
        assert made_versions == list(range(newest + 1 - len(made_versions), newest + 1))
        self.assert_all_kept(made_versions, max(newest - after, 0))

    def assert_all_kept(self, made_versions: list[int], count: int) -> None:
        assert len(made_versions) == count

    # -- what must always hold ------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        state, model = self.db.state, self.model
        assert state.seq == model.seq
        assert {root.name: root.version for root in state.live_roots()} == model.live()
        assert sorted(state.roots) == sorted(model.past)
        for name, root in state.roots.items():
            assert root.version == model.newest(name)
            readable = model.readable(name)
            assert [*root.old_versions(), root.version] == list(readable)
            for version in readable:
                assert_same(seen(name, root.at(version), version), model.past[name][version])

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        self.db.check()
        self.db.close()
        for state, newest in self.held:
            assert sorted(state.roots) == sorted(newest)
            for name, expected in newest.items():
                root = state.roots[name]
                assert_same(seen(name, root.content, root.version), expected)


class Unsynced(Disk):
    """Does not wait for the disk: no power is lost here."""

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: FilePath) -> None:
        pass


class FileDatabaseMachine(DatabaseMachine):
    """The same rules, on a log in files."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()

    def open_log(self) -> Log:
        return FileLog(FilePath(self.directory.name), "me", new_life, disk=Unsynced())

    def assert_all_kept(self, made_versions: list[int], count: int) -> None:
        """Snapshots let old segments go, and their commits."""
        assert len(made_versions) <= count

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


def sized(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


DatabaseMachine.TestCase.settings = sized(200)
FileDatabaseMachine.TestCase.settings = sized(200)

TestMemory = DatabaseMachine.TestCase
TestFile = FileDatabaseMachine.TestCase


@pytest.mark.long
@pytest.mark.parametrize("machine", [DatabaseMachine, FileDatabaseMachine])
def test_long(machine: type[DatabaseMachine]) -> None:
    run_state_machine_as_test(machine, settings=sized(5_000))
