"""One writer for each tega id of a directory: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tega.errors import Locked


def acquire(directory: Path, tega_id: str) -> int:
    """Take the lock, or refuse at once; closing what this returns gives it free.

    :returns: a file descriptor
    :raises Locked: naming the process that has it
    """
    fd = os.open(_path(directory, tega_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        owner = _owner(fd)
        os.close(fd)
        raise Locked(
            f"{directory} is in use for tega id {tega_id} by process {owner}: stop that one, or "
            "choose another directory or tega id"
        ) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def holder(directory: Path, tega_id: str) -> str | None:
    """The process that has the lock; None where nobody has."""
    try:
        fd = os.open(_path(directory, tega_id), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(fd)
    finally:
        os.close(fd)
    return None


def _path(directory: Path, tega_id: str) -> Path:
    return directory / f"lock.{tega_id}"


def _owner(fd: int) -> str:
    return os.pread(fd, 32, 0).decode("ascii", "replace").strip()
