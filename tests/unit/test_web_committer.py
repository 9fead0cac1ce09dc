"""Group commit for an event loop: many requests, one sync, and no wait for a slow disk."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from tega.database import Database, new_life
from tega.errors import Collision, Internal, OutcomeUnknown, ReadOnly, TegaError
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.pending import Prepared
from tega.store.commit import Own, Rollback, Transaction, make_put
from tega.web.committer import Committer
from tega.web.later import Later


class SlowDisk(Disk):
    """A disk whose syncs wait until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.syncs = 0
        self.threads: set[int] = set()
        self.broken = False

    def sync(self, fd: int) -> None:
        self.syncs += 1
        self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.go.wait(20)
        if self.broken:
            raise OSError("broken")
        super().sync(fd)


def put(path: str, value: object, expected: int | None = None) -> Transaction:
    return Transaction((make_put((path,), value, expected),), "me")


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def database(tmp_path: Path, disk: SlowDisk) -> Database:
    return Database(FileLog(tmp_path, "t", new_life, disk=disk), "t")


async def gather(answers: list[Later]) -> list[Any]:
    return [await answer for answer in answers]


def run(work: object) -> None:
    asyncio.run(asyncio.wait_for(work, 30))  # type: ignore[arg-type]


def test_what_arrives_in_one_turn_shares_a_sync(database: Database, disk: SlowDisk) -> None:
    async def work() -> None:
        committer = Committer(database)
        before = disk.syncs
        results = await gather([committer.submit(put(f"r{n}", n)) for n in range(64)])
        assert disk.syncs == before + 1
        assert [result.seq for result in results] == list(range(1, 65))
        committer.close()

    run(work())
    database.check()


def test_the_loop_goes_on_while_the_disk_is_slow(database: Database, disk: SlowDisk) -> None:
    async def work() -> None:
        committer = Committer(database)
        disk.go.clear()
        disk.begun.clear()
        before = disk.syncs
        first = committer.submit(put("r", 1))
        await asyncio.to_thread(disk.begun.wait, 20)
        late = [committer.submit(put("r", n)) for n in range(2, 12)]
        refused = committer.submit(put("r", 0, expected=99))
        await asyncio.sleep(0)
        assert not any(future.done for future in (first, *late, refused))
        assert not database.state.live_roots(), "nobody sees what is not on disk"
        disk.go.set()
        assert (await first).seq == 1
        assert [(await future).seq for future in late] == list(range(2, 12))
        with pytest.raises(Collision, match="found version 10"):
            await refused
        assert disk.syncs == before + 2, "one for the first, one for all that waited"
        committer.close()

    run(work())
    database.check()


def test_a_quick_disk_is_not_worth_a_thread(database: Database, disk: SlowDisk) -> None:
    async def work() -> None:
        committer = Committer(database)
        for n in range(200):
            await committer.submit(put("r", n))
            if database.quick:
                break
        assert database.quick
        disk.threads.clear()
        await committer.submit(put("r", "inline"))
        assert disk.threads == {threading.get_ident()}
        committer.close()

    run(work())


def test_a_disk_that_fails_is_told_to_all_who_wait(database: Database, disk: SlowDisk) -> None:
    async def work() -> None:
        committer = Committer(database)
        await committer.submit(put("kept", 1))
        disk.go.clear()
        disk.begun.clear()
        first = committer.submit(put("r", 1))
        await asyncio.to_thread(disk.begun.wait, 20)
        late = committer.submit(put("r", 2))
        disk.broken = True
        disk.go.set()
        with pytest.raises(OutcomeUnknown):
            await first
        with pytest.raises(ReadOnly):
            await late
        with pytest.raises(ReadOnly):
            await committer.submit(put("r", 3))
        assert [root.name for root in database.state.live_roots()] == ["kept"]
        committer.close()

    run(work())


class GatedDatabase(Database):
    """A database that prepares what is long only when it is told to."""

    gate: threading.Event
    prepared: int

    def prepare(self, request: Own) -> Prepared | None:
        self.prepared += 1
        assert threading.current_thread().name.startswith("tega-judge")
        assert self.gate.wait(20)
        return super().prepare(request)


@pytest.fixture
def gated(tmp_path: Path) -> GatedDatabase:
    made = GatedDatabase(FileLog(tmp_path, "t", new_life), "t")
    made.gate, made.prepared = threading.Event(), 0
    return made


MANY = Transaction(tuple(make_put(("r", f"k{n}"), n) for n in range(3_000)), "me")


@pytest.mark.parametrize("long", [Rollback("r", -1, "me"), MANY], ids=["rollback", "many"])
def test_what_comes_while_something_long_is_judged_waits_for_it(
    gated: GatedDatabase, long: Transaction | Rollback
) -> None:
    async def work() -> None:
        committer = Committer(gated)
        for n in range(2):
            await committer.submit(put("r", {"n": n}))
        answers = [
            committer.submit(one)
            for one in (long, put("a", 1), long, put("r", 0, expected=9), put("b", 1))
        ]
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not any(one.done for one in answers)
        assert gated.state.seq == 2, "readers go on with what was"
        gated.gate.set()
        assert [(await answers[n]).seq for n in (0, 1, 2, 4)] == [3, 4, 5, 6]
        with pytest.raises(Collision):
            await answers[3]
        assert gated.prepared == 2
        committer.close()

    run(work())
    gated.check()


def test_it_is_judged_anew_if_something_came_between(gated: GatedDatabase) -> None:
    async def work() -> None:
        committer = Committer(gated)
        gated.join("goes")
        await committer.submit(Transaction((make_put(("e",), 1, ephemeral=True),), "goes"))
        for n in range(2):
            await committer.submit(put("r", n))
        answer = committer.submit(Rollback("r", -1, "me"))
        between = gated.leave("goes")
        gated.gate.set()
        await answer
        assert between.result().seq == 4
        assert [root.name for root in gated.state.live_roots()] == ["r"]
        assert gated.find(("r",)).version == 2
        committer.close()

    run(work())
    gated.check()


def test_what_is_long_and_refused(gated: GatedDatabase) -> None:
    """Also where nothing else is under way, and somebody waits for that."""

    async def work() -> None:
        committer = Committer(gated)
        answer = committer.submit(Rollback("nothing", -1, "me"))
        idle = asyncio.ensure_future(committer.idle())
        await asyncio.sleep(0.01)
        assert not idle.done()
        gated.gate.set()
        await idle
        assert answer.done
        with pytest.raises(TegaError):
            await answer
        committer.close()

    run(work())


def test_much_is_written_by_a_thread(database: Database, disk: SlowDisk) -> None:
    async def work() -> None:
        committer = Committer(database)
        while not database.quick:
            await committer.submit(put("other", 1))
        disk.threads.clear()
        await committer.submit(MANY)
        assert threading.get_ident() not in disk.threads
        committer.close()

    run(work())
    database.check()


def test_a_bug_in_judging_is_told_and_the_others_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(request: Own) -> Prepared | None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(database, "prepare", prepare)

    async def work() -> None:
        committer = Committer(database)
        answers = [committer.submit(one) for one in (MANY, put("a", 1))]
        with pytest.raises(Internal, match=r"reference [0-9a-f]{8} in the server's log"):
            await answers[0]
        assert (await answers[1]).seq == 1
        await committer.idle()
        committer.close()

    run(work())
    assert "in judging a Transaction" in caplog.text
    assert "ZeroDivisionError: a bug" in caplog.text
