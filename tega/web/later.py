"""Answers that are still to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

#: What a handler returns, or comes to.
Answer: TypeAlias = Any


class Later:
    """An answer that is still to come.

    Where a future would wait for another turn of the event loop, this calls back at once.

    :ivar error: what `result` raises, once it is known that it does
    """

    __slots__ = ("_callbacks", "_value", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self._value: Answer = None
        self.error: Exception | None = None
        self._callbacks: list[Callable[[Later], None]] = []

    def resolve(self, value: Answer = None, error: Exception | None = None) -> None:
        """Here it is: a value, or what is to be raised."""
        self.done, self._value, self.error = True, value, error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def then(self, callback: Callable[[Later], None]) -> None:
        """Call back once it is there."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def result(self) -> Answer:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self._value

    def __await__(self) -> Generator[Any, None, Answer]:
        if not self.done:
            turn = asyncio.get_running_loop().create_future()

            def wake(_: Later) -> None:
                if not turn.done():
                    turn.set_result(None)

            self.then(wake)
            yield from turn
        return self.result()
