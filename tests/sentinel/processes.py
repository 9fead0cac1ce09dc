"""Services as processes of their own: started, killed, paused and started again by their id."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]

#: Seconds within which whatever is waited for happens, on a busy machine.
PATIENCE = 30.0

T = TypeVar("T")


def until(found: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Ask again and again, until there is something that is true."""
    limit = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < limit, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return value


def free_port() -> int:
    """A port that nobody has.

    Not one of those that the system gives to connections: a service that was killed must find its
    port free when it starts again.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def connect(port: int, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """A connection to a service, with TLS where it speaks that."""
    if tls is None:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=tls)


def find_program(name: str, *places: str) -> str | None:
    """Where a program is; None where it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *places])
    return shutil.which(name, path=path)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(one) for one in task.read_text().split()]
    return found


def runs(pid: int) -> bool:
    """Whether there is a process, and not only what is left of one that nobody asks about."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


class Process:
    """A process that can be killed, paused and started again.

    :ivar directory: where it keeps its data, and what it says, in ``said.txt``
    :ivar paused: whether it was stopped by `pause`
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paused = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """What all its processes so far have written."""
        file = self.directory / "said.txt"
        return file.read_text(errors="replace") if file.exists() else ""

    def command(self) -> Sequence[str]:
        """What is run."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def account(self) -> str | None:
        """The account that it runs as; None: the one that runs the tests."""
        return None

    def environment(self) -> dict[str, str]:
        """The variables that it gets beside those of the tests."""
        return {}

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert not self.alive
        self.paused = False
        self._process = self._spawn()
        until(self._is_up, f"{type(self).__name__} answers: {self.said[-2000:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        account = self.account()
        with (self.directory / "said.txt").open("ab") as said:
            return subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                cwd=self.directory, env={**os.environ, **self.environment()},
                user=account, extra_groups=None if account is None else [],
            )  # fmt: skip

    def _is_up(self) -> bool:
        assert self.alive, f"{type(self).__name__} has ended: {self.said[-2000:]}"
        return self.is_ready()

    def family(self) -> list[int]:
        """Its process id, and those of the processes that it has started."""
        assert self._process is not None
        return [self._process.pid, *children(self._process.pid)]

    def kill(self) -> None:
        """End it at once, with all that it has started, as a crash does."""
        self.pause()  # so that nobody is born meanwhile
        family = self.family()
        for pid in reversed(family):
            os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(PATIENCE)
        until(lambda: not any(map(runs, family)), "all its processes have ended")
        self.paused = False

    def pause(self) -> None:
        """Let it do nothing, while its connections stay open."""
        for pid in self.family():
            os.kill(pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """Let it go on."""
        for pid in reversed(self.family()):
            os.kill(pid, signal.SIGCONT)
        self.paused = False

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def mend(self) -> None:
        """Let it run, whatever was done to it."""
        if not self.alive:
            self.start()
        elif self.paused:
            self.resume()

    def end(self) -> None:
        """End it, if it runs."""
        if self.alive:
            self.kill()
