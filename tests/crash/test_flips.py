"""Any one byte that changes on disk is found, or does not matter: nothing is lost in silence.

What does not matter is what the state does not come from. Older segments are history: the start
looks only at where they begin, and reading the history finds the rest. The line that says where an
older segment goes on is read only where the next one is missing. Everywhere else the start must
refuse; a last commit without its newline is damaged too, since it may have been acknowledged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import Image, QuickDisk, write_image
from story import delete, fingerprint, open_database, put, several

from tega.database import Database
from tega.errors import Corrupt
from tega.store.commit import Rollback


@pytest.fixture(autouse=True)
def _no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "tega")


def _image(directory: Path) -> Image:
    return {path.name: path.read_bytes() for path in directory.glob("log.*")}


def _overwrite(path: Path, content: bytes | bytearray) -> None:
    """As `write_bytes` of content of the same size, but without the wait of a truncation."""
    with path.open("r+b") as file:
        file.write(content)


def _history(db: Database) -> list[tuple[str, list[int]]]:
    roots = sorted(db.state.roots)
    return [(r, [c.extras.versions[r] for c in db.commits_after(r, -1)]) for r in roots]


def _flips(content: bytes, thorough: bool) -> Iterator[tuple[int, int]]:
    for offset, byte in enumerate(content):
        few = {byte ^ 1, 0}
        many = few | {byte ^ 0x20, byte ^ 0x40, byte ^ 0xFF, ord("\n")}
        for changed in (many if thorough else few) - {byte}:
            yield offset, changed


def _commits(db: Database) -> None:
    db.commit(put("a.ge-0/0/0", {"mtu": 9000}, "tx-0"))
    db.commit(several("tx-1"))
    db.commit(put("a.ge-0/0/1.mtu", 1500))
    db.commit(Rollback("a", -1, "cli-1", "tx-2"))
    # Two that share a sync: neither says of the other that it is on disk.
    pending = [db.submit(delete("b.x")), db.submit(put("c", None))]
    db.flush()
    assert all(p.result() for p in pending)


def _check_flips(directory: Path, names: list[str]) -> None:
    image = _image(directory)
    with open_database(directory, QuickDisk()) as db:
        expected, history = fingerprint(db.state), _history(db)
    write_image(image, directory)
    refused = accepted = 0
    for name in names:
        for offset, changed in _flips(image[name], thorough=name == names[-1]):
            flipped = bytearray(image[name])
            flipped[offset] = changed
            _overwrite(directory / name, flipped)
            try:
                db = open_database(directory, QuickDisk())
            except Corrupt as error:
                _check_refusal(error, name, offset, image[name], flipped)
                refused += 1
                continue
            with db:
                assert fingerprint(db.state) == expected, f"{name} at {offset}: {flipped!r}"
                db.check()
                try:
                    assert _history(db) == history, f"{name} at {offset}: {flipped!r}"
                except Corrupt as error:
                    _check_refusal(error, name, offset, image[name], flipped)
                    refused += 1
                else:
                    accepted += 1
        assert _image(directory) == image | {name: bytes(flipped)}, "a start changed something"
        _overwrite(directory / name, image[name])
    assert refused > 1000
    # The line that names the next segment, or nothing.
    assert accepted < 100


def _check_refusal(
    error: Corrupt, name: str, offset: int, before: bytes, flipped: bytearray
) -> None:
    """It names the file, and a place in the commit that holds the changed byte."""
    found = re.search(rf"{re.escape(name)}: line (\d+), byte offset (\d+):", error.message)
    assert found, error.message
    line, place = int(found[1]), int(found[2])
    assert (error.details["line"], error.details["offset"]) == (line, place)
    assert flipped[:place].count(b"\n") + 1 == line
    start = before.rfind(b"\n?", 0, offset + 1) + 1
    end = before.find(b"\n?", offset)
    assert start <= place, f"the byte at {offset} was changed"
    assert place <= end or end < 0, f"the byte at {offset} was changed"


def test_any_byte_of_a_log(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as db:
        _commits(db)
    _check_flips(tmp_path / "db", ["log.srv.0"])


def test_any_byte_of_a_snapshot_and_of_history(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as db:
        _commits(db)
        db.snapshot()
        db.commit(put("a.after", 1))
    _check_flips(tmp_path / "db", ["log.srv.0", "log.srv.1"])


def test_a_byte_that_changes_after_the_start(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", ahead=0) as db:
        _commits(db)
        log = tmp_path / "db" / "log.srv.0"
        content = bytearray(log.read_bytes())
        content[-20] ^= 1
        _overwrite(log, content)
        with pytest.raises(Corrupt, match=r"log.srv.0: line \d+, byte offset \d+"):
            _history(db)


@pytest.mark.parametrize(("edge", "residue"), [("first", 511), ("last", 0)])
def test_a_byte_alone_in_its_block(tmp_path: Path, edge: str, residue: int) -> None:
    """Of a whole commit, a lost block of one byte looks like a changed byte: the start refuses.

    Where more of the commit is missing, it was a crash.
    """
    padding = 0
    for attempt in ("measured", "fitted"):
        with open_database(tmp_path / attempt, ahead=0) as db:
            log = tmp_path / attempt / "log.srv.0"
            db.commit(put("a", "x" * padding))
            before, start = fingerprint(db.state), log.stat().st_size
            db.commit(put("b", 1))
            place = start if edge == "first" else log.stat().st_size - 1
            padding = (residue - place) % 512
    assert place % 512 == residue
    whole = log.read_bytes()
    holed = bytearray(whole)
    holed[place] = 0
    log.write_bytes(holed)
    with pytest.raises(Corrupt):
        open_database(log.parent)
    for end in (start + 1, start + 2, start + 50, len(whole) - 1):
        log.write_bytes(holed[:end])
        with open_database(log.parent, QuickDisk()) as db:
            assert fingerprint(db.state) == before
