"""The session of a synchronous driver: it runs on some event loop, and any thread may use it."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from tega import paths
from tega.driver import values
from tega.driver.credentials import Endpoint
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException, DriverError, SubscriptionException
from tega.driver.session import Session
from tega.driver.subscription import Subscription
from tega.errors import Malformed
from tega.subscriber import SCOPE

log = logging.getLogger(__name__)


class Background:
    """A session that runs in the background.

    :param subscriber: what is called back, if anything
    :param timeout: most seconds to wait for an answer; None: no limit
    """

    def __init__(
        self, endpoint: Endpoint, tega_id: str, subscriber: Any, timeout: float | None
    ) -> None:
        self._timeout = timeout
        self._session = Session(
            endpoint, tega_id, timeout=timeout, subscriber=subscriber, on_ready=self._turn
        )
        #: Guards what follows.
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._ready = False
        self._over = False

    async def run(self) -> None:
        """Run the session on this event loop, until cancelled or `stop`.

        :raises SessionException: where the server refuses the session or ends it for good
        :raises ssl.SSLError: where one end does not take the other's certificate, at the beginning
        """
        with self._changed:
            if self._loop is not None:
                raise SubscriptionException("the session runs already", code="open")
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
            self._over = False
        try:
            await self._session.run()
        finally:
            with self._changed:
                self._loop = None
                self._over = True
                self._changed.notify_all()

    def stop(self) -> None:
        """Let `run` return."""
        self._do(self._session.stop, or_now=False)

    def ready(self, timeout: float | None) -> bool:
        """Wait for a connection.

        :returns: whether there is one; False at once where `run` has ended
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._over, timeout)
            return self._ready

    def subscribe(self, path: str, regex: bool, scope: SCOPE) -> None:
        """Let the subscriber hear of a path or pattern.

        :raises SubscriptionException: for what is neither
        """
        check(path, regex)
        callbacks = self._session.callbacks
        assert callbacks is not None
        subscriptions = self._session.subscriptions
        self._do(lambda: subscriptions.add(callbacks, path, regex, scope))

    def unsubscribe(self, path: str, regex: bool) -> None:
        """Let it hear of that no more.

        :raises SubscriptionException: for what is neither
        """
        check(path, regex)
        callbacks = self._session.callbacks
        assert callbacks is not None
        self._do(lambda: self._session.subscriptions.remove(callbacks, path, regex))

    def unsubscribe_all(self) -> None:
        """Let it hear of nothing more."""
        callbacks = self._session.callbacks
        assert callbacks is not None
        self._do(lambda: self._session.subscriptions.remove_all(callbacks))

    def publish(self, channel: str, message: Any) -> None:
        """Publish a message.

        :raises SubscriptionException: for what is no channel or no JSON
        """
        publication = checked_publication(channel, message)
        self._do(lambda: self._session.publish(*publication))

    def serve(self, path: str, func: Callable[..., Any]) -> None:
        """Offer a function. On the session's own thread that is not waited for."""
        self._wait(self._session.functions.serve(path, func))

    def unserve(self, path: str) -> None:
        """Offer it no more."""
        self._wait(self._session.functions.unserve(path))

    def remember(self, operations: Iterable[Operation]) -> None:
        """These have been done to ephemeral nodes."""
        for operation in operations:
            self._do(functools.partial(self._session.remember, operation))

    def _wait(self, work: Any) -> None:
        with self._changed:
            loop = self._loop
            if loop is None:
                work.close()
                raise SubscriptionException(
                    "the session does not run: run subscriber_client() first", code="not_open"
                )
            done: Future[None] = asyncio.run_coroutine_threadsafe(work, loop)
        if threading.get_ident() == self._thread:
            done.add_done_callback(_log_failure)
        else:
            done.result(self._timeout)

    def _do(self, work: Callable[[], object], or_now: bool = True) -> None:
        """Do something to the session on its event loop; where it has none yet, here."""

        def do() -> None:
            try:
                work()
            except DriverError as error:
                log.error("the session %s: %s", self._session.tega_id, error)

        with self._changed:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(do)
            elif or_now:
                work()

    def _turn(self, ready: bool) -> None:
        with self._changed:
            self._ready = ready
            self._changed.notify_all()


def check(path: str, regex: bool) -> None:
    """Refuse what is no path or pattern.

    :raises SubscriptionException: saying why
    """
    try:
        Subscription(path, regex, SCOPE.LOCAL)
    except Malformed as error:
        raise values.refusal(SubscriptionException, error.body()["error"]) from None


def checked_publication(channel: str, message: Any) -> tuple[str, bytes]:
    """A channel and a body as they are sent.

    :raises SubscriptionException: for what is no channel or no JSON
    """
    try:
        return paths.dotted(paths.parse(channel)), values.dumps({"message": message})
    except Malformed as error:
        raise values.refusal(SubscriptionException, error.body()["error"]) from None
    except CRUDException as error:
        raise SubscriptionException(*error.args) from None


def _log_failure(done: Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        log.error("a function is not served: %s", error)
