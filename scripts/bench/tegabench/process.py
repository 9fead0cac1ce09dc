"""Child processes: starting, waiting, measuring and stopping them by their own id (Linux)."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: The directory that ``tegabench`` is imported from, and the repository above it.
HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """A contestant cannot be measured; the message says why and what to do."""


@dataclass(frozen=True)
class Cores:
    """Which cores the server and the client run on; None leaves it to the scheduler."""

    server: frozenset[int] | None = None
    client: frozenset[int] | None = None

    @classmethod
    def split(cls) -> Cores:
        """One core for the server, another for the client, where there are two."""
        if not hasattr(os, "sched_getaffinity"):
            return cls()
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            return cls()
        return cls(frozenset(cores[:1]), frozenset(cores[1:2]))

    def __str__(self) -> str:
        if self.server is None or self.client is None:
            return "not pinned"
        return f"server pinned to core {min(self.server)}, client to core {min(self.client)}"


def pin(cores: frozenset[int] | None) -> None:
    """Keep this process on these cores."""
    if cores is not None:
        os.sched_setaffinity(0, cores)


def allow_files() -> None:
    """Let this process open as many files as it may."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Process:
    """A server under measurement; its output goes to a file beside its data."""

    def __init__(self, command: list[str], log: Path, cores: frozenset[int] | None) -> None:
        def prepare() -> None:
            pin(cores)
            allow_files()

        self._log = log
        path = os.pathsep.join([str(HERE), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
                cwd=log.parent,
                # Before exec: Go and Java size their thread pools by what they see at start.
                preexec_fn=prepare,
            )
        self.pid = self._process.pid

    def wait_ready(self, probe: Callable[[], bool], timeout: float = 60.0) -> None:
        """Probe every 2 ms until the answer is yes.

        :raises BenchError: with the end of its output, when it exits first or takes too long
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise BenchError(f"exited with {self._process.returncode}: {self._tail()}")
            try:
                if probe():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.002)
        raise BenchError(f"not ready after {timeout:.0f} s: {self._tail()}")

    def stop(self) -> None:
        """Ask it to end; after 20 s, end it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(20)

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self) -> int:
        """Resident bytes."""
        return resident(self.pid)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-600:].strip() or "no output"


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def python(*arguments: str) -> list[str]:
    """The command line of this interpreter with these arguments."""
    return [sys.executable, *arguments]


def in_child(
    cores: frozenset[int] | None, function: Callable[..., T], *arguments: Any, timeout: float = 300
) -> T:
    """Run a function of a module in a fresh process and return what it returns.

    :param timeout: seconds
    :raises BenchError: when it takes longer
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, context, initializer=pin, initargs=(cores,)
    ) as pool:
        future = pool.submit(function, *arguments)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            for child in multiprocessing.active_children():
                child.kill()
            raise BenchError(f"{function!r} took longer than {timeout:.0f} s") from None


@contextmanager
def count_syncs(pid: int, report: Path) -> Iterator[Callable[[], int]]:
    """Count the ``fsync`` and ``fdatasync`` calls of a process while the block runs.

    :returns: a function that tells the number once the block has ended
    :raises BenchError: where strace is not installed or may not attach
    """
    if shutil.which("strace") is None:
        raise BenchError("strace is not installed: apt-get install strace")
    command = ["strace", "-c", "-f", "-e", "trace=fsync,fdatasync", "-o", str(report)]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    # strace says "attached" once it has every thread; counting begins there.
    first = tracer.stderr.readline().decode()
    if "attached" not in first:
        tracer.wait(10)
        raise BenchError(f"strace cannot attach: {first.strip()}")
    try:
        yield lambda: sync_count(report.read_text())
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)


def sync_count(report: str) -> int:
    """Calls in the table that ``strace -c`` writes: the fourth column."""
    lines = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*sync$", report, re.MULTILINE)
    return sum(map(int, lines))
