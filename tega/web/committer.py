"""Commits from an event loop: many requests, one sync, and never a wait for a slow disk."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from tega.database import Database, Pending
from tega.errors import TegaError
from tega.store.commit import Request
from tega.web.http import Later

log = logging.getLogger(__name__)


class Committer:
    """Gathers the requests of one turn of the loop into a batch.

    Where syncs are quick the loop flushes itself, for a hop to a thread and back would take longer
    than the sync. Where they are not, a thread flushes, and the loop goes on staging the next
    batch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Pending, Later]] = []
        self._scheduled = False
        self._flushing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tega-flush")

    def submit(self, request: Request) -> Later:
        """Judge a request now; its `Result` is there, or its refusal, once that is durable."""
        pending = self._database.submit(request)
        answer = Later()
        if pending.settled:
            _resolve(pending, answer)
            return answer
        self._waiting.append((pending, answer))
        if not self._scheduled and not self._flushing:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return answer

    def _flush(self) -> None:
        self._scheduled = False
        if self._database.quick:
            self._database.flush()
            self._settle()
            return
        self._flushing = True
        flushed = self._loop.run_in_executor(self._thread, self._database.flush)
        flushed.add_done_callback(self._flushed)

    def _flushed(self, flushed: asyncio.Future[None]) -> None:
        self._flushing = False
        flushed.result()
        self._settle()

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        for pending, answer in waiting:
            if pending.settled:
                _resolve(pending, answer)
            else:
                self._waiting.append((pending, answer))
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Wait for the flush that is under way."""
        self._thread.shutdown()


def _resolve(pending: Pending, answer: Later) -> None:
    try:
        result = pending.result()
    except TegaError as error:
        answer.resolve(error=error)
    else:
        answer.resolve(result)
