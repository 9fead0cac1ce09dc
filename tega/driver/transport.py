"""HTTP for the synchronous driver: httplib2, with kept-alive connections."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import BadStatusLine, HTTPException, HTTPResponse, ResponseNotReady
from typing import Any, ClassVar
from weakref import WeakSet

import httplib2

from tega.driver import exchange
from tega.driver.causes import is_distrust
from tega.driver.credentials import HANDSHAKE, SILENT, Endpoint
from tega.driver.exchange import Request, Response, Unreachable


class Http:
    """Sends requests to one server. Threads may share it: each has its own connection.

    :param timeout: most seconds to wait for a connection and for each answer; None: no limit
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._connection_type = _connection_type(endpoint.credentials.tls)
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
                    raise error.as_os_error(self._endpoint) from error.cause
            except (OSError, HTTPException, httplib2.HttpLib2Error) as error:
                lost = error
        assert lost is not None
        raise exchange.lost(request, lost, self._endpoint) from lost

    def close(self) -> None:
        """Close the connections of all threads, none of which may be in a call."""
        with self._lock:
            for client in self._clients:
                _hang_up(client)

    def _send_once(self, request: Request) -> Response:
        client = self._thread.client
        try:
            answer, body = client.request(
                f"{self._endpoint.url}{request.url}",
                request.method,
                request.body,
                {**request.headers, **self._endpoint.credentials.headers},
                connection_type=self._connection_type,
            )
        except BaseException:
            # The next request must not find the rest of this answer, nor wait for it.
            _hang_up(client)
            raise
        return Response(answer.status, answer.reason, answer, body)

    def _new_client(self) -> httplib2.Http:
        client = _Client(timeout=self._timeout, proxy_info=None)
        client.follow_redirects = False
        with self._lock:
            self._clients.add(client)
        return client


class _Thread(threading.local):
    """What each thread has of its own: httplib2 is not made to be shared."""

    def __init__(self, new_client: Callable[[], httplib2.Http]) -> None:
        self.client = new_client()


class _Client(httplib2.Http):
    """One that leaves an answer of 401 alone: there is one token, and it has been sent."""

    def _auth_from_challenge(self, *args: Any) -> tuple[()]:
        return ()


class Connection(httplib2.HTTPConnectionWithTimeout):
    """A connection that sends a request once.

    httplib2 sends a request again when the server hangs up before the answer, whether that is safe
    or not. Here it sees errors that it leaves alone.
    """

    tls: ClassVar[ssl.SSLContext | None] = None

    def __del__(self) -> None:
        # The thread that it belonged to has ended.
        self.close()

    def connect(self) -> None:
        try:
            super().connect()
            if self.tls is not None:
                self._shake_hands(self.tls)
        except OSError as error:
            self.close()
            raise Unreachable(error) from error

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        self.sock.settimeout(min(self.timeout or HANDSHAKE, HANDSHAKE))
        try:
            self.sock = tls.wrap_socket(self.sock, server_hostname=self.host)
        except TimeoutError:
            raise TimeoutError(SILENT) from None
        self.sock.settimeout(self.timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and _has_ended(self.sock):
            self.close()
        # The server may have refused what it saw of a long body, and said so: read on.
        with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            super().request(*args, **kwargs)

    def getresponse(self) -> HTTPResponse:
        try:
            return super().getresponse()
        except (BadStatusLine, ResponseNotReady) as error:
            raise ConnectionResetError(str(error) or "the connection was closed") from error
        except ssl.SSLError as error:
            # With TLS 1.3 the server refuses a certificate once the client has sent its request.
            if is_distrust(error):
                raise Unreachable(error) from error
            raise


def _connection_type(context: ssl.SSLContext | None) -> type[Connection]:
    """What httplib2 is to make connections of: it wants a class."""
    if context is None:
        return Connection

    class Secured(Connection):
        tls = context

    return Secured


def _has_ended(sock: socket.socket) -> bool:
    """Whether the server has hung up on an idle connection, which has nothing else to read."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(0):
        return False
    if not isinstance(sock, ssl.SSLSocket):
        return True
    # Unless TLS has, such as tickets.
    patience = sock.gettimeout()
    sock.setblocking(False)
    try:
        sock.recv(1)
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(patience)
    return True


def _hang_up(client: httplib2.Http) -> None:
    for connection in client.connections.values():
        connection.close()
