"""A program at a pseudo-terminal, and what its screen shows.

The screen is that of an xterm as far as readline and a program that prints lines have use for it;
anything else is an error. It is as high as it has to be: nothing scrolls away.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A step may take so long, seconds.
PATIENCE = 20.0

_TOKEN = re.compile(
    r"\x1b\[(\??)([0-9;]*)([A-Za-z@])|\x1b([=>])|([\x00-\x1a\x1c-\x1f])|([^\x00-\x1f]+)"
)


class Screen:
    """What a terminal shows of what is written to it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._rows: list[list[str]] = [[]]
        self.row = 0
        self.column = 0
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def __str__(self) -> str:
        return f"{self.text}\n(the cursor is in row {self.row}, column {self.column})"

    @property
    def lines(self) -> list[str]:
        """The rows, without blanks at their ends."""
        return ["".join(row).rstrip() for row in self._rows]

    @property
    def text(self) -> str:
        """The rows as text, without empty ones at the end."""
        return "\n".join(self.lines).rstrip("\n")

    def write(self, data: bytes) -> None:
        """Take what a program has written; it may break off anywhere."""
        text = self._rest + self._decode(data)
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None:
                break
            position = token.end()
            private, numbers, command, _, control, shown = token.groups()
            if shown is not None:
                self._show(shown)
            elif control is not None:
                self._control(control)
            elif command is not None and not private:
                self._obey(command, int(numbers.split(";")[0] or 0))
            elif command is not None:
                assert command in "hl", f"unknown sequence {token[0]!r}"
        self._rest = text[position:]
        assert len(self._rest) < 16, f"unknown sequence {self._rest!r}"

    def _show(self, text: str) -> None:
        for character in text:
            if self.column == self.columns:  # The cursor stays in the last column until then.
                self._control("\r")
                self._control("\n")
            row = self._row()
            row.extend(" " * (self.column + 1 - len(row)))
            row[self.column] = character
            self.column += 1

    def _row(self) -> list[str]:
        self._rows.extend([] for _ in range(self.row + 1 - len(self._rows)))
        return self._rows[self.row]

    def _control(self, control: str) -> None:
        if control == "\r":
            self.column = 0
        elif control == "\n":
            self.row += 1
            self._row()
        elif control == "\b":
            self.column = max(0, min(self.column, self.columns - 1) - 1)
        else:
            assert control == "\a", f"unknown control {control!r}"

    def _obey(self, command: str, number: int) -> None:
        count = number or 1
        column = min(self.column, self.columns - 1)
        row = self._row()
        if command == "A":
            self.row, self.column = max(0, self.row - count), column
        elif command == "B":
            self.row, self.column = self.row + count, column
        elif command == "C":
            self.column = min(column + count, self.columns - 1)
        elif command == "D":
            self.column = max(0, column - count)
        elif command == "G":
            self.column = min(count, self.columns) - 1
        elif command == "K" and number == 0:
            del row[column:]
        elif command == "J" and number == 0:
            del row[column:]
            del self._rows[self.row + 1 :]
        elif command == "P":
            del row[column : column + count]
        elif command == "@":
            row.extend(" " * (column - len(row)))
            row[column:column] = " " * count
            del row[self.columns :]
        else:
            assert command == "m", f"unknown sequence: {number} {command}"


class Terminal:
    """A program at a pseudo-terminal.

    :param command: what is run
    :param columns: the terminal's width
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], columns: int = 80
    ) -> None:
        self.screen = Screen(columns)
        self.raw = b""
        self.status: int | None = None
        self._over = False
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            size = struct.pack("HHHH", 50, columns, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.execvpe(command[0], command, {**environment, "TERM": "xterm"})

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C, once the program waits for a key.

        Just before, Python's readline takes note of it only with the next key.
        """
        stat = Path(f"/proc/{self.pid}/stat")
        self.wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", every=0.01)
        self.type("\x03")

    def wait_for(self, pattern: str) -> None:
        """Read until the screen's text matches.

        :raises TimeoutError: where it does not
        """
        if not self.wait_until(lambda: re.search(pattern, self.screen.text) is not None):
            raise TimeoutError(f"no {pattern!r} on the screen:\n{self.screen.text}")

    def wait_until(
        self, condition: Callable[[], bool], patience: float = PATIENCE, every: float = PATIENCE
    ) -> bool:
        """Read until a condition holds.

        :param every: seconds after which to look again although nothing was written
        :returns: whether it does
        """
        until = time.monotonic() + patience
        while not condition():
            left = until - time.monotonic()
            if left < 0:
                return False
            self._read(min(left, every))
        return True

    def wait_for_end(self) -> int:
        """Read until the program has ended.

        :returns: its exit status; of a signal negative
        :raises TimeoutError: where it goes on
        """
        if self.status is None:
            self.wait_until(self._has_ended, every=0.05)
        if self.status is None:
            raise TimeoutError(f"the program does not end:\n{self.screen.text}")
        self.wait_until(lambda: self._over)
        return self.status

    def close(self) -> None:
        """End the program, if it has not ended."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._terminal)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _has_ended(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def _read(self, patience: float) -> None:
        if self._over:
            select.select([], [], [], min(patience, 0.05))
            return
        if not select.select([self._terminal], [], [], patience)[0]:
            return
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # The other end of a pseudo-terminal has closed.
            data = b""
        self._over = not data
        self.raw += data
        self.screen.write(data)


def cli(port: int, home: Path, *arguments: str, columns: int = 80) -> Terminal:
    """``tega-cli`` at a terminal.

    :param home: its home directory
    """
    command = [sys.executable, "-m", "tega.cli.main", "-p", str(port), *arguments]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    # As people have it: C's stdio has a buffer.
    environment.pop("PYTHONUNBUFFERED", None)
    return Terminal(command, environment, columns)
