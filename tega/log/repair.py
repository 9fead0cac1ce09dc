"""Mending a damaged log by hand: keep what checks, set the rest aside, delete nothing.

A commit is often there twice, since a segment repeats what was committed while its snapshot was
written. So the commits of all segments make one pool, and a damaged segment is put together anew:
the newest snapshot that can be read, and after it every commit that follows without a gap, from
whichever segment has it.

The original is copied before its name goes to the new file, and the name changes in one step: a
crash in between leaves either the one or the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tega.errors import Corrupt
from tega.log import legacy, lock, record, segments, snapshot
from tega.log.appender import Appender
from tega.log.base import Progress
from tega.log.disk import Disk
from tega.log.file import timestamp
from tega.log.record import BadRecord, Data
from tega.log.verify import (
    EVERYTHING,
    OF_2017,
    Meter,
    Segment,
    by_format,
    closing,
    damage,
    segments_of,
    whole_commits,
)
from tega.store.history import State

#: Old versions kept while commits are tried; none of them is needed.
_KEEP: Final = 0

#: Bytes written at once.
_CHUNK: Final = 1 << 20

_BEGINNING = re.compile(rb"^\? ", re.MULTILINE)
_END = re.compile(rb"^@", re.MULTILINE)


class Piece(NamedTuple):
    """A commit or snapshot that checks, where it stands."""

    seq: int
    life: str
    snapshot: bool
    start: int
    end: int
    data: Data


class Rewrite(NamedTuple):
    """A segment to be put together anew.

    :ivar text: what it will hold
    :ivar rest: the parts of it that are not kept
    """

    segment: Segment
    text: Sequence[bytes | Piece]
    rest: Sequence[tuple[int, int]]


class Part(NamedTuple):
    """A part of a file."""

    data: Data
    start: int
    end: int


class Plan(msgspec.Struct):
    """What a repair does.

    :ivar reasons: what is wrong, a sentence each
    :ivar kept: the last sequence number that there will be; None where nothing can be said
    :ivar lost: the sequence numbers that are lost
    :ivar set_aside: commits that check, but come after a gap
    :ivar rewrites: segments to be put together anew
    :ivar moved: segments that get another name, since the history in them would have a gap
    :ivar made: the files that came into being, once it is done
    """

    reasons: list[str] = []
    kept: int | None = None
    lost: list[int] = []
    set_aside: list[int] = []
    rewrites: list[Rewrite] = []
    moved: list[Path] = []
    made: list[Path] = []

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.rewrites and not self.moved


def repair(
    directory: Path,
    tega_id: str,
    agree: Callable[[Plan], bool] = lambda plan: True,
    disk: Disk | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Make a log such that a server starts on it, with all that can be had.

    :param agree: is shown the plan, where there is something to do, and says whether to do it
    :returns: the plan; `made` is empty where nothing was done
    :raises Locked: while a server has the log
    :raises Corrupt: where there is nothing to put together
    :raises OSError: where the disk fails; the log is as it was then, or mended in part
    """
    disk = disk or Disk()
    # Where there is no log there should be no lock either, afterwards.
    segments_of(directory, tega_id)
    fd = lock.acquire(directory, tega_id)
    try:
        plan = _plan(segments_of(directory, tega_id), tega_id, progress)
        if not plan.empty and agree(plan):
            _carry_out(plan, disk)
        return plan
    finally:
        os.close(fd)


# -- looking ----------------------------------------------------------------------------------


class _Survey(NamedTuple):
    """What a segment holds that checks, and what does not.

    :ivar last: the last sequence number that it holds or held, as far as one can tell
    """

    segment: Segment
    pieces: list[Piece]
    bad: BadRecord | None
    last: int

    @property
    def snapshot(self) -> Piece | None:
        """What it starts with."""
        first = self.pieces[0] if self.pieces else None
        return first if first is not None and first.snapshot and first.start == 0 else None


def _survey(segment: Segment, meter: Meter) -> _Survey:
    data, size = segment.data, len(segment.data)
    pieces: list[Piece] = []
    bad: BadRecord | None = None
    last = start = 0
    while start < size:
        try:
            for logged in segments.commits(data, start):
                extras = logged.extras
                pieces.append(
                    Piece(logged.seq, extras.life, extras.snapshot, start, logged.end, data)
                )
                last, start = logged.seq, logged.end
                meter.count(logged.end - logged.start)
            break
        except BadRecord as error:
            bad = bad or error
            following = next(whole_commits(data, start + 1), None)
            end = size if following is None else following.start
            last += _count(data[start:end], start == 0)
            start = end
    if size == 0:
        bad = BadRecord(0, 0, "an empty segment")
    return _Survey(segment, pieces, bad, last)


def _count(region: bytes, with_snapshot: bool) -> int:
    """How many commits a damaged region held."""
    if region.startswith(segments.CONTINUED) and b"\n" not in region[:-1]:
        return 0
    count = max(len(_BEGINNING.findall(region)), len(_END.findall(region)), 1)
    return count - 1 if with_snapshot else count


def _following(state: State, pool: Mapping[int, Piece], limit: int = EVERYTHING) -> list[Piece]:
    """The commits that go on from a state without a gap, and fit it."""
    pieces: list[Piece] = []
    while state.seq < limit and (piece := pool.get(state.seq + 1)) is not None:
        try:
            logged = record.read_one(piece.data, piece.start)
            state = record.apply(state, logged, _KEEP)
        except BadRecord:
            break
        pieces.append(piece)
    return pieces


# -- planning ---------------------------------------------------------------------------------


def _plan(found: Sequence[Segment], tega_id: str, progress: Progress | None) -> Plan:
    old, new = by_format(found)
    plan = Plan()
    if not new:
        # Raises what is wrong. A line of 2017 is mended by hand: it has no checksum to go by.
        segments.numbers(found[0].path.parent, tega_id)
        legacy.load([segment.path for segment in old], "", OF_2017)
        return plan
    size = sum([len(segment.data) for segment in new])
    meter = Meter(progress, size)
    surveys = [_survey(segment, meter) for segment in new]
    meter.show(size)
    pieces = [piece for survey in surveys for piece in survey.pieces]
    if not pieces and not old:
        raise _hopeless(new[-1])
    if not pieces:
        plan.reasons.append("nothing in today's format checks: the next start reads that of 2017")
        plan.moved = [segment.path for segment in new]
        return plan
    life = (surveys[-1].pieces or pieces)[-1].life
    # Of a commit that is there twice, the newer segment's counts.
    pool = {piece.seq: piece for piece in pieces if piece.life == life and not piece.snapshot}
    base, state = _base(surveys, old, life, pool, tega_id)
    _plan_newest(plan, surveys[-1], base, state, pool)
    _plan_older(plan, surveys, old, state.seq, pool, life)
    return plan


def _hopeless(segment: Segment) -> Corrupt:
    return Corrupt(
        f"{segment.path}: no snapshot that checks, so there is nothing to build on: take the whole "
        "directory from a backup, or move it away and begin anew",
        file=str(segment.path),
    )


def _base(
    surveys: Sequence[_Survey],
    old: Sequence[Segment],
    life: str,
    pool: Mapping[int, Piece],
    tega_id: str,
) -> tuple[bytes | Piece, State]:
    """What the newest segment is to start with: the newest snapshot that can be had."""
    for survey in reversed(surveys):
        state = _snapshot_state(survey, life)
        if survey.snapshot is not None and state is not None:
            return survey.snapshot, state
    state = State(life)
    if 1 not in pool:
        if not old or old[0].number != 0:
            raise _hopeless(surveys[-1].segment)
        state = legacy.load([segment.path for segment in old], life, OF_2017)
    text: list[bytes] = []
    for _ in snapshot.write(state, tega_id, timestamp(), text.append):
        pass
    return b"".join(text), state


def _snapshot_state(survey: _Survey, life: str) -> State | None:
    """The state that a segment of this life starts with, if it can be read."""
    piece = survey.snapshot
    if piece is None or piece.life != life:
        return None
    try:
        return snapshot.read(record.read_one(piece.data, 0), _KEEP)
    except BadRecord:
        return None


def _plan_newest(
    plan: Plan,
    survey: _Survey,
    base: bytes | Piece,
    state: State,
    pool: Mapping[int, Piece],
) -> None:
    segment = survey.segment
    text = [base, *_following(state, pool)]
    plan.kept = max([state.seq, *[piece.seq for piece in text if isinstance(piece, Piece)]])
    plan.set_aside = sorted([seq for seq in pool if seq > plan.kept])
    last = survey.last if survey.pieces else _seq_in(segment.data, plan.kept) + survey.last
    lost = range(plan.kept + 1, max([last, *pool], default=last) + 1)
    plan.lost = [seq for seq in lost if seq not in pool]
    rest = _rest(segment.data, text)
    if text == survey.pieces and not rest:
        return
    missing = segments.successor(segment.data)
    if survey.bad is None and missing is not None:
        plan.reasons.append(f"{segment.path.name}: it goes on in {missing}, which is not there")
    else:
        plan.reasons.append(_reason(survey, survey.bad))
    plan.rewrites.append(Rewrite(segment, text, rest))


def _seq_in(data: Data, most: int) -> int:
    """The sequence number of a damaged snapshot, if that can be read."""
    found = re.match(rb"\? (\d{1,19})\n", data)
    return min(int(found[1]), most) if found is not None else most


def _reason(survey: _Survey, bad: BadRecord | None) -> str:
    if bad is None:
        return f"{survey.segment.path.name}: it does not go on as it should"
    before = [piece.seq for piece in survey.pieces if piece.end <= bad.start]
    return str(damage(survey.segment, bad, before[-1] + 1 if before else None, locked=True))


def _plan_older(
    plan: Plan,
    surveys: Sequence[_Survey],
    old: Sequence[Segment],
    needed: int,
    pool: Mapping[int, Piece],
    life: str,
) -> None:
    """Mend the segments before the newest, or move them where their history would have a gap.

    :param needed: a segment reaches at least to the snapshot of the next one, which is this
    """
    following = surveys[-1].segment
    stay = len(surveys) - 1
    for survey in reversed(surveys[:-1]):
        segment = survey.segment
        text = _mended(survey, needed, pool, life)
        if text is None or segment.number != following.number - 1:
            break
        named = segments.successor(segment.data)
        misled = named is not None and named != following.path.name
        if survey.bad is not None or text != survey.pieces or misled:
            plan.reasons.append(_reason(survey, survey.bad))
            rewrite = Rewrite(segment, [*text, closing(following)], _rest(segment.data, text))
            plan.rewrites.append(rewrite)
        following, needed, stay = segment, text[0].seq, stay - 1
    gone = [survey.segment for survey in surveys[:stay]]
    numbers = [segment.number for segment in [*old, *gone, following]]
    if gone or any(later != earlier + 1 for earlier, later in pairwise(numbers)):
        plan.moved = [segment.path for segment in [*old, *gone]]
        plan.reasons.append(f"{following.path.name}: what comes before it does not lead up to it")


def _mended(
    survey: _Survey, needed: int, pool: Mapping[int, Piece], life: str
) -> list[Piece] | None:
    """What an older segment is to hold; None where that does not reach far enough."""
    state = _snapshot_state(survey, life)
    if state is None or survey.snapshot is None:
        return None
    own = {piece.seq: piece for piece in survey.pieces if not piece.snapshot}
    text = [survey.snapshot, *_following(state, {**pool, **own}, max(needed, survey.last))]
    return text if text[-1].seq >= needed else None


def _rest(data: Data, text: Sequence[bytes | Piece]) -> list[tuple[int, int]]:
    """The parts of a segment that are not kept, as offsets."""
    kept = [(p.start, p.end) for p in text if isinstance(p, Piece) and p.data is data]
    edges = [0, *[edge for part in sorted(kept) for edge in part], len(data)]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in pairs if start < end]


# -- doing ------------------------------------------------------------------------------------


def _carry_out(plan: Plan, disk: Disk) -> None:
    """Do what is planned. The newest segment comes first: a start needs no other."""
    time = timestamp()
    for segment, text, rest in plan.rewrites:
        path, data = segment.path, segment.data
        copy = path.with_name(f"{path.name}.damaged-{time}")
        _write(disk, copy, [Part(data, 0, len(data))], path)
        plan.made.append(copy)
        if rest:
            aside = path.with_name(f"{path.name}.rest-{time}")
            _write(disk, aside, [Part(data, start, end) for start, end in rest], path)
            plan.made.append(aside)
        draft = path.with_name(f"{path.name}.new")
        _write(disk, draft, map(_part, text), path)
        disk.rename(draft, path)
        plan.made.append(path)
    for path in plan.moved:
        aside = path.with_name(f"{path.name}.aside-{time}")
        disk.rename(path, aside)
        plan.made.append(aside)


def _part(piece: bytes | Piece) -> Part:
    if isinstance(piece, bytes):
        return Part(piece, 0, len(piece))
    return Part(piece.data, piece.start, piece.end)


def _write(disk: Disk, path: Path, parts: Iterable[Part], like: Path) -> None:
    """Write a file with the mode of the file `like`, and its owner if root may give it away."""
    made = Appender.create(disk, path)
    try:
        status = like.stat()
        os.fchmod(made.fd, status.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(made.fd, status.st_uid, status.st_gid)
        for data, start, end in parts:
            for offset in range(start, end, _CHUNK):
                made.append(data[offset : min(offset + _CHUNK, end)])
        made.sync()
    finally:
        made.close()
    disk.sync_directory(path.parent)
