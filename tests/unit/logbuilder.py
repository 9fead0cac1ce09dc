"""Small logs for tests, written by the log itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tega.log.base import Settings
from tega.log.compare import compare
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.paths import parse
from tega.store.commit import Request, Rollback, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.staging import stage

MAXLEN = 10


class QuickDisk(Disk):
    """A disk that does not wait."""

    def sync(self, fd: int) -> None:
        """Nothing to wait for."""

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync_directory(self, path: Path) -> None:
        """Nothing to wait for."""


class LogBuilder:
    """A log in a directory, and every state that it had.

    :ivar states: by sequence number, of the present life
    """

    def __init__(self, directory: Path, tega_id: str = "me", life: str = "life") -> None:
        self.directory = directory
        self.tega_id = tega_id
        self.log = FileLog(directory, tega_id, lambda: life, disk=QuickDisk())
        self.state = self.log.recover(Settings(maxlen=MAXLEN))
        self.states = {self.state.seq: self.state}
        self._second = 0

    def commit(self, request: Request) -> None:
        self._second += 1
        time = f"2026-11-21T01:{self._second // 60:02}:{self._second % 60:02}.000000Z"
        self.state, commit = stage(self.state, request, time, MAXLEN)
        self.log.append([commit])
        self.states[self.state.seq] = self.state

    def put(self, path: str, value: Any, txid: str | None = None, who: str = "cli-1") -> None:
        self.commit(Transaction((make_put(parse(path), value),), who, txid))

    def delete(self, path: str) -> None:
        self.commit(Transaction((make_delete(parse(path)),), "cli-1"))

    def rollback(self, root: str, backto: int) -> None:
        self.commit(Rollback(root, backto, "cli-1"))

    def snapshot(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        fresh = self.log.snapshot(self.state)
        for _ in fresh.steps():
            pass
        meanwhile()
        fresh.install()

    def clear(self, life: str) -> None:
        self.state = State(life)
        self.states = {0: self.state}
        self.log.clear(self.state)

    def path(self, number: int) -> Path:
        return self.directory / f"log.{self.tega_id}.{number}"


def two_segments(directory: Path, tega_id: str = "me") -> LogBuilder:
    """Seven commits, of which the second segment repeats the sixth; closed."""
    built = LogBuilder(directory, tega_id)
    for number in range(3):
        built.put(f"a.b{number}", number, f"tx{number}")
    built.rollback("a", -1)
    built.put("c", ["list", {"_any": None}])
    built.snapshot(lambda: built.put("a.x", {"y": 1.5, "z": {}}))
    built.delete("a.x.y")
    built.log.close()
    return built


def recovered(directory: Path, tega_id: str = "me") -> State:
    """What a start makes of a directory."""
    log = FileLog(directory, tega_id, lambda: "another life", disk=QuickDisk())
    state = log.recover(Settings(maxlen=MAXLEN))
    log.close()
    return state


def assert_same(one: State, other: State) -> None:
    """Compare two states in all that a user can see."""
    assert (one.life, one.seq) == (other.life, other.seq)
    assert compare(one, other) is None
    assert compare(other, one) is None
