"""Long work, done in turns of the event loop, so that nobody waits for the end of it."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

#: What is long to find out, in small steps: each gives an empty piece.
Work: TypeAlias = Generator[bytes, None, T]

#: The pieces of a text that is long to make; an empty one is but a good place to pause.
Pieces: TypeAlias = Iterator[bytes]

#: Long work may take so much of one turn of the event loop, seconds.
TURN: Final = 0.005

#: Bytes that are gathered before they are handed to the network.
CHUNK: Final = 1 << 16


class Turns:
    """Long work of many, one of whom goes on in each turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Future[None]] = deque()
        # How many were at work in this turn of the loop, and have not come to an end.
        self._begun = 0

    def next(self) -> Future[None]:
        """What to wait for before going on."""
        turn = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._give)
        self._waiting.append(turn)
        return turn

    def _give(self) -> None:
        turn = self._waiting.popleft()
        if not turn.done():
            turn.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._give)

    @property
    def length(self) -> float:
        """Seconds for who is at work: the less, the more there are."""
        return TURN / (1 + self._begun + len(self._waiting))

    def _begin(self) -> None:
        if not self._begun:
            self._loop.call_soon(self._end)
        self._begun += 1

    def _end(self) -> None:
        self._begun = 0

    def gather(self, pieces: Pieces) -> tuple[bytes, Pieces | None]:
        """What can be made of a text in one turn, and what is left to make."""
        length = self.length
        until = time.monotonic() + length
        done = []
        size = 0
        for piece in pieces:
            done.append(piece)
            size += len(piece)
            # Not after every piece: a process that was not scheduled for a while must not make a
            # stream of a short answer.
            if size >= CHUNK or (
                (len(done) % 8 == 0 or length < TURN) and time.monotonic() > until
            ):
                self._begin()
                return b"".join(done), pieces
        return b"".join(done), None


def on_loop(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], None]:
    """Runs something on a loop: at once where that is the caller's own, else as soon as it can."""
    thread = threading.get_ident()

    def run(work: Callable[[], None]) -> None:
        if threading.get_ident() == thread:
            work()
        else:
            loop.call_soon_threadsafe(work)

    return run


def in_turns(loop: asyncio.AbstractEventLoop) -> Callable[[Iterator[None]], None]:
    """Does something step by step on a loop, in as many turns of it as that takes."""

    def go_on(steps: Iterator[None]) -> None:
        until = time.monotonic() + TURN
        for _ in steps:
            if time.monotonic() > until:
                loop.call_soon(go_on, steps)
                return

    return go_on
