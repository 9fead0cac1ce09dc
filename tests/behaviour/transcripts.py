"""Sessions in documents, played again against a real server and compared to the letter.

A fenced block tagged ``console`` is a terminal: lines after ``$ `` are shell commands, and
``$ ./scripts/cli`` without a command is a session at the prompt. What differs from run to run
(ids, times, checksums) is made alike on both sides before comparing.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = re.compile(r"\[tega: \d+\] ")
#: A step of a session may take so long, seconds.
PATIENCE = 20.0

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "HASH"),
    (re.compile(r"} [0-9a-f]{8}$", re.MULTILINE), "} CRC"),
]


def blocks(document: Path) -> list[str]:
    """The console blocks of a document."""
    return re.findall(r"^```console\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def programs(document: Path) -> list[str]:
    """The Python blocks of a document."""
    return re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def alike(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def replay(block: str, port: int, logdir: Path, home: Path) -> str:
    """Play a block again.

    :returns: what the terminal shows now, in the form of the block
    """
    shown = []
    lines = block.split("\n")
    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if not line.startswith("$ "):
            continue
        end = place
        while end < len(lines) and not lines[end].startswith("$ "):
            end += 1
        if line == "$ ./scripts/cli":
            output = _session(lines[place:end], port, home)
        else:
            output = _shell(line[2:], port, logdir, home)
        shown.append(f"{line}\n{output}")
        place = end
    return "".join(shown)


def _shell(command: str, port: int, logdir: Path, home: Path) -> str:
    """Run a command as a reader would, the scripts being those of this checkout."""
    functions = (
        f"cli() {{ {sys.executable} -m tega.cli.main -p {port} \"$@\"; }}\n"
        f"log() {{ {sys.executable} -m tega.cli.logtool \"$@\"; }}\n"
    )
    command = command.replace("./scripts/cli", "cli").replace("./scripts/log", "log")
    command = command.replace("127.0.0.1:8739", f"127.0.0.1:{port}")
    command = command.replace("scripts/var", str(logdir))
    done = subprocess.run(
        ["bash", "-c", functions + command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env=_environment(home), timeout=PATIENCE, check=False,
    )
    output = done.stdout.replace(str(logdir), "scripts/var")
    return output if output.endswith("\n") or not output else output + "\n"


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "TERM": "dumb", "PYTHONPATH": str(ROOT)}


def _typed(lines: list[str]) -> Iterator[str]:
    """The lines that a person types in a recorded session."""
    value = False
    for line in lines:
        prompt = PROMPT.match(line)
        if prompt is not None:
            command = line[prompt.end() :]
            yield command
            value = command.partition(" ")[0] in ("put", "pute")
        elif value:
            yield line
            value = bool(line)


def _entered(lines: list[str]) -> Iterator[str]:
    """What is typed between two prompts: a command, with its value where it has one.

    In one go, for the terminal echoes what comes while nobody reads a line.
    """
    entry = ""
    for line in _typed(lines):
        entry += line + "\n"
        if line.partition(" ")[0] not in ("put", "pute") and (entry == line + "\n" or not line):
            yield entry
            entry = ""


def _session(lines: list[str], port: int, home: Path) -> str:
    """Type the lines of a recorded session into a new one at a pseudo-terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        arguments = [sys.executable, "-m", "tega.cli.main", "-p", str(port)]
        os.execve(sys.executable, arguments, _environment(home))
    try:
        screen = Screen(terminal)
        screen.wait_for(r"\[tega: 0\] $")
        for number, entry in enumerate(_entered(lines), 1):
            os.write(terminal, entry.encode())
            if entry != "q\n":
                screen.wait_for(rf"\[tega: {number}\] $")
        screen.wait_for_end()
        return screen.text
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


class Screen:
    """What a terminal has shown, without escape sequences."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._seen = 0
        self._raw = b""

    @property
    def text(self) -> str:
        """All of it."""
        return _ESCAPES.sub("", self._raw.decode()).replace("\r", "")

    def wait_for(self, pattern: str) -> None:
        """Read until what came since the last call ends in a pattern.

        :raises TimeoutError: where it does not come
        """
        until = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text[self._seen :]):
            if not self._read(until):
                raise TimeoutError(f"no {pattern!r} on the screen:\n{self.text}")
        self._seen = len(self.text)

    def wait_for_end(self) -> None:
        """Read until the program has ended."""
        until = time.monotonic() + PATIENCE
        while self._read(until):
            pass

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # The other end of a pseudo-terminal has closed.
            return False
        self._raw += data
        return bool(data)
