"""The commits of a log directory, for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tega.errors import Malformed
from tega.log import legacy, segments
from tega.log.base import Progress
from tega.log.record import BadRecord, Data, Frame, opened
from tega.log.verify import (
    Finding,
    Meter,
    Segment,
    by_format,
    damage,
    segments_of,
    spans,
    steps_2017,
)
from tega.paths import Path as NodePath
from tega.paths import parse
from tega.store.history import State


class Shown(NamedTuple):
    """A commit as people want to see it.

    :ivar seq: None where the oldest segments of 2017 are gone, so that nobody knows
    :ivar versions: the version made of each root
    :ivar changes: what was done where: PUT or DELETE of a path; SS, a root taken over whole from
        its leader; FOLLOW or LEAD, from then on a root is led by another server, or here
    :ivar leaders: the roots that another server leads, its tega id and its sequence number
    """

    seq: int | None
    time: str
    tega_id: str
    versions: dict[str, int]
    changes: list[tuple[str, NodePath]]
    txid: str | None = None
    rolled_back: tuple[str, int] | None = None
    leaders: tuple[tuple[str, str, int], ...] = ()

    def made(self) -> dict[str, tuple[int | None, int]]:
        """Of each root the version before and the one that it made.

        None where there was none, or where nobody knows: the root was taken over whole.
        """
        whole = {path[0] for ope, path in self.changes if ope == "SS"}
        return {
            name: (None if version == 0 or name in whole else version - 1, version)
            for name, version in self.versions.items()
        }


def show(
    directory: Path, tega_id: str, progress: Progress | None = None
) -> Iterator[Shown | Finding]:
    """Every commit, oldest first and once, and in between what does not check.

    Of snapshots, and of roots that were taken over whole, nothing is read but that they are there:
    however large a log is, to show it takes little memory.

    :raises LogError: where there is no log
    :raises OSError: where it cannot be read
    """
    found = segments_of(directory, tega_id)
    size = sum([len(segment.data) for segment in found])
    meter = Meter(progress, size)
    old, new = by_format(found)
    seen = 0
    for shown in _show_2017(old, bool(new)):
        if isinstance(shown, Shown):
            seen = shown.seq or 0
        yield shown
    life: str | None = None
    number = old[-1].number if old else None
    for segment in new:
        if number is not None and segment.number != number + 1:
            missing = spans(range(number + 1, segment.number))
            yield Finding("missing", segment.path.name, f"the segments before it: {missing}")
        number = segment.number
        expected: int | None = None
        try:
            for frame in segments.frames(segment.data):
                expected = frame.seq + 1
                meter.count(frame.end - frame.start)
                if frame.extras.snapshot:
                    if life not in (None, frame.extras.life):
                        seen = 0
                    life = frame.extras.life
                    seen = max(seen, frame.seq)
                elif frame.seq > seen:
                    seen = frame.seq
                    yield _shown(segment.data, frame)
        except BadRecord as bad:
            yield damage(segment, bad, expected)
    meter.show(size)


def _shown(data: Data, frame: Frame) -> Shown:
    extras = frame.extras
    changes: list[tuple[str, NodePath]]
    rolled_back = None
    if extras.adopted:
        changes = [("SS", (name,)) for name in extras.adopted]
    else:
        logged = opened(data, frame)
        rolled_back = logged.rolled_back
        try:
            changes = [(change.ope, parse(change.path)) for change in logged.records]
        except Malformed as error:
            raise BadRecord(frame.start, frame.start, error.message) from None
    leads = extras.leads()
    leaders = tuple([(name, lead.leader, lead.seq) for name, lead in leads if lead is not None])
    for name, lead in leads:
        if name not in extras.versions and name not in extras.adopted:
            changes.append(("LEAD" if lead is None else "FOLLOW", (name,)))
    return Shown(
        frame.seq, frame.time, extras.tega_id, extras.versions, changes, extras.txid, rolled_back,
        leaders,
    )


def _show_2017(old: Sequence[Segment], converted: bool) -> Iterator[Shown | Finding]:
    notes: list[Finding] = []

    def note(place: legacy.Place, text: str) -> None:
        notes.append(Finding("note", place.path.name, text, place.line, place.offset))

    try:
        for step in steps_2017(old, converted, "", note):
            yield from notes
            notes.clear()
            yield _shown_2017(step.transaction, step.state)
    except legacy.BadLine as bad:
        place = bad.place
        yield Finding("corrupt", place.path.name, bad.reason, place.line, place.offset)
    yield from notes


def _shown_2017(transaction: legacy.Transaction, state: State | None) -> Shown:
    rollback = transaction.rollback
    changes = [(change.ope, change.path) for change in transaction.records]
    names = [path[0] for _, path in changes] if rollback is None else [rollback.root]
    versions = {}
    if state is not None:
        versions = {n: state.roots[n].version for n in names if n in state.roots}
    return Shown(
        state.seq if state is not None else None,
        transaction.time,
        transaction.records[0].tega_id if rollback is None else rollback.tega_id,
        versions,
        changes,
        rolled_back=(rollback.root, rollback.back) if rollback is not None else None,
    )
