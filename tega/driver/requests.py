"""Requests under way: what is sent again after a reconnect, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from tega.driver import values
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException
from tega.errors import TooLarge
from tega.protocol import Request

#: RFC 6455: the message is too big.
_TOO_BIG: Final = 1009


class Asked(msgspec.Struct, eq=False):
    """A request that has no answer yet.

    :ivar answer: the body of the answer, once it is there
    :ivar until: when to wait no longer, by the event loop's clock
    :ivar changes: it may change something
    :ivar once: it must not be sent twice
    :ivar fleeting: it is of no use on another connection
    :ivar operations: what it does to ephemeral nodes
    :ivar life: of the database that it was sent to first; None: it was not sent yet
    """

    message: Request
    answer: asyncio.Future[bytes]
    until: float
    changes: bool
    once: bool
    fleeting: bool
    operations: list[Operation]
    life: str | None = None

    @property
    def sent(self) -> bool:
        """Whether it may have reached the server."""
        return self.life is not None

    @property
    def doubt(self) -> str:
        """What is to be said where there is no answer."""
        return "; it may have been done" if self.sent and self.changes else ""

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)
            # It may be that nobody waits any more, or that the session itself has asked.
            self.answer.exception()


class Requests:
    """All requests under way, oldest first.

    :param where: the server, for messages
    :param timeout: seconds to wait for an answer; None: no limit
    """

    def __init__(self, where: str, timeout: float | None) -> None:
        self._where = where
        self._timeout = timeout
        self._all: dict[int, Asked] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Asked]:
        return iter(list(self._all.values()))

    def add(
        self,
        kind: str,
        tega_id: str,
        path: str,
        body: bytes,
        *,
        changes: bool = True,
        once: bool = False,
        fleeting: bool = False,
        operations: list[Operation] | None = None,
    ) -> Asked:
        """A new request."""
        loop = asyncio.get_running_loop()
        self._last += 1
        until = float("inf") if self._timeout is None else loop.time() + self._timeout
        asked = self._all[self._last] = Asked(
            Request(self._last, kind, tega_id, path, body),
            loop.create_future(), until, changes, once, fleeting, operations or [],
        )  # fmt: skip
        if self._timer is None and self._timeout is not None:
            self._timer = loop.call_at(until, self._expire)
        return asked

    def take(self, number: int) -> Asked | None:
        """The request of that number: it has its answer."""
        return self._all.pop(number, None)

    def _expire(self) -> None:
        """Give up what has waited too long. All wait for the same time, so the oldest come first.

        One timer does for all of them.
        """
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for asked in self:
            if asked.until > now:
                self._timer = loop.call_at(asked.until, self._expire)
                return
            self._drop(
                asked,
                TimeoutError(
                    f"no answer from {self._where} within {self._timeout:g} s{asked.doubt}"
                ),
            )

    def lost(self, code: int | None, told: int = 0) -> Asked | None:
        """The connection is lost: give up what cannot be sent again.

        :param code: what the server has closed it with
        :param told: bytes of the largest body that it was sent beside these requests
        :returns: the request that was too large for the server, if that was why
        """
        sent = [asked for asked in self if asked.sent]
        too_large = None
        if code == _TOO_BIG and max([len(asked.message.body) for asked in sent], default=0) > told:
            too_large = max(sent, key=lambda asked: len(asked.message.body))
            size = len(too_large.message.body)
            error = TooLarge(f"a request of {size} bytes is more than {self._where} takes")
            self._drop(too_large, values.refusal(CRUDException, error.body()["error"]))
        for asked in sent:
            if asked.fleeting or asked.once or asked.answer.done():
                self._drop(
                    asked,
                    ConnectionError(f"the connection to {self._where} was lost{asked.doubt}"),
                )
        return too_large

    def reborn(self, life: str) -> None:
        """That is the life of the database now: what was sent in another one may be done there."""
        for asked in self:
            if asked.changes and asked.life not in (None, life):
                self._drop(
                    asked,
                    ConnectionError(
                        f"the database at {self._where} was cleared meanwhile{asked.doubt}"
                    ),
                )

    def end(self, error: Callable[[str], BaseException]) -> None:
        """There will be no answers any more.

        :param error: makes what to raise, of a doubt to be added
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for asked in self:
            self._drop(asked, error(asked.doubt))

    def _drop(self, asked: Asked, error: BaseException) -> None:
        self._all.pop(asked.message.seq_no, None)
        asked.fail(error)
