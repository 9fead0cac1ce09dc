"""Sessions in documents, played again against a real server and compared to the letter.

A fenced block tagged ``console`` is a terminal: lines after ``$ `` are shell commands, and
``$ ./scripts/cli`` without a command is a session at the prompt. What differs from run to run
(ids, times, checksums) is made alike on both sides before comparing.

With a name behind the tag, ``console 1``, the terminal stays open at the end of the block, and the
next block of that name goes on with it: it shows what has come meanwhile, and what is typed then.
So blocks of two terminals stand in the order in which things happen. A block tagged ``console
plugins``, or ``console plugins 1``, is played against the three servers of the scripts, with their
sample plugins. There, lines such as ``# the global server is stopped`` and ``# the global server is
started again`` do so.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from terminal import PATIENCE, ROOT, Terminal, cli

PROMPT = re.compile(r"\[tega: \d+\](?: |$)")
#: The port that documents give for a server where they give none.
DEFAULT = 8739
#: What is typed to interrupt a program, as the terminal shows it.
INTERRUPT = "^C"

#: A prompt, or a program that goes on until it is interrupted.
_AT_TERMINAL = re.compile(r"\./scripts/cli((?: -s| -[tp] \S+)*(?: watch .*)?)$")
_PORT = re.compile(r"(-p |127\.0\.0\.1:)(\d+)")
#: A stage direction.
_STAGED = re.compile(r"# the (\S+) server is (stopped|started again)")
_WITH_VALUE = ("put", "pute", "pub")
#: Wide enough that no line is wrapped.
_COLUMNS = 1000

_VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"), "DATE"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "HASH"),
    (re.compile(r"} [0-9a-f]{8}$", re.MULTILINE), "} CRC"),
]


class Block(NamedTuple):
    """A block of a document.

    :ivar name: that of its terminal, empty for one of its own
    :ivar plugins: whether it is played against servers with plugins
    """

    name: str
    text: str
    plugins: bool = False


class Server(NamedTuple):
    """Where a server is, and what makes it stop and start again."""

    tega_id: str
    port: int
    directory: Path
    stop: Callable[[], None]
    start: Callable[[], None]


def blocks(document: Path) -> list[Block]:
    """The console blocks of a document."""
    pattern = r"^```console( plugins)? *(\w*)\n(.*?)^```$"
    return [
        Block(name, text, bool(plugins))
        for plugins, name, text in re.findall(pattern, document.read_text(), re.M | re.S)
    ]


def programs(document: Path) -> list[str]:
    """The Python blocks of a document."""
    return re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def alike(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


class Player:
    """Plays blocks again, in order.

    :param servers: by the ports that the documents give them
    :param home: the home directory
    :param patience: seconds to wait for what a block shows
    """

    def __init__(
        self, servers: Mapping[int, Server], home: Path, patience: float = PATIENCE
    ) -> None:
        self._servers = servers
        self._server = servers[DEFAULT]
        self._home = home
        self._patience = patience
        self._open: dict[str, _Program] = {}

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *exception: object) -> None:
        for program in self._open.values():
            program.terminal.close()

    def play(self, block: Block) -> str:
        """Play a block.

        :returns: what the terminal shows now, in the form of the block
        """
        shown = []
        for command, lines in _commands(block.text):
            if command is None:
                shown.append(self._go_on(block.name, lines))
            elif staged := _STAGED.match(command):
                self._stage(*staged.groups())
                shown.append(f"{command}\n")
            elif at_terminal := _AT_TERMINAL.match(command):
                arguments = shlex.split(self._ported(at_terminal[1]))
                self._open[block.name] = self._start(arguments)
                shown.append(f"$ {command}\n{self._go_on(block.name, lines)}")
            else:
                shown.append(f"$ {command}\n{self._shell(command)}")
        return "".join(shown)

    def _stage(self, tega_id: str, what: str) -> None:
        (server,) = [one for one in self._servers.values() if one.tega_id == tega_id]
        if what == "stopped":
            server.stop()
        else:
            server.start()

    def _ported(self, command: str) -> str:
        """The command with the ports that the servers have."""
        return _PORT.sub(lambda found: f"{found[1]}{self._servers[int(found[2])].port}", command)

    def _start(self, arguments: list[str]) -> _Program:
        before = self._subscribers()
        terminal = cli(self._server.port, self._home, *arguments, columns=_COLUMNS)
        if "watch" in arguments:
            # It does not tell that it is there.
            terminal.wait_until(lambda: self._subscribers() > before, self._patience, 0.05)
        return _Program(terminal, self._patience)

    def _subscribers(self) -> int:
        """How many subscribe at the default server, where every watch is."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=PATIENCE)
        connection.request("GET", "/_subscribers")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return len(found)

    def _go_on(self, name: str, lines: list[str]) -> str:
        program = self._open[name]
        text = program.play(lines)
        if program.ended or not name:
            del self._open[name]
            program.terminal.close()
        return text

    def _shell(self, command: str) -> str:
        """Run a command as a reader would, the scripts being those of this checkout."""
        python, port, logdir = sys.executable, self._server.port, str(self._server.directory)
        functions = (
            f"cli() {{ {python} -m tega.cli.main -p {port} \"$@\"; }}\n"
            f"log() {{ {python} -m tega.cli.logtool \"$@\"; }}\n"
        )
        command = command.replace("./scripts/cli", "cli").replace("./scripts/log", "log")
        command = self._ported(command).replace("scripts/var", logdir)
        environment = {**os.environ, "HOME": str(self._home), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-c", functions + command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env=environment, timeout=PATIENCE, check=False,
        )
        output = done.stdout.replace(logdir, "scripts/var")
        for shown, server in self._servers.items():
            output = output.replace(f"127.0.0.1:{server.port} ", f"127.0.0.1:{shown} ")
        return output if output.endswith("\n") or not output else output + "\n"


class _Program:
    """A program at a terminal, and how far blocks have shown it."""

    def __init__(self, terminal: Terminal, patience: float) -> None:
        self.terminal = terminal
        self.ended = False
        self._patience = patience
        self._place = 0

    def play(self, lines: list[str]) -> str:
        """Type what these lines have typed, each thing once there is what stands before it."""
        typed = ""
        for before, typed in _entered(lines):
            self._wait_for(before)
            self.terminal.type(typed)
        if typed in ("q\n", "\x03"):
            self.terminal.wait_for_end()
            self.ended = True
        else:
            self._wait_for(lines)
        text = self._text()
        self._place = self.terminal.screen.row
        return text

    def _wait_for(self, lines: list[str]) -> None:
        expected = alike(_text(lines))
        if not self.terminal.wait_until(lambda: alike(self._text()) == expected, self._patience):
            self._patience = 0.5  # It is another story by now: no reason to wait for this one.

    def _text(self) -> str:
        return _text(self.terminal.screen.lines[self._place :])


def _text(lines: list[str]) -> str:
    text = "\n".join([line.rstrip() for line in lines]).rstrip("\n")
    return text + "\n" * bool(text)


def _commands(text: str) -> Iterator[tuple[str | None, list[str]]]:
    """The shell commands and stage directions of a block, each with the lines after it.

    None stands for what comes before the first one.
    """
    command: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("$ ") and not _STAGED.match(line):
            lines.append(line)
            continue
        if command is not None or lines:
            yield command, lines
        command, lines = line.removeprefix("$ "), []
    yield command, lines


def _entered(lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """What is typed, and what stands before it, the prompt included.

    A command with its value goes in one: the terminal echoes what comes while nobody reads a line.
    """
    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        prompt = PROMPT.match(line)
        if line == INTERRUPT:
            yield lines[: place - 1], "\x03"
        elif prompt is not None and prompt.end() < len(line):
            before, entry = [*lines[: place - 1], prompt[0]], line[prompt.end() :]
            if entry.partition(" ")[0] in _WITH_VALUE:
                while lines[place]:
                    entry += "\n" + lines[place]
                    place += 1
                entry += "\n"
                place += 1
            yield before, entry + "\n"
