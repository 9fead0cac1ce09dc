"""Simulations: many servers in one thread, on a clock that jumps, the same again for the same seed.

`Simulation(seed).run(scenario)` runs a coroutine on a `VirtualLoop` and fails on every error that
nobody has seen. `Simulation.trace` is what happened; `repeatable` finds out whether it does again.
What would make it differ from run to run:

- the order of a set, or of anything else that is ordered by ``hash`` (of text: another one in each
  interpreter, unless PYTHONHASHSEED is set) or by ``id`` (of objects): use dicts and lists
- clocks other than ``loop.time()``, ``uuid4``, ``secrets``, the functions of ``random``: use the
  `random.Random` that is passed in. ``Random(text)`` is repeatable, ``Random(hash(...))`` is not
- threads, sockets, subprocesses: the loop refuses those that are begun through it
- the names that asyncio gives to tasks: the loop gives its own
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import heapq
import math
import os
import random
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

#: Most callbacks of a simulation, unless it says otherwise.
LIMIT: Final = 2_000_000

Scenario = Callable[["Simulation"], Coroutine[Any, Any, T]]


class Deadlock(AssertionError):
    """Tasks wait, and nothing is left that could wake them."""


class Runaway(AssertionError):
    """There are more callbacks than there should ever be."""


class NotDeterministic(RuntimeError):
    """Something was asked for whose outcome or time no seed decides."""


class Unhandled(AssertionError):
    """Errors that nobody has seen."""


# -- processes ------------------------------------------------------------------------------------

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """What ends together in a crash: all that is begun in it, and all that this begins.

    :ivar context: callbacks that run in it belong to the process
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self._loop = loop
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the process."""
        return self.context.run(function, *args)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in the process. After a crash its task is never done."""
        return self.context.run(self._loop.create_task, coroutine)

    def kill(self) -> None:
        """Crash: none of its tasks, timers and callbacks runs again, not even what is `finally`.

        What runs at this moment goes on until it waits. When the simulation is over, what is
        `finally` does run, and what goes wrong then is no error.
        """
        self.alive = False
        self._loop.bury()


def _is_dead(context: contextvars.Context) -> bool:
    process = context.get(_process)
    return process is not None and not process.alive


# -- the loop -------------------------------------------------------------------------------------


class _Timer(asyncio.TimerHandle):
    """A timer that comes after those that were set for the same time before it."""

    __slots__ = ("number",)
    number: int

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, _Timer)
        return (self._when, self.number) < (other._when, other.number)


class _NoIO:
    """In place of a selector: instead of waiting, the clock jumps."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.turn(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without I/O, whose time jumps to the next timer when nothing is ready.

    :param limit: most callbacks
    :ivar unhandled: what was reported to the exception handler, as text
    """

    # What is used of the base class, the same from Python 3.10 to 3.13.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _thread_id: int | None
    _check_closed: Callable[[], None]

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _NoIO(self)
        self._limit = limit
        self._callbacks = 0
        self._timers = 0
        self._begun: list[tuple[weakref.ref[asyncio.Task[Any]], contextvars.Context]] = []
        # Whether any process was killed. What the dead still hold is kept: to let go of it could
        # run their code.
        self._killed = False
        self._graves: list[Any] = []
        self.unhandled: list[str] = []
        self.set_exception_handler(self._report)

    def time(self) -> float:
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        self._check_closed()
        self._callbacks += 1
        self._timers += 1
        timer = _Timer(when, callback, args, self, context)
        timer.number = self._timers
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def call_soon_threadsafe(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if self._thread_id not in (None, threading.get_ident()):
            raise NotDeterministic("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        if options.get("name") is None:
            options["name"] = f"task-{len(self._begun) + 1}"
        context = options.get("context") or contextvars.copy_context()
        task = super().create_task(coro, **options)
        self._begun.append((weakref.ref(task), context))
        return task

    def tasks(self) -> list[asyncio.Task[Any]]:
        """All tasks that still exist and are not dead, in the order in which they began."""
        return [
            task
            for begun, context in self._begun
            if (task := begun()) is not None and not _is_dead(context)
        ]

    def pending_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done."""
        return [task for task in self.tasks() if not task.done()]

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """The timers that are still to come, in order."""
        return sorted(timer for timer in self._scheduled if not timer.cancelled())

    def turn(self, timeout: float | None) -> None:
        """Before each turn: count, and let time pass if nothing is ready.

        :param timeout: seconds to the next timer; None: there is nothing to wait for
        """
        if timeout is None:
            raise Deadlock("nothing is left to wait for" + _listed(self.pending_tasks()))
        self._callbacks += len(self._ready)
        if self._callbacks > self._limit:
            raise Runaway(
                f"more than {self._limit} callbacks, now at {self._now:.3f} s"
                + _listed(self.pending_tasks())
            )
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0]._when)
            # Just so much that the timers of this moment are due, and no other.
            self._clock_resolution = math.ulp(self._now)
        if self._killed:
            self._bury(self._ready)

    def forgive(self) -> None:
        """Begin to count callbacks anew."""
        self._callbacks = 0

    def bury(self) -> None:
        """Drop all that belongs to processes that are dead."""
        for begun, context in self._begun:
            task = begun()
            if task is not None and _is_dead(context):
                self._graves.append(task)
        self._killed = True
        self._bury(self._ready)
        self._bury(self._scheduled)

    def _bury(self, handles: Iterable[Any]) -> None:
        for handle in handles:
            if not handle._cancelled and _is_dead(handle._context):
                self._graves.append((handle._callback, handle._args))
                handle.cancel()

    def empty_graves(self) -> None:
        """Let go of the dead. What goes wrong in their code then is no error."""
        for grave in self._graves:
            if isinstance(grave, asyncio.Task) and grave is not asyncio.current_task(self):
                with suppress(BaseException):
                    grave.get_coro().close()  # type: ignore[union-attr]
        self._graves.clear()

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        text = str(context["message"])
        for what in ("handle", "task", "future", "asyncgen"):
            if what in context:
                text += f"\n{what}: {context[what]!r}"
        self.unhandled.append(text + _shown(context.get("exception")))

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotDeterministic(f"{name}: a simulation has no threads, files, sockets or processes")

    return refuse


for _name in (
    "add_reader", "add_signal_handler", "add_writer", "connect_accepted_socket",
    "connect_read_pipe", "connect_write_pipe", "create_connection", "create_datagram_endpoint",
    "create_server", "create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo",
    "run_in_executor", "sendfile", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into",
    "sock_recvfrom", "sock_sendall", "sock_sendfile", "sock_sendto", "start_tls",
    "subprocess_exec", "subprocess_shell",
):  # fmt: skip
    setattr(VirtualLoop, _name, _refusing(_name))


def _listed(tasks: Sequence[asyncio.Task[Any]]) -> str:
    return "".join(f"\n  {task.get_name()}: {_where(task)}" for task in tasks)


def _where(task: asyncio.Task[Any]) -> str:
    """Where a task waits: its own coroutine, and the innermost one."""
    coroutine: Any = task.get_coro()
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    while getattr(getattr(coroutine, "cr_await", None), "cr_frame", None) is not None:
        coroutine = coroutine.cr_await
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None:
        return str(name)
    code = frame.f_code
    return f"{name}, in {code.co_name} ({os.path.basename(code.co_filename)}:{frame.f_lineno})"


def _shown(error: BaseException | None) -> str:
    if error is None:
        return ""
    return "\n" + "".join(traceback.format_exception(type(error), error, error.__traceback__))


# -- simulations ----------------------------------------------------------------------------------


class Trace:
    """What happened, in order: a line each, with the time."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(f"{self._time():.6f} {line}")

    @property
    def digest(self) -> str:
        """Stands for all the lines."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


class Simulation:
    """One run of a scenario.

    :param limit: most callbacks
    :ivar random: whatever is random comes from here
    """

    def __init__(self, seed: int = 0, limit: int = LIMIT) -> None:
        self.seed = seed
        self.loop = VirtualLoop(limit)
        self.random = random.Random(seed)
        self.trace = Trace(self.loop.time)

    def run(self, scenario: Scenario[T]) -> T:
        """Run a scenario, once. What it leaves running is cancelled.

        :raises Deadlock: where everything waits and nothing comes
        :raises Runaway: where there is no end to it
        :raises Unhandled: where a task died, or a callback, and nobody saw why
        """
        with _garbage_at_the_end():
            try:
                return self.loop.run_until_complete(scenario(self))
            except BaseException:
                print(f"seed {self.seed}, at last:", *self.trace.lines[-50:], sep="\n")
                raise
            finally:
                self._end()

    def _end(self) -> None:
        loop = self.loop
        try:
            loop.forgive()
            while left := loop.pending_tasks():
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
                for task in left:
                    if not task.cancelled() and (error := task.exception()) is not None:
                        loop.unhandled.append(f"{task.get_name()}, cancelled{_shown(error)}")
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            for task in loop.tasks():
                if task.done() and task._log_traceback:  # type: ignore[attr-defined]
                    loop.unhandled.append(f"{task.get_name()}{_shown(task.exception())}")
            gc.collect()
            unhandled = "\n".join(loop.unhandled)
            loop.empty_graves()
            loop.close()
        if unhandled:
            raise Unhandled(f"seed {self.seed}:\n{unhandled}")


@contextmanager
def _garbage_at_the_end() -> Iterator[None]:
    """No collection of garbage, which comes sooner or later as it likes, but a quick one for us."""
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def run(scenario: Scenario[T], seed: int = 0, limit: int = LIMIT) -> T:
    """What comes of a scenario. See `Simulation.run` for the errors."""
    return Simulation(seed, limit).run(scenario)


def trace_of(scenario: Scenario[Any], seed: int) -> list[str]:
    """What happens in a scenario."""
    simulation = Simulation(seed)
    simulation.run(scenario)
    return simulation.trace.lines
