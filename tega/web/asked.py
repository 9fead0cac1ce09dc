"""What a client was asked, and has still to answer: calls of the functions that it offers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tega import strictjson
from tega.errors import CallTimeout, Malformed, OwnerGone
from tega.protocol import Request, Response
from tega.web import calls
from tega.web.later import Later


class Asked:
    """Open calls by number.

    :param send: sends a request to the client
    :param give_up: lets an answer to a number be one to nothing
    """

    def __init__(self, send: Callable[[Request], None], give_up: Callable[[int], None]) -> None:
        self._send = send
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, tuple[Later, float]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, path: str, body: bytes, caller: str, timeout: float) -> Later:
        """Ask the client to run a function.

        :returns: the result as JSON, or the error that the caller gets
        """
        self._last += 1
        answer = Later()
        self._open[self._last] = answer, self._loop.time() + timeout
        self._send(Request(self._last, "RPC", caller, path, body))
        return answer

    def answered(self, owner: str, message: Response) -> None:
        """The client answers.

        :raises Malformed: with what is no answer
        """
        answer, _ = self._open.pop(message.seq_no)
        try:
            value = strictjson.loads(message.body)
        except Malformed as error:
            answer.resolve(error=calls.failed(owner, f"its answer is {error}"))
            raise
        if message.error:
            answer.resolve(error=calls.error_of(owner, value))
        else:
            answer.resolve(message.body)

    def look(self, owner: str, now: float) -> None:
        """Give up what takes too long."""
        overdue = [number for number, (_, until) in self._open.items() if now > until]
        for number in overdue:
            answer, _ = self._open.pop(number)
            self._give_up(number)
            answer.resolve(
                error=CallTimeout(f"{owner} did not answer in time: it may still be at it")
            )

    def gone(self, owner: str) -> None:
        """The client has gone."""
        gone, self._open = self._open, {}
        for answer, _ in gone.values():
            answer.resolve(
                error=OwnerGone(
                    f"{owner} went away in the middle of the call: it may have been done",
                    owner=owner,
                )
            )
