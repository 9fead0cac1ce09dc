"""Nobody sees, or learns from, a change that a crash can take back."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import GatedDisk
from story import ME, fingerprint, open_database, put

from tega.database import Database, new_life
from tega.errors import Collision, NotFound, OutcomeUnknown, ReadOnly, TegaError
from tega.log.file import FileLog
from tega.pending import Pending
from tega.store.commit import Rollback, Transaction, make_delete
from tega.store.history import Result
from tega.store.node import thaw


class Task(threading.Thread):
    """A call in a thread; `outcome` waits for what it returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self._result: Any = None
        self._error: TegaError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except TegaError as error:
            self._error = error

    def outcome(self) -> Any:
        self.join(30)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture(name="disk")
def _disk() -> GatedDisk:
    return GatedDisk()


@pytest.fixture(name="db")
def _db(tmp_path: Path, disk: GatedDisk) -> Iterator[Database]:
    with open_database(tmp_path / "db", disk) as db:
        db.commit(put("a.x", 1, "tx-1"))
        yield db
        db.check()
        disk.gate.set()


@pytest.fixture(name="syncing")
def _syncing(db: Database, disk: GatedDisk) -> Task:
    """A commit whose sync waits at the gate: ``a.x`` becomes 2, and ``b`` comes to be."""
    disk.shut()
    request = Transaction((*put("a.x", 2).operations, *put("b", "new").operations), "cli-1", "tx-2")
    task = Task(lambda: db.commit(request))
    disk.wait_for_sync()
    return task


def _delete(path: str) -> Transaction:
    return Transaction((make_delete(tuple(path.split("."))),), "cli-1")


#: Requests whose refusal, or repeated answer, tells of the commit that is not yet synced.
TELLTALES = [
    pytest.param(put("a.x", 3, expected=0), Collision, id="collision"),
    pytest.param(put("b", 3, expected=-1), Collision, id="exists"),
    pytest.param(put("b.below", 1), TegaError, id="leaf in the way"),
    pytest.param(_delete("a.gone"), NotFound, id="not found"),
    pytest.param(Rollback("nowhere", -1, "cli-1"), NotFound, id="no root"),
    pytest.param(Rollback("a", 7, "cli-1"), NotFound, id="no version"),
    pytest.param(put("a.x", 2, "tx-2"), None, id="repeated txid"),
    pytest.param(put("a.x", 1, "tx-1"), None, id="older txid"),
    pytest.param(Transaction((), "cli-1"), None, id="nothing to do"),
]


def test_readers_do_not_see_it(db: Database, disk: GatedDisk, syncing: Task) -> None:
    before = db.state
    assert db.find(("a", "x"))[:2] == (1, 0)
    assert db.find(("a", "x"), version=0)[:2] == (1, 0)
    with pytest.raises(NotFound):
        db.find(("b",))
    # A candidate starts from what is committed, though the next version is taken.
    ((name, version, _),) = db.candidate(put("a.y", 5).operations)
    assert (name, version) == ("a", 1)
    assert [c.seq for c in db.commits_after("a", -1)] == [1]
    assert fingerprint(db.state) == fingerprint(before)
    disk.gate.set()
    assert syncing.outcome().seq == 2
    found = db.find(("a", "x"))
    assert (thaw(found.content), found.version) == (2, 1)
    assert db.find(("b",)).content == "new"
    assert [c.seq for c in db.commits_after("a", -1)] == [1, 2]


@pytest.mark.parametrize(("request_", "error"), TELLTALES)
def test_an_answer_waits_for_what_it_tells(
    db: Database, disk: GatedDisk, syncing: Task, request_: Any, error: type[TegaError] | None
) -> None:
    pending = db.submit(request_)
    def wait() -> Result:
        db.flush()
        return pending.result()

    waiter = Task(wait)
    assert not pending.settled
    assert waiter.is_alive()
    disk.gate.set()
    syncing.outcome()
    if error is None:
        assert waiter.outcome().seq in (1, 2)
    else:
        with pytest.raises(error):
            waiter.outcome()


@pytest.mark.parametrize(("request_", "error"), TELLTALES)
def test_an_answer_is_gone_with_what_it_told(
    db: Database,
    disk: GatedDisk,
    syncing: Task,
    caplog: pytest.LogCaptureFixture,
    request_: Any,
    error: type[TegaError] | None,
) -> None:
    caplog.set_level(logging.CRITICAL, "tega")
    before = db.state
    pending = db.submit(request_)
    commit = db.submit(put("c", 1))
    assert (pending.settled, commit.settled) == (False, False)
    disk.error = OSError(errno.EIO, "no luck")
    disk.gate.set()
    with pytest.raises(OutcomeUnknown):
        syncing.outcome()
    for waiting in (pending, commit):
        assert waiting.settled
        with pytest.raises(ReadOnly):
            waiting.result()
    # The staged states are dropped: what comes now is refused at once, and learns nothing.
    assert db.state is before
    syncs = disk.syncs
    for late in (request_, put("a.x", 4, expected=0), put("a.x", 4, "tx-2")):
        pending = db.submit(late)
        assert pending.settled
        with pytest.raises(ReadOnly):
            pending.result()
    assert disk.syncs == syncs
    assert isinstance(db.refusal, ReadOnly)
    assert db.find(("a", "x"))[:2] == (1, 0)


def test_a_refusal_by_what_is_durable_does_not_wait(db: Database, disk: GatedDisk) -> None:
    syncs = disk.syncs
    pending = db.submit(put("a.x", 3, expected=9))
    assert pending.settled
    with pytest.raises(Collision):
        pending.result()
    assert db.commit(put("a.x", 9, "tx-1")).seq == 1
    assert disk.syncs == syncs


def test_an_answer_to_what_came_while_a_sync_ran(
    db: Database, disk: GatedDisk, syncing: Task
) -> None:
    """Judged before the sync ended, asked for after it: it needs no sync of its own."""
    pending = db.submit(put("a.x", 3, expected=0))
    disk.gate.set()
    syncing.outcome()
    syncs = disk.syncs
    db.flush()
    assert disk.syncs == syncs
    with pytest.raises(Collision):
        pending.result()


def test_commits_that_arrive_together_share_a_sync(tmp_path: Path) -> None:
    disk = GatedDisk()
    judged = threading.Semaphore(0)

    def clock() -> str:
        judged.release()
        return "2026-11-21T01:34:05.123456Z"

    with Database(FileLog(tmp_path, ME, new_life, disk=disk), ME, clock=clock) as db:
        disk.shut()
        first = Task(lambda: db.commit(put("a.first", 0)))
        disk.wait_for_sync()
        syncs = disk.syncs
        tasks = [
            Task(lambda n=n: db.commit(put(f"a.n{n}", n)))  # type: ignore[misc]
            for n in range(20)
        ]
        for _ in range(21):
            assert judged.acquire(timeout=30)
        # Submitting takes the lock under which those were judged: they are all in the batch now.
        last: Pending = db.submit(put("a.last", 1))
        assert disk.syncs == syncs
        disk.gate.set()
        seqs = sorted(task.outcome().seq for task in [first, *tasks])
        db.flush()
        assert last.result().seq == 22
        assert seqs == list(range(1, 22))
        assert disk.syncs == syncs + 1
        db.check()
