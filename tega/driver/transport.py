"""HTTP for the synchronous driver: httplib2, with kept-alive connections."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import BadStatusLine, HTTPException, HTTPResponse, ResponseNotReady
from typing import Any
from weakref import WeakSet

import httplib2

from tega.driver import exchange
from tega.driver.exchange import Request, Response, Unreachable


class Http:
    """Sends requests to one server. Threads may share it: each has its own connection.

    :param timeout: most seconds to wait for a connection and for each answer; None: no limit
    """

    def __init__(self, host: str, port: int, timeout: float | None) -> None:
        self._where = exchange.where(host, port)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._clients: WeakSet[httplib2.Http] = WeakSet()
        self._thread = _Thread(self._new_client)

    def send(self, request: Request) -> Response:
        """Send a request, again where its answer gets lost and that is safe.

        :raises OSError: where there is no connection to be had, or no answer
        """
        lost: Exception | None = None
        for pause in exchange.pauses(request):
            if pause:
                time.sleep(pause)
            try:
                return self._send_once(request)
            except Unreachable as error:
                if lost is None:
                    raise error.as_os_error(self._where) from error.cause
            except (OSError, HTTPException, httplib2.HttpLib2Error) as error:
                lost = error
        assert lost is not None
        raise exchange.lost(request, lost, self._where) from lost

    def close(self) -> None:
        """Close the connections of all threads, none of which may be in a call."""
        with self._lock:
            for client in self._clients:
                _hang_up(client)

    def _send_once(self, request: Request) -> Response:
        client = self._thread.client
        try:
            answer, body = client.request(
                f"http://{self._where}{request.url}",
                request.method,
                request.body,
                dict(request.headers),
                connection_type=Connection,
            )
        except BaseException:
            # The next request must not find the rest of this answer, nor wait for it.
            _hang_up(client)
            raise
        return Response(answer.status, answer.reason, answer, body)

    def _new_client(self) -> httplib2.Http:
        client = httplib2.Http(timeout=self._timeout, proxy_info=None)
        client.follow_redirects = False
        with self._lock:
            self._clients.add(client)
        return client


class _Thread(threading.local):
    """What each thread has of its own: httplib2 is not made to be shared."""

    def __init__(self, new_client: Callable[[], httplib2.Http]) -> None:
        self.client = new_client()


class Connection(httplib2.HTTPConnectionWithTimeout):
    """A connection that sends a request once.

    httplib2 sends a request again when the server hangs up before the answer, whether that is safe
    or not. Here it sees errors that it leaves alone.
    """

    def __del__(self) -> None:
        # The thread that it belonged to has ended.
        self.close()

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            raise Unreachable(error) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        # An idle connection has nothing to read, unless its end: the server has hung up.
        if self.sock is not None and _is_readable(self.sock):
            self.close()
        # The server may have refused what it saw of a long body, and said so: read on.
        with suppress(BrokenPipeError, ConnectionResetError):
            super().request(*args, **kwargs)

    def getresponse(self) -> HTTPResponse:
        try:
            return super().getresponse()
        except (BadStatusLine, ResponseNotReady) as error:
            raise ConnectionResetError(str(error) or "the connection was closed") from error


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _hang_up(client: httplib2.Http) -> None:
    for connection in client.connections.values():
        connection.close()
