"""SIGTERM and SIGINT, which end the program in order from its first moment to its last."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


class Ending:
    """Notes that the program is asked to end, and cancels what it does.

    Only the main thread can make one.

    :ivar number: the signal that asked; None: none has
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._cancel: Callable[[], Any] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: Any) -> None:
        self.number = number
        if self._cancel is not None:
            self._cancel()

    def cancels(self, cancel: Callable[[], Any] | None) -> None:
        """Let this be called when the program is asked to end, and now if it was asked already.

        :param cancel: called amid whatever the main thread does; None: there is nothing to cancel
        """
        self._cancel = cancel
        if self.number is not None and cancel is not None:
            cancel()
