"""Reading a segment from its snapshot to its end: the state that it adds up to."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from tega.log import record, segments, snapshot
from tega.log.base import Progress, Settings
from tega.log.record import BadRecord
from tega.store.history import State

#: A line about progress every so many commits.
_PROGRESS: Final = 1_000


class Replayed(NamedTuple):
    """What a segment says.

    :ivar time: when its snapshot was made
    :ivar start: where its first commit starts
    :ivar end: where its last good one ends; what follows is torn
    """

    state: State
    time: str
    start: int
    end: int


def replay(
    path: Path, data: record.Data, settings: Settings, progress: Progress | None
) -> Replayed:
    """Read a segment.

    :raises Corrupt: where something does not check, and is no torn tail
    """
    start = end = 0
    time = ""
    state: State | None = None
    try:
        for count, logged in enumerate(segments.commits(data)):
            try:
                if state is None:
                    state = snapshot.read(logged, settings.maxlen)
                    time, start = logged.time, logged.end
                else:
                    state = record.apply(state, logged, settings.maxlen)
            except BadRecord as bad:
                raise segments.corrupt(path, data, bad) from None
            end = logged.end
            if progress is not None and count % _PROGRESS == 0:
                progress(count, end, len(data))
    except BadRecord as bad:
        # The snapshot was synced before its segment had its name: it cannot be torn.
        if state is None or not record.is_torn(data, bad, state.seq + 1):
            raise segments.corrupt(path, data, bad) from None
    if state is None:
        raise segments.corrupt(path, data, BadRecord(0, 0, "an empty segment"))
    return Replayed(state, time, start, end)
