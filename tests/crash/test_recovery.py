"""The rules of the start: what is set aside, what is refused, and what is kept."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from disks import Call, RecordingDisk, volume_after
from story import ME, fingerprint, open_database, put

from tega.database import Database, new_life
from tega.errors import Corrupt, LogError
from tega.log.file import FileLog
from tega.store.commit import Transaction, make_put
from tega.store.node import thaw


def _write(directory: Path, commits: int) -> Path:
    """A log of so many commits; its only segment."""
    with open_database(directory) as db:
        for n in range(commits):
            db.commit(put("a", n))
    return directory / f"log.{ME}.0"


def _starts(content: bytes | bytearray) -> list[int]:
    """Where each commit starts, and where the last one ends."""
    return [n for n in range(len(content)) if content.startswith(b"? ", n) and (
        n == 0 or content[n - 1] in b"\n\0"
    )] + [len(content)]


def _newest(directory: Path) -> int:
    with open_database(directory) as db:
        db.check()
        return int(thaw(db.find(("a",)).content))


def test_a_torn_tail_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = _write(tmp_path, 3)
    content = segment.read_bytes()
    end = _starts(content)[-2]
    segment.write_bytes(content[:-30])
    with caplog.at_level(logging.WARNING):
        assert _newest(tmp_path) == 1
    aside = tmp_path / f"log.{ME}.0.{end}.torn"
    assert aside.read_bytes() == content[end:-30]
    assert segment.read_bytes() == content[:end]
    (warning,) = caplog.messages
    for told in (str(segment), f"last {len(content) - 30 - end} bytes", str(end), aside.name):
        assert told in warning


def test_what_was_set_aside_before_is_kept(tmp_path: Path) -> None:
    segment = _write(tmp_path, 2)
    content = segment.read_bytes()
    tails = [b'? 3\n{"ope"', b"? 3\n", b"?"]
    for tail in tails:
        segment.write_bytes(content + tail)
        assert _newest(tmp_path) == 1
    assert sorted(p.read_bytes() for p in tmp_path.glob("*.torn")) == sorted(tails)


def test_lost_blocks_in_the_last_batch(tmp_path: Path) -> None:
    """A commit after them checks, but does not say that they were synced."""
    with open_database(tmp_path) as db:
        db.commit(put("a", 0))
        for n in range(1, 4):
            db.submit(put("a", n) if n != 2 else put("b", "x" * 2000))
        db.flush()
    segment = tmp_path / f"log.{ME}.0"
    content = bytearray(segment.read_bytes())
    start, end = _starts(content)[3:5]
    block = (start // 512 + 1) * 512
    content[block : block + 1024] = bytes(1024)
    segment.write_bytes(content)
    assert _newest(tmp_path) == 1
    assert (tmp_path / f"log.{ME}.0.{start}.torn").read_bytes() == content[start:]
    assert end < len(content)


def test_lost_blocks_before_a_commit_that_says_they_were_synced(tmp_path: Path) -> None:
    """Also where that commit starts a block, and the newline before it is lost with the others."""
    padding = 0
    for attempt in ("measured", "fitted"):
        with open_database(tmp_path / attempt, ahead=0) as db:
            segment = tmp_path / attempt / f"log.{ME}.0"
            db.commit(put("a", "x" * (1024 + padding)))
            start = segment.stat().st_size
            padding = -start % 512
            db.commit(put("b", 1))
    assert start % 512 == 0
    content = bytearray(segment.read_bytes())
    content[start - 512 : start] = bytes(512)
    segment.write_bytes(content)
    with pytest.raises(Corrupt):
        open_database(tmp_path / "fitted")
    assert segment.read_bytes() == content


@pytest.mark.parametrize("tail", [b"hello\n", b"hello", b"\n", b"? 4\nhello\n", b"? 3\n\n", b"@\n"])
def test_what_no_crash_leaves_is_refused(tmp_path: Path, tail: bytes) -> None:
    segment = _write(tmp_path, 2)
    content = segment.read_bytes() + tail
    segment.write_bytes(content)
    with pytest.raises(Corrupt, match=f"byte offset {len(content) - len(tail)}:.*tega-log repair"):
        open_database(tmp_path)
    assert segment.read_bytes() == content
    assert not list(tmp_path.glob("*.torn"))


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_gap_in_the_sequence_numbers(tmp_path: Path, gone: int) -> None:
    segment = _write(tmp_path, 4)
    content = segment.read_bytes()
    starts = _starts(content)
    segment.write_bytes(content[: starts[gone]] + content[starts[gone + 1] :])
    with pytest.raises(Corrupt, match=f"sequence number {gone + 1} after {gone - 1}"):
        open_database(tmp_path)


def test_a_snapshot_that_is_cut_is_no_torn_tail(tmp_path: Path) -> None:
    """It was synced before it had its name."""
    segment = _write(tmp_path, 2)
    with open_database(tmp_path) as db:
        db.snapshot()
    newest = tmp_path / f"log.{ME}.1"
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.raises(Corrupt, match=r"log.srv.1: line 1, byte offset 0"):
        open_database(tmp_path)
    newest.write_bytes(b"")
    with pytest.raises(Corrupt, match="empty"):
        open_database(tmp_path)
    # Not even if the segment before it is whole.
    newest.unlink()
    with pytest.raises(Corrupt, match=r"log.srv.1 is missing"):
        open_database(tmp_path)
    assert segment.exists()


def test_a_segment_that_is_missing_in_between(tmp_path: Path) -> None:
    commit_log = FileLog(tmp_path, ME, new_life, keep=5)
    with Database(commit_log, ME) as db:
        for n in range(3):
            db.commit(put("a", n))
            db.snapshot()
    (tmp_path / f"log.{ME}.1").unlink()
    with pytest.raises(Corrupt, match=r"log.srv.1 is missing, between segments 0 and 2"):
        open_database(tmp_path)


def test_another_tega_id_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, 1)
    with caplog.at_level(logging.WARNING):
        db = Database(FileLog(tmp_path, "new", new_life), "new")
    assert db.state.seq == 0
    db.close()
    (warning,) = caplog.messages
    assert f"no log of tega id new, but of {ME}" in warning
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert _newest(tmp_path) == 0
    assert not caplog.messages


def test_a_clear_keeps_what_was(tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        for n in range(3):
            db.commit(put("a", n))
            db.snapshot()
        before = {p.read_bytes() for p in tmp_path.glob("log.*")}
        life = db.state.life
        db.clear()
        assert db.state.life != life
        assert db.commit(put("a", 7)).seq == 1
    assert {p.read_bytes() for p in tmp_path.glob("log.*.cleared-*")} == before
    assert _newest(tmp_path) == 7


def test_a_clear_that_a_crash_cut_short_is_finished(tmp_path: Path) -> None:
    segment = _write(tmp_path, 2)
    content = segment.read_bytes()
    with open_database(tmp_path) as db:
        db.clear()
        cleared = fingerprint(db.state)
    segment.write_bytes(content)
    with open_database(tmp_path) as db:
        assert fingerprint(db.state) == cleared
    assert not segment.exists()
    assert [p.read_bytes() for p in tmp_path.glob("*.cleared-*")] == [content, content]


def test_a_new_directory_is_on_disk_before_anything_in_it(tmp_path: Path) -> None:
    disk = RecordingDisk()
    directory = tmp_path / "var" / "lib" / "tega"
    open_database(directory, disk).close()
    synced = [c.name for c in disk.calls if isinstance(c, Call) and c.kind == "sync_directory"]
    assert synced[:3] == [str(tmp_path), str(tmp_path / "var"), str(tmp_path / "var" / "lib")]


@pytest.mark.parametrize("snapshot", [False, True])
def test_depth_is_not_judged_again(tmp_path: Path, snapshot: bool) -> None:
    """A document of a setting that allowed more depth stays readable."""
    value: object = 1
    for _ in range(90):
        value = {"k": value}
    with Database(FileLog(tmp_path, ME, new_life), ME, max_depth=100) as db:
        db.commit(Transaction((make_put(("a",), value, max_depth=100),), "cli-1"))
        before = fingerprint(db.state)
        if snapshot:
            db.snapshot()
    with open_database(tmp_path) as db:
        assert fingerprint(db.state) == before


def test_a_close_in_the_middle_of_a_snapshot(tmp_path: Path) -> None:
    """The snapshot is given up, and what was committed meanwhile stays."""
    commit_log = FileLog(tmp_path, ME, new_life)
    with Database(commit_log, ME) as db:
        db.commit(put("a", 1))
        snapshot = commit_log.snapshot(db.state)
        for _ in snapshot.steps():
            pass
        db.commit(put("a", 2))
    with pytest.raises(LogError, match="closed"):
        snapshot.install()
    # By now the directory may be another process's, and the name too.
    snapshot.discard()
    assert list(tmp_path.glob("*.new"))
    assert _newest(tmp_path) == 2
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("then", ["snapshots", "clear"])
def test_history_can_be_read_to_its_end(tmp_path: Path, then: str) -> None:
    """Whatever becomes of the segments meanwhile: dropped, renamed, gone on with."""
    with open_database(tmp_path) as db:
        for n in range(6):
            db.commit(put("a", n))
            if n % 2:
                db.snapshot()
        expected = [c.seq for c in db.commits_after("a", -1)]
        assert len(expected) > 1
        history = db.commits_after("a", -1)
        read = [next(history).seq]
        if then == "clear":
            db.clear()
        else:
            for n in range(3):
                db.commit(put("a", n))
                db.snapshot()
        assert read + [c.seq for c in history] == expected
        db.check()


def test_a_segment_says_where_it_goes_on_before_anything_does(tmp_path: Path) -> None:
    """So that a newest segment that gets lost is missed."""
    disk = RecordingDisk()
    with open_database(tmp_path, disk) as db:
        db.commit(put("a", 1))
        db.snapshot()
        for image in volume_after(disk.calls).crashes():
            assert image[f"log.{ME}.0"].endswith(f"\n> log.{ME}.1\n".encode())
