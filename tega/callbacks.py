"""Watchers in this process: subscribers whose methods are called.

Where an event loop runs, coroutines are awaited one after the other, and what comes meanwhile
waits, up to a limit: beyond it the rest is caught up from history, as for everybody else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tega import strictjson
from tega.notices import Notice, standing
from tega.paths import dotted
from tega.store.history import State
from tega.subscriber import Subscriber
from tega.watch import Hub
from tega.watcher import Publication, Watcher

log = logging.getLogger(__name__)

#: Calls that may wait for a subscriber's coroutine.
_MAX_WAITING: Final = 1_000


class LocalWatcher(Watcher):
    """Calls a subscriber's methods, one at a time, in order.

    :param state: gives the database's state, for one that is too far behind
    """

    def __init__(self, subscriber: Subscriber, hub: Hub, state: Callable[[], State]) -> None:
        super().__init__(subscriber.tega_id)
        self.subscriber = subscriber
        self._hub = hub
        self._state = state
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._cursor = 0

    def begin(self) -> None:
        """Call ``on_init``."""
        self._call(self.subscriber.on_init)

    def notify(self, notice: Notice) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            log.warning("%s is slow: it catches up from history", self.tega_id)
            self.live = False
            self._cursor = notice.seq - 1
            for one in self.subscriptions.values():
                one.since = max(one.since, self._cursor)
            return
        self._tell_of(notice)

    def _tell_of(self, notice: Notice) -> None:
        data = notice.as_data()
        if data:
            self._call(self.subscriber.on_notify, data)

    def tell(self, publication: Publication) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            log.warning("%s is slow: a message is lost", self.tega_id)
            return
        self._call(
            self.subscriber.on_message,
            dotted(publication.channel),
            publication.tega_id,
            publication.message,
        )

    def cleared(self) -> None:
        """Tell what stands there now, as puts and deletes."""
        state = self._state()
        for one in list(self.subscriptions.values()):
            self._hub.begin_at(self, one, state.seq)
            there = b"".join(standing(state, one.levels, one.regex, self.tega_id))
            self._call(self.subscriber.on_notify, strictjson.loads(there))

    def _call(self, method: Callable[..., Any], *args: Any) -> None:
        if self._task is not None:
            self._waiting.append((method, args))
            return
        work = self._started(method, args)
        if work is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # No event loop here: the coroutine has one to itself.
            asyncio.run(self._finished(work))
            return
        self._task = loop.create_task(self._go_on(work))

    def _started(self, method: Callable[..., Any], args: tuple[Any, ...]) -> Awaitable[Any] | None:
        try:
            result = method(*args)
        except Exception:
            log.exception("%s raised in %s", self.tega_id, method.__name__)
            return None
        return result if inspect.isawaitable(result) else None

    async def _finished(self, work: Awaitable[Any]) -> None:
        try:
            await work
        except Exception:
            log.exception("%s raised", self.tega_id)

    async def _go_on(self, work: Awaitable[Any] | None) -> None:
        try:
            while True:
                if work is not None:
                    await self._finished(work)
                if not self._waiting and not self.live:
                    self._catch_up()
                if not self._waiting:
                    return
                method, args = self._waiting.popleft()
                work = self._started(method, args)
        finally:
            self._task = None

    def _catch_up(self) -> None:
        """Take some of what was missed."""
        for seq, notice in self._hub.missed(self, self._cursor):
            if seq != self._cursor + 1:
                break
            self._cursor = seq
            data = None if notice is None else notice.as_data()
            if data:
                self._waiting.append((self.subscriber.on_notify, (data,)))
                if len(self._waiting) >= _MAX_WAITING // 2:
                    return
        if self._cursor < self._hub.delivered:
            # What comes next is kept no more.
            self.cleared()
        self.live = True

    def end(self) -> None:
        """Call nothing more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
