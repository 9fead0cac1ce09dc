"""The database: requests in, commits out, in one order, each published once it is durable.

There are two newest states. The **staged** one has every request that was accepted, and the next
request is judged by it. The **published** one has what is on disk, and is all that readers see.
`Database.flush` moves the second up to the first: it writes and syncs everything staged meanwhile
as one batch. Whoever waits for a commit flushes, so commits that arrive together share one sync,
and no thread stands between a lone writer and the disk.

Every method may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import immutables

from tega.errors import Closed, OutcomeUnknown, ReadOnly, TegaError, Unavailable
from tega.log.base import Log, Measured, NoRoom, Progress, Settings
from tega.log.file import timestamp
from tega.log.record import Logged
from tega.metrics import Meters
from tega.paths import Path
from tega.pending import Pending, Prepared
from tega.store import following, staging
from tega.store.check import check
from tega.store.commit import Commit, Lapse, Operation, Own, Peers, Request, Transaction
from tega.store.history import Lead, Result, State
from tega.store.node import Found, MaybeContent
from tega.watch import Hub

log = logging.getLogger(__name__)

#: A snapshot in the background works so long, then rests as long, seconds.
_STINT = 0.002


def new_life() -> str:
    """An identity for a database's life."""
    return uuid.uuid4().hex[:16]


def _read_only(error: BaseException) -> ReadOnly:
    if isinstance(error, NoRoom):
        return ReadOnly(f"{error}: nothing of this was written. Make room, and send it again")
    why = str(error) or repr(error)
    return ReadOnly(
        f"read-only: the commit log cannot be written ({why}). Mend the disk and start again"
    )


class Database:
    """A set of versioned trees over a commit log.

    :param commit_log: where commits are kept; opened here
    :param tega_id: the identity of this server or process
    :param maxlen: old versions that stay readable, for each root
    :param max_depth: most keys in a path, and deepest nesting
    :param clock: gives the time of a commit, ISO 8601 in UTC
    :param progress: called while the log is read
    :param resume: newest commits kept in memory for watchers that resume
    :param max_subscriptions: most subscriptions of one watcher
    :param lives: gives the identity of each life that `clear` begins
    :param meters: takes what is counted
    :raises LogError: where the log cannot be opened or does not check
    """

    def __init__(
        self,
        commit_log: Log,
        tega_id: str,
        maxlen: int = 10,
        max_depth: int = 64,
        clock: Callable[[], str] = timestamp,
        progress: Progress | None = None,
        resume: int = 4096,
        max_subscriptions: int = 10_000,
        lives: Callable[[], str] = new_life,
        meters: Meters | None = None,
    ) -> None:
        self.tega_id = tega_id
        self.maxlen = maxlen
        self.max_depth = max_depth
        self.meters = meters or Meters()
        self._clock = clock
        self._new_life = lives
        self._log = commit_log
        self._staged = self._published = commit_log.recover(Settings(maxlen, max_depth), progress)
        #: Hands every commit to whoever subscribes, once it is durable.
        self.hub = Hub(self._published.seq, resume, max_subscriptions, max_depth)
        self._batch: list[Pending] = []
        self._refusal: Unavailable | None = None
        self._live: dict[str, set[str]] = {}
        # Order of locks: snapshot, flush, stage.
        self._stage_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._snapshot_lock = threading.Lock()
        self._snapshot_thread: threading.Thread | None = None
        self._closing = False

    # -- reading ------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """All that is durable: an immutable value, to be held as long as one likes."""
        return self._published

    @property
    def staged(self) -> State:
        """All that was accepted, durable or not: not to be shown to anybody."""
        return self._staged

    @property
    def refusal(self) -> Unavailable | None:
        """Why no commit is taken; None while they are."""
        if self._refusal is None and self._log.failure is not None:
            # A sync in the background failed: --sync interval.
            return _read_only(self._log.failure)
        return self._refusal

    @property
    def full(self) -> bool:
        """Whether there was no room for the last commit."""
        return self._log.full

    @property
    def quick(self) -> bool:
        """Whether an event loop may wait for a flush: syncs have lately been fast."""
        return self._log.quick

    def measure(self) -> Measured:
        """How large the log is."""
        return self._log.measure()

    def find(self, path: Path, version: int | None = None) -> Found:
        """What stands at `path`.

        :param version: of the root; None for the newest, negative to count back
        :raises NotFound: where nothing does, or that version is not there
        """
        return self._published.find(path, version)

    def candidate(
        self, operations: Sequence[Operation], tega_id: str = ""
    ) -> list[tuple[str, int, MaybeContent]]:
        """The roots that these operations touch, as they would be: name, version, content.

        :raises TegaError: where an operation could not be applied
        """
        return staging.candidate(self._published, operations, tega_id, self._live)

    def commits_after(self, root: str, version: int) -> Iterator[Logged]:
        """The commits that made later versions of a root, oldest first, as far as they are kept."""
        return (logged for logged in self.history({root: version}) if logged is not None)

    def history(self, versions: Mapping[str, int]) -> Iterator[Logged | None]:
        """As `commits_after`, for several roots: those after the version given of each.

        None in between is a good place to pause.
        """
        newest = self._published.seq
        for logged in self._log.commits_after(versions):
            if logged is not None and logged.seq > newest:
                return
            yield logged

    # -- writing ------------------------------------------------------------------------------

    def submit(self, request: Request, prepared: Prepared | None = None) -> Pending:
        """Judge a request. `flush` makes the outcome durable and settles it.

        A refusal too is settled only when the state that it was judged by is durable.

        :param prepared: what `prepare` has made of it; it is made anew if something came between
        """
        with self._stage_lock:
            return self._submit(request, prepared)

    def prepare(self, request: Own) -> Prepared | None:
        """What `submit` would make of a request, without doing it: another thread may do this.

        None where it would be refused.
        """
        staged = self._staged
        try:
            return Prepared(staged, *self._stage(staged, request))
        except TegaError:
            return None

    def join(self, tega_id: str, through: str = "") -> None:
        """Let a tega id have ephemeral nodes from now on: it has a live session.

        :param through: the peer where it has; by default, here
        """
        with self._stage_lock:
            self._live.setdefault(tega_id, set()).add(through)

    def leave(self, tega_id: str, through: str = "") -> Pending:
        """The session of a tega id has ended: where it was the last, submit that its nodes go."""
        with self._stage_lock:
            return self._submit(self._part(tega_id, through))

    def part(self, tega_id: str, through: str = "") -> Own:
        """As `leave`, but gives what is to be submitted: before anything that comes later."""
        with self._stage_lock:
            return self._part(tega_id, through)

    def _part(self, tega_id: str, through: str) -> Own:
        holders = self._live.get(tega_id, set())
        holders.discard(through)
        if holders:
            return Transaction((), tega_id)
        self._live.pop(tega_id, None)
        return Lapse(tega_id)

    def is_live(self, tega_id: str, through: str = "") -> bool:
        """Whether a tega id has a live session: here, or at the peer `through`."""
        with self._stage_lock:
            return through in self._live.get(tega_id, ())

    def live_ids(self) -> list[str]:
        """The tega ids that may have ephemeral nodes, in order."""
        with self._stage_lock:
            return sorted(self._live)

    def _submit(self, request: Request, prepared: Prepared | None = None) -> Pending:
        pending = self._judge(request, prepared)
        if pending.commit is None and self._staged is self._published:
            pending.settled = True
        else:
            pending.begun = time.monotonic()
            self._batch.append(pending)
        return pending

    def _judge(self, request: Request, prepared: Prepared | None) -> Pending:
        staged = self._staged
        refusal = self.refusal
        if refusal is not None:
            return Pending(staged, None, refusal)
        if not isinstance(request, Own):
            return self._judge_peer(staged, request)
        if request.txid is not None:
            known = staged.ids.results.get(request.txid)
            if known is not None:
                return Pending(staged, known, None)
        if isinstance(request, Transaction):
            nothing = not request.operations
        else:
            nothing = isinstance(request, Lapse) and request.tega_id not in staged.ephemerals
        if nothing:
            return Pending(staged, Result(staged.seq, immutables.Map()), None)
        try:
            if prepared is not None and prepared.before is staged:
                _, self._staged, commit = prepared
            else:
                self._staged, commit = self._stage(staged, request)
        except TegaError as error:
            return Pending(staged, None, error)
        return Pending(staged, None, None, commit)

    def _stage(self, staged: State, request: Own) -> tuple[State, Commit]:
        return staging.stage(staged, request, self._clock(), self.maxlen, self._live)

    def _judge_peer(self, staged: State, request: Peers) -> Pending:
        """What another server sends, or what is decided about following it."""
        try:
            self._staged, commit = following.stage(staged, request, self._clock(), self.maxlen)
        except TegaError as error:
            return Pending(staged, None, error)
        if commit is None:
            return Pending(staged, Result(staged.seq, immutables.Map()), None)
        return Pending(staged, None, None, commit)

    def flush(self) -> None:
        """Write, sync and publish all that was submitted, and settle it."""
        with self._flush_lock:
            self._flush()
        self.hub.deliver()
        if self._log.wants_snapshot:
            self._snapshot_soon()

    def _flush(self) -> None:
        with self._stage_lock:
            batch, self._batch = self._batch, []
            state = self._staged
        if not batch:
            return
        made = [pending.commit for pending in batch if pending.commit is not None]
        try:
            if made:
                self._log.append(made)
        except BaseException as error:
            # A bug or an interrupt too must not leave anybody waiting, nor what is staged above
            # what is on disk.
            if not isinstance(error, OSError):
                log.exception("writing the commit log was cut short")
            self._give_up(error, batch)
            if not isinstance(error, Exception):
                raise
            return
        # Only the attribute moves; whoever holds the state before keeps a whole one.
        self._published = state
        self.hub.publish(made)
        self.meters.commits += len(made)
        now = time.monotonic()
        self.meters.commit_seconds.observe_all(
            [now - pending.begun for pending in batch if pending.commit is not None]
        )
        for pending in batch:
            pending.settled = True

    def _give_up(self, error: BaseException, batch: list[Pending]) -> None:
        """Drop what was staged, tell everybody who waits, and turn read-only where it must be."""
        refusal, full = _read_only(error), isinstance(error, NoRoom)
        if not full:
            log.error(
                "the commit log cannot be written: %s. The database is read-only now",
                error, extra={"seq": self._published.seq},
            )
        with self._stage_lock:
            if not full:
                self._refusal = refusal
            self._staged = self._published
            unwritten, self._batch = self._batch, []
        unsure = OutcomeUnknown(
            f"writing the commit log failed ({error}): the change may be there after a restart; "
            "send it again then, with the same transaction id"
        )
        for pending in batch:
            pending.fail(refusal if full or pending.commit is None else unsure)
        for pending in unwritten:
            pending.fail(refusal)

    def commit(self, request: Request) -> Result:
        """Submit a request and wait until its outcome is durable.

        :returns: sequence number, and the version made of each root touched
        :raises TegaError: where it was refused, or the disk failed
        """
        pending = self.submit(request)
        if not pending.settled:
            self.flush()
        return pending.result()

    # -- keeping ------------------------------------------------------------------------------

    def snapshot(self, gently: bool = False) -> None:
        """Write a snapshot; commits go on meanwhile.

        :param gently: rest as long as it works, in short turns, so that an event loop in the same
            process goes on
        :raises Unavailable: where that failed; what was committed is as safe as before
        """
        with self._snapshot_lock:
            with self._flush_lock:
                self._flush()
                if self.refusal is not None:
                    raise self.refusal
                snapshot = self._log.snapshot(self._published)
            self.hub.deliver()
            try:
                started = time.monotonic()
                for _ in snapshot.steps():
                    if gently and time.monotonic() - started > _STINT:
                        if self._closing:
                            snapshot.discard()
                            return
                        time.sleep(_STINT)
                        started = time.monotonic()
                with self._flush_lock:
                    self._flush()
                    snapshot.install()
                self.meters.snapshots["done"] += 1
                self.hub.deliver()
            except OSError as error:
                snapshot.discard()
                self.meters.snapshots["failed"] += 1
                if self._log.failure is not None:
                    with self._flush_lock:
                        self._give_up(self._log.failure, [])
                raise Unavailable(f"the snapshot failed: {error}") from error

    def _snapshot_soon(self) -> None:
        """Start a snapshot in the background, unless one is under way."""
        with self._stage_lock:
            if self._snapshot_thread is not None or self._closing or self._refusal is not None:
                return
            self._snapshot_thread = threading.Thread(
                target=self._snapshot_in_background, name="tega-snapshot", daemon=True
            )
            self._snapshot_thread.start()

    def _snapshot_in_background(self) -> None:
        try:
            self.snapshot(gently=True)
        except Unavailable as error:
            log.error("the log has grown past its size: %s", error)
        with self._stage_lock:
            self._snapshot_thread = None

    def clear(self) -> None:
        """Forget everything, and begin a new life.

        :raises Unavailable: where the disk failed
        """
        with self._snapshot_lock, self._flush_lock:
            self._flush()
            with self._stage_lock:
                self._raise_if_closed()
                if self._refusal is not None:
                    raise self._refusal
                # What was submitted since the flush is judged by a state that goes now.
                overtaken, self._batch = self._batch, []
                # Who leads which root is no content: that is remembered.
                leads = self._staged.following.items()
                followed = immutables.Map({name: Lead(lead.leader) for name, lead in leads})
                state = State(self._new_life(), following=followed)
                failure: OSError | None = None
                tell: Callable[[], None] | None = None
                try:
                    self._log.clear(state)
                except OSError as error:
                    failure = error
                else:
                    self._staged = self._published = state
                    tell = self.hub.reset()
            if failure is not None:
                self._give_up(failure, [])
            gone = self._refusal or Unavailable("the database was cleared meanwhile: send it again")
            for pending in overtaken:
                pending.fail(gone)
        if tell is not None:
            tell()
            return
        raise Unavailable(f"clearing failed: {failure}") from failure

    def check(self) -> None:
        """Walk everything and compare it with what must hold.

        :raises AssertionError: naming what does not
        """
        check(self._published)

    def _raise_if_closed(self) -> None:
        if self._closing:
            raise Closed("the database is closed")

    def close(self) -> None:
        """Make durable what was submitted, and let go of the log. Reads go on."""
        with self._stage_lock:
            if self._closing:
                return
            self._closing = True
            thread = self._snapshot_thread
        if thread is not None:
            thread.join()
        with self._flush_lock:
            self._flush()
            with self._stage_lock:
                if self._refusal is None:
                    self._refusal = Closed("the database is closed")
            self._log.close()
        self.hub.deliver()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
