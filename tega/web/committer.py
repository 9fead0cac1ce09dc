"""Commits from an event loop: many requests, one sync, and never a wait for a slow disk."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias, TypeGuard

from tega.database import Database
from tega.errors import ReadOnly, TegaError
from tega.pending import Pending, Prepared
from tega.store.commit import Lapse, Own, Request, Rollback, Transaction
from tega.store.history import Result, State
from tega.web.bugs import internal
from tega.web.later import Later

log = logging.getLogger(__name__)

#: What found no room on the disk, and must be done, is tried again after so long, seconds.
_AGAIN: Final = 1.0

#: A quick flush, for which the loop waits, comes once a turn of the loop brings nothing more to it,
#: but after no more turns than this.
_MOST_TURNS: Final = 3

#: So many operations are judged by a thread: for more the event loop would wait 10 ms and longer.
_LONG: Final = 2_000

#: What is for the server that leads the roots in it. A tuple: a union would be made at each test.
_FOR_A_LEADER: Final = (Transaction, Rollback)

#: Is called with a request that is settled.
Settled: TypeAlias = Callable[[Pending], None]

#: Gives the result that is to come from another server; None for what is to be done here.
Elsewhere: TypeAlias = Callable[[Transaction | Rollback], Later | None]


class Committer:
    """Gathers the requests of one turn of the loop into a batch.

    Where syncs are quick the loop flushes itself, for a hop to a thread and back would take longer
    than the sync. Where they are not, a thread flushes, and the loop goes on staging the next
    batch. What takes long to judge is judged by a thread too; what comes meanwhile waits for it, so
    that all is done in the order in which it came.

    :param settled: is called each time that some requests are settled and their callers told
    """

    def __init__(self, database: Database, settled: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Pending, Settled]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._scheduled = False
        self._flushing = False
        # How much there was when it was looked last, and how often a flush was put off since.
        self._seen = 0
        self._put_off = 0
        # How many were flushed last: where that was one, there is hardly a second.
        self._flushed_last = 1
        # What came while something long is being judged.
        self._held: deque[tuple[Request, Settled]] | None = None
        # Whether what waits is so much that to write it takes long.
        self._much = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tega-flush")
        self._judge = ThreadPoolExecutor(1, thread_name_prefix="tega-judge")
        #: Has a request committed by another server, where that leads what it changes.
        self.elsewhere: Elsewhere = lambda request: None
        #: Is told of each tega id whose session here has ended.
        self.left: Callable[[str], None] = lambda tega_id: None

    def enter(self, request: Request, settled: Settled) -> None:
        """Judge a request, or have it judged, and call back once what was decided is durable."""
        if isinstance(request, _FOR_A_LEADER):
            before = self._database.state
            try:
                answer = self.elsewhere(request)
            except TegaError as error:
                settled(Pending.outcome(before, None, error))
                return
            if answer is not None:
                answer.then(lambda answer: settled(_outcome(before, answer)))
                return
        self.enter_here(request, settled)

    def enter_here(self, request: Request, settled: Settled) -> None:
        """Judge a request, on this server whoever leads, and call back once it is durable."""
        if self._held is not None:
            self._held.append((request, settled))
        elif self._is_long(request):
            self._prepare(request, settled)
        else:
            self._await(self._database.submit(request), settled)

    def _is_long(self, request: Request) -> TypeGuard[Own]:
        if isinstance(request, Transaction):
            return len(request.operations) > _LONG
        if isinstance(request, Lapse):
            return len(self._database.staged.ephemerals.get(request.tega_id, ())) > _LONG
        # How much a rollback changes shows only when that is done.
        return isinstance(request, Rollback)

    def _prepare(self, request: Own, settled: Settled) -> None:
        """Have a thread judge what takes long."""
        held = self._held = deque[tuple[Request, Settled]]()

        def done(prepared: asyncio.Future[Prepared | None]) -> None:
            self._held = None
            try:
                pending = self._database.submit(request, prepared.result())
            except Exception as error:
                # Here is nobody else who would tell the client.
                told = internal(error, f"judging a {type(request).__name__}")
                pending = Pending.outcome(self._database.state, None, told)
            self._await(pending, settled)
            while held and self._held is None:
                self.enter_here(*held.popleft())
            if self._held is not None:
                # Another long one was among them.
                self._held.extend(held)
            self._rest()

        preparing = self._loop.run_in_executor(self._judge, self._database.prepare, request)
        preparing.add_done_callback(done)

    def submit(self, request: Request) -> Later:
        """Judge a request now; its `Result` is there, or its refusal, once that is durable."""
        answer = Later()
        self.enter(request, lambda pending: resolve(pending, answer))
        return answer

    def leave(self, tega_id: str, through: str = "") -> None:
        """A tega id has no session any more, here or at a peer: its ephemeral nodes go."""

        self._lapse(tega_id, through)
        if not through:
            self.left(tega_id)

    def _lapse(self, tega_id: str, through: str) -> None:
        def settled(pending: Pending) -> None:
            try:
                pending.check()
            except TegaError as error:
                if isinstance(error, ReadOnly) and self._database.refusal is None:
                    # The disk is full. There may be room again, or a session of that id.
                    self._loop.call_later(_AGAIN, self._lapse, tega_id, through)
                else:
                    log.warning(
                        "the ephemeral nodes of %s stay until a restart: %s", tega_id, error
                    )

        self.enter_here(self._database.part(tega_id, through), settled)

    def _await(self, pending: Pending, settled: Settled) -> None:
        if pending.settled:
            settled(pending)
            return
        self._waiting.append((pending, settled))
        if pending.commit is not None and len(pending.commit.changes) > _LONG:
            self._much = True
        if not self._scheduled and not self._flushing:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        waiting, quick = len(self._waiting), self._database.quick and not self._much
        alone = waiting == 1 and self._flushed_last == 1
        if quick and not alone and waiting > self._seen and self._put_off < _MOST_TURNS:
            # More may have come in this turn, and be read yet: one sync does for all of it.
            self._seen = waiting
            self._put_off += 1
            self._loop.call_soon(self._flush)
            return
        self._scheduled = self._much = False
        self._seen = self._put_off = 0
        self._flushed_last = waiting
        if quick:
            self._database.flush()
            self._settle()
            return
        self._flushing = True
        flushed = self._loop.run_in_executor(self._thread, self._database.flush)
        flushed.add_done_callback(self._flushed)

    def _flushed(self, flushed: asyncio.Future[None]) -> None:
        self._flushing = False
        flushed.result()
        self._settle()

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        for pending, settled in waiting:
            if pending.settled:
                settled(pending)
            else:
                self._waiting.append((pending, settled))
        self._settled()
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        self._rest()

    def _rest(self) -> None:
        """Tell those who wait until nothing is left to do, if that is so."""
        if not self._waiting and self._held is None:
            idle, self._idle = self._idle, []
            for turn in idle:
                if not turn.done():
                    turn.set_result(None)

    async def idle(self) -> None:
        """Wait until all that was entered is settled."""
        while self._waiting or self._held is not None:
            turn = self._loop.create_future()
            self._idle.append(turn)
            await turn

    def close(self) -> None:
        """Wait for what is under way."""
        self._judge.shutdown()
        self._thread.shutdown()


def _outcome(before: State, answer: Later) -> Pending:
    try:
        result = answer.result()
        assert isinstance(result, Result)
        return Pending.outcome(before, result, None)
    except TegaError as error:
        return Pending.outcome(before, None, error)


def resolve(pending: Pending, answer: Later) -> None:
    """Tell an answer what came of a request."""
    try:
        result = pending.result()
    except TegaError as error:
        answer.resolve(error=error)
    else:
        answer.resolve(result)
