"""The prompt: lines from a terminal, with editing, history and completion, or from a pipe."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from tega.cli import completion
from tega.cli.completion import Lister
from tega.cli.yamltext import printable

#: Lines of history that are kept.
_HISTORY = 1000

#: Completions that are listed; of the others, the number is told.
_LISTED = 100


class Prompt:
    """Reads lines.

    On a terminal readline edits them. Lines from a pipe are echoed behind the prompt, so that the
    output reads as a session at a terminal does.

    :param lister: gives the keys below a path, for completion
    """

    def __init__(self, lister: Lister) -> None:
        self._lister = lister
        self._typed = sys.stdin.isatty()
        # Some Pythons are built without readline; there the terminal itself edits.
        edits = self._typed and sys.stdout.isatty() and find_spec("readline") is not None
        self._editor = _Editor(self._complete) if edits else None
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
                print(prompt + printable(line))
            return line
        if self._editor is None:
            return self._read_plain(prompt)
        self._completes = bool(prompt)
        try:
            line, *pasted = self._editor.read(prompt).split("\n")
        except KeyboardInterrupt:
            self._waiting.clear()
            raise
        self._waiting.extend(pasted)
        return line

    def _read_plain(self, prompt: str) -> str:
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\r\n")
        if not self._typed:
            print(printable(line))
        return line

    def _complete(self, line: str) -> list[str]:
        return completion.complete(line, self._lister) if self._completes else []


class _Editor:
    """Readline: editing, history and the key for completion.

    :param complete: gives the lines that a line may become
    """

    def __init__(self, complete: Callable[[str], list[str]]) -> None:
        import readline

        self._readline = readline
        self._lines = complete
        self._found: list[str] = []
        self._prompt = ""
        # The whole line is one word: where its keys begin is not for readline to say.
        readline.set_completer_delims("")
        readline.set_completer(self._next_match)
        readline.set_completion_display_matches_hook(self._show)
        # Readline 8.1 and 8.2 (up to a patch of it) do not echo the newline of an empty line where
        # the prompt is empty too.
        version = getattr(readline, "_READLINE_RUNTIME_VERSION", 0)
        self._swallows_newlines = version in (0x0801, 0x0802)
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_auto_history(False)
        self._file: Path | None = None
        self._known = 0
        self._load_history()

    def read(self, prompt: str) -> str:
        """A line, or several that were pasted as one."""
        self._prompt = prompt
        line = input(prompt)
        if not prompt and not line and self._swallows_newlines:
            print()
        return line

    def remember(self, line: str) -> None:
        """Add a line to the history."""
        self._readline.add_history(line)

    def _next_match(self, text: str, state: int) -> str | None:
        if state == 0:
            self._found = self._lines(text)
        return self._found[state] if state < len(self._found) else None

    def _show(self, typed: str, matches: Sequence[str], longest: int) -> None:
        """List the matches, each from the key on that is being typed."""
        start = completion.stem(typed)
        shown = [match[start:] for match in matches[:_LISTED]]
        if len(matches) > _LISTED:
            shown.append(f"... and {len(matches) - _LISTED} more")
        width = max(map(len, shown)) + 2
        columns = max(1, os.get_terminal_size().columns // width)
        print()
        for row in range(0, len(shown), columns):
            print("".join([name.ljust(width) for name in shown[row : row + columns]]).rstrip())
        print(self._prompt + self._readline.get_line_buffer(), end="", flush=True)
        self._readline.redisplay()

    def _load_history(self) -> None:
        try:
            file = Path.home() / ".tega_history"
            # What is typed may be secret.
            os.close(os.open(file, os.O_CREAT | os.O_RDONLY, 0o600))
            self._readline.read_history_file(file)
        except (OSError, RuntimeError) as error:
            print(f"tega-cli: without history: {error}", file=sys.stderr)
            return
        self._file = file
        self._known = self._readline.get_current_history_length()
        self._readline.set_history_length(_HISTORY)

    def save_history(self) -> None:
        """Add the lines of this session to the file."""
        if self._file is None:
            return
        try:
            if hasattr(self._readline, "append_history_file"):
                added = self._readline.get_current_history_length() - self._known
                self._readline.append_history_file(added, self._file)
            else:
                self._readline.write_history_file(self._file)
        except OSError as error:
            print(f"tega-cli: the history is not saved: {error}", file=sys.stderr)
