"""The log in files: one directory, one writer, append only.

The directory holds segments ``log.TEGA_ID.N``. Each starts with a snapshot, the first one with
that of an empty database, so that the newest segment alone tells the whole state; older ones are
history. A segment comes into being under another name, is synced, and is then renamed: it is whole
or not there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tega.errors import Corrupt, LogError
from tega.log import legacy, lock, record, segments, snapshot
from tega.log.appender import AHEAD, Appender
from tega.log.base import NO_ROOM, Log, Measured, NoRoom, Progress, Settings, Snapshot
from tega.log.disk import Disk
from tega.log.record import BadRecord, Logged
from tega.log.replay import replay
from tega.log.syncer import Syncer
from tega.metrics import Meters
from tega.store.commit import Commit
from tega.store.history import State

log = logging.getLogger(__name__)

SyncPolicy: TypeAlias = Literal["always", "interval", "never"]

#: An event loop may wait this long for a sync, seconds.
_QUICK: Final = 0.000_8

#: A sync that takes so long is felt, seconds.
_STALL: Final = 0.01

#: Of commits that are passed over, one in so many is a place to pause.
_PAUSE: Final = 100

#: Bytes that are copied at once.
_CHUNK: Final = 1 << 20


def timestamp() -> str:
    """Now, UTC, as commits carry it."""
    second, microsecond = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_to_the_second(second)}{microsecond:06d}Z"


@lru_cache(2)
def _to_the_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))


class FileLog(Log):
    """Commits in the segments of one tega id in one directory.

    :param directory: made if missing
    :param tega_id: names the segments
    :param new_life: gives the identity of a database that begins here
    :param sync: when commits are synced: ``always`` before they are acknowledged, each `interval`
        seconds, or ``never`` by itself
    :param snapshot_size: bytes after which a snapshot is due; 0 for never
    :param keep: how many older segments stay beside the newest
    :param ahead: bytes that the newest segment is made longer by at once, for commits to come
    :param meters: takes what is counted
    """

    def __init__(
        self,
        directory: Path,
        tega_id: str,
        new_life: Callable[[], str],
        sync: SyncPolicy = "always",
        interval: float = 1.0,
        snapshot_size: int = 8 << 20,
        keep: int = 2,
        disk: Disk | None = None,
        ahead: int = AHEAD,
        meters: Meters | None = None,
    ) -> None:
        self.directory = directory
        self.tega_id = tega_id
        self._new_life = new_life
        self._policy = sync
        self._snapshot_size = snapshot_size
        self._keep = keep
        self._disk = disk or Disk()
        # Where nobody waits for syncs, they need not be quick.
        self._ahead = ahead if sync == "always" else 0
        self._meters = meters or Meters()
        self._lock_fd = -1
        self._file: Appender | None = None
        self._number = 0
        # Of the newest snapshot.
        self._snapshot_bytes = 0
        self._snapshot_time: str | None = None
        self._due_at = 0
        self._life = ""
        self._appended = 0
        self._synced = 0
        self._cost = 1.0
        self._failure: OSError | None = None
        # Held while the file is synced or exchanged for the next one.
        self._fd_lock = threading.Lock()
        # Held while segments get or lose their names, and while they are opened to be read.
        self._names_lock = threading.RLock()
        self._syncer = Syncer(self._sync, interval) if sync == "interval" else None

    # -- opening ------------------------------------------------------------------------------

    def recover(self, settings: Settings, progress: Progress | None = None) -> State:
        try:
            self._disk.make_directory(self.directory)
            self._lock_fd = lock.acquire(self.directory, self.tega_id)
            return self._recover(settings, progress)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, LogError):
                raise LogError(f"cannot open the log in {self.directory}: {error}") from error
            raise

    def _recover(self, settings: Settings, progress: Progress | None) -> State:
        for unfinished in segments.drafts(self.directory, self.tega_id):
            # Never renamed, so never relied on; what it would have held is in the segment before.
            log.info("removing the unfinished snapshot %s", unfinished)
            self._disk.unlink(unfinished)
        numbers = segments.numbers(self.directory, self.tega_id)
        if not numbers:
            others = segments.other_ids(self.directory, self.tega_id)
            if others:
                log.warning(
                    "%s has no log of tega id %s, but of %s: this starts an empty database",
                    self.directory, self.tega_id, ", ".join(others),
                )
            return self._begin(0, State(self._new_life()))
        newest = segments.path_of(self.directory, self.tega_id, numbers[-1])
        data = segments.data_of(newest)
        if legacy.is_legacy(data):
            paths = [segments.path_of(self.directory, self.tega_id, n) for n in numbers]
            log.info("reading the 2017 format: %s", ", ".join(path.name for path in paths))
            state = legacy.load(paths, self._new_life(), settings)
            return self._begin(numbers[-1] + 1, state)
        missing = segments.successor(data)
        if missing is not None:
            raise Corrupt(
                f"{self.directory / missing} is missing: {newest.name} says that it goes on there. "
                "Put it back",
                file=str(self.directory / missing),
            )
        state, self._snapshot_time, start, end = replay(newest, data, settings, progress)
        self._file = self._open(numbers[-1], start, end)
        if end < len(data):
            self._set_aside(newest, data, end)
            self._file.end()
        # A killed process leaves writes and names that never reached the disk. They are about to be
        # seen, so a power cut must not take them back.
        self._file.sync()
        self._disk.sync_directory(self.directory)
        self._life, self._appended, self._synced = state.life, state.seq, state.seq
        self._retire_cleared(numbers[:-1], state.life)
        return state

    def _begin(self, number: int, state: State) -> State:
        """Start a segment with a state, and append to it from now on."""
        self._number = number - 1
        self._life, self._appended, self._synced = state.life, state.seq, state.seq
        fresh = _FileSnapshot(self, state)
        for _ in fresh.steps():
            pass
        fresh.install(continued=False)
        return state

    def _set_aside(self, path: Path, data: record.Data, end: int) -> None:
        """Move the torn tail of a segment to a file of its own."""
        aside = path.with_name(f"{path.name}.{end}.torn")
        while aside.exists():
            aside = aside.with_name(f"{aside.stem}+.torn")
        log.warning(
            "%s: the last %d bytes, from byte offset %d, are a commit cut short by a crash; it was "
            "never acknowledged. Setting it aside as %s",
            path, len(data) - end, end, aside.name,
        )
        file = Appender.create(self._disk, aside)
        try:
            file.append(data[end:])
            file.sync()
        finally:
            file.close()
        self._disk.sync_directory(self.directory)

    def _retire_cleared(self, older: list[int], life: str) -> None:
        """Finish a clear that a crash cut short: segments of an earlier life get out of the way."""
        for number in reversed(older):
            path = segments.path_of(self.directory, self.tega_id, number)
            data = segments.data_of(path)
            try:
                first = None if legacy.is_legacy(data) else next(segments.commits(data), None)
            except BadRecord as bad:
                raise segments.corrupt(path, data, bad) from None
            if first is not None and first.extras.life != life:
                self._rename_cleared([n for n in older if n <= number])
                return

    # -- appending ----------------------------------------------------------------------------

    def append(self, commits: Sequence[Commit]) -> None:
        if self._failure is not None:
            raise self._failure
        started = time.monotonic()
        try:
            text = record.texts(commits, self._synced, self._life)
            self._write(text)
            self._meters.appended += len(text)
            self._appended = commits[-1].seq
            if self._policy == "always":
                self._sync()
        except NoRoom:
            raise
        except BaseException as error:
            # After a failed sync the kernel may have dropped the pages, and after an interrupt the
            # next commit would leave a gap: nothing here is sure now.
            self._fail(error)
            raise
        self._weigh(time.monotonic() - started)
        if self._syncer is not None:
            self._syncer.wake()

    def _write(self, text: bytes) -> None:
        """Write all of a batch, or nothing.

        :raises NoRoom: where there is no room for it
        """
        try:
            self._end.append(text)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            with self._fd_lock:  # What there was room for is no commit.
                self._end.end()
                self._synced = self._appended
            if not self.full:
                log.error("%s: commits are refused until there is room again", error)
            self.full = True
            raise NoRoom(*error.args) from error
        self.full = False

    @property
    def _end(self) -> Appender:
        assert self._file is not None, "the log is not open"
        return self._file

    def _weigh(self, seconds: float) -> None:
        """Take one append into the running mean of what appending costs.

        A hiccup of a quick disk counts little, a stall that an event loop would feel counts whole.
        """
        if seconds < _STALL:
            seconds = min(seconds, 4 * _QUICK)
        self._cost += (seconds - self._cost) / 8

    def _sync(self) -> None:
        with self._fd_lock:
            appended, started = self._appended, time.monotonic()
            try:
                self._end.sync()
            except BaseException as error:
                self._fail(error)
                raise
            self._meters.sync_seconds.observe(time.monotonic() - started)
            self._meters.sync_commits.observe(appended - self._synced)
            self._synced = appended

    def _fail(self, error: BaseException) -> None:
        """Take nothing more."""
        self._failure = error if isinstance(error, OSError) else OSError(f"interrupted: {error!r}")

    @property
    def failure(self) -> OSError | None:
        return self._failure

    @property
    def quick(self) -> bool:
        return self._cost < _QUICK

    def measure(self) -> Measured:
        sizes = segments.sizes(self.directory, self.tega_id)
        return Measured(len(sizes), sum(sizes), self._snapshot_bytes, self._snapshot_time)

    # -- snapshots ----------------------------------------------------------------------------

    @property
    def wants_snapshot(self) -> bool:
        return self._snapshot_size > 0 and self._due_at < self._end.size

    def snapshot(self, state: State) -> Snapshot:
        return _FileSnapshot(self, state)

    def _put_off(self) -> None:
        """Want no snapshot until as much again has come."""
        if self._file is not None:
            self._due_at = self._file.size + self._snapshot_size

    def clear(self, state: State) -> None:
        older = [n for n in segments.numbers(self.directory, self.tega_id) if n <= self._number]
        fresh = _FileSnapshot(self, state)
        try:
            for _ in fresh.steps():
                pass
            # From the rename in here on the new life counts. Should a crash come before the renames
            # after it, the next start sees segments of another life and goes on with them.
            with self._names_lock:
                fresh.install(continued=False)
                self._rename_cleared(older)
        except BaseException as error:
            self._fail(error)
            raise
        with self._fd_lock:
            self._life, self._appended, self._synced = state.life, state.seq, state.seq

    def _rename_cleared(self, older: list[int]) -> None:
        suffix = f".cleared-{timestamp()}"
        for number in older:
            path = segments.path_of(self.directory, self.tega_id, number)
            self._disk.rename(path, path.with_name(path.name + suffix))

    def _switch(self, number: int, size: int, continued: bool) -> None:
        """Append to another segment from now on; one that is `continued` says so in its end."""
        with self._fd_lock:
            previous, self._file = self._file, self._open(number, size, size)
            self._synced = self._appended
            if previous is None:
                return
            if continued:
                name = segments.path_of(self.directory, self.tega_id, number).name
                previous.append(segments.CONTINUED + name.encode() + b"\n")
                previous.sync()
            previous.end()
            previous.close()

    def _open(self, number: int, snapshot_size: int, size: int) -> Appender:
        fd = self._disk.open(segments.path_of(self.directory, self.tega_id, number))
        self._number = number
        self._snapshot_bytes = snapshot_size
        # After a snapshot larger than the limit the next one is not due at once.
        self._due_at = snapshot_size + max(self._snapshot_size, snapshot_size)
        return Appender(self._disk, fd, size, self._ahead)

    def _drop_old(self) -> None:
        with self._names_lock:
            for number in segments.numbers(self.directory, self.tega_id):
                if number >= self._number - self._keep:
                    return
                path = segments.path_of(self.directory, self.tega_id, number)
                if legacy.is_legacy(segments.data_of(path)):
                    # What a server of 2017 left is never dropped, only out of the row.
                    self._disk.rename(path, path.with_name(f"{path.name}.2017"))
                    continue
                log.info("dropping %s: older than the %d segments to keep", path, self._keep)
                self._disk.unlink(path)

    # -- reading back -------------------------------------------------------------------------

    def commits_after(self, versions: Mapping[str, int]) -> Iterator[Logged | None]:
        with self._names_lock:
            size = 0 if self._file is None else self._file.size
            numbers = segments.numbers(self.directory, self.tega_id)
            paths = [segments.path_of(self.directory, self.tega_id, n) for n in numbers]
            # Of the newest what is sure: the rest may be cut off again while it is read.
            mapped = [(path, segments.data_of(path, size if n == self._number else 0))
                      for n, path in zip(numbers, paths, strict=True)]
        seen = 0
        damage: Corrupt | None = None
        for path, data in mapped:
            if legacy.is_legacy(data):
                continue
            try:
                for logged in segments.commits(data):
                    if logged.extras.snapshot:
                        # Of a segment whose end a crash tore, the next one has all that counts.
                        if damage is not None and logged.seq > seen:
                            raise damage
                        damage = None
                    # A segment repeats what was committed while its snapshot was written.
                    elif logged.seq > seen:
                        seen = logged.seq
                        if logged.made_after(versions):
                            yield logged
                        elif logged.seq % _PAUSE == 0:
                            yield None
            except BadRecord as bad:
                # What the newest segment has beyond its size is being written, and not published.
                if path != paths[-1] or bad.start < size:
                    damage = segments.corrupt(path, data, bad)
        if damage is not None:
            raise damage

    def close(self) -> None:
        if self._syncer is not None:
            self._syncer.stop()
            self._syncer = None
        file, self._file = self._file, None
        try:
            if file is not None and self._failure is None:
                if self._synced < self._appended:
                    file.sync()
                self._end_room(file)
        finally:
            if file is not None:
                file.close()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1


    def _end_room(self, file: Appender) -> None:
        try:
            file.end()
        except OSError as error:
            log.warning(
                "cannot cut the room off the log in %s: %s. Nothing is lost: the next start goes "
                "on in it", self.directory, error,
            )


class _FileSnapshot(Snapshot):
    """The next segment, on its way."""

    def __init__(self, owner: FileLog, state: State) -> None:
        self._log = owner
        self._state = state
        self._disk = owner._disk
        self._number = owner._number + 1
        self._path = segments.path_of(owner.directory, owner.tega_id, self._number)
        self._draft = self._path.with_name(self._path.name + ".new")
        self._from = owner._end.size if owner._file is not None else 0
        self._time = timestamp()
        self._file: Appender | None = None

    def steps(self) -> Iterator[None]:
        self._file = file = Appender.create(self._disk, self._draft)
        yield from snapshot.write(self._state, self._log.tega_id, self._time, file.append)
        file.sync()

    def install(self, continued: bool = True) -> None:
        owner = self._log
        if owner._failure is not None:
            raise owner._failure
        if owner._number != self._number - 1 or (continued and owner._file is None):
            raise LogError("the log was cleared or closed while this snapshot was written")
        file, self._file = self._file, None
        assert file is not None
        if continued:
            assert owner._file is not None
            _repeat(owner._file, self._from, file)
            # What goes on under another name must be whole.
            if owner._synced < owner._appended:
                owner._sync()
        file.sync()
        file.close()
        try:
            with owner._names_lock:
                self._disk.rename(self._draft, self._path)
                owner._switch(self._number, file.size, continued)
                owner._snapshot_time = self._time
        except BaseException as error:
            # The next start may read either segment: nothing may be added to one of them.
            owner._fail(error)
            raise
        if continued:
            owner._drop_old()

    def discard(self) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
            # After a close the directory, and a draft of that name, may be another process's.
            if self._log._lock_fd >= 0 and self._draft.exists():
                self._disk.unlink(self._draft)
        except OSError as error:
            log.warning("cannot remove %s: %s. The next start does", self._draft, error)
        # What just failed is not tried again with every commit.
        self._log._put_off()


def _repeat(source: Appender, start: int, target: Appender) -> None:
    """Append to one file what another one has from `start` on."""
    for offset in range(start, source.size, _CHUNK):
        target.append(os.pread(source.fd, min(_CHUNK, source.size - offset), offset))
