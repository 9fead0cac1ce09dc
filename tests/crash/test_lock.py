"""One writer for a directory and tega id; a killed one leaves no trace of its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from story import ME, open_database, put

import tega
from tega.database import Database, new_life
from tega.errors import Corrupt, Locked
from tega.log.file import FileLog

#: A process that holds the directory until its input ends.
HOLDER = """
import sys
from pathlib import Path
from tega.database import Database, new_life
from tega.log.file import FileLog
with Database(FileLog(Path(sys.argv[1]), sys.argv[2], new_life), sys.argv[2]):
    print("open", flush=True)
    sys.stdin.read()
"""


def _holder(directory: Path) -> subprocess.Popen[str]:
    root = str(Path(tega.__file__).parents[1])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), ME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    return holder


def test_a_second_one_in_the_same_process(tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        with pytest.raises(Locked, match=f"in use for tega id {ME} by process {os.getpid()}"):
            open_database(tmp_path)
        # The one that was refused took nothing along.
        with pytest.raises(Locked):
            open_database(tmp_path)
        db.commit(put("a", 1))
    with open_database(tmp_path) as db:
        assert db.state.seq == 1


def test_a_second_one_in_another_process(tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        with pytest.raises(Locked, match=f"by process {holder.pid}"):
            open_database(tmp_path)
        holder.communicate()
        assert holder.returncode == 0
    open_database(tmp_path).close()


def test_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        open_database(tmp_path).close()


def test_another_tega_id_has_a_lock_of_its_own(tmp_path: Path) -> None:
    """Also one whose name starts with the first one's."""
    with open_database(tmp_path) as db, Database(
        FileLog(tmp_path, f"{ME}.0", new_life), f"{ME}.0"
    ) as other:
        db.commit(put("a", 1))
        assert other.state.seq == 0
        # Its unfinished snapshot is not ours to remove.
        draft = tmp_path / f"log.{ME}.0.1.new"
        draft.write_bytes(b"? 0\n")
        db.close()
        open_database(tmp_path).close()
        assert draft.exists()


def test_a_refused_start_frees_the_directory(tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        db.commit(put("a", 1))
    segment = tmp_path / f"log.{ME}.0"
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b'"instance":1', b'"instance":2'))
    with pytest.raises(Corrupt):
        open_database(tmp_path)
    segment.write_bytes(content)
    with open_database(tmp_path) as db:
        assert db.state.seq == 1
