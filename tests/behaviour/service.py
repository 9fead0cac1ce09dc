"""A server process, for tests: started on a free port, ended by its own process id."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tega.database import Database, new_life
from tega.log.file import FileLog

ROOT = Path(__file__).resolve().parents[2]


class Service:
    """A server process in a directory.

    :param before: is called in the process, before the program
    :param under: words in front of the command, of a program that becomes this one
    :param environment: variables beside those of this process
    """

    def __init__(
        self,
        directory: Path,
        *flags: str,
        before: Callable[[], None] | None = None,
        under: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", "tega.server", "-d", directory, "-p", "0", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=before,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        # Nobody reads what it logs before the end: that must not stop it.
        fcntl.fcntl(self.process.stderr, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.port = 0
        for line in self.process.stdout:
            if line.startswith("ready on "):
                self.port = int(line.rpartition(":")[2])
                break

    def ask(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, url, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        data = json.loads(answer.read())
        connection.close()
        return answer.status, data

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, messages = self.process.communicate(timeout=30)
        assert "Traceback" not in messages, messages
        return self.process.returncode, messages


def check(directory: Path, tega_id: str) -> None:
    with Database(FileLog(directory, tega_id, new_life), tega_id) as database:
        database.check()
