"""HTTP for the asynchronous driver: Tornado's client."""

from __future__ import annotations

import asyncio

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import (
    HTTPStreamClosedError,
    HTTPTimeoutError,
    SimpleAsyncHTTPClient,
)

from tega.driver import exchange
from tega.driver.credentials import SILENT, Endpoint
from tega.driver.exchange import Request, Response, Unreachable

#: Most bytes of an answer's body.
_MAX_BODY = 1 << 30

#: Requests that may be under way; others wait.
_MAX_OPEN = 64


class AsyncHttp:
    """Sends requests to one server.

    :param timeout: most seconds to wait for a connection and for each answer; None: no limit
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None) -> None:
        self._endpoint = endpoint
        self._timeout = timeout or 0.0
        self._client: SimpleAsyncHTTPClient | None = None

    async def send(self, request: Request) -> Response:
        """Send a request, again where its answer gets lost and that is safe.

        :raises OSError: where there is no connection to be had, or no answer
        """
        lost: Exception | None = None
        for pause in exchange.pauses(request):
            if pause:
                await asyncio.sleep(pause)
            try:
                return await self._send_once(request)
            except Unreachable as error:
                if lost is None:
                    raise error.as_os_error(self._endpoint) from error.cause
            except OSError as error:
                lost = error
        assert lost is not None
        raise exchange.lost(request, lost, self._endpoint) from lost

    def close(self) -> None:
        """Give up what is under way."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _send_once(self, request: Request) -> Response:
        if self._client is None:
            self._client = SimpleAsyncHTTPClient(
                force_instance=True, max_clients=_MAX_OPEN, max_body_size=_MAX_BODY
            )
        try:
            answer = await self._client.fetch(
                HTTPRequest(
                    f"{self._endpoint.url}{request.url}",
                    request.method,
                    {**request.headers, **self._endpoint.credentials.headers},
                    b"" if request.body is None and request.method == "POST" else request.body,
                    connect_timeout=self._timeout,
                    request_timeout=self._timeout,
                    ssl_options=self._endpoint.credentials.tls,
                    follow_redirects=False,
                    allow_nonstandard_methods=True,
                ),
                raise_error=False,
            )
        except HTTPTimeoutError as error:
            if "TLS" in str(error):
                raise Unreachable(TimeoutError(SILENT)) from error
            if "connecting" in str(error) or "queue" in str(error):
                raise Unreachable(TimeoutError("timed out")) from error
            raise TimeoutError("timed out") from error
        except (HTTPStreamClosedError, ConnectionResetError, BrokenPipeError) as error:
            raise ConnectionResetError(str(error) or "the connection was closed") from error
        except OSError as error:
            raise Unreachable(error) from error
        return Response(answer.code, answer.reason, answer.headers, answer.body)
