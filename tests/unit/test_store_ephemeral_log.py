"""Ephemeral nodes in a database: what a restart gives back, and sessions that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ephemerals import TREE, owned, request, versions

from tega.database import Database, new_life
from tega.errors import EphemeralConflict, NoSession
from tega.log.base import Log
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.log.verify import verify
from tega.store import ephemeral
from tega.store.commit import Lapse, Request, Rollback, Transaction, make_put
from tega.store.history import State
from tega.store.node import ABSENT, MaybeContent, Node, thaw


class Reopening:
    """Opens databases on the same log."""

    def __init__(self, log: Callable[[], Log]) -> None:
        self._log = log
        self.opened: list[Database] = []

    def __call__(self) -> Database:
        self.close()
        self.opened.append(Database(self._log(), "server"))
        return self.opened[-1]

    def close(self) -> None:
        for db in self.opened:
            db.check()
            db.close()
        self.opened.clear()


@pytest.fixture(params=["memory", "file"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopening]:
    memory = MemoryLog(new_life)
    logs: dict[str, Callable[[], Log]] = {
        "memory": lambda: memory,
        "file": lambda: FileLog(tmp_path, "server", new_life, keep=100),
    }
    opening = Reopening(logs[request.param])
    yield opening
    opening.close()


def recoverable(state: State) -> dict[str, Any]:
    """All that a restart must give back."""
    return {
        name: (
            root.version,
            root.chain,
            [
                (v, content if content is ABSENT else thaw(content), versions(content, v))
                for v in range(root.first, root.version + 1)
                for content in [ephemeral.lasting(root.at(v))]
            ],
        )
        for name, root in state.roots.items()
    }


SNAPSHOTS = [None, 0, 4, 7, 12]


@pytest.mark.parametrize("at", SNAPSHOTS)
def test_a_restart_gives_back_what_lasts_and_no_more(reopen: Reopening, at: int | None) -> None:
    db = reopen()
    for tega_id in ("me", "you"):
        db.join(tega_id)
    requests: list[Request] = [
        *[request(step) for step in TREE],
        request(("me", "delete", "r.m"), (None, "put", "r.j.x", 1)),
        Rollback("r", 1, "admin"),
        request(("me", "put!", "only.e", 1)),
        Lapse("me"),
        request((None, "delete", "r.l")),
        request((None, "put", "r.j", 1), ("you", "put!", "r.k", 1)),
    ]
    for number, wanted in enumerate(requests):
        if number == len(requests) - 1:
            with pytest.raises(EphemeralConflict):
                db.commit(wanted)
        else:
            db.commit(wanted)
        if number == at:
            db.snapshot()
    before = db.state
    for snapshot_between in (False, True):
        db = reopen()
        assert db.state.seq == before.seq == len(requests) - 1
        assert recoverable(db.state) == recoverable(before)
        assert (owned(db.state), db.live_ids()) == ({}, [])
        assert db.state.roots["only"].content is ABSENT
        if snapshot_between:
            db.snapshot()
    # Numbers go on, for they were given.
    assert dict(reopen().commit(request((None, "put", "only", 1))).versions) == {"only": 2}


def test_nothing_ephemeral_is_in_any_file(tmp_path: Path) -> None:
    with Database(FileLog(tmp_path, "server", new_life, keep=100), "server") as db:
        db.join("me")
        db.commit(request((None, "put", "r.a", {"x": "lasting-value"})))
        for step in (
            ("me", "put!", "r.a.fleeting-key", {"k": "fleeting-value"}),
            ("me", "put!", "r.a.fleeting-key.k", "fleeting-value"),
            ("me", "put!", "fleeting-key.b", ["fleeting-value"]),
        ):
            db.commit(request(step))
            db.snapshot()
        db.commit(request((None, "put", "r.a.x", "lasting-value 2")))
        db.commit(Rollback("r", 0, "admin"))
        db.snapshot()
        db.commit(request(("me", "put!", "r.other", "fleeting-value"), ("me", "delete", "r.a")))
        db.snapshot()
        db.leave("me")
        db.flush()
        db.snapshot()
    segments = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(segments) >= 7
    assert any(b"lasting-value 2" in text for text in segments)
    assert not any(b"fleeting-value" in text for text in segments)
    # A root's name is in the numbers that the commit is framed with.
    assert not any(b"fleeting-key" in text.replace(b'"fleeting-key"', b"") for text in segments)
    assert [str(finding) for one in verify(tmp_path, "server") for finding in one.findings] == []


def test_old_versions_share_in_a_snapshot_what_they_share_in_memory(tmp_path: Path) -> None:
    for opening in range(2):
        with Database(FileLog(tmp_path, "server", new_life), "server") as db:
            if opening == 0:
                db.join("me")
                tree = {f"k{n}": {"x": {"y": n}} for n in range(50)}
                db.commit(request((None, "put", "r", tree)))
                db.commit(request(("me", "put!", "r.k7.x.e", 1), ("me", "put!", "r.k8.x.e", 1)))
                for n in range(8):
                    db.commit(request((None, "put", f"r.k{n}.x.y", -n)))
                db.snapshot()
            else:
                root = db.state.roots["r"]
                shared = set()
                for version in (*root.old_versions(), root.version):
                    shared |= containers(root.at(version))
                # The whole, the two that the ephemeral nodes touched, and each put's way.
                assert len(shared) == 101 + (1 + 2 + 2) + 8 * 3


def containers(content: MaybeContent) -> set[int]:
    if type(content) is not Node:
        return set()
    found = {id(content)}
    for child in content.children.values():
        found |= containers(child)
    return found


def test_an_ephemeral_node_needs_a_live_session(reopen: Reopening) -> None:
    db = reopen()
    with pytest.raises(NoSession, match="me has no live session") as caught:
        db.commit(request(("me", "put!", "r.e", 1)))
    assert (caught.value.code, caught.value.status) == ("no_session", 409)
    with pytest.raises(NoSession, match="server has no live session"):
        db.commit(request(("server", "put!", "r.e", 1)))
    db.join("me")
    db.join("me")
    assert db.live_ids() == ["me"]
    db.commit(request(("me", "put!", "r.e", 1)))
    # The owner is who puts, not who commits.
    with pytest.raises(NoSession, match="committer has no live session"):
        db.commit(request((None, "put!", "r.f", 1)))
    db.commit(Transaction((make_put(("r", "f"), 1, ephemeral=True),), "me"))
    assert owned(db.state) == {"me": ["r.e", "r.f"]}


def test_who_leaves_takes_its_nodes_along(reopen: Reopening) -> None:
    db = reopen()
    for tega_id in ("you", "me"):
        db.join(tega_id)
    assert db.live_ids() == ["me", "you"]
    db.commit(request(("me", "put!", "r.a.e", 1), ("me", "put!", "s", 1), ("you", "put!", "t", 1)))
    pending = db.leave("me")
    late = db.submit(request(("me", "put!", "r.late", 1)))
    assert db.live_ids() == ["you"]
    assert (pending.settled, late.settled) == (False, False)
    assert owned(db.state)["me"] == ["r.a.e", "s"]
    db.flush()
    assert dict(pending.result().versions) == {"r": 1, "s": 1}
    assert pending.commit is not None
    assert pending.commit.tega_id == "me"
    with pytest.raises(NoSession):
        late.result()
    assert owned(db.state) == {"you": ["t"]}
    assert [root.name for root in db.state.live_roots()] == ["t"]


def test_who_leaves_without_nodes_makes_no_commit(reopen: Reopening) -> None:
    db = reopen()
    db.join("me")
    pending = db.leave("me")
    assert pending.settled
    assert (pending.result().seq, dict(pending.result().versions)) == (0, {})
    assert pending.commit is None
    assert db.leave("nobody").settled
    assert db.state.seq == 0
    # A node that is on its way counts.
    db.join("me")
    db.submit(request(("me", "put!", "r.e", 1)))
    assert db.leave("me").commit is not None
    db.flush()
    assert owned(db.state) == {}


def test_a_request_knows_the_state_that_it_was_judged_by(reopen: Reopening) -> None:
    db = reopen()
    empty = db.state
    first = db.submit(request((None, "put", "r", 1)))
    second = db.submit(request((None, "put", "r.a", 1)))
    third = db.submit(Transaction((), "me"))
    db.flush()
    assert first.before is empty
    assert second.before is third.before is db.state


def test_the_answer_to_a_known_id_stays_when_the_node_is_gone(reopen: Reopening) -> None:
    db = reopen()
    db.join("me")
    wanted = Transaction((make_put(("r", "e"), 1, ephemeral=True),), "me", "t")
    first = db.commit(wanted)
    db = reopen()
    assert db.commit(wanted) == first
    assert db.state.roots["r"].content is ABSENT


def test_commits_are_read_back_without_what_is_ephemeral(reopen: Reopening) -> None:
    db = reopen()
    db.join("me")
    db.commit(request((None, "put", "r.a.x", 1)))
    db.commit(request(("me", "put!", "r.a.e", 1)))
    db.commit(request(("me", "delete", "r.a.e"), (None, "put", "r.b", 1)))
    read = [
        (one.seq, [record.path for record in one.records], one.extras.versions, one.extras.touched)
        for one in db.commits_after("r", -1)
    ]
    assert read == [
        (1, ["r.a.x"], {"r": 0}, []), (2, [], {"r": 1}, ["r.a"]), (3, ["r.b"], {"r": 2}, ["r.a"]),
    ]  # fmt: skip


def test_the_time_of_a_lapse_grows_with_the_nodes_only() -> None:
    """Ten thousand nodes go at once."""
    db = Database(MemoryLog(new_life), "server")
    db.join("me")
    made = [make_put(("r", f"k{n % 100}", f"e{n}"), n, ephemeral=True) for n in range(10_000)]
    db.commit(Transaction(tuple(made), "me"))
    db.commit(Lapse("me"))
    assert (db.state.seq, db.state.live_roots(), owned(db.state)) == (2, [], {})
    db.check()
