"""Readline: editing, history, the key for completion, and lines shown above the one being typed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tega.cli import completion

#: Lines of history that are kept.
_HISTORY = 1000

#: Completions that are listed; of the others, the number is told.
_LISTED = 100

#: States of readline's, from readline.h: it waits for a key, and it completes.
_WAITS: Final = 0x80000
_COMPLETES: Final = 0x4000


class Editor:
    """Lines from a terminal.

    :param complete: gives the lines that a line may become
    """

    def __init__(self, complete: Callable[[str], list[str]]) -> None:
        import readline

        self._readline = readline
        self._lines = complete
        self._found: list[str] = []
        self._prompt = ""
        self._reads = False
        # The whole line is one word: where its keys begin is not for readline to say.
        readline.set_completer_delims("")
        readline.set_completer(self._next_match)
        readline.set_completion_display_matches_hook(self._show_matches)
        # Readline 8.1 and 8.2 (up to a patch of it) do not echo the newline of an empty line where
        # the prompt is empty too.
        version = getattr(readline, "_READLINE_RUNTIME_VERSION", 0)
        self._swallows_newlines = version in (0x0801, 0x0802)
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_auto_history(False)
        self._drawing = _Drawing.of(getattr(readline, "__file__", None))
        self._file: Path | None = None
        self._known = 0
        self._load_history()

    def read(self, prompt: str) -> str:
        """A line, or several that were pasted as one."""
        self._prompt = prompt
        self._reads = True
        try:
            line = input(prompt)
        finally:
            self._reads = False
        if not prompt and not line and self._swallows_newlines:
            print()
        return line

    def remember(self, line: str) -> None:
        """Add a line to the history."""
        self._readline.add_history(line)

    # ---- lines above the one being typed ---------------------------------------------------------

    @property
    def free(self) -> bool:
        """Whether a line is being typed, and nothing else is going on."""
        return self._reads if self._drawing is None else self._drawing.possible

    def show(self, text: str) -> None:
        """Show whole lines above the line being typed, which stays as it is."""
        if self._drawing is None:
            print("\n" + text, end="")
            self._draw()
            return
        self._drawing.erase()
        print(text, end="", flush=True)
        self._draw()

    def _draw(self) -> None:
        """Draw prompt and line where the cursor is, at the beginning of a line."""
        if self._drawing is not None:
            self._drawing.draw()
            return
        print(self._prompt + self._readline.get_line_buffer(), end="", flush=True)
        self._readline.redisplay()

    # ---- completion ------------------------------------------------------------------------------

    def _next_match(self, text: str, state: int) -> str | None:
        if state == 0:
            self._found = self._lines(text)
        return self._found[state] if state < len(self._found) else None

    def _show_matches(self, typed: str, matches: Sequence[str], longest: int) -> None:
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
        sys.stdout.flush()
        self._draw()

    # ---- history ---------------------------------------------------------------------------------

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


class _Drawing:
    """What of GNU readline Python's module has no name for.

    :param library: readline
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._state = ctypes.c_ulong.in_dll(library, "rl_readline_state")
        self._clear_visible_line = library.rl_clear_visible_line
        self._forced_update_display = library.rl_forced_update_display
        self._flush = ctypes.CDLL(None).fflush

    @classmethod
    def of(cls, file: str | None) -> _Drawing | None:
        """Made from Python's module, which is linked to readline; None: readline is another one.

        :param file: that of the module; None: it is part of Python itself
        """
        try:
            return cls(ctypes.CDLL(file)) if file is not None else None
        except (AttributeError, OSError, ValueError):
            return None

    @property
    def possible(self) -> bool:
        """Whether readline waits for a key, and so nothing of it is half done."""
        return self._state.value & (_WAITS | _COMPLETES) == _WAITS

    def erase(self) -> None:
        """Erase prompt and line, all rows of it, and leave the cursor at the beginning of them."""
        self._clear_visible_line()
        self._flush(None)

    def draw(self) -> None:
        """Draw prompt and line at the cursor, and let the cursor be where it was in the line."""
        self._forced_update_display()
