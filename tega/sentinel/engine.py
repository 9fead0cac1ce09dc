"""Moves what a source tells into a sink, whatever fails."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from tega.sentinel.metrics import Metrics
from tega.sentinel.report import Report
from tega.sentinel.sink import Again, Event, Sink, SinkError
from tega.sentinel.source import Away, Batch, Compacted, Entry, Listing, Position, Source

T = TypeVar("T")

#: Changes that wait for the sink, most, and their bytes; the source keeps the others.
_MAX_WAITING: Final = 10_000
_MAX_BYTES: Final = 16 << 20

#: Changes in one transaction, most, unless one revision has more, and their bytes.
_TOGETHER: Final = 1000
_TOGETHER_BYTES: Final = 4 << 20

#: Seconds that a watch is quiet after its begin before it is taken to have told all there was.
_QUIET: Final = 1.0

#: How often is tried quickly, the seconds between, and the most that they become after that.
_QUICK: Final = 5
_SOON: Final = 0.1
_LONGEST: Final = 30.0


class Backoff:
    """How long to wait before another try: shortly five times, then longer and longer.

    :param random: spreads the waits, so that many sentinels do not try at one time
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._tries = 0

    def next(self) -> float:
        """Seconds."""
        self._tries += 1
        if self._tries <= _QUICK:
            return _SOON
        longest = min(_LONGEST, _SOON * 2.0 ** (self._tries - _QUICK))
        return longest * self._random.uniform(0.5, 1)

    def reset(self) -> None:
        """It has worked."""
        self._tries = 0


class Sentinel:
    """One source, one sink.

    :param random: spreads retries
    :ivar metrics: what it has done so far
    :ivar position: where the sink is; None: no whole pass was made yet
    :ivar passed: whether this process has made a full pass, and taken in what was missed before
    """

    def __init__(self, source: Source, sink: Sink, report: Report, random: Random) -> None:
        self._source = source
        self._sink = sink
        self._report = report
        self.metrics = Metrics()
        self._random = random
        self._due: dict[bytes, float] = {}
        self.position: Position | None = None
        self.passed = False
        self._up = {"source": False, "sink": False}

    async def run(self) -> None:
        """Keep the sink in step, until cancelled.

        :raises Fenced: where another sentinel has taken over
        :raises Unfit: where the sink cannot be used as it is
        """
        try:
            self.position = await self._sink.open()
            self._up["sink"] = True
        except SinkError as error:
            await self._recover(error, Backoff(self._random))
        backoff = Backoff(self._random)
        while True:
            begun = time.monotonic()
            try:
                await self._source.open()
                self._up["source"] = True
                await self._follow()
            except Away as error:
                if time.monotonic() - begun > _LONGEST:
                    backoff.reset()
                self._up["source"] = False
                self.metrics.retries["source"] += 1
                wait = backoff.next()
                self._report.error(
                    "source", f"{self._source.name}: {error}; trying again in {wait:.1f} s"
                )
                await asyncio.sleep(wait)
            except _Anew:
                self._report.say("going on from what the sink has now")

    @property
    def revision(self) -> int:
        """Where the sink is; 0: nowhere yet."""
        return 0 if self.position is None else self.position.revision

    @property
    def newest(self) -> int:
        """The newest revision that the source has told of."""
        return self._source.newest

    @property
    def connected(self) -> dict[str, bool]:
        """Whether source and sink are there, as far as is known."""
        return {
            "source": self._up["source"] and self._source.connected,
            "sink": self._up["sink"] and self._sink.connected,
        }

    def health(self) -> dict[str, Any]:
        """How it is: what ``/_health`` tells."""
        connected = self.connected
        return {
            "ok": self.passed and all(connected.values()),
            "connected": connected,
            "source": self._source.name,
            "sink": self._sink.name,
            "revision": None if self.position is None else self.position.revision,
            "source_revision": self.newest,
        }

    async def once(self) -> None:
        """Make one full pass over everything.

        :raises Away: where the source cannot be reached
        :raises SinkError: where the sink fails
        """
        self.position = await self._sink.open()
        await self._source.open()
        await self._pass(list(self._sink.prefixes), None)
        self._in_step()

    async def _follow(self) -> None:
        """Follow the source from the position on, as long as it is there."""
        everything = list(self._sink.prefixes)
        if self.position is not None and self._source.lists_back:
            await self._persist(lambda: self._pass_back(everything))
        elif self.position is None or self._sink.forgets:
            await self._persist(lambda: self._pass(everything, None))
        while True:
            try:
                await self._stream()
            except Compacted:
                self._report.say("the source cannot tell what changed since: listing everything")
                await asyncio.sleep(_SOON)
                await self._persist(lambda: self._pass(everything, None))

    async def _stream(self) -> None:
        """Take in what changes, and pass over everything now and then.

        :raises Compacted: where the source cannot go on from the position
        """
        assert self.position is not None
        head = self._source.newest
        changes = await self._source.changes(self.position, self._sink.known())
        waiting = _Waiting()
        reader = asyncio.create_task(waiting.fill(changes))
        try:
            # What was missed comes first, change by change. The source does not say when that is
            # all: not every revision is of what is mirrored.
            while self.position.revision < head and await waiting.wait(_QUIET):
                await self._take(waiting)
            if not self._due:
                await self._persist(lambda: self._pass(list(self._sink.prefixes), None))
            self._in_step()
            while True:
                prefix, due = min(self._due.items(), key=lambda item: item[1])
                left = due - time.monotonic()
                if left <= 0:
                    await self._persist(partial(self._pass_back, [prefix]))
                elif await waiting.wait(left):
                    await self._take(waiting)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _take(self, waiting: _Waiting) -> None:
        """Take in what waits, or a good part of it."""
        assert self.position is not None
        batches = waiting.take(self.position.revision)
        if not batches:
            return
        before = self.position
        after = before._replace(revision=batches[-1].revision)
        backoff = Backoff(self._random)
        events: Sequence[Event] | None = None
        while events is None:
            try:
                events = await _whole(self._sink.apply(batches, after))
            except SinkError as error:
                await self._recover(error, backoff)
                if self._sink.forgets:
                    raise _Anew from None
                if self.position == after:
                    # It was committed, and only the answer was lost.
                    events = self._sink.unanswered
                elif self.position != before:
                    raise _Anew from None
        self.position = after
        self.metrics.done(events)
        self._report.events(events)

    async def _pass_back(self, prefixes: Sequence[bytes]) -> None:
        """A full pass at the position, or where the source does not know that any more, a new one.

        At the position every difference is one that somebody else has made.
        """
        if self._source.lists_back and self.position is not None:
            try:
                await self._pass(prefixes, self.position)
                return
            except Compacted:
                pass
        await self._pass(list(self._sink.prefixes), None)

    async def _pass(self, prefixes: Sequence[bytes], position: Position | None) -> None:
        """A full pass over some prefixes, as they were at a position or are at the newest."""
        while True:
            begun = time.monotonic()
            try:
                listing = await self._source.listing(prefixes, position)
                made = self._sink.full_pass(prefixes, listing.position)
                try:
                    await feed(listing, made.take, self._report)
                    drift = await made.finish()
                    self._report.events(drift)
                    events = await _whole(made.commit())
                finally:
                    await made.close()
                break
            except Again:
                pass
            except Compacted:
                # While a long listing of the newest was read.
                if position is not None:
                    raise
        self.position = listing.position
        for prefix in prefixes:
            self._due[prefix] = time.monotonic() + self._sink.prefixes[prefix]
        self.metrics.pass_seconds = time.monotonic() - begun
        self.metrics.passes += 1
        self.metrics.done([*drift, *events])
        self._report.events(events)

    def _in_step(self) -> None:
        """All that was there at the start is taken in."""
        if not self.passed:
            self.passed = True
            name, revision = self._source.name, self.revision
            self._report.say(
                f"in step with {name} at revision {revision}", source=name, revision=revision
            )

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something with the sink, again and again until it works."""
        backoff = Backoff(self._random)
        while True:
            try:
                await work()
                return
            except SinkError as error:
                await self._recover(error, backoff)

    async def _recover(self, error: SinkError, backoff: Backoff) -> None:
        """Wait and connect to the sink anew, until it is there; the position is what it says."""
        while True:
            self._up["sink"] = False
            self.metrics.retries["sink"] += 1
            wait = backoff.next()
            self._report.error(
                "sink", f"{self._sink.name}: {error}; trying again in {wait:.1f} s"
            )
            await asyncio.sleep(wait)
            try:
                self.position = await self._sink.open()
            except SinkError as again:
                error = again
            else:
                self._up["sink"] = True
                return


async def feed(
    listing: Listing, take: Callable[[Sequence[Entry]], Awaitable[None]], report: Report
) -> None:
    """Give a pass the pieces of a listing, showing how far it is."""
    done = 0
    report.progress(0, listing.total)
    async for piece in listing.pieces:
        await take(piece)
        done += len(piece)
        report.progress(done, listing.total)


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Do something to its end, even where this task is cancelled meanwhile: then it ends next."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        result = await task
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        return result


class _Anew(Exception):
    """The changes at hand do not go with what the sink has now."""


class _Waiting:
    """Changes between source and sink: few enough that memory stays bounded."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._size = 0
        self._bytes = 0
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self._end: Exception | None = None

    async def fill(self, changes: AsyncIterator[Batch]) -> None:
        """Let changes wait. While there are many the source is not read."""
        try:
            async for batch in changes:
                while self._size >= _MAX_WAITING or self._bytes >= _MAX_BYTES:
                    self._went.clear()
                    await self._went.wait()
                self._batches.append(batch)
                self._size += len(batch.entries)
                self._bytes += _bytes(batch)
                self._came.set()
        except Exception as error:
            self._end = error
            self._came.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until there are changes.

        :returns: whether there are any by then
        :raises Exception: what has ended the source, once all before that is taken
        """
        if not self._batches and self._end is None:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), seconds)
            except asyncio.TimeoutError:
                return False
        if not self._batches and self._end is not None:
            raise self._end
        return True

    def take(self, after: int) -> list[Batch]:
        """As many as go well into one transaction, without those up to a revision."""
        taken: list[Batch] = []
        size = weight = 0
        while self._batches:
            entries, bytes_ = len(self._batches[0].entries), _bytes(self._batches[0])
            if taken and (size + entries > _TOGETHER or weight + bytes_ > _TOGETHER_BYTES):
                break
            batch = self._batches.popleft()
            self._size -= entries
            self._bytes -= bytes_
            if batch.revision > after:
                taken.append(batch)
                size += entries
                weight += bytes_
        self._went.set()
        return taken


def _bytes(batch: Batch) -> int:
    return sum([len(entry.key) + len(entry.value or b"") for entry in batch.entries])
