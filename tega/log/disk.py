"""The system calls that a log makes: one place, so that tests can record, cut and fail them."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """Files as the operating system has them. Every method may raise `OSError`."""

    def make_directory(self, path: Path) -> None:
        """Make it where it is missing, its parents too, and wait until their names are on disk."""
        if not path.is_dir():
            self.make_directory(path.parent)
            path.mkdir(exist_ok=True)
            self.sync_directory(path.parent)

    def open(self, path: Path, create: bool = False) -> int:
        """Open for reading and writing; `create` starts an empty file."""
        flags = os.O_RDWR | os.O_CLOEXEC
        return os.open(path, flags | (os.O_CREAT | os.O_TRUNC if create else 0), 0o640)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of it, from an offset on."""
        written = os.pwrite(fd, data, offset)
        while written < len(data):
            with memoryview(data) as view:
                written += os.pwrite(fd, view[written:], offset + written)

    def sync(self, fd: int) -> None:
        """Wait until what was written is on disk."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Close the file; this does not sync it."""
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Rename, and wait until the directory is on disk."""
        os.rename(old, new)
        self.sync_directory(new.parent)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file, and wait until that is on disk."""
        os.ftruncate(fd, size)
        os.fsync(fd)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        """Wait until the names in a directory are on disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
