"""The product as a process: `tega-sentinel`, killed and started again."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from processes import PATIENCE, REPOSITORY, children, free_port, until

from tega.sentinel.main import main

#: What it says once it is in step.
IN_STEP = re.compile(r"tega-sentinel: in step with \S+ at revision (\d+)")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of the tests' own process, but for those that the preset reads."""
    kept = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("MY_", "TEGA_")) and not name.endswith("_INTERVAL")
    }  # fmt: skip
    return {**kept, "PYTHONUNBUFFERED": "1", **variables}


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    status: int
    said: str


class Sentinel:
    """A service that keeps one sink in step.

    :param arguments: of the command
    :param variables: of its environment, beside those of the tests
    :ivar lines: what all its processes so far have said, stdout and stderr together
    """

    def __init__(
        self, arguments: Sequence[str], variables: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
    ) -> None:  # fmt: skip
        self.arguments = list(arguments)
        self.variables = dict(variables or {})
        self.lines: list[str] = []
        #: Called with each line as it comes, in a thread of its own.
        self.heard: Callable[[str], None] = lambda line: None
        self._cwd = cwd
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._since = 0

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "tega.sentinel", *self.arguments]

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What all its processes so far have said."""
        return "\n".join(self.lines)

    @property
    def said_now(self) -> str:
        """What the process that was started last has said."""
        return "\n".join(self.lines[self._since :])

    def run(self, *more: str) -> Ended:
        """Run the command with more arguments to its end, beside the service or without it.

        It runs in this process: to start one takes longer than what is done.
        """
        said = io.StringIO()
        variables = mock.patch.dict(os.environ, _environment(self.variables), clear=True)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with variables, redirect_stdout(said), redirect_stderr(said):
                status = main([*self.arguments, *more])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Ended(status, said.getvalue())

    def run_apart(self, *more: str, seconds: float = PATIENCE) -> Ended:
        """The same in a process of its own."""
        done = subprocess.run(
            [*self.command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=self._cwd, env=_environment(self.variables), timeout=seconds, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout, done.stdout
        return Ended(done.returncode, done.stdout)

    def launch(self) -> None:
        """Start the service, and wait for nothing."""
        assert not self.alive
        self._since = len(self.lines)
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", cwd=self._cwd,
            env=_environment(self.variables),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._listen, args=[self._process], daemon=True)
        self._reader.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
            self.heard(line)

    def launch_until_it_hears(self) -> None:
        """Start the service, and wait no longer than until SIGTERM would not just end it."""
        self.launch()
        status = Path(f"/proc/{self.pid}/status")

        def hears() -> bool:
            caught = next(
                line for line in status.read_text().splitlines() if line.startswith("SigCgt")
            )
            return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

        until(hears, "it hears SIGTERM")

    def start(self) -> int:
        """Start the service, and wait until it is in step; the revision that it names."""
        self.launch()
        return int(self.says(IN_STEP)[1])

    def says(self, pattern: str | re.Pattern[str], seconds: float = PATIENCE) -> re.Match[str]:
        """Wait until the process that was started last has said something."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said_now)
            assert match or self.alive, f"ended before it said {pattern!r}: {self.said[-3000:]}"
            return match

        try:
            match = until(found, f"the sentinel says {pattern!r}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}, but: {self.said[-3000:]}") from None
        assert match is not None
        return match

    @property
    def status(self) -> int | None:
        """The exit status of the process that was started last; None: it runs."""
        assert self._process is not None
        return self._process.poll()

    def memory(self) -> int:
        """Bytes of memory that it has, with those of its children."""
        pages = 0
        for pid in [self.pid, *children(self.pid)]:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop_at_once(self) -> None:
        """End it at once, and wait for nothing."""
        assert self._process is not None
        self._process.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it in order; its exit status."""
        return self._end(number)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        assert self._reader is not None
        self._process.send_signal(number)
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"does not end: {self.said[-3000:]}") from None
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def pause(self) -> None:
        """Let it do nothing, while its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    # -- its port -------------------------------------------------------------------------------

    def check_words(self) -> None:
        """Whether it has never shown an error of the programmer."""
        before, found, after = self.said.partition("Traceback")
        assert not found, before[-500:] + found + after[:6000]

    def with_port(self) -> Sentinel:
        """Let it offer its health and metrics."""
        self.port = free_port()
        self.arguments += ["--port", str(self.port)]
        return self

    def ask(self, url: str) -> tuple[int, str]:
        """Ask it for its health or metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", url)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def health(self) -> tuple[int, dict[str, object]]:
        status, body = self.ask("/_health")
        found = json.loads(body)
        assert isinstance(found, dict)
        return status, found
