"""The files of a log directory: their names, their order, and reading one."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

from tega.errors import Corrupt
from tega.log.record import BadRecord, Data, Frame, Logged, frame_at, opened

_NAME = re.compile(r"log\.(?P<id>[A-Za-z0-9.-][A-Za-z0-9._-]*)\.(?P<number>0|[1-9]\d*)")

#: How the last line of a segment begins that has a successor.
CONTINUED = b"> "

#: Fills the room that a segment has for commits to come. No commit holds it, but as ``\\t``.
FILLER: Final = b"\t"

_CHUNK: Final = 1 << 16


def path_of(directory: Path, tega_id: str, number: int) -> Path:
    """The path of a segment."""
    return directory / f"log.{tega_id}.{number}"


def numbers(directory: Path, tega_id: str) -> list[int]:
    """The numbers of the segments that are there, in order.

    :raises Corrupt: where one is missing in between
    """
    found = sorted(number for name, number in _segments(directory) if name == tega_id)
    for before, after in pairwise(found):
        if after != before + 1:
            missing = path_of(directory, tega_id, before + 1)
            raise Corrupt(
                f"{missing} is missing, between segments {before} and {after}: put it back, or move"
                f" the older segments out of {directory} if you can do without their history",
                file=str(missing),
            )
    return found


def sizes(directory: Path, tega_id: str) -> list[int]:
    """The bytes of each segment that is there, in no order."""
    found = []
    for name, number in _segments(directory):
        if name == tega_id:
            # Another thread may drop an old one meanwhile.
            with suppress(FileNotFoundError):
                found.append(path_of(directory, tega_id, number).stat().st_size)
    return found


def drafts(directory: Path, tega_id: str) -> list[Path]:
    """Segments on their way: snapshots that were not finished."""
    found = [(path, _NAME.fullmatch(path.stem)) for path in directory.glob("log.*.new")]
    return [path for path, name in found if name is not None and name["id"] == tega_id]


def other_ids(directory: Path, tega_id: str) -> list[str]:
    """The tega ids, other than this one, that have segments in a directory."""
    return sorted({name for name, _ in _segments(directory)} - {tega_id})


def _segments(directory: Path) -> Iterator[tuple[str, int]]:
    for entry in directory.iterdir():
        found = _NAME.fullmatch(entry.name)
        if found is not None:
            yield found["id"], int(found["number"])


def data_of(path: Path, size: int = 0) -> Data:
    """The bytes of a segment, mapped into memory, without the room at its end.

    :param size: how many, where that is known
    """
    with path.open("rb") as file:
        size = size or _filled(file)
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""


def _filled(file: BinaryIO) -> int:
    """How many bytes there are before the room."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - _CHUNK, 0)
        file.seek(start)
        found = file.read(end - start).rstrip(FILLER)
        if found:
            return start + len(found)
        end = start
    return 0


def is_legacy(data: Data) -> bool:
    """Whether a segment is in the format of 2017, whose first line has no sequence number.

    Anything that is not surely of 2017 counts as of today, so that damage is found and named.
    """
    if re.match(rb"\s*(\?\s*\n|\*|\{'|\{\"ope\"|-\d+ )", data[:4096]) is None:
        return False
    # A changed byte can take the number from a first line, but not the CRC from a last line.
    last = data.find(b"\n@")
    return last < 0 or not re.search(rb"\} [0-9a-f]{8}$", data[last : data.find(b"\n", last + 1)])


def commits(data: Data, start: int = 0) -> Iterator[Logged]:
    """The commits of a segment, its snapshot first, up to the end or the line that closes it.

    :raises BadRecord: at the first place that does not check
    """
    return (opened(data, frame) for frame in frames(data, start))


def frames(data: Data, start: int = 0) -> Iterator[Frame]:
    """The same, their records not read.

    :raises BadRecord: at the first place that does not check
    """
    size = len(data)
    while start < size:
        if data[start : start + 2] == CONTINUED and data.find(b"\n", start) == size - 1:
            return
        frame = frame_at(data, start)
        yield frame
        start = frame.end


def successor(data: Data) -> str | None:
    """The name of the segment that goes on where this one ends, if it says so."""
    last = data.rfind(b"\n", 0, max(len(data) - 1, 0)) + 1
    if data[last : last + 2] != CONTINUED:
        return None
    return data[last + 2 :].decode("ascii", "replace").strip()


def corrupt(path: Path, data: Data, bad: BadRecord) -> Corrupt:
    """The error for a place that does not check: file, line, byte offset, and what to do."""
    line = data[: bad.offset].count(b"\n") + 1
    where = f"{path.parent} -t {_id_of(path)}"
    return Corrupt(
        f"{path}: line {line}, byte offset {bad.offset}: {bad.reason}. Nothing was changed. Look "
        f"with 'tega-log verify {where}'; 'tega-log repair {where}' sets aside what does not check",
        file=str(path),
        line=line,
        offset=bad.offset,
    )


def _id_of(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return found["id"] if found is not None else "ID"
