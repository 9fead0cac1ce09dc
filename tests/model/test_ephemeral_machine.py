"""Sessions that come and go over a tree, against a plain model: what is read, and what lasts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import pytest
from fleeting import Delete, Fleeting, Operation, Put, Tree
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
from plain import Path, Refusal, Result, text

from tega.database import Database, new_life
from tega.errors import TegaError
from tega.log.base import Log
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.log.verify import verify
from tega.store import commit, encode, staging
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.store.node import ABSENT, MaybeContent

ROOTS = ["r", "s"]
OWNERS = ["one", "two", "three"]

#: Nothing that lasts holds this, and so no file.
SECRET = "fleeting-value"

keys = st.sampled_from(["a", "b"])
paths = st.builds(
    lambda root, below: (root, *below), st.sampled_from(ROOTS), st.lists(keys, max_size=4)
)
maxlens = st.sampled_from([10, 2, 0])
lives = st.sets(st.sampled_from(OWNERS), min_size=2)
#: Who commits; the last one never has a session.
committers = st.sampled_from([*OWNERS, *OWNERS, "nobody"])
ATTRIBUTES = {"_ephemeral", "_oid", "_parent", "_value", "_version"}


def values(leaf: str) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.just(leaf) | st.builds(dict),
        lambda inner: st.dictionaries(keys, inner, max_size=2),
        max_leaves=3,
    )


lasting_values, fleeting_values = values("x"), values(SECRET)


def made(operations: list[Operation]) -> tuple[commit.Operation, ...]:
    return tuple([
        make_put(o.path, o.value, o.expected, o.tega_id, ephemeral=o.ephemeral)
        if isinstance(o, Put)
        else make_delete(o.path, o.expected, o.tega_id)
        for o in operations
    ])


def outcome(attempt: Callable[[], Any]) -> tuple[str, Any]:
    """What an attempt gives, or the code that it is refused with."""
    try:
        return "done", attempt()
    except (Refusal, TegaError) as refusal:
        return "refused", refusal.code


def told(attempt: Callable[[], Any]) -> tuple[str, Any]:
    """The outcome of a commit, in the terms of the model."""
    kind, result = outcome(attempt)
    return kind, Result(result.seq, dict(result.versions)) if kind == "done" else result


def assert_same(name: str, content: MaybeContent, version: int, expected: Tree) -> None:
    """Values, versions and what is shown as ephemeral are those of the model."""
    tree: dict[str, Any] = {}
    versions: dict[Path, int] = {}
    ephemeral: set[Path] = set()
    if content is not ABSENT:
        shown = json.loads(b"".join(encode.internal(content, version, name, None)))
        tree[name] = _read(shown, (name,), versions, ephemeral)
    assert text(tree) == text(expected.full())
    assert versions == expected.versions
    assert ephemeral == {path for path in versions if expected.is_ephemeral(path)}


def _read(
    shown: dict[str, Any], path: Path, versions: dict[Path, int], ephemeral: set[Path]
) -> Any:
    versions[path] = shown["_version"]
    if shown["_ephemeral"]:
        ephemeral.add(path)
    if "_value" in shown:
        return shown["_value"]
    return {
        key: _read(child, (*path, key), versions, ephemeral)
        for key, child in shown.items()
        if key not in ATTRIBUTES
    }


class EphemeralMachine(RuleBasedStateMachine):
    """The rules, on a log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(new_life)

    def open_log(self) -> Log:
        return self.log

    @initialize(maxlen=maxlens, live=lives)
    def start(self, maxlen: int, live: set[str]) -> None:
        self.db = Database(self.open_log(), "server", maxlen)
        self.model = Fleeting(maxlen)
        self.join(live)

    def join(self, live: set[str]) -> None:
        for tega_id in sorted(live):
            self.db.join(tega_id)
            self.model.live.add(tega_id)

    # -- what is drawn from the state -----------------------------------------------------------

    def draw_path(self, data: st.DataObject, choices: str) -> Path:
        """A path: `t` for one that is there, `e` for one of an ephemeral node, `b` for one just
        below one that is there, `o` for one that was there once, `a` for any."""
        pasts = self.model.past.values()
        there = sorted({path for past in pasts for path in past[-1].versions})
        tops = sorted(self.model.tops())
        choice = data.draw(st.sampled_from(choices), label="which path")
        if choice == "e" and tops:
            return data.draw(st.sampled_from(tops), label="ephemeral path")
        if choice == "o":
            there = sorted({path for past in pasts for tree in past for path in tree.versions})
        if choice == "a" or not there:
            return data.draw(paths, label="any path")
        path = data.draw(st.sampled_from(there), label="path that is there")
        return (*path, data.draw(keys, label="key")) if choice == "b" else path

    def draw_operation(self, data: st.DataObject, choices: str = "") -> Operation:
        kind = data.draw(st.sampled_from(["put", "ephemeral", "ephemeral", "delete"]), label="kind")
        path = self.draw_path(data, choices or ("tttea" if kind == "delete" else "teobba"))
        tega_id = data.draw(st.sampled_from([None] * 6 + OWNERS), label="tega id")
        past = self.model.past.get(path[0])
        found = past[-1].versions.get(path) if past else None
        expected = found if data.draw(st.sampled_from([False, False, True])) else None
        if kind == "delete":
            return Delete(path, tega_id, expected)
        drawn = fleeting_values if kind == "ephemeral" else lasting_values
        return Put(path, data.draw(drawn, label="value"), kind == "ephemeral", tega_id, expected)

    # -- changes ------------------------------------------------------------------------------

    @rule(tega_id=st.sampled_from(OWNERS), back=st.booleans())
    def leave(self, tega_id: str, back: bool) -> None:
        before = self.db.state
        pending = self.db.leave(tega_id)
        assert self.db.state is before
        self.db.flush()
        assert told(pending.result) == outcome(lambda: self.model.leave(tega_id))
        self.join({tega_id} if back else set())

    @rule(data=st.data(), tega_id=committers, count=st.integers(1, 8))
    def change(self, data: st.DataObject, tega_id: str, count: int) -> None:
        for _ in range(count):
            self.commit_both([self.draw_operation(data)], tega_id)

    @rule(data=st.data(), tega_id=committers, count=st.integers(2, 4))
    def commit(self, data: st.DataObject, tega_id: str, count: int) -> None:
        self.commit_both([self.draw_operation(data) for _ in range(count)], tega_id)

    def commit_both(self, operations: list[Operation], tega_id: str) -> None:
        request = Transaction(made(operations), tega_id)
        assert told(lambda: self.db.commit(request)) == outcome(
            lambda: self.model.commit(operations, tega_id)
        )

    @rule(data=st.data(), tega_id=committers)
    def change_and_roll_back(self, data: st.DataObject, tega_id: str) -> None:
        """What was there once meets what is there now."""
        for _ in range(data.draw(st.integers(0, 4), label="count")):
            self.commit_both([self.draw_operation(data, "oob")], tega_id)
        root = data.draw(st.sampled_from(sorted(self.model.past) or ROOTS), label="root")
        newest = max(self.model.newest(root), 0)
        oldest = self.model.first.get(root, 0)
        backto = data.draw(
            st.integers(oldest, newest) | st.sampled_from([-1, -2, -3, newest + 1]), label="backto"
        )
        assert told(lambda: self.db.commit(Rollback(root, backto, "nobody"))) == outcome(
            lambda: self.model.rollback(root, backto)
        )

    @rule(data=st.data(), tega_id=committers, count=st.integers(1, 3))
    def show_candidate(self, data: st.DataObject, tega_id: str, count: int) -> None:
        operations = [self.draw_operation(data) for _ in range(count)]
        kind, found = outcome(
            lambda: staging.candidate(self.db.state, made(operations), tega_id, self.model.live)
        )
        expected_kind, expected = outcome(lambda: self.model.candidate(operations, tega_id))
        assert kind == expected_kind
        if kind == "refused":
            assert found == expected
            return
        assert [name for name, _, _ in found] == sorted(expected)
        for name, version, content in found:
            assert_same(name, content, version, expected[name])

    @precondition(lambda self: self.model.seq > 0)
    @rule()
    def snapshot(self) -> None:
        self.db.snapshot()

    @precondition(lambda self: self.model.seq > 0)
    @rule(maxlen=maxlens, live=lives)
    def restart(self, maxlen: int, live: set[str]) -> None:
        before, grown = self.db.state, maxlen > self.model.maxlen
        self.db.close()
        self.db = Database(self.open_log(), "server", maxlen)
        roots = self.db.state.roots
        self.model.restart(maxlen)
        assert self.db.state.life == before.life
        for name, root in roots.items():
            assert root.chain == before.roots[name].chain
            # With more versions to keep, a log without a snapshot gives back some that had gone.
            if grown:
                self.model.first[name] = min(self.model.first[name], root.first)
        self.agree()
        self.join(live)

    # -- what must always hold ------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        state, model = self.db.state, self.model
        self.db.check()
        assert state.seq == model.seq
        assert self.db.live_ids() == sorted(model.live)
        assert sorted(state.roots) == sorted(model.past)
        for name, root in state.roots.items():
            assert root.version == model.newest(name)
            assert root.first == model.first[name]
            for version in range(root.first, root.version + 1):
                assert_same(name, root.at(version), version, model.past[name][version])
        owners = {path: owner for owner, tops in state.ephemerals.items() for path in tops}
        assert owners == model.tops()

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()


class Unsynced(Disk):
    """Does not wait for the disk: no power is lost here."""

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: FilePath) -> None:
        pass


class FileEphemeralMachine(EphemeralMachine):
    """The same rules, on a log in files."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = FilePath(self.temporary.name)

    def open_log(self) -> Log:
        return FileLog(self.directory, "server", new_life, disk=Unsynced())

    def teardown(self) -> None:
        super().teardown()
        for file in self.directory.iterdir():
            assert SECRET.encode() not in file.read_bytes()
        # Each snapshot holds just what the segment before it adds up to.
        assert [str(f) for one in verify(self.directory, "server") for f in one.findings] == []
        self.temporary.cleanup()


def sized(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


EphemeralMachine.TestCase.settings = sized(150)
FileEphemeralMachine.TestCase.settings = sized(100)

TestMemory = EphemeralMachine.TestCase
TestFile = FileEphemeralMachine.TestCase


@pytest.mark.long
@pytest.mark.parametrize("machine", [EphemeralMachine, FileEphemeralMachine])
def test_long(machine: type[EphemeralMachine]) -> None:
    run_state_machine_as_test(machine, settings=sized(3_000))
