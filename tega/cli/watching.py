"""The sessions of one-shot commands: changes for ``watch``, a message for ``pub``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Coroutine, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from typing import Any, Final, TypeVar

from tega.cli.access import Access
from tega.cli.arguments import Options
from tega.cli.yamltext import printable
from tega.driver import Change
from tega.driver.async_driver import Watch as AsyncWatch
from tega.subscriber import SCOPE, Subscriber

T = TypeVar("T")

#: Most seconds to wait for the session to take leave of the server.
_LEAVE: Final = 3.0


def publish(access: Access, channel: str, message: Any) -> None:
    """Send a message.

    :raises DriverError: where it is refused
    :raises OSError: where there is no connection
    """

    async def send() -> None:
        async with access.async_driver() as driver:
            await driver.publish(channel, message)

    with _warnings():
        asyncio.run(send())


def changes(
    options: Options, access: Access, pause: float
) -> Generator[dict[str, Any] | None, None, None]:
    """Changes, for a program that may take its time over each.

    :param pause: seconds after which there is None where no change has come
    :raises DriverError: where the server refuses the watch, or ends the session
    :raises OSError: where there is no connection at the beginning
    """
    with _warnings(), _Watch(options, access) as watch:
        while True:
            change = watch.next(pause)
            if change is None:
                yield None
            else:
                data = change.as_data()
                yield {**data, "resync": True} if change.resync else data


class _Watch:
    """A watch for a thread that may block; another one keeps the session alive meanwhile."""

    def __init__(self, options: Options, access: Access) -> None:
        assert options.command is not None
        self._path = options.command.target
        self._since = options.since
        self._regex = options.regex
        self._driver = access.async_driver(_Returns(access.tega_id))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._changes: AsyncWatch | None = None
        self._next: Future[Change] | None = None

    def __enter__(self) -> _Watch:
        self._thread.start()
        try:
            self._changes = self._start(self._begin()).result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def next(self, timeout: float) -> Change | None:
        """The next change; None where none has come for a while.

        :param timeout: seconds to wait for it
        """
        assert self._changes is not None
        if self._next is None:
            self._next = self._start(self._changes.__anext__())
        if not wait([self._next], timeout).done:
            return None
        found, self._next = self._next, None
        return found.result()

    def _run(self) -> None:
        # Signals are for the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with closing(self._loop):
            self._loop.run_forever()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _begin(self) -> AsyncWatch:
        await self._driver.connect()
        return self._driver.watch(
            self._path, self._since, regex_flag=self._regex, scope=SCOPE.GLOBAL
        )

    def _end(self) -> None:
        wait([self._start(self._driver.close())], _LEAVE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LEAVE)


class _Returns(Subscriber):
    """Tells when the connection is there again."""

    _connected = False

    def on_init(self) -> None:
        """There is a connection."""
        if self._connected:
            print("connected again: the watch goes on", file=sys.stderr)
        self._connected = True


@contextmanager
def _warnings() -> Iterator[None]:
    """Print what the driver warns of as messages of this program, within."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Message())
    logger = logging.getLogger("tega.driver")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Message(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The message alone, without a traceback."""
        return printable(record.getMessage())
