"""Local servers of one global server, many to a process, with memory for a disk."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from random import Random
from types import TracebackType
from typing import Any

from tegabench.httpwire import Address
from tegabench.process import BenchError, allow_files

#: The root that all follow.
ROOT = "fleet"

#: Processes that a fleet is spread over.
PROCESSES = 4

#: Seconds that a fleet may take for anything.
_PATIENCE = 120.0

#: Seconds between two looks of a fleet at itself.
_LOOK = 0.005


class Fleet:
    """Local servers, connected for the time of a ``with`` block.

    Each follows the root `ROOT`, and leads a root of its own with one leaf.

    :param address: of the global server
    :param first: number of the first local server
    """

    def __init__(self, address: Address, count: int, first: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        numbers = range(first, first + count)
        self._pipes = []
        self._processes = []
        for process in range(min(PROCESSES, count)):
            pipe, theirs = context.Pipe()
            arguments = (theirs, address, list(numbers[process::PROCESSES]))
            made = context.Process(target=_serve, args=arguments, daemon=True)
            made.start()
            theirs.close()
            self._pipes.append(pipe)
            self._processes.append(made)

    def __enter__(self) -> Fleet:
        try:
            self.converge()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def converge(self) -> float:
        """Wait until all are connected, and each side has what the other one leads.

        :returns: when the last one was, by ``time.perf_counter``
        """
        return max(max(times) for times in self._ask(-1))

    def applied(self, version: int) -> list[float]:
        """Wait until all have a version of the root that they follow.

        :returns: when each had it, by ``time.perf_counter``, earliest first
        """
        return sorted(when for times in self._ask(version) for when in times)

    def _ask(self, wanted: int) -> list[list[float]]:
        for pipe in self._pipes:
            pipe.send(wanted)
        return [_answer(pipe) for pipe in self._pipes]

    def _end(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _answer(pipe: Any) -> list[float]:
    if not pipe.poll(_PATIENCE):
        raise BenchError(f"the local servers did not get there within {_PATIENCE:.0f} s")
    try:
        answer = pipe.recv()
    except EOFError:
        raise BenchError("a process of local servers ended") from None
    assert isinstance(answer, list)
    return answer


def _serve(pipe: Connection, address: Address, numbers: Sequence[int]) -> None:
    """Run some of the local servers until the other end of the pipe is closed."""
    allow_files()
    with suppress(BrokenPipeError):
        asyncio.run(_attend(pipe, address, numbers))


async def _attend(pipe: Connection, address: Address, numbers: Sequence[int]) -> None:
    # Here, so that the harness can list what it has where tega cannot be imported.
    from tegabench.local import Local

    servers = [Local(address, number, ROOT, Random(number)) for number in numbers]
    while True:
        try:
            wanted: int = await asyncio.to_thread(pipe.recv)
        except EOFError:
            break
        if wanted < 0:
            await _until(lambda: all(server.converged for server in servers))
            pipe.send([time.perf_counter()])
        else:
            for server in servers:
                await _until(partial(server.has, wanted))
            pipe.send([server.when for server in servers])
    for server in servers:
        await server.stop()


async def _until(true: Callable[[], bool]) -> None:
    # What it looks at would have to call back for this only.
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)
