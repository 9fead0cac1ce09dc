"""The text of the commit log: commits to bytes, and back with every check.

A commit::

    ? 1417
    {"ope":"PUT","path":"inventory.ne1.name","tega_id":"cli-1","instance":"ooo","version":3}
    @2026-11-21T01:34:05.123456Z 1 {"synced":1416,"life":...} 5f3a9c01

Its first line has the sequence number. A record a change follows; a rollback says so in a line of
its own before them: ``-1 cli-1 inventory``. The last line has the time, the number of records, the
extras, and the CRC-32 of every byte from the ``?`` to the space before the CRC, that space
included.

A snapshot is framed in the same way, its records having the ``ope`` SS; see
doc/tega-db-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from mmap import mmap
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from tega.errors import Malformed, TegaError
from tega.log import roots
from tega.log.roots import Record
from tega.paths import parse, wire
from tega.store import node
from tega.store.commit import Commit
from tega.store.following import adopted
from tega.store.history import Lead, State
from tega.store.staging import replay

Data: TypeAlias = bytes | mmap

#: The depth of what was once accepted is not judged again: the limit may have been another one.
_DEEP: Final = 1 << 20

_HEAD = re.compile(rb"\? (\d{1,19})")
_ROLLBACK = re.compile(rb"-(\d{1,19}) ([A-Za-z0-9._-]+) (\S+)")
_TRAILER = re.compile(
    rb"@(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\d{1,19}) (\{.*\}) ([0-9a-f]{8})"
)


class Extras(msgspec.Struct, omit_defaults=True):
    """What the last line of a commit carries beside time and count.

    :ivar synced: the newest sequence number known to be on disk when this was written
    :ivar life: the life of the database
    :ivar tega_id: who made the commit
    :ivar versions: the version made of each root touched
    :ivar chain: the hash of each root touched
    :ivar touched: containers that got a version too, below a root and beside those in the records
    :ivar txid: the client's transaction id
    :ivar ids: in a snapshot, the remembered transaction ids with sequence number and versions
    :ivar follows: the roots that another server leads: its tega id, life and sequence number; null
        for one that is led here from now on
    :ivar adopted: the roots that are taken over whole from their leaders: the records are those of
        a snapshot; without one, the leader has no such root
    """

    synced: int
    life: str
    tega_id: str = ""
    versions: dict[str, int] = {}
    chain: dict[str, str] = {}
    touched: list[str] = []
    txid: str | None = None
    snapshot: bool = False
    ids: list[tuple[str, int, dict[str, int]]] = []
    follows: dict[str, tuple[str, str, int] | None] = {}
    adopted: list[str] = []

    def leads(self) -> list[tuple[str, Lead | None]]:
        """Who leads which root, as far as this changes or tells it."""
        return [(name, lead and Lead(*lead)) for name, lead in self.follows.items()]


class Logged(msgspec.Struct):
    """One commit as read back; `start` and `end` are byte offsets."""

    seq: int
    time: str
    records: list[Record]
    extras: Extras
    rolled_back: tuple[str, int] | None
    start: int
    end: int

    def made_after(self, versions: Mapping[str, int]) -> bool:
        """Whether it made a version after those given of some roots."""
        made = self.extras.versions
        return any(made.get(name, -1) > version for name, version in versions.items())


class Frame(NamedTuple):
    """One commit as it stands in the log, its records not read.

    :ivar records: how many it says that it has
    :ivar lines: the byte offsets between which they stand, the last newline left out
    """

    seq: int
    time: str
    records: int
    extras: Extras
    lines: tuple[int, int]
    start: int
    end: int


class BadRecord(Exception):
    """What stands at an offset is not a whole commit.

    :ivar start: where the commit begins, or should
    :ivar offset: where reading it failed
    """

    def __init__(self, start: int, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.start = start
        self.offset = offset
        self.reason = reason


_encode = msgspec.json.Encoder(order="deterministic").encode
_extras = msgspec.json.Decoder(Extras).decode
_record = msgspec.json.Decoder(Record).decode


def encode(commit: Commit, synced: int, life: str) -> bytes:
    """The text of a commit; nothing ephemeral is in it."""
    lines = [b"? %d" % commit.seq]
    if commit.rolled_back is not None:
        root, back = commit.rolled_back
        lines.append(f"-{back} {commit.tega_id} {wire((root,))}".encode())
    records = [change.record for change in commit.changes if not change.ephemeral]
    if commit.adopted:
        records = [
            line
            for _, root in commit.adopted
            if root is not None
            for line in b"".join(roots.lines(root, commit.tega_id)).splitlines()
        ]
    extras = Extras(
        synced,
        life,
        commit.tega_id,
        dict(commit.versions),
        dict(commit.chains),
        [wire(path) for path in commit.touched] if commit.touched else [],
        commit.txid,
        follows=follows_of(commit.follows) if commit.follows else {},
        adopted=[name for name, _ in commit.adopted] if commit.adopted else [],
    )
    lines += records
    lines.append(trailer(commit.time, len(records), extras))
    text = b"\n".join(lines)
    return b"%b%08x\n" % (text, crc32(text))


def follows_of(
    following: Mapping[str, Lead] | Iterable[tuple[str, Lead | None]],
) -> dict[str, tuple[str, str, int] | None]:
    """Who leads which root, as the log has it."""
    return {
        name: None if lead is None else (lead.leader, lead.life, lead.seq)
        for name, lead in dict(following).items()
    }


def trailer(time: str, count: int, extras: Extras) -> bytes:
    """The last line of a commit, up to the CRC."""
    return b"@%b %d %b " % (time.encode(), count, _encode(extras))


def read(data: Data, start: int = 0) -> Iterator[Logged]:
    """The commits from an offset on.

    :raises BadRecord: at the first place that does not check
    """
    size = len(data)
    while start < size:
        logged = read_one(data, start)
        yield logged
        start = logged.end


def read_one(data: Data, start: int) -> Logged:
    """The commit that begins at `start`.

    :raises BadRecord: where there is none, or it does not check
    """
    return opened(data, frame_at(data, start))


def frame_at(data: Data, start: int) -> Frame:
    """The commit that begins at `start`, checked, but for what its records say.

    However many these are, they take no memory.

    :raises BadRecord: where there is none, or it does not check
    """
    head = data.find(b"\n", start)
    last = data.find(b"\n@", start)
    end = data.find(b"\n", last + 1) if last >= 0 else -1
    if end < 0:
        raise BadRecord(start, start, "a commit without an end")
    if data[start : start + 2] != b"? ":
        raise BadRecord(start, start, "a commit starts with '? ' and its sequence number")
    found = _TRAILER.fullmatch(data, last + 1, end)
    if found is None:
        raise BadRecord(start, last + 1, "malformed last line of a commit")
    with memoryview(data) as view, view[start : end - 8] as text:
        if crc32(text) != int(found[4], 16):
            raise BadRecord(start, start, "the checksum differs")
    first = _HEAD.fullmatch(data, start, head)
    if first is None:
        raise BadRecord(start, start, "malformed sequence number")
    try:
        extras = _extras(found[3])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord(start, start, str(error)) from None
    return Frame(
        int(first[1]), found[1].decode(), int(found[2]), extras, (head + 1, last), start, end + 1
    )


def opened(data: Data, frame: Frame) -> Logged:
    """A commit with its records.

    :raises BadRecord: where one does not check
    """
    first, last = frame.lines
    try:
        rolled_back = None
        lines = data[first:last].split(b"\n") if last >= first else []
        if lines and lines[0][:1] == b"-":
            rolled_back = _rolled_back(lines.pop(0))
        records = [_record(line) for line in lines]
        if len(records) != frame.records:
            raise Malformed(f"{len(records)} records, the last line says {frame.records}")
    except (msgspec.DecodeError, UnicodeDecodeError, TegaError) as error:
        raise BadRecord(frame.start, frame.start, str(error)) from None
    return Logged(
        frame.seq, frame.time, records, frame.extras, rolled_back, frame.start, frame.end
    )


def _rolled_back(line: bytes) -> tuple[str, int]:
    found = _ROLLBACK.fullmatch(line)
    if found is None:
        raise Malformed("malformed rollback line")
    return parse(found[3].decode())[0], int(found[1])


def apply(state: State, logged: Logged, maxlen: int) -> State:
    """The state after a commit that was read back.

    :raises BadRecord: where the commit does not follow the state
    """
    start = logged.start
    if logged.seq != state.seq + 1:
        raise BadRecord(start, start, f"sequence number {logged.seq} after {state.seq}")
    extras = logged.extras
    if extras.life != state.life:
        raise BadRecord(start, start, f"life {extras.life} in a log of life {state.life}")
    try:
        if extras.adopted:
            found = roots.read(logged.records, maxlen)
            for name, lead in extras.leads():
                assert lead is not None
                state = adopted(state, logged.seq, name, found.get(name), lead)
            return state
        changes = [
            (r.ope, parse(r.path), node.freeze(r.instance, _DEEP) if r.ope == "PUT" else None)
            for r in logged.records
        ]
        touched = [parse(path) for path in extras.touched]
        return replay(
            state, logged.seq, changes, extras.versions, extras.chain, extras.txid, maxlen, touched,
            extras.leads(),
        )  # fmt: skip
    except (TegaError, KeyError) as error:
        raise BadRecord(start, start, str(error)) from None


def is_torn(data: Data, bad: BadRecord, expected: int) -> bool:
    """Whether what begins at a bad place is the torn tail of a crash, and not corruption.

    Nothing from there on was acknowledged if no commit after it says that it was synced, and what
    does not check is a commit cut short at the end of the file, or has blocks that never reached
    the disk: they hold what stood there before, the filler of a segment's room, or NUL bytes.

    :param expected: the sequence number that the bad commit should have
    """
    start = bad.start
    while True:
        following = _next_valid(data, start + 1)
        if following is None:
            region = _without_room(data[start:])
        else:
            region = data[start : following.start]
        if _is_damaged(region):
            return False
        if following is None:
            return not region or _has_lost_blocks(region, start) or _is_cut_short(region)
        if following.extras.synced >= expected or not _has_lost_blocks(region, start):
            return False
        try:
            return all(
                logged.extras.synced < expected for logged in read(data, following.start)
            )
        except BadRecord as next_bad:
            start = next_bad.start


def _without_room(region: bytes) -> bytes:
    """A region without the filler at its end, of which some blocks may be lost."""
    tail = len(region.rstrip(b"\0\t"))
    room = region.find(b"\t", tail)
    return region[:room] if room >= 0 else region


def _next_valid(data: Data, start: int) -> Logged | None:
    # The newline before it may be in a block that was lost.
    while (found := re.compile(rb"[\n\0\t]\? ").search(data, start)) is not None:
        start = found.start() + 1
        try:
            return read_one(data, start)
        except BadRecord:
            continue
    return None


def _is_damaged(region: bytes) -> bool:
    """Whether it is a whole commit but for its first or its last byte.

    That may have been acknowledged, and a byte have changed since.
    """
    for mended in (b"?" + region[1:], region[:-1] + b"\n"):
        try:
            read_one(mended, 0)
        except BadRecord:
            continue
        return True
    return False


def _has_lost_blocks(region: bytes, start: int) -> bool:
    """Whether there is filler, or NUL bytes, and only as lost blocks.

    Those go from the start of a block, or of the region, to the end of a block or of the region.
    """
    runs = list(re.finditer(rb"[\0\t]+", region))
    return bool(runs) and all(
        (run.start() == 0 or (start + run.start()) % 512 == 0)
        and (run.end() == len(region) or (start + run.end()) % 512 == 0)
        for run in runs
    )


def _is_cut_short(region: bytes) -> bool:
    """Whether a region is the beginning of a commit, its end missing."""
    *whole, cut = region.split(b"\n")
    for number, line in enumerate(whole):
        if not _is_line(line, number):
            return False
    return _is_beginning(cut, len(whole))


def _is_line(line: bytes, number: int) -> bool:
    if number == 0:
        return _HEAD.fullmatch(line) is not None
    if number == 1 and _ROLLBACK.fullmatch(line):
        return True
    try:
        _record(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _is_beginning(cut: bytes, number: int) -> bool:
    if number == 0:
        return b"? ".startswith(cut) or _HEAD.fullmatch(cut) is not None
    return cut[:1] in b"{-@"


def texts(commits: Sequence[Commit], synced: int, life: str) -> bytes:
    """The text of a batch."""
    return b"".join([encode(commit, synced, life) for commit in commits])
