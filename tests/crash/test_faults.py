"""Each call to the disk may fail: what was acknowledged stays, what is unsure is refused."""

from __future__ import annotations

import errno
import logging
import os
import threading
from itertools import count
from pathlib import Path

import pytest
from disks import FaultyDisk, Image, Mark, QuickDisk, calls_of, volume_after, write_image
from story import ME, Fingerprint, Story, check_history, fingerprint, is_among, open_database, put

from tega.database import Database, new_life
from tega.errors import LogError, OutcomeUnknown, ReadOnly, Unavailable
from tega.log.disk import Disk
from tega.log.file import FileLog


@pytest.fixture(autouse=True)
def _no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "tega")


@pytest.fixture(name="crashed")
def _crashed(tmp_path: Path) -> tuple[Image, Fingerprint]:
    """A directory where the start has work to do, and the state that it finds there.

    A clear was not finished, a commit is cut short, a snapshot was under way.
    """
    directory = tmp_path / "crashed"
    with open_database(directory) as db:
        db.commit(put("a.ge-0/0/0", {"mtu": 1500}))
        segment = directory / "log.srv.0"
        cleared = segment.read_bytes()
        db.clear()
        db.commit(put("a.ge-0/0/0", {"mtu": 9000}, "tx-0"))
        found = fingerprint(db.state)
    newest = (directory / "log.srv.1").read_bytes()
    return {
        "log.srv.0": cleared,
        "log.srv.1": newest + b'? 2\n{"ope":"PUT","path":"a.ge-0',
        "log.srv.2.new": b'? 1\n{"ope":"SS",',
    }, found


@pytest.mark.parametrize(
    ("kind", "mode", "code"),
    [
        (kind, mode, errno.EIO)
        for kind in ("open", "write", "sync", "rename", "sync_directory", "unlink", "truncate")
        for mode in ("before", "after")
    ]
    + [("write", "part", errno.ENOSPC)],
)
def test_the_nth_call_fails(
    tmp_path: Path, crashed: tuple[Image, Fingerprint], kind: str, mode: str, code: int
) -> None:
    image, before = crashed
    for nth in count(1):
        directory = tmp_path / str(nth)
        write_image(image, directory)
        error = OSError(code, os.strerror(code))
        disk = FaultyDisk(kind, nth, mode, error, calls_of(image))
        story, why_not = _start(directory, disk)
        if story is None:
            assert os.strerror(code) in why_not
            _check_left(disk, directory, [before])
            continue
        assert fingerprint(story.db.state) == before
        for step in story.steps():
            begun = len(disk.calls)
            try:
                step()
            except Unavailable as refusal:
                assert disk.failed
                _check_failed(story, disk, begun, refusal)
                if story.db.refusal is not None:
                    break
                if story.db.full:
                    # There is room again, and the same goes through.
                    story.is_in_snapshot = False
                    step()
                    assert not story.db.full
                else:
                    story.commit(put("a.more", 1))
            if disk.failed:
                _check_left(disk, tmp_path / "left", story.allowed(story.mark))
        story.db.close()
        _check_left(disk, directory, story.allowed(story.mark))
        if not disk.failed:
            break
    assert nth > 1, "the story never does this"


def _start(directory: Path, disk: FaultyDisk) -> tuple[Story | None, str]:
    """A story, or why it cannot begin."""
    try:
        return Story(directory, disk), ""
    except LogError as error:
        return None, error.message


def _check_failed(story: Story, disk: FaultyDisk, begun: int, refusal: Unavailable) -> None:
    """What the database may do and say after a step failed."""
    since = disk.calls[begun:]
    created = {c.file for c in since if not isinstance(c, Mark) and c.kind == "create"}
    renamed = any(not isinstance(c, Mark) and c.kind == "rename" for c in since)
    db = story.db
    assert fingerprint(db.state) == story.states[story.acknowledged], "reads go on"
    check_history(db)
    db.check()
    if story.is_in_snapshot and not renamed and disk.kind != "rename" and (
        disk.failed_file in created or disk.kind == "open"
    ):
        assert db.refusal is None, "a snapshot that was given up does no harm"
    if db.full:
        assert story.is_in_snapshot or isinstance(refusal, ReadOnly), "nothing was written"
        assert db.refusal is None
        return
    if db.refusal is None:
        assert story.is_in_snapshot, "only a snapshot may fail without consequence"
        return
    if not story.is_in_snapshot and not story.is_in_clear:
        assert isinstance(refusal, OutcomeUnknown)
    with pytest.raises(ReadOnly):
        db.commit(put("a.more", 1))
    with pytest.raises(ReadOnly):
        db.commit(put("a.more", 1, expected=99))
    with pytest.raises(Unavailable):
        db.snapshot()
    with pytest.raises(Unavailable):
        db.clear()
    assert fingerprint(db.state) == story.states[story.acknowledged]


def _check_left(
    disk: FaultyDisk, directory: Path, allowed: list[Fingerprint | None]
) -> None:
    """What was acknowledged is there, whether the machine stops or is started again at once."""
    if disk.failed and disk.kind == "sync":
        later = [c for c in disk.calls[disk.failed_at :] if not isinstance(c, Mark)]
        again = [c for c in later if c.kind == "sync" and c.file == disk.failed_file]
        assert not again, "a failed sync was tried again"
    volume = volume_after(disk.calls)
    for image in [volume.killed(), *volume.crashes(step=1000)]:
        write_image(image, directory)
        with open_database(directory, QuickDisk()) as db:
            assert is_among(fingerprint(db.state), allowed)
            db.check()
            db.commit(put("a.after", 1))


@pytest.mark.parametrize("kind", ["write", "sync", "rename"])
@pytest.mark.parametrize("mode", ["before", "after"])
def test_an_interrupt_anywhere(tmp_path: Path, kind: str, mode: str) -> None:
    """Ctrl-C in a program that embeds the database."""
    for nth in count(1):
        directory = tmp_path / str(nth)
        disk = FaultyDisk(kind, nth, mode, KeyboardInterrupt())
        try:
            story = Story(directory, disk)
        except KeyboardInterrupt:
            open_database(directory).close()
            continue
        acknowledged = fingerprint(story.db.state)
        try:
            for step in story.steps():
                step()
                acknowledged = fingerprint(story.db.state)
        except KeyboardInterrupt:
            # Whether it goes on or refuses, it must not lose what it acknowledges now.
            try:
                story.db.commit(put("a.more", 1))
            except Unavailable:
                allowed = story.allowed(story.mark)
            else:
                allowed = [fingerprint(story.db.state)]
        else:
            assert not disk.failed
            allowed = [acknowledged]
        story.db.close()
        with open_database(directory) as db:
            assert is_among(fingerprint(db.state), allowed)
        if not disk.failed:
            break
    assert nth > 1, "the story never does this"


def test_a_snapshot_that_fails_again_and_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does no harm, not even if it cannot be removed, and is not tried with every commit."""
    caplog.set_level(logging.CRITICAL, "tega")

    class Full(Disk):
        attempts = 0

        def open(self, path: Path, create: bool = False) -> int:
            fd = super().open(path, create)
            if path.name.endswith(".1.new"):
                self.attempts += 1
                self.close(fd)
                raise OSError(errno.ENOSPC, "no space")
            return fd

        def unlink(self, path: Path) -> None:
            raise OSError(errno.EIO, "no luck")

    disk = Full()
    commit_log = FileLog(tmp_path / "db", ME, new_life, snapshot_size=2000, disk=disk)
    with Database(commit_log, ME) as db:
        for n in range(100):
            db.commit(put("a", n))
            for thread in threading.enumerate():
                if thread.name == "tega-snapshot":
                    thread.join(30)
        size = (tmp_path / "db" / f"log.{ME}.0").stat().st_size
        assert 1 < disk.attempts <= size / 2000 + 1
        assert db.refusal is None
        db.check()
    with open_database(tmp_path / "db") as db:
        assert db.state.seq == 100
