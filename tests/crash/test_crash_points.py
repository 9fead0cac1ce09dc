"""Whatever a crash leaves, the start finds what was acknowledged, and goes on by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from disks import (
    Call,
    Image,
    Mark,
    QuickDisk,
    RecordingDisk,
    Volume,
    digest,
    volume_after,
    write_image,
)
from story import Fingerprint, Story, check_history, fingerprint, is_among, open_database, put

from tega.database import Database


@pytest.fixture(autouse=True)
def _no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of torn tails need not be told."""
    caplog.set_level(logging.CRITICAL, "tega")


class Inspector:
    """Starts a database on what a crash left; each different image once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: dict[bytes, Fingerprint] = {}

    def look(self, image: Image, allowed: list[Fingerprint | None], where: object) -> None:
        key = digest(image)
        if key not in self.seen:
            try:
                self.seen[key] = self._start(image)
            except Exception as error:
                raise AssertionError(f"crash at {where}: the start fails on {image}") from error
        found = self.seen[key]
        assert is_among(found, allowed), f"crash at {where}: found {found} of {image}"

    def _start(self, image: Image) -> Fingerprint:
        write_image(image, self.directory)
        with open_database(self.directory, QuickDisk()) as db:
            db.check()
            found = fingerprint(db.state)
            check_history(db)
            self._go_on(db)
        return found

    def _go_on(self, db: Database) -> None:
        """A commit gets the next numbers, and is there after another start."""
        before = db.state
        root = before.roots.get("a")
        result = db.commit(put("a.after", len(self.seen)))
        assert result.seq == before.seq + 1
        assert dict(result.versions) == {"a": 0 if root is None else root.version + 1}
        after = fingerprint(db.state)
        # A second start costs as much as the first; one in a few shows what all would.
        if len(self.seen) % 8 == 0:
            db.close()
            with open_database(self.directory, QuickDisk()) as again:
                assert fingerprint(again.state) == after


def _told(story: Story) -> Story:
    for step in story.steps():
        step()
    story.db.close()
    return story


def test_every_power_cut(tmp_path: Path) -> None:
    disk = RecordingDisk()
    story = _told(Story(tmp_path / "db", disk))
    inspector = Inspector(tmp_path / "cut")
    volume, allowed = Volume(), story.allowed(Mark(-1, -1))
    for number, call in enumerate(disk.calls):
        if isinstance(call, Mark):
            allowed = story.allowed(call)
        else:
            volume.apply(call)
        for image in volume.crashes():
            inspector.look(image, allowed, (number, call))
    assert len(inspector.seen) > 1000


def test_every_power_cut_when_nothing_is_synced(tmp_path: Path) -> None:
    """With ``--sync never`` a crash takes what it likes from the end, and nothing else."""
    disk = RecordingDisk()
    story = _told(Story(tmp_path / "db", disk, sync="never"))
    inspector = Inspector(tmp_path / "cut")
    volume, allowed = Volume(), story.allowed(Mark(-1, -1))
    for number, call in enumerate(disk.calls):
        if isinstance(call, Mark):
            allowed = story.allowed(replace(call, acknowledged=-1))
            continue
        volume.apply(call)
        if call.kind in ("write", "rename"):
            for image in volume.crashes(step=97):
                inspector.look(image, allowed, (number, call))
    assert len(inspector.seen) > 500


def _kills(calls: list[Call | Mark]) -> Iterator[list[Call | Mark]]:
    """The calls that a process may have made when it is killed; a write may be half done."""
    for number, call in enumerate(calls):
        if isinstance(call, Call):
            if call.kind == "write":
                yield [*calls[:number], replace(call, data=call.data[: len(call.data) // 2])]
            yield calls[: number + 1]


def test_every_kill_and_then_a_power_cut(tmp_path: Path) -> None:
    """What is seen after a kill was perhaps never synced; it stays all the same."""
    first = RecordingDisk()
    story = _told(Story(tmp_path / "db", first))
    inspector = Inspector(tmp_path / "cut")
    for before in _kills(first.calls):
        mark = next((c for c in reversed(before) if isinstance(c, Mark)), Mark(-1, -1))
        write_image(volume_after(before).killed(), tmp_path / "killed")
        disk = RecordingDisk(before)
        with open_database(tmp_path / "killed", disk) as db:
            seen, opened = fingerprint(db.state), len(disk.calls)
            db.commit(put("a.again", 1))
            after, committed = fingerprint(db.state), len(disk.calls)
        assert is_among(seen, story.allowed(mark))
        volume = volume_after(before)
        for number, call in enumerate(disk.calls[len(before) :], len(before) + 1):
            assert isinstance(call, Call)
            volume.apply(call)
            allowed = story.allowed(mark)
            if number >= opened:
                allowed = [after] if number >= committed else [seen, after]
            for image in volume.crashes(step=1000):
                inspector.look(image, allowed, (before[-1], call))
