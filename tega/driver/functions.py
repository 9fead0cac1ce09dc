"""Functions that a session serves: calls come in, results go out."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tega import rpc, strictjson
from tega.driver import operations, values
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException, DriverError
from tega.errors import CallFailed, Malformed, NoSuchFunction, NotFound, TegaError
from tega.paths import Path, parse
from tega.tree import Func

log = logging.getLogger(__name__)

#: Threads for ordinary functions: so many can be under way at a time, the others wait.
_THREADS: Final = 32

#: Takes whether it is an error, and the JSON text of the answer.
Reply = Callable[[bool, bytes], None]


class Functions:
    """The functions by path.

    A coroutine function runs on the event loop, any other in a thread.

    :param tega_id: their owner
    :param transact: carries operations out
    """

    def __init__(
        self, tega_id: str, transact: Callable[[list[Operation]], Awaitable[object]]
    ) -> None:
        self._tega_id = tega_id
        self._transact = transact
        self._served: dict[Path, Func] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, path: str, func: Callable[..., Any]) -> None:
        """Offer a function at a path.

        :raises CRUDException: where it cannot stand there
        """
        try:
            made = func if isinstance(func, Func) else Func(self._tega_id, func)
            if made.owner_id != self._tega_id:
                raise Malformed(f"{made} is not a function of {self._tega_id}")
        except Malformed as error:
            raise values.malformed(error) from None
        operation = operations.put(made, None, True, path)
        keys = parse(path)
        before = self._served.get(keys)
        # Calls may come before the answer.
        self._served[keys] = made
        try:
            await self._transact([operation])
        except DriverError:
            if before is None:
                del self._served[keys]
            else:
                self._served[keys] = before
            raise

    async def unserve(self, path: str) -> None:
        """Offer it no more.

        :raises CRUDException: 404 where there is none of this session
        """
        keys = values.parsed(path)
        if self._served.pop(keys, None) is None:
            error = NoSuchFunction(f"{self._tega_id} serves nothing at {path}")
            raise values.refusal(CRUDException, error.body()["error"])
        try:
            await self._transact([operations.delete(path, None)])
        except CRUDException as refusal:
            # It may have gone with a connection.
            if refusal.code != NotFound.code:
                raise

    def call(self, path: str, body: bytes, reply: Reply) -> None:
        """Somebody calls: reply when it is done.

        :param body: ``{"args", "kwargs"}``, either of them null or missing
        """
        task = asyncio.get_running_loop().create_task(self._call(path, body, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the calls that are under way; an ordinary function goes on until it returns."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _call(self, path: str, body: bytes, reply: Reply) -> None:
        what = f"the function at {path}"
        try:
            func, given = self._read(path, body)
        except (Malformed, NoSuchFunction) as error:
            reply(True, _refusal(error))
            return
        try:
            result = values.unwrapped(await self._run(func, given))
        except Exception as error:
            log.warning("%s raised", what, exc_info=error)
            reply(True, _refusal(rpc.raised(error, what)))
            return
        try:
            done = rpc.result_text(result, what)
        except CallFailed as error:
            reply(True, _refusal(error))
        else:
            reply(False, done)

    def _read(self, path: str, body: bytes) -> tuple[Func, rpc.Arguments]:
        func = self._served.get(parse(path))
        if func is None:
            raise NoSuchFunction(f"there is no function at {path} any more")
        given = rpc.read_arguments(body)
        bound = rpc.Arguments(func.args, func.kwargs)
        if not bound.given:
            return func, given
        # The server sends those that are bound.
        if given.given and (given.args or [], given.kwargs or {}) != (bound.args, bound.kwargs):
            raise Malformed(f"{func} has its arguments bound: call it without any")
        return func, bound

    async def _run(self, func: Func, given: rpc.Arguments) -> Any:
        call = functools.partial(func.func, *(given.args or ()), **(given.kwargs or {}))
        if func.is_coroutine:
            return await call()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "tega-function")
        loop = asyncio.get_running_loop()
        result, error = await loop.run_in_executor(self._threads, _outcome, call)
        if error is not None:
            raise error
        return await result if inspect.isawaitable(result) else result


def _outcome(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What a function returns, or raises."""
    try:
        return call(), None
    except StopIteration as error:
        return None, RuntimeError(f"StopIteration: {error}")
    except Exception as error:
        return None, error
    except BaseException as error:
        # A SystemExit of a function is not to end the process.
        return None, RuntimeError(f"{type(error).__name__}: {error}")


def _refusal(error: TegaError) -> bytes:
    return strictjson.dumps(error.body()["error"])
