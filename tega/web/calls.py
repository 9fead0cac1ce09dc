"""Where a call goes: to a function of this process, to the session that offers it, or nowhere."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from tega import rpc, strictjson
from tega.database import Database
from tega.errors import (
    BY_CODE,
    CallFailed,
    CallTimeout,
    Internal,
    Malformed,
    NoSuchFunction,
    OverLimit,
    OwnerGone,
    Refused,
    TegaError,
)
from tega.leaf import Func, plain
from tega.paths import Path, dotted, parse, wire
from tega.rpc import Arguments, Functions
from tega.web.later import Later
from tega.web.sessions import Sessions

log = logging.getLogger(__name__)

#: Calls a function of another server; None where nobody there may have it.
Elsewhere: TypeAlias = Callable[[Path, bytes, str, float, Any], Later | None]

#: Ordinary functions of this process that may run at the same time, each in a thread of its own.
_THREADS: Final = 32


class Calls:
    """Calls functions by path.

    :param functions: those that this process runs
    :param timeout: a call that takes longer is given up, seconds
    """

    def __init__(
        self, database: Database, functions: Functions, sessions: Sessions, timeout: float
    ) -> None:
        self._database = database
        self._functions = functions
        self._sessions = sessions
        self._timeout = timeout
        self._meters = database.meters
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tega-call")
        self._running: set[asyncio.Future[Any]] = set()
        #: Calls a function of another server: path, body, caller, seconds, where it came from.
        self.elsewhere: Elsewhere = lambda *asked: None

    def submit(
        self,
        path: Path,
        body: bytes,
        caller: str,
        seconds: float | None = None,
        came: Any = None,
    ) -> Later:
        """Call the function at a path, here or on another server.

        :param body: its arguments, as `rpc.read_arguments` takes them
        :param caller: who asks
        :param seconds: how long that may take; by default as the settings say
        :param came: the peer that the call came from
        :returns: the result as JSON
        :raises TegaError: where that is known at once
        """
        if seconds is None:
            seconds = self._timeout
        begun = self._loop.time()
        try:
            answer = self._called(path, body, caller, seconds, came)
        except TegaError as error:
            self._meters.calls[error.code] += 1
            raise
        answer.then(lambda answer: self._count(answer, begun))
        return answer

    def _count(self, answer: Later, begun: float) -> None:
        error = answer.error
        self._meters.calls["done" if error is None else outcome_of(error)] += 1
        self._meters.call_seconds.observe(self._loop.time() - begun)

    def _called(self, path: Path, body: bytes, caller: str, seconds: float, came: Any) -> Later:
        given = rpc.read_arguments(body)
        try:
            return self._here(path, given, body, caller, seconds)
        except (NoSuchFunction, OwnerGone):
            answer = self.elsewhere(path, body, caller, seconds, came)
            if answer is None:
                raise
            return answer

    def _here(
        self, path: Path, given: Arguments, body: bytes, caller: str, seconds: float
    ) -> Later:
        leaf, function = rpc.function_at(self._database.state, path)
        if function.arguments:
            if given.given:
                raise Malformed(
                    f"the function at {dotted(path)} has its arguments bound: call it without any"
                )
            given = rpc.bound_arguments(function)
        func = self._functions.find(path, leaf)
        if func is not None:
            return self._run(func, given, dotted(path), seconds)
        session = self._sessions.get(function.owner)
        if session is None:
            raise rpc.owner_gone(path, function)
        if function.arguments or not body:
            body = strictjson.dumps({"args": given.args, "kwargs": given.kwargs})
        return session.call(wire(path), body, caller, seconds)

    async def call(
        self, path: str, args: list[Any], kwargs: dict[str, Any], caller: str
    ) -> Any:
        """Call a function for somebody in this process, on the event loop."""
        body = strictjson.dumps({"args": plain(args), "kwargs": plain(kwargs)})
        return strictjson.loads(await self.submit(parse(path), body, caller))

    def wait(self, path: str, args: list[Any], kwargs: dict[str, Any], caller: str) -> Any:
        """Call a function for somebody in this process, in another thread.

        :raises Refused: on the event loop
        """
        if threading.get_ident() == self._thread:
            raise Refused(
                "the event loop cannot wait for a function: await the plugin's rpc() instead"
            )
        call = self.call(path, args, kwargs, caller)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _run(self, func: Func, given: Arguments, what: str, seconds: float) -> Later:
        if len(self._running) >= _THREADS and not func.is_coroutine:
            raise OverLimit(
                f"{_THREADS} functions of this server are running, the limit", "functions"
            )
        args, kwargs = given.args or [], given.kwargs or {}
        if func.args or func.kwargs:
            args, kwargs = [], {}
        running: asyncio.Future[Any]
        if func.is_coroutine:
            running = self._loop.create_task(func(*args, **kwargs))
        else:
            running = self._loop.run_in_executor(self._threads, lambda: func(*args, **kwargs))
        self._running.add(running)
        answer = Later()
        overdue = self._loop.call_later(seconds, self._give_up, running, answer, what, seconds)

        def done(ran: asyncio.Future[Any]) -> None:
            overdue.cancel()
            self._running.discard(ran)
            if not answer.done:
                _settle(ran, answer, what)

        running.add_done_callback(done)
        return answer

    def _give_up(
        self, running: asyncio.Future[Any], answer: Later, what: str, seconds: float
    ) -> None:
        answer.resolve(
            error=CallTimeout(
                f"the function at {what} did not answer within {seconds:g} s: it may still "
                "be at it"
            )
        )
        if isinstance(running, asyncio.Task):
            running.cancel()

    def close(self) -> None:
        """Wait for nothing more."""
        for running in self._running:
            running.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


def outcome_of(error: Exception) -> str:
    """The code of an error."""
    return error.code if isinstance(error, TegaError) else Internal.code


def _settle(ran: asyncio.Future[Any], answer: Later, what: str) -> None:
    try:
        answer.resolve(rpc.result_text(ran.result(), what))
    except TegaError as error:
        answer.resolve(error=error)
    except (Exception, asyncio.CancelledError) as error:
        if not isinstance(error, asyncio.CancelledError):
            log.warning("the function at %s raised", what, exc_info=error)
        answer.resolve(error=rpc.raised(error, f"the function at {what}"))


def failed(owner: str, why: str) -> CallFailed:
    """What the caller is told where the owner's answer is none."""
    return CallFailed(f"{owner} failed: {why}", owner=owner)


def error_of(owner: str, body: Any) -> TegaError:
    """The error that an owner answered with, as the caller gets it.

    :param body: ``{"code", "message", ...}``
    """
    if type(body) is not dict or type(body.get("message")) is not str:
        return failed(owner, f"its error is {strictjson.dumps(body)[:200].decode()}")
    kind = BY_CODE.get(str(body.get("code")), CallFailed)
    if not issubclass(kind, CallFailed | CallTimeout):
        kind = CallFailed
    error = kind(body["message"])
    # Not as keyword arguments: its owner may call them whatever it likes.
    error.details.update({k: v for k, v in body.items() if k not in ("code", "message")})
    error.details["owner"] = owner
    return error
