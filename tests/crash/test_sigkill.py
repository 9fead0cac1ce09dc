"""A process under load is killed at any moment, over and over on the same directory."""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import writer
from story import check_history

import tega

#: Longest life of a process, seconds: from its fork, so that some die in the start.
LIFE = 0.12


class Child:
    """The lines of a writer, with a time limit."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)
        self._rest = b""
        self._lines: deque[bytes] = deque()

    def lines(self, until: float) -> Iterator[list[str]]:
        """The words of each line that comes, up to a moment of the monotonic clock."""
        while True:
            while self._lines:
                yield self._lines.popleft().decode().split(" ", 3)
            left = until - time.monotonic()
            if left < 0 or not self._selector.select(left):
                return
            text = os.read(self._fd, 1 << 16)
            assert text, "the writer is gone"
            *lines, self._rest = (self._rest + text).split(b"\n")
            self._lines.extend(lines)


class Ledger:
    """What was tried and acknowledged, over all processes; and what must be true of each state."""

    def __init__(self) -> None:
        self.life = ""
        self.newest = 0
        self.tried = [-1] * writer.THREADS
        self.acknowledged = [-1] * writer.THREADS
        self.commits: dict[int, tuple[int, int]] = {}

    def take(self, words: list[str]) -> None:
        """One line of a writer."""
        if words[0] == "state":
            self.found(json.loads(" ".join(words[1:])))
            return
        thread, value = int(words[1]), int(words[2])
        if words[0] == "try":
            assert value == self.acknowledged[thread] + 1
            self.tried[thread] = value
        else:
            assert words[0] == "did"
            made = json.loads(words[3])
            assert made["version"] == value
            assert self.commits.setdefault(made["seq"], (thread, value)) == (thread, value)
            self.acknowledged[thread] = value
            self.newest = max(self.newest, made["seq"])

    def found(self, state: dict[str, Any]) -> None:
        """A start found this; from now on it counts as acknowledged."""
        assert self.life in ("", state["life"])
        assert state["seq"] >= self.newest
        for thread in range(writer.THREADS):
            version, own = state["roots"].get(
                f"own-{thread}", (-1, {"value": -1, "shared": None})
            )
            assert own["value"] == version
            assert self.acknowledged[thread] <= version <= self.tried[thread]
            _, shared = state["roots"].get("shared", (-1, {}))
            assert shared.get(str(thread)) == own["shared"]
            self.acknowledged[thread] = self.tried[thread] = version
        if sum(self.acknowledged) + writer.THREADS:
            self.life = state["life"]
        self.newest = state["seq"]
        assert self.newest == sum(self.acknowledged) + writer.THREADS


@pytest.mark.parametrize("rounds", [40, pytest.param(500, marks=pytest.mark.long)])
def test_kills_under_load(tmp_path: Path, rounds: int) -> None:
    seed = int(os.environ.get("TEGA_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"TEGA_TEST_SEED={seed}")
    rng = random.Random(seed)
    ledger = Ledger()
    environment = {**os.environ, "PYTHONPATH": str(Path(tega.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, str(Path(writer.__file__)), str(tmp_path / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        child = Child(process)
        for _ in range(rounds):
            process.stdin.write(b"%d\n" % rng.randrange(1 << 32))
            process.stdin.flush()
            _kill_one(child, ledger, rng.random() * LIFE)
        process.stdin.close()
        assert process.wait(30) == 0
    assert len(ledger.commits) > rounds
    with writer.open_database(tmp_path / "db") as db:
        db.check()
        ledger.found(writer.summary(db))
        check_history(db)


def _kill_one(child: Child, ledger: Ledger, life: float) -> None:
    word, pid = next(child.lines(time.monotonic() + 30))
    assert word == "pid"
    for words in child.lines(time.monotonic() + life):
        ledger.take(words)
    os.kill(int(pid), signal.SIGKILL)
    for words in child.lines(time.monotonic() + 30):
        if words[0] == "end":
            assert words[1] == str(-signal.SIGKILL)
            return
        ledger.take(words)
    raise AssertionError("a killed process goes on")
