"""Feeds that write to a stream which can be slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from tega.access.rates import Rates
from tega.access.who import UNLIMITED
from tega.database import Database
from tega.paths import parse
from tega.protocol import Since
from tega.store.commit import Transaction, make_put
from tega.subscriber import SCOPE
from tega.web.feed import Feed
from tega.web.limits import Limits
from tega.web.outbox import Outbox, Outboxes

LIMITS = Limits(100, 1024, 1 << 20, Rates(0.0, 1.0))


def put(path: str, value: Any, who: str = "writer") -> Transaction:
    return Transaction((make_put(parse(path), value),), who)


class Pipe:
    """What an outbox writes to: it takes all at once, or waits until it is told to."""

    def __init__(self) -> None:
        self.data = b""
        self.slow = False
        self.unsent = 0
        self.taken: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self.data += data
        if self.slow:
            self.unsent += len(data)

    def take(self) -> None:
        if self.unsent:
            self.unsent = 0
            self.taken()

    def pause(self) -> None:
        raise AssertionError("nothing comes")

    def resume(self) -> None:
        raise AssertionError("nothing comes")

    def closed(self) -> bool:
        return False

    def close(self) -> None:
        raise AssertionError("cut off")

    def messages(self) -> list[tuple[str, Any]]:
        """First lines and bodies of all whole messages."""
        found, at, text = [], 0, b""
        while at < len(self.data):
            size, start = self.data[at + 1], at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(self.data[at + 2 : start], "big")
            last, at = self.data[at] & 0x80, start + size
            text += self.data[start:at]
            if last:
                head, _, body = text.decode().partition("\n")
                found.append((head, json.loads(body)))
                text = b""
        return found


class Fed:
    """A feed and its pipe."""

    def __init__(self, db: Database, tega_id: str = "fed") -> None:
        self.pipe = Pipe()
        self.feed: Feed
        self.outbox = Outbox(self.pipe, Outboxes(), lambda: self.feed.drained())
        self.pipe.taken = self.outbox.taken
        self.feed = Feed(db, self.outbox, LIMITS, UNLIMITED)
        self.feed.tega_id = tega_id

    def subscribe(self, path: str, since: int | None = None, life: str | None = None) -> None:
        self.feed.subscribe(path, SCOPE.LOCAL, False, None if since is None else Since(since, life))

    async def take_all(self) -> None:
        """Take whatever comes, until nothing more does."""
        for _ in range(1_000):
            had = len(self.pipe.data)
            self.pipe.take()
            await turns()
            if self.feed.live and not self.outbox.busy and len(self.pipe.data) == had:
                return
        raise AssertionError("it never comes to an end")

    @property
    def told(self) -> list[tuple[str, Any]]:
        """First words and sequence numbers: of each change, or of what else it is about."""
        found: list[tuple[str, Any]] = []
        for head, body in self.pipe.messages():
            if head == "NOTIFY":
                found += [("NOTIFY", change["seq"]) for change in body]
            else:
                found.append((head, body.get("seq")))
        return found

    def notified(self) -> list[int]:
        return [seq for head, seq in self.told if head == "NOTIFY"]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def on_a_loop(test: Callable[[Database], Coroutine[Any, Any, None]]) -> Callable[[Database], None]:
    def run(db: Database) -> None:
        asyncio.run(test(db))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
