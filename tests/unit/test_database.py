"""The database: what is read, when it is durable, and what survives a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tega.database import Database, new_life
from tega.errors import (
    Closed,
    Collision,
    LeafInTheWay,
    NoSuchVersion,
    NotFound,
    OutcomeUnknown,
    ReadOnly,
    Unavailable,
)
from tega.log.base import Log
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.paths import parse
from tega.store.commit import Operation, Request, Rollback, Transaction, make_delete, make_put
from tega.store.history import MAX_IDS
from tega.store.node import thaw


class FaultyDisk(Disk):
    """Fails, or does something first, when told to.

    :ivar failing: whether syncs fail
    :ivar before_draft: called once, before something is written to a new file
    :ivar before_sync: called once, before a sync
    """

    def __init__(self) -> None:
        self.failing = False
        self.before_draft: Callable[[], None] | None = None
        self.before_sync: Callable[[], None] | None = None
        self._draft = -1

    def open(self, path: Path, create: bool = False) -> int:
        fd = super().open(path, create)
        if create:
            self._draft = fd
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        action = self.before_draft
        if action is not None and fd == self._draft:
            self.before_draft = None
            action()
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        action, self.before_sync = self.before_sync, None
        if action is not None:
            action()
        if self.failing:
            raise OSError(5, "no more disk")
        super().sync(fd)


class Reopening:
    """Opens databases on the same log, and closes and checks them in the end."""

    def __init__(self, log: Callable[[], Log]) -> None:
        self._log = log
        self._opened: list[Database] = []

    def __call__(self, maxlen: int = 10, max_depth: int = 64) -> Database:
        self.close()
        self._opened.append(Database(self._log(), "me", maxlen, max_depth))
        return self._opened[-1]

    def close(self) -> None:
        for db in self._opened:
            db.check()
            db.close()
        self._opened.clear()


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture(params=["memory", "file"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, disk: FaultyDisk) -> Iterator[Reopening]:
    """Gives a database; every further call closes it and opens the next one on the same log."""
    memory = MemoryLog(new_life)
    logs: dict[str, Callable[[], Log]] = {
        "memory": lambda: memory,
        "file": lambda: FileLog(tmp_path / "made" / "here", "me", new_life, disk=disk),
    }
    opening = Reopening(logs[request.param])
    yield opening
    opening.close()


@pytest.fixture
def db(reopen: Reopening) -> Database:
    return reopen()


#: For what only a log in files does.
in_files = pytest.mark.parametrize("reopen", ["file"], indirect=True)


def tx(*operations: Operation, txid: str | None = None) -> Transaction:
    return Transaction(operations, "me", txid)


def put(path: str, value: Any, expected: int | None = None, txid: str | None = None) -> Transaction:
    return tx(make_put(parse(path), value, expected), txid=txid)


def delete(path: str) -> Transaction:
    return tx(make_delete(parse(path)))


def value(db: Database, path: str, version: int | None = None) -> Any:
    return thaw(db.find(parse(path), version).content)


# -- reading --------------------------------------------------------------------------------------


def test_a_database_starts_empty(db: Database) -> None:
    assert db.state.seq == 0
    assert db.state.live_roots() == []
    with pytest.raises(NotFound, match="nothing at r"):
        db.find(("r",))


def test_what_is_put_is_read(db: Database) -> None:
    result = db.commit(put('routes."10.0.0.0/24"', {"metric": 5, "hops": ["a", {"_free": 1}]}))
    assert result.seq == 1
    assert dict(result.versions) == {"routes": 0}
    assert value(db, 'routes."10.0.0.0/24".metric') == 5
    assert value(db, "routes") == {"10.0.0.0/24": {"metric": 5, "hops": ("a", {"_free": 1})}}


def test_old_versions_are_read_by_number_or_counted_back(db: Database) -> None:
    for n in range(4):
        db.commit(put("r.a", n))
    assert [value(db, "r.a", version) for version in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert [value(db, "r.a", version) for version in (-1, -2, -3)] == [2, 1, 0]
    assert db.find(("r", "a"), -1).version == 2


@pytest.mark.parametrize("version", [0, 1, -3, -7, 5, 99])
def test_a_version_that_is_not_there_is_refused_naming_those_that_are(
    reopen: Reopening, version: int
) -> None:
    db = reopen(maxlen=2)
    for n in range(5):
        db.commit(put("r", n))
    assert db.state.roots["r"].old_versions() == [2, 3]
    message = f"no version {version} of r: there are 2 to 4"
    with pytest.raises(NoSuchVersion, match=message) as caught:
        db.find(("r",), version)
    assert caught.value.details == {"root": "r", "first": 2, "newest": 4}
    with pytest.raises(NoSuchVersion, match=message):
        db.commit(Rollback("r", version, "me"))


def test_no_old_version_may_be_kept(reopen: Reopening) -> None:
    db = reopen(maxlen=0)
    for n in range(3):
        db.commit(put("r", n))
    assert (value(db, "r"), value(db, "r", 2)) == (2, 2)
    with pytest.raises(NoSuchVersion, match="there are 2 to 2"):
        db.find(("r",), -1)


def test_ten_old_versions_are_kept_unless_told_otherwise(db: Database) -> None:
    for n in range(20):
        db.commit(put("r", n))
    assert db.state.roots["r"].old_versions() == list(range(9, 19))


def test_versions_are_read_back_node_by_node(db: Database) -> None:
    db.commit(put("r", {"a": {"x": 1}, "b": 2}))
    db.commit(put("r.a.x", 3))
    paths = ["r", "r.a", "r.a.x", "r.b", "r.c", "s"]
    versions = [db.state.version_at(parse(path)) for path in paths]
    assert versions == [1, 1, 1, 0, None, None]


def test_a_reader_keeps_the_state_that_it_holds(db: Database) -> None:
    db.commit(put("r", {"a": 1}))
    held = db.state
    db.commit(put("r.a", 2))
    db.clear()
    assert thaw(held.find(("r", "a")).content) == 1


# -- durable before it is seen --------------------------------------------------------------------


def test_nothing_is_seen_before_it_is_flushed(db: Database) -> None:
    pending = db.submit(put("r", 1))
    assert not pending.settled
    assert db.state.seq == 0
    with pytest.raises(AssertionError):
        pending.result()
    db.flush()
    assert pending.settled
    assert pending.result().seq == 1
    assert value(db, "r") == 1


def test_requests_are_judged_by_those_submitted_before_them(db: Database) -> None:
    pending = [
        db.submit(put("r", 1, expected=-1)),
        db.submit(put("r", 2, expected=-1)),
        db.submit(put("r", 3, expected=0)),
        db.submit(put("r.a", 4)),
        db.submit(Rollback("r", -1, "me")),
    ]
    db.flush()
    assert [pending[n].result().versions["r"] for n in (0, 2, 4)] == [0, 1, 2]
    with pytest.raises(Collision):
        pending[1].result()
    with pytest.raises(LeafInTheWay):
        pending[3].result()
    assert [value(db, "r", version) for version in range(3)] == [1, 3, 1]


def test_a_refusal_waits_for_the_state_that_it_was_judged_by(db: Database) -> None:
    db.submit(put("r", 1))
    refused = db.submit(put("r", 2, expected=-1))
    assert not refused.settled
    db.flush()
    assert refused.settled
    assert db.submit(put("r", 2, expected=-1)).settled


def test_the_answer_to_a_known_id_waits_for_its_commit(db: Database) -> None:
    db.submit(put("r", 1, txid="t"))
    again = db.submit(put("r", 1, txid="t"))
    assert not again.settled
    db.flush()
    assert again.result().seq == 1
    assert db.state.seq == 1


@in_files
def test_what_is_submitted_during_a_sync_waits_for_the_next(
    db: Database, disk: FaultyDisk
) -> None:
    late = []
    disk.before_sync = lambda: late.append(db.submit(put("r", 2)))
    db.commit(put("r", 1))
    assert not late[0].settled
    assert (db.state.seq, value(db, "r")) == (1, 1)
    db.flush()
    assert late[0].result().seq == 2
    assert value(db, "r") == 2


@in_files
def test_a_failing_disk_makes_it_read_only(db: Database, disk: FaultyDisk) -> None:
    db.commit(put("r", 1, txid="known"))
    disk.failing = True
    pending = db.submit(put("r", 2))
    refused = db.submit(put("r", 3, expected=-1))
    with pytest.raises(OutcomeUnknown, match="may be there after a restart"):
        db.commit(put("r", 4))
    disk.failing = False
    with pytest.raises(OutcomeUnknown):
        pending.result()
    with pytest.raises(ReadOnly):
        refused.result()
    with pytest.raises(ReadOnly, match="no more disk"):
        db.commit(put("r", 5))
    with pytest.raises(Unavailable):
        db.clear()
    assert isinstance(db.refusal, ReadOnly)
    assert value(db, "r") == 1
    assert db.state.seq == 1


def test_many_threads_commit_one_after_the_other(db: Database) -> None:
    results = []

    def work(name: int) -> None:
        for n in range(20):
            results.append(db.commit(tx(make_put(("r", f"k{name}"), n), make_put(("s",), n))))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.seq for result in results) == list(range(1, 81))
    assert sorted(result.versions["r"] for result in results) == list(range(80))
    assert value(db, "r") == {f"k{name}": 19 for name in range(4)}


# -- safe retries ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["at once", "restart", "snapshot", "snapshot and restart"])
def test_a_known_transaction_id_gives_the_first_result(reopen: Reopening, how: str) -> None:
    db = reopen()
    first = db.commit(tx(make_put(("s",), 1), make_put(("r",), 1), txid='t "é"'))
    db.commit(put("r", 2))
    rolled = db.commit(Rollback("r", 0, "me", "rolled"))
    if "snapshot" in how:
        db.snapshot()
    if "restart" in how:
        db = reopen()
    assert db.commit(put("r", 9, txid='t "é"')) == first
    assert db.commit(Rollback("r", 0, "me", "rolled")) == rolled
    assert db.state.seq == 3
    assert value(db, "r") == 1


def test_a_refused_transaction_id_may_come_again(db: Database) -> None:
    with pytest.raises(NotFound):
        db.commit(tx(make_delete(("r",)), txid="t"))
    assert db.commit(put("r", 1, txid="t")).seq == 1


def test_the_newest_ten_thousand_ids_are_known(reopen: Reopening) -> None:
    assert MAX_IDS == 10_000
    db = reopen()
    for n in range(MAX_IDS + 5):
        db.submit(put("r", n, txid=f"t{n}"))
    db.flush()
    for restarted in (False, True):
        if restarted:
            db = reopen()
        assert len(db.state.ids.results) == MAX_IDS
        assert db.commit(put("r", -1, txid="t5")).seq == 6
        assert db.commit(put("r", -1, txid=f"t{MAX_IDS}")).seq == MAX_IDS + 1
        assert db.state.seq == MAX_IDS + 5


def test_an_empty_transaction_changes_nothing(db: Database) -> None:
    db.commit(put("r", 1))
    result = db.commit(tx())
    assert (result.seq, dict(result.versions)) == (1, {})
    assert db.state.seq == 1


# -- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("snapshots", [(), (0,), (3,), (6,), (2, 4), (0, 1, 2, 3, 4, 5, 6)])
def test_history_survives_restart_and_snapshot(
    reopen: Reopening, snapshots: tuple[int, ...]
) -> None:
    db = reopen(maxlen=4)
    requests: list[Request] = [
        put("r", {"a": {"x": 1}, "b": [1]}),
        put("r.a.y", 2),
        delete("r"),
        put("r.a", {}),
        tx(make_put(("r", "b"), 2**70), make_put(("s", "10.0.0.1"), None)),
        Rollback("r", -2, "me"),
    ]
    for number, request in enumerate(requests):
        if number in snapshots:
            db.snapshot()
        db.commit(request)
    if len(requests) in snapshots:
        db.snapshot()
    before = db.state
    db = reopen(maxlen=4)
    after = db.state
    assert (after.life, after.seq) == (before.life, before.seq)
    assert sorted(after.roots) == sorted(before.roots)
    for name, root in before.roots.items():
        again = after.roots[name]
        assert (again.version, again.old_versions()) == (root.version, root.old_versions())
        assert again.chain == root.chain
    assert [root.name for root in after.live_roots()] == ["s"]
    assert db.state.roots["r"].old_versions() == [1, 2, 3, 4]
    assert value(db, "r", 1) == {"a": {"x": 1, "y": 2}, "b": (1,)}
    assert value(db, "r", -1) == {"a": {}, "b": 2**70}
    assert db.find(("r", "a"), -1).version == 3
    with pytest.raises(NotFound, match="nothing at r in version 2"):
        db.find(("r",), 2)
    assert db.commit(Rollback("r", 1, "me")).versions["r"] == 6
    assert value(db, "r.a.y") == 2


def test_version_numbers_go_on_after_a_restart(reopen: Reopening) -> None:
    db = reopen()
    db.commit(put("r", 1))
    db.commit(delete("r"))
    db = reopen()
    result = db.commit(put("r", 2))
    assert (result.seq, result.versions["r"]) == (3, 2)


def test_fewer_old_versions_may_be_kept_after_a_restart(reopen: Reopening) -> None:
    db = reopen(maxlen=10)
    for n in range(6):
        db.commit(put("r", n))
    assert reopen(maxlen=1).state.roots["r"].old_versions() == [4]


@in_files
def test_a_restart_asks_no_depth_limit_of_what_is_there(reopen: Reopening) -> None:
    db = reopen(max_depth=200)
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    db.commit(tx(make_put(("r",), deep, max_depth=200)))
    assert value(reopen(), "r") == value(db, "r")
    reopen().snapshot()
    assert value(reopen(), "r") == value(db, "r")


@in_files
def test_commits_go_on_while_a_snapshot_is_written(reopen: Reopening, disk: FaultyDisk) -> None:
    db = reopen()
    db.commit(put("r", 1, txid="before"))

    def meanwhile() -> None:
        db.commit(put("r", 2, txid="meanwhile"))
        db.submit(put("s", 3))

    disk.before_draft = meanwhile
    db.snapshot()
    assert disk.before_draft is None
    db.commit(put("r", 4))
    db = reopen()
    assert db.state.seq == 4
    assert [value(db, "r", version) for version in range(3)] == [1, 2, 4]
    assert value(db, "s") == 3
    assert db.commit(put("r", 9, txid="meanwhile")).seq == 2


@in_files
def test_a_close_while_a_snapshot_is_written_loses_nothing(
    reopen: Reopening, disk: FaultyDisk
) -> None:
    db = reopen()
    db.commit(put("r", 1))

    def meanwhile() -> None:
        db.commit(put("r", 2))
        db.close()

    disk.before_draft = meanwhile
    with pytest.raises(Unavailable):
        db.snapshot()
    assert value(reopen(), "r") == 2


def test_the_log_gives_back_the_commits_of_a_root(db: Database) -> None:
    db.commit(put("r", 1))
    db.commit(put("s", 1))
    db.commit(tx(make_put(("s",), 2), make_put(("r",), 2)))
    db.snapshot()
    db.commit(Rollback("r", -1, "me"))
    assert [logged.seq for logged in db.commits_after("r", -1)] == [1, 3, 4]
    assert [logged.seq for logged in db.commits_after("r", 0)] == [3, 4]
    assert [logged.seq for logged in db.commits_after("s", 1)] == []
    assert [logged.rolled_back for logged in db.commits_after("r", 1)] == [("r", 1)]
    assert list(db.commits_after("x", -1)) == []


# -- clear and close ------------------------------------------------------------------------------


def test_clear_starts_over_in_a_new_life(reopen: Reopening) -> None:
    db = reopen()
    db.commit(put("r", 1, txid="t"))
    life = db.state.life
    db.clear()
    assert db.state.life != life
    assert (db.state.seq, db.state.live_roots(), list(db.state.roots)) == (0, [], [])
    assert db.commit(put("r", 2, txid="t")).versions["r"] == 0
    life = db.state.life
    db = reopen()
    assert (db.state.life, db.state.seq, value(db, "r")) == (life, 1, 2)


def test_what_was_submitted_before_a_clear_is_settled(db: Database) -> None:
    pending = db.submit(put("r", 1))
    db.clear()
    assert pending.settled
    assert pending.result().seq == 1
    assert db.state.seq == 0


def test_close_makes_durable_what_was_submitted(reopen: Reopening) -> None:
    pending = reopen().submit(put("r", 1))
    db = reopen()
    assert pending.result().seq == 1
    assert value(db, "r") == 1


def test_after_close_there_are_reads_but_no_changes(db: Database) -> None:
    db.commit(put("r", 1))
    db.close()
    db.close()
    assert value(db, "r") == 1
    with pytest.raises(Closed):
        db.commit(put("r", 2))
    with pytest.raises(Closed):
        db.snapshot()
    with pytest.raises(Closed):
        db.clear()
