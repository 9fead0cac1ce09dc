"""What arrives while somebody types, until it can be shown.

Only the main thread writes to the terminal, and only where that breaks no line: between two
commands, while a command is under way, and where readline waits for a key and can draw the line
again. Other threads `post`, and have a signal call the main thread; its handler runs between two
keys.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol

#: The signal: one that does nothing where nobody handles it.
CALL: Final = signal.SIGURG


class Place(Protocol):
    """Where something can be shown for a while."""

    @property
    def free(self) -> bool:
        """Whether it can be right now."""

    def show(self, text: str) -> None:
        """Show whole lines."""


class Output:
    """Standard output with the cursor at the beginning of a line: as it is during a command."""

    free = True

    def show(self, text: str) -> None:
        """Print it."""
        sys.stdout.write(text)
        sys.stdout.flush()


class Board:
    """Whole lines that wait to be shown."""

    def __init__(self) -> None:
        self._posted: deque[str] = deque()
        self._place: Place | None = None

    @contextmanager
    def called(self, interrupts: bool) -> Iterator[None]:
        """Have the main thread listen to calls, within.

        :param interrupts: a call ends a read of standard input for a moment. It must not where
            readline edits: that writes by way of C's stdio, which loses what is interrupted; and it
            waits for a key in a way that is interrupted all the same
        """
        before = signal.signal(CALL, self._called)
        signal.siginterrupt(CALL, interrupts)
        try:
            yield
        finally:
            signal.signal(CALL, before)

    def __len__(self) -> int:
        return len(self._posted)

    def post(self, text: str) -> None:
        """Let whole lines wait; from any thread."""
        self._posted.append(text)

    def call(self) -> None:
        """Have the main thread show what waits, if it can.

        From any thread but that one; to be repeated until nothing waits, as a signal that comes
        just before the main thread begins to wait for a key is heard only after the key.
        """
        signal.pthread_kill(threading.main_thread().ident or 0, CALL)

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Have what is posted shown there at once, within."""
        self._place = place
        try:
            yield
        finally:
            self._place = None

    def show(self, place: Place) -> None:
        """Show there what waits."""
        if not self._posted:
            return
        # Ctrl-C has to wait, or what is taken from the board gets lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            # What comes meanwhile waits for the next time.
            place.show("".join([self._posted.popleft() for _ in range(len(self._posted))]))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _called(self, number: int, frame: FrameType | None) -> None:
        place, self._place = self._place, None
        if place is not None:
            try:
                if place.free:
                    self.show(place)
            finally:
                self._place = place
