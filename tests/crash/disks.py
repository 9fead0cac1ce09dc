"""Disks for tests: one that remembers every call, one that fails, one that waits at a gate.

A `Volume` says what may be left of the calls that a `RecordingDisk` remembers, if the machine stops
then: what was synced, and any part of what was not.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import TypeAlias

from tega.log.disk import Disk

#: The content of a directory: names and bytes.
Image: TypeAlias = dict[str, bytes]

#: A block reaches the disk whole or not at all, bytes.
BLOCK = 512


@dataclass(frozen=True)
class Call:
    """A call that was made, or a mark that the test set beside the calls.

    `file` tells a file from others, whatever its name is at present.
    """

    kind: str
    file: int = -1
    name: str = ""
    new_name: str = ""
    data: bytes = b""
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class Mark:
    """How far requests had come: the last that was acknowledged, the last that was made."""

    acknowledged: int
    made: int


class RecordingDisk(Disk):
    """A disk that remembers what is done to it.

    :param calls: what was done to the directory before
    """

    def __init__(self, calls: Iterable[Call | Mark] = ()) -> None:
        self.calls = list(calls)
        self._files: dict[int, int] = {}
        self._listener: Callable[[Call], None] | None = None

    def listen(self, listener: Callable[[Call], None] | None) -> None:
        """Be called after each call; a listener may use the disk itself."""
        self._listener = listener

    def _remember(self, call: Call) -> None:
        self.calls.append(call)
        if self._listener is not None:
            self._listener(call)

    def open(self, path: Path, create: bool = False) -> int:
        fd = super().open(path, create)
        if create:
            file = len(self.calls)
            self._files[fd] = file
            self._remember(Call("create", file, path.name))
        else:
            self._files[fd] = volume_after(self.calls).names_seen()[path.name]
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        self._remember(Call("write", self._files[fd], data=bytes(data), offset=offset))

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._remember(Call("sync", self._files[fd]))

    def close(self, fd: int) -> None:
        super().close(fd)
        del self._files[fd]

    def rename(self, old: Path, new: Path) -> None:
        # Before the call, which goes on to sync the directory.
        self._remember(Call("rename", name=old.name, new_name=new.name))
        super().rename(old, new)

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self._remember(Call("truncate", self._files[fd], size=size))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._remember(Call("unlink", name=path.name))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._remember(Call("sync_directory", name=str(path)))


class QuickDisk(Disk):
    """A disk that does not wait: for looking at what a crash left, not for crashing."""

    def sync(self, fd: int) -> None:
        """Nothing to wait for."""

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync_directory(self, path: Path) -> None:
        """Nothing to wait for."""


class FaultyDisk(RecordingDisk):
    """A disk of which one call fails, once.

    :param kind: the method that fails
    :param nth: which call of it, from 1
    :param mode: the error comes ``before`` anything is done, ``after`` all is done, or after a
        ``part`` of a write
    :param error: how it fails
    """

    def __init__(
        self,
        kind: str,
        nth: int,
        mode: str,
        error: BaseException,
        calls: Iterable[Call | Mark] = (),
    ) -> None:
        super().__init__(calls)
        self.kind = kind
        self.mode = mode
        self.error = error
        self.failed = False
        #: Where in `calls` the failure is, and which file it was about.
        self.failed_at = -1
        self.failed_file = -1
        self._left = nth

    def _fails(self, kind: str) -> bool:
        if kind != self.kind or self.failed:
            return False
        self._left -= 1
        self.failed = self._left == 0
        return self.failed

    def _fail(self, act: Callable[[], object], fd: int = -1) -> BaseException:
        self.failed_file = self._files.get(fd, -1)
        if self.mode == "after":
            act()
        self.failed_at = len(self.calls)
        return self.error

    def open(self, path: Path, create: bool = False) -> int:
        if self._fails("open"):
            raise self._fail(lambda: self.close(super(FaultyDisk, self).open(path, create)))
        return super().open(path, create)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self._fails("write"):
            if self.mode == "part":
                super().write(fd, data[: len(data) // 2], offset)
            raise self._fail(lambda: super(FaultyDisk, self).write(fd, data, offset), fd)
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        if self._fails("sync"):
            raise self._fail(lambda: super(FaultyDisk, self).sync(fd), fd)
        super().sync(fd)

    def rename(self, old: Path, new: Path) -> None:
        if self._fails("rename"):
            raise self._fail(lambda: super(FaultyDisk, self).rename(old, new))
        super().rename(old, new)

    def truncate(self, fd: int, size: int) -> None:
        if self._fails("truncate"):
            raise self._fail(lambda: super(FaultyDisk, self).truncate(fd, size), fd)
        super().truncate(fd, size)

    def unlink(self, path: Path) -> None:
        if self._fails("unlink"):
            raise self._fail(lambda: super(FaultyDisk, self).unlink(path))
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        if self._fails("sync_directory"):
            raise self._fail(lambda: super(FaultyDisk, self).sync_directory(path))
        super().sync_directory(path)


class GatedDisk(Disk):
    """A disk whose syncs wait at a gate, which starts open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.syncs = 0
        self.error: OSError | None = None

    def sync(self, fd: int) -> None:
        self.syncs += 1
        self.arrived.release()
        assert self.gate.wait(30), "nobody opened the gate"
        if self.error is not None:
            raise self.error
        super().sync(fd)

    def shut(self) -> None:
        """Let the next syncs wait; forget about those that arrived before."""
        while self.arrived.acquire(blocking=False):
            pass
        self.gate.clear()

    def wait_for_sync(self) -> None:
        """Wait until one more sync has arrived."""
        assert self.arrived.acquire(timeout=30), "no sync came"


class _File:
    """A file as it was when it was synced, and as it is by what was written since."""

    def __init__(self) -> None:
        self.durable = b""
        self.written = b""

    def write(self, data: bytes, offset: int) -> None:
        """Write over what is there, and beyond."""
        assert offset <= len(self.written), "a hole"
        self.written = self.written[:offset] + data + self.written[offset + len(data) :]

    def sync(self) -> None:
        """It is on disk as it is."""
        self.durable = self.written


class Volume:
    """What a machine that stops now may leave of a directory."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}
        self._moves: list[Call] = []

    def apply(self, call: Call) -> None:
        """One more call was made."""
        file = self._files.get(call.file)
        if call.kind == "create":
            self._files[call.file] = _File()
            self._moves.append(call)
        elif call.kind in ("rename", "unlink"):
            self._moves.append(call)
        elif call.kind == "sync_directory":
            self._names, self._moves = self.names_seen(), []
        else:
            assert file is not None
            if call.kind == "write":
                file.write(call.data, call.offset)
            elif call.kind == "truncate":
                file.written = file.written[: call.size]
                file.sync()
            else:
                assert call.kind == "sync"
                file.sync()

    def names_seen(self, moves: int | None = None) -> dict[str, int]:
        """The names as processes see them, or as they are if only some moves are kept."""
        names = dict(self._names)
        for move in self._moves[:moves]:
            if move.kind == "create":
                names[move.name] = move.file
            elif move.kind == "rename":
                names[move.new_name] = names.pop(move.name)
            else:
                del names[move.name]
        return names

    def killed(self) -> Image:
        """What a killed process leaves: all that it did."""
        return {name: self._files[file].written for name, file in self.names_seen().items()}

    def crashes(self, step: int = 1) -> Iterator[Image]:
        """What a power cut may leave.

        :param step: bytes from one place where a write is cut to the next
        """
        for kept in range(len(self._moves) + 1):
            names = self.names_seen(kept)
            lost = {name: self._files[file].durable for name, file in names.items()}
            landed = {name: self._files[file].written for name, file in names.items()}
            yield lost
            yield landed
            for name, file in names.items():
                # What an unfinished snapshot holds is never read.
                one = self._files[file]
                if one.written != one.durable and not name.endswith(".new"):
                    for content in landings(one.durable, one.written, step):
                        yield lost | {name: content}
                        if len(names) > 1:
                            yield landed | {name: content}


def volume_after(calls: Iterable[Call | Mark]) -> Volume:
    """The volume that these calls made."""
    volume = Volume()
    for call in calls:
        if isinstance(call, Call):
            volume.apply(call)
    return volume


def landings(durable: bytes, whole: bytes, step: int) -> Iterator[bytes]:
    """What a file may hold that was `durable` when it was synced, and is `whole` since.

    Any prefix of what was written has landed, or any blocks. Where one has not, there is what was
    there before, or NUL beyond the end that the file had.
    """
    start = next(
        (n for n, (old, new) in enumerate(zip(durable, whole, strict=False)) if old != new),
        len(durable),
    )
    # Filler that did not change may count as landed.
    until = len(whole) if len(whole) > len(durable) else len(whole.rstrip(b"\t"))
    before = durable + bytes(max(len(whole) - len(durable), 0))
    for end in range(until, start - 1, -step):
        yield whole[:end] + durable[end:]
    boundaries = range((start // BLOCK + 1) * BLOCK, until, BLOCK)
    for end in {until, until - 1, (start + until) // 2} - {start}:
        edges = [start, *(b for b in boundaries if b < end), end]
        for first, last in combinations(edges, 2):
            yield whole[:first] + before[first:last] + whole[last:end] + durable[end:]
        alternating = bytearray(whole[:end] + durable[end:])
        for first, last in list(pairwise(edges))[::2]:
            alternating[first:last] = before[first:last]
        yield bytes(alternating)


def calls_of(image: Image) -> list[Call]:
    """The calls that put these files on disk."""
    calls = []
    for file, (name, content) in enumerate(image.items()):
        calls += [Call("create", -2 - file, name), Call("write", -2 - file, data=content)]
        calls += [Call("sync", -2 - file)]
    return [*calls, Call("sync_directory")]


def write_image(image: Image, directory: Path) -> None:
    """Make a directory hold just this."""
    directory.mkdir(exist_ok=True)
    waiting = dict(image)
    for entry in directory.iterdir():
        if waiting.get(entry.name) == entry.read_bytes():
            del waiting[entry.name]
        else:
            entry.unlink()
    for name, content in waiting.items():
        (directory / name).write_bytes(content)


def digest(image: Image) -> bytes:
    """An image in few bytes, to know it again."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, content in sorted(image.items()):
        hashed.update(b"%s %d " % (name.encode(), len(content)))
        hashed.update(content)
    return hashed.digest()
