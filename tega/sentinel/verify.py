"""Comparing source and sink, while a sentinel may be at work."""

from __future__ import annotations

import asyncio
from typing import Final

from tega.sentinel.engine import feed
from tega.sentinel.report import Report
from tega.sentinel.sink import Event, Sink
from tega.sentinel.source import Compacted, Position, Source

#: How often is compared again where a sentinel is at work, and the seconds between.
_TRIES: Final = 10
_BETWEEN: Final = 0.5


async def compare(
    source: Source, sink: Sink, report: Report, position: Position | None = None
) -> list[Event]:
    """What a full pass would do.

    :param position: compare with the source as it was then, instead of as it is
    :raises Compacted: where that is not known any more
    """
    prefixes = list(sink.prefixes)
    listing = await source.listing(prefixes, position)
    made = sink.comparison(prefixes, listing.position)
    try:
        await feed(listing, made.take, report)
        return await made.finish()
    finally:
        await made.close()


async def verify(source: Source, sink: Sink, report: Report) -> list[Event]:
    """What the sink differs in from the source as it is now.

    A sentinel that is at work is always a little behind. So where something differs, and the
    checkpoint moves, it is compared again, with the source as it was at the checkpoint.
    """
    found: list[Event] = []
    before = await sink.peek()
    for _ in range(_TRIES):
        found = await compare(source, sink, report)
        if not found:
            return []
        await asyncio.sleep(_BETWEEN)
        position = await sink.peek()
        if position is None or position == before:
            return found
        before = position
        if source.lists_back:
            try:
                found = await compare(source, sink, report, position)
            except Compacted:
                continue
            # Nothing may have come to the tables between, for this to say anything.
            if not found and await sink.peek() == position:
                return []
    return found
