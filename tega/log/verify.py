"""Looking at a log directory offline: does everything check, and what was committed.

Nothing here writes. A server may run meanwhile; what it is writing at the moment is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from tega.errors import LogError
from tega.log import legacy, lock, record, segments, snapshot
from tega.log.base import Progress, Settings
from tega.log.compare import compare
from tega.log.record import BadRecord, Data, Logged
from tega.store.history import State

#: A snapshot says itself how many old versions there are: all of them are read.
EVERYTHING: Final = 1 << 62

#: What a log of 2017 is looked at with: its depth had no limit, but Python's stack has one.
OF_2017: Final = Settings(max_depth=100)

#: A line about progress every so many commits.
_PROGRESS: Final = 1_000

#: How often segments that go away while they are opened are looked for anew.
_TRIES: Final = 5

# The newline before it may be damaged, or in a block that never reached the disk.
_FIRST_LINE = re.compile(rb"\? \d{1,19}\n")

Kind: TypeAlias = Literal["torn", "corrupt", "missing", "sequence", "life", "snapshot", "note"]


class Finding(msgspec.Struct, frozen=True):
    """Something that does not check. A ``note`` is harmless; ``torn`` the next start sets aside.

    :ivar name: of the file
    :ivar line: from 1; 0 where it is about the whole file
    """

    kind: Kind
    name: str
    reason: str
    line: int = 0
    offset: int = 0

    def __str__(self) -> str:
        where = f"line {self.line}, byte offset {self.offset}: " if self.line else ""
        return f"{self.name}: {self.kind}: {where}{self.reason}"


class Checked(msgspec.Struct):
    """What was found of one segment.

    :ivar snapshot: the sequence number of its snapshot; None where it has none that checks
    :ivar commits: how many check, up to the first bad place
    :ivar first: the sequence number of the first of them; 0 where there is none
    """

    name: str
    size: int = 0
    of_2017: bool = False
    snapshot: int | None = None
    commits: int = 0
    first: int = 0
    last: int = 0
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether everything checks."""
        return all(finding.kind == "note" for finding in self.findings)

    def add(self, kind: Kind, reason: str) -> None:
        """One more finding, about the whole segment."""
        self.findings.append(Finding(kind, self.name, reason))


class Segment(NamedTuple):
    """A segment, mapped into memory."""

    number: int
    path: Path
    data: Data


def tega_ids(directory: Path) -> list[str]:
    """The tega ids that have segments in a directory."""
    return segments.other_ids(directory, "")


def segments_of(directory: Path, tega_id: str) -> list[Segment]:
    """The segments that are there, oldest first, whether one is missing in between or not.

    :raises LogError: where there is none
    """
    for _ in range(_TRIES):
        # A server may drop its oldest between a look at the names and the opening.
        with suppress(FileNotFoundError):
            return _segments_of(directory, tega_id)
    return _segments_of(directory, tega_id)


def _segments_of(directory: Path, tega_id: str) -> list[Segment]:
    prefix = f"log.{tega_id}."
    names = [entry.name for entry in directory.iterdir() if entry.name.startswith(prefix)]
    suffixes = [name.removeprefix(prefix) for name in names]
    numbers = sorted([int(s) for s in suffixes if re.fullmatch(r"0|[1-9][0-9]*", s)])
    if not numbers:
        there = ", ".join(tega_ids(directory)) or "none"
        raise LogError(f"{directory} has no log of tega id {tega_id}; tega ids there: {there}")
    paths = [(number, segments.path_of(directory, tega_id, number)) for number in numbers]
    return [Segment(number, path, segments.data_of(path)) for number, path in paths]


def by_format(found: Sequence[Segment]) -> tuple[list[Segment], list[Segment]]:
    """The segments of 2017, which come first, and those of today."""
    old = list(takewhile(lambda segment: legacy.is_legacy(segment.data), found))
    return old, list(found[len(old) :])


def whole_commits(data: Data, start: int) -> Iterator[Logged]:
    """The commits that check from an offset on, whatever stands between them."""
    while (found := _FIRST_LINE.search(data, start)) is not None:
        try:
            logged = record.read_one(data, found.start())
        except BadRecord:
            start = found.start() + 1
            continue
        yield logged
        start = logged.end


def spans(numbers: Iterable[int]) -> str:
    """Ascending numbers for people: ``3 to 5, 9``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join([f"{a}" if a == b else f"{a} to {b}" for a, b in found])


def damage(
    segment: Segment, bad: BadRecord, expected: int | None, locked: bool = False
) -> Finding:
    """What a place is that does not check.

    :param expected: the sequence number that should stand there; None for a snapshot
    :param locked: the caller has the lock, so that no server writes
    """
    name, data = segment.path.name, segment.data
    kind: Kind = "corrupt"
    reason = bad.reason
    if expected is not None and record.is_torn(data, bad, expected):
        tega_id = name.split(".", 1)[1].rpartition(".")[0]
        writer = None if locked else lock.holder(segment.path.parent, tega_id)
        if writer is not None:
            kind, reason = "note", f"process {writer} may be writing here"
        else:
            kind, reason = "torn", f"cut short by a crash, never acknowledged ({reason})"
    following = spans([logged.seq for logged in whole_commits(data, bad.start + 1)])
    if following:
        reason += f"; commits that check follow: {following}"
    return Finding(kind, name, reason, data[: bad.offset].count(b"\n") + 1, bad.offset)


class Meter:
    """Counts commits and bytes over all segments."""

    def __init__(self, progress: Progress | None, size: int) -> None:
        self._progress = progress
        self._size = size
        self._commits = 0
        self._done = 0

    def count(self, size: int) -> None:
        """One more commit."""
        self._commits += 1
        self._done += size
        if self._commits % _PROGRESS == 0:
            self.show(self._done)

    def show(self, done: int) -> None:
        """Say how far it is."""
        if self._progress is not None:
            self._progress(self._commits, done, self._size)


# -- verify -----------------------------------------------------------------------------------


class _End(NamedTuple):
    """What the next segment is compared with.

    :ivar state: after the last commit that checks; None where not even the snapshot does
    :ivar difference: where the next segment's snapshot differs from the state here
    """

    number: int
    checked: Checked
    state: State | None
    difference: str | None


def verify(directory: Path, tega_id: str, progress: Progress | None = None) -> list[Checked]:
    """Check every segment, oldest first, and that each follows from the one before.

    :returns: one for each segment, those that are missing included
    :raises LogError: where there is no log
    :raises OSError: where it cannot be read
    """
    found = segments_of(directory, tega_id)
    size = sum([len(segment.data) for segment in found])
    meter = Meter(progress, size)
    old, new = by_format(found)
    results, before = _verify_2017(old, new, meter)
    for segment, following in zip(new, [*new[1:], None], strict=False):
        end = _replay(segment, following, meter)
        if before is not None and before.number == segment.number - 1:
            _check_follows(before, end)
        _check_closing(segment, following, end.checked)
        results.append(end.checked)
        before = end
    meter.show(size)
    return _with_missing(directory, tega_id, found, results)


def _replay(segment: Segment, following: Segment | None, meter: Meter) -> _End:
    """Check one segment of today's format."""
    checked = Checked(segment.path.name, len(segment.data))
    theirs = _snapshot_of(following)
    state: State | None = None
    difference: str | None = None
    keep = 0
    try:
        for logged in segments.commits(segment.data):
            if state is None:
                state = snapshot.read(logged, EVERYTHING)
                checked.snapshot = checked.last = state.seq
                keep = max(_longest(state), _longest(theirs))
            else:
                state = record.apply(state, logged, keep)
                checked.commits += 1
                checked.first, checked.last = checked.first or state.seq, state.seq
            if theirs is not None and (state.life, state.seq) == (theirs.life, theirs.seq):
                difference = compare(state, theirs)
            meter.count(logged.end - logged.start)
        if state is None:
            raise BadRecord(0, 0, "an empty segment")
    except BadRecord as bad:
        rest = segment.data[bad.start :]
        if following is not None and closing(following).startswith(rest):
            checked.add("note", "its last line was cut short by a crash; nothing is missing")
        else:
            expected = None if state is None else state.seq + 1
            checked.findings.append(damage(segment, bad, expected))
    return _End(segment.number, checked, state, difference)


def _longest(state: State | None) -> int:
    """The most old versions that a root has."""
    return max([len(root.old) for root in state.roots.values()], default=0) if state else 0


def closing(following: Segment) -> bytes:
    """The last line of a segment that another one follows."""
    return segments.CONTINUED + following.path.name.encode() + b"\n"


def _snapshot_of(segment: Segment | None) -> State | None:
    """The state that a segment starts with, if it can be read."""
    if segment is None:
        return None
    try:
        return snapshot.read(record.read_one(segment.data, 0), EVERYTHING)
    except BadRecord:
        return None


def _check_follows(before: _End, end: _End) -> None:
    earlier, checked = before.checked, end.checked
    if before.state is None or end.state is None or checked.snapshot is None:
        return
    if before.state.life != end.state.life:
        checked.add(
            "life",
            f"another life begins, after {earlier.name}: a crash cut a clear short. The next start "
            "renames the segments before this one",
        )
        return
    if checked.snapshot > earlier.last and earlier.ok:
        lost = spans(range(earlier.last + 1, checked.snapshot + 1))
        checked.add("sequence", f"{earlier.name} ends without the commits {lost}")
    if checked.snapshot < (earlier.snapshot or 0):
        checked.add("sequence", f"its snapshot is older than that of {earlier.name}")
    if checked.last < earlier.last and checked.ok:
        lost = spans(range(checked.last + 1, earlier.last + 1))
        checked.add("sequence", f"the commits {lost} of {earlier.name} are missing here")
    if before.difference is not None:
        checked.add("snapshot", f"differs from what {earlier.name} adds up to: {before.difference}")


def _check_closing(segment: Segment, following: Segment | None, checked: Checked) -> None:
    named = segments.successor(segment.data)
    if following is None:
        if named is not None and not segment.path.with_name(named).exists():
            checked.add("missing", f"it goes on in {named}, which is not there")
    elif not checked.ok or checked.findings or following.number != segment.number + 1:
        return
    elif named is None:
        checked.add("note", "a crash kept it from saying where it goes on; nothing is missing")
    elif named != following.path.name:
        checked.add("sequence", f"it says that it goes on in {named}")


def _with_missing(
    directory: Path, tega_id: str, found: Sequence[Segment], results: Sequence[Checked]
) -> list[Checked]:
    complete: list[Checked] = []
    expected = found[0].number
    for segment, checked in zip(found, results, strict=True):
        for number in range(expected, segment.number):
            missing = Checked(segments.path_of(directory, tega_id, number).name)
            missing.add("missing", "the segments before and after it are there")
            complete.append(missing)
        complete.append(checked)
        expected = segment.number + 1
    return complete


def _verify_2017(
    old: Sequence[Segment], new: Sequence[Segment], meter: Meter
) -> tuple[list[Checked], _End | None]:
    results = {s.path: Checked(s.path.name, len(s.data), True) for s in old}
    theirs = _snapshot_of(new[0]) if new else None

    def note(place: legacy.Place, text: str) -> None:
        finding = Finding("note", place.path.name, text, place.line, place.offset)
        results[place.path].findings.append(finding)

    state: State | None = None
    try:
        for step in steps_2017(old, bool(new), theirs.life if theirs else "", note):
            state = step.state
            checked = results[step.path]
            checked.commits += 1
            if state is not None:
                checked.first, checked.last = checked.first or state.seq, state.seq
            meter.count(0)
    except legacy.BadLine as bad:
        place = bad.place
        results[place.path].findings.append(
            Finding("corrupt", place.path.name, bad.reason, place.line, place.offset)
        )
        return list(results.values()), None
    if state is None:
        return list(results.values()), None
    last = list(results.values())[-1]
    difference = None
    if theirs is not None and state.seq == theirs.seq:
        difference = compare(state, theirs)
    return list(results.values()), _End(old[-1].number, last, state, difference)


class Step2017(NamedTuple):
    """A transaction of 2017, and the state after it if the segments that it needs are there."""

    path: Path
    transaction: legacy.Transaction
    state: State | None


def steps_2017(
    old: Sequence[Segment], converted: bool, life: str, warn: legacy.Warn
) -> Iterator[Step2017]:
    """The transactions of 2017, with the state after each.

    :param converted: whether segments of today's format follow, so that old ones may be gone
    """
    if converted and old and old[0].number > 0:
        for segment in old:
            for transaction in legacy.transactions(
                segment.path, segment.data, OF_2017.max_depth, warn
            ):
                yield Step2017(segment.path, transaction, None)
    else:
        for step in legacy.history([segment.path for segment in old], life, OF_2017, warn):
            yield Step2017(*step)
