"""The prompt: lines from a terminal, with editing, history and completion, or from a pipe."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import AbstractContextManager
from importlib.util import find_spec

from tega.cli import completion
from tega.cli.board import Board, Output
from tega.cli.completion import Lister
from tega.cli.editor import Editor
from tega.cli.yamltext import printable


class Prompt:
    """Reads lines, and shows what is posted meanwhile.

    On a terminal readline edits them. Lines from a pipe are echoed behind the prompt, so that the
    output reads as a session at a terminal does.

    :param lister: gives what there is to complete with
    :param board: what arrives is posted there
    """

    def __init__(self, lister: Lister, board: Board) -> None:
        self.board = board
        self._lister = lister
        self._typed = sys.stdin.isatty()
        # Some Pythons are built without readline; there the terminal itself edits.
        edits = self._typed and sys.stdout.isatty() and find_spec("readline") is not None
        self._editor = Editor(self._complete) if edits else None
        self._completes = False
        # Lines that were pasted together and are still to be read.
        self._waiting: deque[str] = deque()

    def read(self, prompt: str) -> str:
        """A line after a prompt.

        :raises EOFError: where there are no more
        :raises KeyboardInterrupt: on Ctrl-C
        """
        while self._waiting and not self._waiting[0].strip():
            self._waiting.popleft()
        line = self._read(prompt)
        self._remember(line)
        return line

    def read_value(self) -> str:
        """The lines up to an empty one, each with its newline.

        :raises EOFError: where there are no more, and no empty one
        :raises KeyboardInterrupt: on Ctrl-C
        """
        lines = []
        while (line := self._read("")).strip():
            lines.append(line + "\n")
        if len(lines) == 1:  # The lines of a long value would push the commands out.
            self._remember(lines[0].rstrip("\n"))
        return "".join(lines)

    def listening(self) -> AbstractContextManager[None]:
        """Show what is posted on the board as soon as it is, within."""
        return self.board.called(interrupts=self._editor is None)

    def close(self) -> None:
        """Save the history."""
        if self._editor is not None:
            self._editor.save_history()

    def _remember(self, line: str) -> None:
        if self._editor is not None and line.strip():
            self._editor.remember(line)

    def _read(self, prompt: str) -> str:
        if self._waiting:
            line = self._waiting.popleft()
            if prompt:  # The terminal shows already what was pasted, but not behind its prompt.
                self.board.show(Output())
                print(prompt + printable(line))
            return line
        self.board.show(Output())
        if self._editor is None:
            return self._read_plain(prompt)
        self._completes = bool(prompt)
        try:
            with self.board.at(self._editor):
                line, *pasted = self._editor.read(prompt).split("\n")
        except KeyboardInterrupt:
            self._waiting.clear()
            raise
        self._waiting.extend(pasted)
        return line

    def _read_plain(self, prompt: str) -> str:
        print(prompt, end="", flush=True)
        with self.board.at(_Below(prompt)):
            line = sys.stdin.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\r\n")
        if not self._typed:
            print(printable(line))
        return line

    def _complete(self, line: str) -> list[str]:
        return completion.complete(line, self._lister) if self._completes else []


class _Below:
    """Shows lines below a prompt that waits for a line, and the prompt again.

    What is typed meanwhile is with the terminal; it shows it anew on Ctrl-R.
    """

    free = True

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt

    def show(self, text: str) -> None:
        """Print them."""
        print("\n" * bool(self._prompt) + text + self._prompt, end="", flush=True)
