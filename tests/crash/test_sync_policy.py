"""``--sync always|interval|never``: an acknowledgement is as strong as the setting says."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import pytest
from disks import Call, GatedDisk, Mark, RecordingDisk, volume_after, write_image
from story import fingerprint, open_database, put

from tega.errors import LogError, ReadOnly, Unavailable
from tega.log.disk import Disk

#: Seconds that do not pass in a test.
FOREVER = 3600.0


def _seqs_after_power_cut(disk: RecordingDisk, directory: Path) -> set[int]:
    """The sequence numbers that may be the last one."""
    seqs = set()
    for image in volume_after(disk.calls).crashes(step=50):
        write_image(image, directory)
        with open_database(directory) as db:
            seqs.add(db.state.seq)
    return seqs


def test_always_syncs_each_commit(tmp_path: Path) -> None:
    disk = RecordingDisk()
    with open_database(tmp_path / "db", disk) as db:
        for n in range(3):
            db.commit(put("a", n))
            assert _seqs_after_power_cut(disk, tmp_path / "cut") == {n + 1}


@pytest.mark.parametrize("policy", ["interval", "never"])
def test_the_others_acknowledge_at_once(
    tmp_path: Path, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "tega")
    disk = RecordingDisk()
    with open_database(tmp_path / "db", disk, sync=policy, interval=FOREVER) as db:
        started = len(disk.calls)
        for n in range(3):
            db.commit(put("a", n))
        assert [c.kind for c in _calls(disk, started)] == ["write"] * 3
        assert db.find(("a",)).content == 2
        # Another process would see all of it, a power cut may take all of it.
        assert _seqs_after_power_cut(disk, tmp_path / "cut") == {0, 1, 2, 3}
        db.check()
    assert [c.kind for c in _calls(disk, started)] == ["write"] * 3 + ["sync"]
    assert _seqs_after_power_cut(disk, tmp_path / "cut") == {3}


def _calls(disk: RecordingDisk, start: int) -> list[Call]:
    return [call for call in disk.calls[start:] if not isinstance(call, Mark)]


@pytest.mark.parametrize("policy", ["interval", "never"])
def test_a_snapshot_makes_all_before_it_durable(tmp_path: Path, policy: str) -> None:
    disk = RecordingDisk()
    with open_database(tmp_path / "db", disk, sync=policy, interval=FOREVER) as db:
        db.commit(put("a", 1))
        db.commit(put("a", 2))
        db.snapshot()
        assert _seqs_after_power_cut(disk, tmp_path / "cut") == {2}
        # The segment before it is history, of which nothing is missing either.
        volume = volume_after(disk.calls)
        for image in volume.crashes():
            write_image(image, tmp_path / "cut")
            with open_database(tmp_path / "cut") as cut:
                assert [c.seq for c in cut.commits_after("a", -1)] == [1, 2]


def test_interval_syncs_by_itself_and_only_when_there_is_something(tmp_path: Path) -> None:
    disk = GatedDisk()
    with open_database(tmp_path / "db", disk, sync="interval", interval=0.001) as db:
        started = disk.syncs
        disk.shut()
        db.commit(put("a", 1))
        # The commit was acknowledged; its sync comes later, by itself, and hinders no other commit.
        disk.wait_for_sync()
        db.commit(put("a", 2))
        assert disk.syncs == started + 1
        disk.gate.set()
        disk.wait_for_sync()
        db.commit(put("a", 3))
        disk.wait_for_sync()
        last = disk.syncs
        assert last <= started + 3
    assert disk.syncs <= last + 1
    with open_database(tmp_path / "db") as db:
        assert db.state.seq == 3


def test_a_failed_sync_in_the_background_ends_commits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "tega")
    disk = GatedDisk()
    with open_database(tmp_path / "db", disk, sync="interval", interval=0.001) as db:
        disk.error = OSError(errno.EIO, "no luck")
        disk.shut()
        db.commit(put("a", 1))
        disk.wait_for_sync()
        failed = disk.syncs
        state = fingerprint(db.state)
        disk.gate.set()
        for thread in threading.enumerate():
            if thread.name == "tega-sync":
                thread.join(30)
        with pytest.raises(Unavailable):
            db.commit(put("a", 2))
        assert db.refusal is not None
        with pytest.raises(ReadOnly):
            db.commit(put("a", 3))
        assert fingerprint(db.state) == state
        db.check()
    assert disk.syncs == failed


def test_a_close_that_cannot_sync_says_so(tmp_path: Path) -> None:
    class Failing(Disk):
        failing = False

        def sync(self, fd: int) -> None:
            if self.failing:
                raise OSError(errno.EIO, "no luck")
            super().sync(fd)

    disk = Failing()
    db = open_database(tmp_path / "db", disk, sync="never")
    db.commit(put("a", 1))
    disk.failing = True
    with pytest.raises(OSError, match="no luck"):
        db.close()
    # The directory is free all the same.
    open_database(tmp_path / "db").close()


def test_a_start_that_cannot_sync_is_refused(tmp_path: Path) -> None:
    """What a killed process left in memory must not be shown before it is on disk."""
    with open_database(tmp_path / "db") as db:
        db.commit(put("a", 1))
    disk = GatedDisk()
    disk.error = OSError(errno.EIO, "no luck")
    with pytest.raises(LogError, match="no luck"):
        open_database(tmp_path / "db", disk)
    with open_database(tmp_path / "db") as db:
        assert db.state.seq == 1


def test_the_disk_really_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other tests take for synced is what the operating system was asked for."""
    waited: list[tuple[str, int]] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(
            os, name, lambda fd, name=name: waited.append((name, os.fstat(fd).st_ino))
        )
    disk = Disk()
    fd = disk.open(tmp_path / "old", create=True)
    disk.write(fd, b"text", 0)
    file, directory = os.fstat(fd).st_ino, tmp_path.stat().st_ino
    assert not waited
    disk.sync(fd)
    disk.rename(tmp_path / "old", tmp_path / "new")
    disk.truncate(fd, 2)
    disk.sync_directory(tmp_path)
    disk.close(fd)
    assert waited == [
        ("fdatasync", file), ("fsync", directory), ("fsync", file), ("fsync", directory)
    ]
    assert (tmp_path / "new").read_bytes() == b"te"
