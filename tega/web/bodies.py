"""Bodies of requests, read: the long ones by a thread, for that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

#: A body of so many bytes is read at once: in about 5 ms, and a thread would cost 0.1 ms.
SHORT: Final = 1 << 16


class Bodies:
    """Reads bodies. There is one thread, as each more would keep the event loop waiting longer."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tega-read")

    def later(self, body: bytes, read: Callable[[], T]) -> asyncio.Future[T] | None:
        """Have a long body read by the thread; None for a short one, to be read at once.

        :param read: does so
        """
        if len(body) <= SHORT:
            return None
        return asyncio.get_running_loop().run_in_executor(self._thread, read)

    def close(self) -> None:
        """Wait for the body that is being read."""
        self._thread.shutdown()
