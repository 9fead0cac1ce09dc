"""The room at the end of a segment: filler that commits overwrite."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from disks import Call, FaultyDisk, QuickDisk, RecordingDisk
from story import ME, check_history, open_database, put

from tega.database import Database
from tega.errors import Corrupt
from tega.log import segments, verify
from tega.log.appender import AHEAD


def _crashed(directory: Path, commits: int, **options: Any) -> Path:
    """The only segment of a server that was killed."""
    kept = directory.with_name("kept")
    with open_database(directory, **options) as db:
        for n in range(commits):
            db.commit(put("a", n))
        kept.mkdir()
        segment = directory / f"log.{ME}.0"
        content = segment.read_bytes()
    (kept / segment.name).write_bytes(content)
    return kept / segment.name


def _ends_with(db: Database, newest: int) -> None:
    db.check()
    check_history(db)
    assert db.state.seq == newest


def test_most_commits_leave_the_length_of_the_file_alone(tmp_path: Path) -> None:
    disk = RecordingDisk()
    lengths = []
    with open_database(tmp_path, disk, ahead=AHEAD) as db:
        for n in range(1000):
            db.commit(put("a", n))
            lengths.append((tmp_path / f"log.{ME}.0").stat().st_size)
        written = segments.data_of(tmp_path / f"log.{ME}.0")
        assert len(set(lengths)) == len(written) // AHEAD + 1
    # Each byte is written twice, and each commit synced once.
    total = sum([len(c.data) for c in disk.calls if isinstance(c, Call) and c.kind == "write"])
    assert total <= 2 * len(written) + 2 * AHEAD
    syncs = [c for c in disk.calls if isinstance(c, Call) and c.kind == "sync"]
    assert 1000 <= len(syncs) < 1010


@pytest.mark.parametrize("policy", ["interval", "never"])
def test_where_nobody_waits_for_syncs_there_is_no_room(tmp_path: Path, policy: str) -> None:
    segment = _crashed(tmp_path / "db", 3, sync=policy)
    assert segment.read_bytes().endswith(b"\n")


def test_it_is_gone_after_a_stop(tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        db.commit(put("a", 1))
        assert (tmp_path / f"log.{ME}.0").read_bytes().endswith(b"\n" + b"\t" * 1500)
        db.snapshot()
        db.commit(put("a", 2))
    for number in (0, 1):
        content = (tmp_path / f"log.{ME}.{number}").read_bytes()
        assert content.endswith(b"\n")
        assert b"\t" not in content


def test_a_start_after_a_kill_goes_on_in_the_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segment = _crashed(tmp_path / "db", 3, ahead=AHEAD)
    length = segment.stat().st_size
    assert length - len(segments.data_of(segment)) > 60_000
    with caplog.at_level(logging.WARNING), open_database(segment.parent, ahead=AHEAD) as db:
        _ends_with(db, 3)
        db.commit(put("a", 3))
        _ends_with(db, 4)
        assert segment.stat().st_size == length
    assert not caplog.records
    assert all(one.ok for one in verify.verify(segment.parent, ME))


def test_a_commit_in_the_room_that_is_torn(tmp_path: Path) -> None:
    """Cut anywhere, with what stood there before behind it, it is set aside."""
    segment = _crashed(tmp_path / "db", 3)
    content = bytes(segments.data_of(segment))
    start = content.rindex(b"? 3\n")
    for cut in (1, 2, 40, len(content) - start - 1):
        left = content[: start + cut] + b"\t" * (len(content) - start - cut + 900)
        segment.write_bytes(left)
        with open_database(segment.parent, QuickDisk()) as db:
            _ends_with(db, 2)
        (aside,) = segment.parent.glob("*.torn")
        assert aside.read_bytes() == content[start : start + cut]
        aside.unlink()


def test_the_room_is_torn(tmp_path: Path) -> None:
    """Some blocks of it never reached the disk; the commit did."""
    content = bytes(segments.data_of(_crashed(tmp_path / "db", 3)))
    until = -len(content) % 512
    for room in (
        b"\t" * until + bytes(512) + b"\t" * 700,
        b"\t" * (until + 512) + bytes(700),
        bytes(until) + b"\t" * 512 + bytes(512),
    ):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        (directory / f"log.{ME}.0").write_bytes(content + room)
        with open_database(directory, QuickDisk()) as db:
            _ends_with(db, 3)


@pytest.mark.parametrize("place", [5, 700])
def test_something_else_in_the_room_is_damage(tmp_path: Path, place: int) -> None:
    content = bytes(segments.data_of(_crashed(tmp_path / "db", 3)))
    room = bytearray(b"\t" * 1500)
    room[place - len(content) % 512] = ord("x")
    log = tmp_path / "kept" / f"log.{ME}.0"
    log.write_bytes(content + room)
    with pytest.raises(Corrupt, match=f"byte offset {len(content)}"):
        open_database(log.parent)


def test_filler_within_a_commit_is_damage_unless_it_is_a_block(tmp_path: Path) -> None:
    segment = _crashed(tmp_path / "db", 30)
    content = bytearray(segments.data_of(segment))
    content[-300:-290] = b"\t" * 10
    segment.write_bytes(content)
    with pytest.raises(Corrupt):
        open_database(segment.parent)


def test_a_room_that_cannot_be_cut_off_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FaultyDisk("truncate", 1, "before", OSError(5, "no luck"))
    with open_database(tmp_path, disk) as db:
        db.commit(put("a", 1))
    assert "cannot cut the room off" in caplog.text
    with open_database(tmp_path) as db:
        _ends_with(db, 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_what_finds_no_room_but_for_itself(tmp_path: Path, number: int) -> None:
    """The filler is left out, and the commit is there."""
    disk = RecordingDisk()
    open_database(tmp_path, disk).close()
    error = OSError(number, "no room for all of that")
    disk = FaultyDisk("write", 1, "part", error, disk.calls)
    with open_database(tmp_path, disk, ahead=AHEAD) as db:
        db.commit(put("a", 1))
        assert disk.failed
        assert not db.full
        for n in range(400):
            db.commit(put("a", n))
        _ends_with(db, 401)
    with open_database(tmp_path) as db:
        _ends_with(db, 401)
