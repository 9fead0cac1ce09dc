"""What work costs, as counts that do not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tega.database import Database, new_life
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.store.node import Content, Node


class CountingDisk(Disk):
    """Counts the writes and syncs."""

    def __init__(self) -> None:
        self.writes = 0
        self.syncs = 0

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.writes += 1
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self.syncs += 1
        super().sync(fd)


def put(path: str, value: Any, txid: str | None = None) -> Transaction:
    return Transaction((make_put(tuple(path.split(".")), value),), "me", txid)


def delete(path: str) -> Transaction:
    return Transaction((make_delete(tuple(path.split("."))),), "me")


def containers(content: Content) -> dict[int, Node]:
    """All containers of a tree by identity."""
    if type(content) is not Node:
        return {}
    found = {id(content): content}
    for child in content.children.values():
        found |= containers(child)
    return found


@pytest.fixture
def db() -> Iterator[Database]:
    with Database(MemoryLog(new_life), "me", maxlen=1_000) as opened:
        yield opened
        opened.check()


def made_by(db: Database, request: Transaction | Rollback, root: str = "r") -> int:
    """How many containers of the new version were not in the one before."""
    before = containers(db.state.roots[root].content)
    db.commit(request)
    after = containers(db.state.roots[root].content)
    return sum(identity not in before for identity in after)


# -- nodes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 5, 30])
@pytest.mark.parametrize("siblings", [0, 100])
def test_a_put_copies_the_containers_above_it_and_no_others(
    db: Database, depth: int, siblings: int
) -> None:
    path = ".".join(["r", *(["k"] * (depth - 1))])
    db.commit(put(path, 0))
    for level in range(1, depth):
        above = ".".join(["r", *(["k"] * (level - 1))])
        operations = [make_put((*above.split("."), f"s{n}"), {"x": {}}) for n in range(siblings)]
        db.commit(Transaction(tuple(operations), "me"))
    assert made_by(db, put(path, 1)) == depth - 1
    assert made_by(db, put(path + "new", 1)) == depth - 1
    assert made_by(db, delete(path)) == depth - 1


def test_a_rollback_copies_the_containers_above_what_differs(db: Database) -> None:
    db.commit(put("r", {"a": {"b": {"c": 1}}, "x": {"y": {"z": 1}}}))
    db.commit(put("r.a.b.c", 2))
    assert made_by(db, Rollback("r", -1, "me")) == 3


def test_a_thousand_old_versions_share_what_did_not_change(db: Database) -> None:
    db.commit(put("r", {f"k{n}": {"x": {"y": n}} for n in range(100)}))
    for n in range(1_000):
        db.commit(put(f"r.k{n % 7}.x.y", -n))
    root = db.state.roots["r"]
    assert root.old_versions() == list(range(1_000))
    shared: dict[int, Node] = {}
    for version in (*root.old_versions(), root.version):
        shared |= containers(root.at(version))
    # The first version whole, then three containers for each put.
    assert len(shared) == 201 + 3 * 1_000


def test_a_put_is_no_copy_of_other_roots(db: Database) -> None:
    db.commit(put("big", {str(n): n for n in range(100)}))
    before = db.state.roots["big"]
    db.commit(put("small", 1))
    assert db.state.roots["big"] is before


def test_old_versions_share_after_a_snapshot_and_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with Database(FileLog(tmp_path, "me", new_life), "me") as db:
            if db.state.seq == 0:
                db.commit(put("r", {f"k{n}": {"x": {"y": n}} for n in range(100)}))
                for n in range(10):
                    db.commit(put(f"r.k{n}.x.y", -n))
                db.snapshot()
            root = db.state.roots["r"]
            shared: dict[int, Node] = {}
            for version in (*root.old_versions(), root.version):
                shared |= containers(root.at(version))
            assert len(shared) == 201 + 3 * 10


# -- syncs ----------------------------------------------------------------------------------------


@pytest.fixture
def disk() -> CountingDisk:
    return CountingDisk()


@pytest.fixture
def on_disk(tmp_path: Path, disk: CountingDisk) -> Iterator[Database]:
    with Database(FileLog(tmp_path, "me", new_life, disk=disk), "me") as opened:
        disk.writes = disk.syncs = 0
        yield opened
        opened.check()


def test_a_lone_commit_is_one_write_and_one_sync(on_disk: Database, disk: CountingDisk) -> None:
    for count in range(1, 4):
        on_disk.commit(put("r", count))
        assert (disk.writes, disk.syncs) == (count, count)


def test_a_transaction_is_one_write_and_one_sync(on_disk: Database, disk: CountingDisk) -> None:
    operations = tuple([make_put((f"r{n}", "a"), n) for n in range(100)])
    on_disk.commit(Transaction(operations, "me"))
    assert (disk.writes, disk.syncs) == (1, 1)


def test_a_batch_shares_one_write_and_one_sync(on_disk: Database, disk: CountingDisk) -> None:
    pending = [on_disk.submit(put(f"r{n % 3}", n)) for n in range(64)]
    assert (disk.writes, disk.syncs) == (0, 0)
    on_disk.flush()
    assert (disk.writes, disk.syncs) == (1, 1)
    assert [p.result().seq for p in pending] == list(range(1, 65))


def test_what_changes_nothing_is_not_synced(on_disk: Database, disk: CountingDisk) -> None:
    first = on_disk.commit(put("r", 1, "t"))
    disk.writes = disk.syncs = 0
    assert on_disk.commit(put("r", 2, "t")) == first
    with pytest.raises(KeyError):
        on_disk.commit(delete("absent"))
    on_disk.commit(Transaction((), "me"))
    on_disk.flush()
    on_disk.find(("r",))
    assert (disk.writes, disk.syncs) == (0, 0)
