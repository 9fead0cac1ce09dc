"""Appending to a file that is longer than what is in it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from tega.log.base import NO_ROOM
from tega.log.disk import Disk
from tega.log.segments import FILLER

#: Errors of a write that is too long, of which a part may find room.
_TOO_LONG: Final = NO_ROOM | {errno.EFBIG}

#: Bytes that a file gets at once for what is to come.
AHEAD: Final = 1 << 16


class Appender:
    """The end of a file.

    To sync a file whose length has changed, a file system has to write what it knows of the file
    too, which takes about as long as the sync itself. So the file is made longer for many commits
    at once: they overwrite filler.

    :param size: bytes of what is in the file
    :param ahead: bytes of filler; 0 for none
    :ivar size: bytes of what is in the file by now
    """

    __slots__ = ("_ahead", "_disk", "_length", "fd", "size")

    def __init__(self, disk: Disk, fd: int, size: int = 0, ahead: int = 0) -> None:
        self._disk = disk
        self._ahead = ahead
        self._length = os.fstat(fd).st_size
        self.fd = fd
        self.size = size

    @classmethod
    def create(cls, disk: Disk, path: Path) -> Appender:
        """Begin an empty file."""
        return cls(disk, disk.open(path, create=True))

    def append(self, text: bytes) -> None:
        """Write all of it behind what is there; where that fails, `end` takes away what is."""
        end = self.size + len(text)
        if end <= self._length:
            self._disk.write(self.fd, text, self.size)
        else:
            # Of a large write its length is the smaller part.
            room = self._ahead if len(text) < self._ahead else 0
            self._length = end + room
            try:
                self._disk.write(self.fd, text + FILLER * room, self.size)
            except OSError as error:
                if not room or error.errno not in _TOO_LONG:
                    raise
                # There may be enough for the text alone.
                self._disk.write(self.fd, text, self.size)
                self._length = max(end, os.fstat(self.fd).st_size)
        self.size = end

    def sync(self) -> None:
        """Wait until what was written is on disk."""
        self._disk.sync(self.fd)

    def end(self, size: int | None = None) -> None:
        """Take the filler away, and what stands behind `size`; waits until that is on disk."""
        self.size = self.size if size is None else size
        if self.size < self._length:
            self._disk.truncate(self.fd, self.size)
            self._length = self.size

    def close(self) -> None:
        """Close the file; this does not sync it."""
        self._disk.close(self.fd)
