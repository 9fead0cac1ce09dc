"""The session of a prompt: in a thread with an event loop of its own, what arrives is posted."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tega.cli import printing
from tega.cli.board import Board, Output
from tega.cli.yamltext import printable
from tega.driver import Driver, SessionException
from tega.subscriber import SCOPE, Subscriber

#: Seconds after which the main thread is called again, as long as it has not shown everything.
_AGAIN: Final = 0.05

#: Most blocks that wait to be shown; of the rest the driver keeps some, and the server the others.
_MOST: Final = 1000

#: Most seconds that the first prompt waits for the session.
_PATIENCE: Final = 2.0

#: Most seconds to wait for the thread to end, after the server has been taken leave of.
_LEAVE: Final = 3.0

_DRIVER: Final = "tega.driver"


class Live(Subscriber):
    """The subscriber of a prompt.

    :param board: where what arrives is posted
    :ivar failure: why there will be no session any more
    """

    def __init__(self, tega_id: str, board: Board) -> None:
        super().__init__(tega_id, SCOPE.GLOBAL)
        self.failure: Exception | None = None
        self._board = board
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up = False
        #: What waits has been shown, as far as there is room for more.
        self._room = asyncio.Event()
        #: There is something to tell: that the session is up, or why it is not.
        self._known = threading.Event()
        self._leaving = threading.Event()

    @contextmanager
    def session(self, driver: Driver) -> Iterator[None]:
        """Keep a session, within; it begins when that is known to be up, or to have a problem."""
        thread = threading.Thread(target=self._run, args=(driver,), name="session", daemon=True)
        reports = _Reports(self, driver)
        logger = logging.getLogger(_DRIVER)
        logger.addHandler(reports)
        thread.start()
        try:
            self._known.wait(_PATIENCE)
            yield
        finally:
            self._leaving.set()
            driver.close()
            thread.join(_LEAVE)
            logger.removeHandler(reports)
            self._board.show(Output())

    def _run(self, driver: Driver) -> None:
        # Signals are for the main thread: they interrupt it while it waits for a key.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            asyncio.run(self._listen(driver))
        except (SessionException, OSError) as error:
            self.failure = error
        # Nobody else calls the main thread any more.
        while len(self._board) and not self._leaving.wait(_AGAIN):
            self._board.call()

    async def _listen(self, driver: Driver) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await driver.subscriber_client()
        finally:
            self._loop = None

    # ---- what arrives ----------------------------------------------------------------------------

    def on_init(self) -> None:
        """The session is up."""
        self._up = True
        self._tell("--- session ready ---\n")
        self._known.set()

    async def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        """There are changes."""
        await self._show(printing.notice(notifications))

    async def on_message(self, channel: str, tega_id: str, message: Any) -> None:
        """There is a message."""
        await self._show(printing.message(channel, tega_id, message))

    def report(self, text: str, driver: Driver) -> None:
        """The driver has a problem; from any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # It has just ended.
                loop.call_soon_threadsafe(self._report, text, driver)

    def _report(self, text: str, driver: Driver) -> None:
        lost = self._up and not driver.session_ready(0)
        self._up = self._up and not lost
        self._tell(printable(f"--- {'session lost: ' * lost}{text} ---\n"))
        self._known.set()

    # ---- the board -------------------------------------------------------------------------------

    async def _show(self, text: str) -> None:
        """Post it, and wait while too much is still to be shown."""
        self._tell(text)
        if len(self._board) > _MOST:
            self._room.clear()
            await self._room.wait()

    def _tell(self, text: str) -> None:
        self._board.post(text)
        if self._timer is None:
            self._call()

    def _call(self) -> None:
        """Call the main thread until nothing waits."""
        self._timer = None
        if len(self._board) <= _MOST:
            self._room.set()
        if len(self._board) and self._loop is not None:
            self._board.call()
            self._timer = self._loop.call_later(_AGAIN, self._call)


class _Reports(logging.Handler):
    """Has what the driver warns of shown at the prompt: on standard error it would break a line."""

    def __init__(self, live: Live, driver: Driver) -> None:
        super().__init__(logging.WARNING)
        self._live = live
        self._driver = driver

    def emit(self, record: logging.LogRecord) -> None:
        """Show it, without a traceback."""
        self._live.report(record.getMessage(), self._driver)
