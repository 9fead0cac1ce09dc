"""Snapshots: a whole state as the first commit of a segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from zlib import crc32

import immutables

from tega.errors import Malformed
from tega.log import roots
from tega.log.record import BadRecord, Extras, Logged, follows_of, trailer
from tega.store.history import Ids, Result, State

#: Bytes that are gathered before they are written.
_CHUNK = 1 << 16


def write(state: State, tega_id: str, time: str, out: Callable[[bytes], None]) -> Iterator[None]:
    """Write a state; every step is a bounded piece of work.

    :param out: takes the text, piece after piece
    """
    crc = 0
    waiting = [b"? %d\n" % state.seq]
    size = count = 0
    for piece in chain.from_iterable(
        roots.lines(state.roots[name], tega_id) for name in sorted(state.roots)
    ):
        waiting.append(piece)
        size += len(piece)
        count += piece == b"\n"
        if size >= _CHUNK:
            text = b"".join(waiting)
            crc = crc32(text, crc)
            out(text)
            waiting, size = [], 0
        yield
    ids = [(txid, result.seq, dict(result.versions)) for txid, result in state.ids.oldest_first()]
    extras = Extras(
        state.seq, state.life, tega_id, snapshot=True, ids=ids, follows=follows_of(state.following)
    )
    text = b"".join(waiting) + trailer(time, count, extras)
    out(b"%b%08x\n" % (text, crc32(text, crc)))


def read(logged: Logged, maxlen: int) -> State:
    """The state that a snapshot holds.

    :param maxlen: old versions to keep of each root
    :raises BadRecord: where it is no snapshot, or does not fit together
    """
    if not logged.extras.snapshot:
        raise BadRecord(logged.start, logged.start, "a segment starts with a snapshot")
    try:
        found = roots.read(logged.records, maxlen)
    except (Malformed, KeyError) as error:
        raise BadRecord(logged.start, logged.start, f"bad snapshot: {error}") from None
    ids = Ids()
    for txid, seq, versions in logged.extras.ids:
        ids = ids.add(txid, Result(seq, immutables.Map(versions)))
    leads = {name: lead for name, lead in logged.extras.leads() if lead is not None}
    return State(
        logged.extras.life,
        logged.seq,
        immutables.Map(found),
        ids,
        following=immutables.Map(leads),
    )
