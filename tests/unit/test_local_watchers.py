"""Subscribers in this process that do not keep up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from feds import on_a_loop, put, turns

from tega import callbacks, notices
from tega.database import Database, new_life
from tega.log.memory import MemoryLog
from tega.subscriber import Subscriber


class Slow(Subscriber):
    """Takes what it is told only once it may."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.may = asyncio.Event()
        self.told: list[list[dict[str, Any]]] = []

    async def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        await self.may.wait()
        self.told.append(notifications)


def test_one_that_catches_up_is_not_told_of_what_comes_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of every notice it takes too long to find out at once what it says.
    monkeypatch.setattr(notices, "_AT_ONCE", 0)
    monkeypatch.setattr(callbacks, "_MAX_WAITING", 2)

    @on_a_loop
    async def work(db: Database) -> None:
        slow = Slow()
        watcher = callbacks.LocalWatcher(slow, db.hub, lambda: db.state)
        db.hub.subscribe(watcher, "a.x")
        for number in range(6):
            db.commit(put("a.x", number))
            # It has nothing to do with the subscription.
            db.commit(put("a.y", number))
        assert not watcher.live
        slow.may.set()
        await turns(100)
        assert watcher.live
        assert [[one["instance"] for one in told] for told in slow.told] == [
            [number] for number in range(6)
        ]

    with Database(MemoryLog(new_life), "srv", resume=100) as opened:
        work(opened)
