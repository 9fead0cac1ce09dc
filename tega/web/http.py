"""From HTTP messages to calls of handlers, and from what these return to answers.

This stands directly on Tornado's HTTP/1 connection. Its `RequestHandler` makes and throws away much
that a JSON interface has no use for, and that would cost as much as all of tega's own work.

A handler takes a `Call`. It returns a value, which becomes the JSON body; a `Response`, where the
answer has more to it; or either of these `Later`, as a coroutine, or as `Work` that is done in
turns. Any `TegaError` becomes the answer that the table in `tega.errors` gives it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from email.utils import formatdate
from http.client import responses
from types import GeneratorType
from typing import Any, Final, TypeAlias, cast
from urllib.parse import parse_qsl

import msgspec
from tornado import httputil
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from tega import strictjson
from tega.access.who import UNLIMITED, Who
from tega.errors import Malformed, TegaError, TooLarge, Unauthorized, UrlTooLong
from tega.web.bugs import internal
from tega.web.door import Door
from tega.web.later import Answer, Later
from tega.web.traffic import Traffic
from tega.web.turns import Turns, Work

log = logging.getLogger(__name__)

#: A body up to so many times the limit is read to its end, so that the client sees the refusal.
_DRAIN: Final = 16

#: With this a browser asks what it may send.
_PREFLIGHT: Final = "Access-Control-Request-Method"

#: Where a request goes on as a WebSocket.
_WEBSOCKET: Final = "/_pubsub"


class Response(msgspec.Struct, frozen=True):
    """An answer.

    :ivar body: the whole body, or its pieces, to be sent as they come
    :ivar refusal: what it tells of, where that is one
    """

    body: bytes | Iterator[bytes]
    status: int = 200
    headers: dict[str, str] = {}
    content_type: str = "application/json"
    refusal: TegaError | None = None


Handler: TypeAlias = Callable[["Call"], Answer]


class Call:
    """One request, as handlers see it.

    :ivar method: GET, PUT, ...
    :ivar path: the URL's path as it came, percent-encoded
    :ivar body: as it came
    :ivar who: whoever asks
    """

    __slots__ = ("_params", "body", "headers", "method", "path", "who")

    def __init__(
        self,
        method: str,
        uri: str,
        headers: httputil.HTTPHeaders,
        body: bytes = b"",
        who: Who = UNLIMITED,
    ) -> None:
        self.method = method
        self.who = who
        self.headers = headers
        self.body = body
        if not uri.isascii():
            raise Malformed("the URL holds bytes that are not ASCII: percent-encode them")
        self.path, _, query = uri.partition("?")
        self._params: dict[str, str] = _parse_query(query) if query else {}

    def allow(self, *names: str) -> None:
        """Refuse every parameter but these: a misspelt one must not be ignored.

        :raises Malformed: naming it
        """
        for name in self._params:
            if name not in names:
                known = ", ".join(names) or "none"
                raise Malformed(f"unknown parameter {name[:64]!r}: known here are {known}")

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter that must be there, unless there is a default.

        :raises Malformed: where it is missing
        """
        value = self._params.get(name, default)
        if value is None:
            raise Malformed(f"missing parameter {name!r}", parameter=name)
        return value

    def optional(self, name: str) -> str | None:
        """A parameter, or None."""
        return self._params.get(name)

    def flag(self, name: str) -> bool:
        """A boolean parameter; absent is false.

        :raises Malformed: for what is no boolean
        """
        value = self._params.get(name)
        if value is None or value in ("False", "false", "0"):
            return False
        if value in ("True", "true", "1"):
            return True
        raise Malformed(
            f"parameter {name}={value[:64]!r}: a boolean is True, true, 1, False, false or 0",
            parameter=name,
        )

    def integer(self, name: str) -> int | None:
        """An integer parameter, or None.

        :raises Malformed: for what is no integer
        """
        value = self._params.get(name)
        if value is None:
            return None
        digits = value[1:] if value[:1] == "-" else value
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            raise Malformed(f"parameter {name}={value[:64]!r}: not an integer", parameter=name)
        return int(value)


def _parse_query(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError as error:
        raise Malformed(f"malformed query {query[:64]!r}: {error}") from None
    params = dict(pairs)
    if len(params) != len(pairs):
        raise Malformed(f"query {query[:64]!r} gives a parameter twice")
    return params


def error_response(
    error: TegaError, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """The answer that a refusal gets."""
    return Response(
        strictjson.dumps(error.body()), status or error.status, headers or {}, refusal=error
    )


class Service(httputil.HTTPServerConnectionDelegate):
    """Answers HTTP requests with one handler.

    :param handler: is called with every whole request
    :param max_body: most bytes of a request body
    :param max_url: most bytes of a request's URL
    :param upgrade: takes a request that asks to go on as a WebSocket: method, headers, connection,
        and who asks
    :param door: lets requests in, or refuses them
    :param traffic: is told of each answer
    """

    def __init__(
        self,
        handler: Handler,
        max_body: int,
        max_url: int,
        upgrade: Callable[[str, httputil.HTTPHeaders, HTTP1Connection, Who], None],
        door: Door,
        traffic: Traffic,
    ) -> None:
        self.door = door
        self.handler = handler
        self.max_body = max_body
        self.max_url = max_url
        self.upgrade = upgrade
        self.traffic = traffic
        self.turns = Turns()
        self._active = 0
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._date = ""
        self._date_made = 0.0

    def start_request(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        return _Exchange(self, request_conn)

    def head(self, response: Response, size: int) -> bytes:
        """The status line and headers of an answer whose body has `size` bytes."""
        more = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()])
        status = response.status
        return (
            f"HTTP/1.1 {status} {responses[status]}\r\nContent-Type: {response.content_type}\r\n"
            f"Date: {self.date()}\r\nContent-Length: {size}\r\n{more}\r\n"
        ).encode("latin-1")

    def begin(self) -> None:
        """A request has come that is to be answered."""
        self._active += 1
        self._idle.clear()

    def end(self) -> None:
        """A request has its answer, or its client is gone."""
        self._active -= 1
        if not self._active:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until every request that has come has its answer."""
        await self._idle.wait()

    def spawn(self, work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        """Run a coroutine; the loop alone would not keep it from being collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def date(self) -> str:
        """The value of the ``Date`` header, made anew once a second."""
        now = time.time()
        if not 0 <= now - self._date_made < 1:
            self._date_made = now
            self._date = formatdate(now, usegmt=True)
        return self._date


class _Exchange(httputil.HTTPMessageDelegate):
    """One request and its answer; `asked` tells whether all of the request has come."""

    def __init__(self, service: Service, connection: httputil.HTTPConnection) -> None:
        self._service = service
        self._connection = cast(HTTP1Connection, connection)
        self._start: httputil.RequestStartLine | None = None
        self._headers: httputil.HTTPHeaders | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._who = UNLIMITED
        self._begun = 0.0
        self.asked = False

    # -- the request --------------------------------------------------------------------------

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> None:
        self._start = cast(httputil.RequestStartLine, start_line)
        self._headers = headers
        announced = headers.get("Content-Length", "")
        if announced.isascii() and announced.isdigit():
            limit = self._service.max_body
            waits = headers.get("Expect", "").lower() == "100-continue"
            # Of thousands of digits Python makes no number.
            if len(announced) > 18 or int(announced) > (limit if waits else limit * _DRAIN):
                self._refuse_early(self._too_large())

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._service.max_body:
            self._chunks.append(chunk)
        elif self._size > self._service.max_body * _DRAIN:
            self._refuse_early(self._too_large())
        else:
            self._chunks = []

    def finish(self) -> None:
        assert self._start is not None
        assert self._headers is not None
        self.asked = True
        self._begin()
        uri = self._start.path
        if self._size > self._service.max_body:
            self._refuse(self._too_large())
            return
        if len(uri) > self._service.max_url:
            self._refuse(
                UrlTooLong(
                    f"the URL has {len(uri)} bytes, the limit is {self._service.max_url}",
                    limit=self._service.max_url,
                )
            )
            return
        door = self._service.door
        try:
            if self._start.method == "OPTIONS" and _PREFLIGHT in self._headers:
                self._answer(Response(b"{}", headers=door.preflight(self._headers)))
                return
            self._who = who = door.admit(self._headers, self._connection)
            if uri.rstrip("/") == _WEBSOCKET:
                self._service.upgrade(self._start.method, self._headers, self._connection, who)
                self._service.traffic.answered(self._start, 101, self._begun)
                self._service.end()
                return
            call = Call(self._start.method, uri, self._headers, b"".join(self._chunks), who)
            answer = self._service.handler(call)
        except Exception as error:
            self._refuse(error)
            return
        self._take(answer)

    def _take(self, answer: Answer) -> None:
        """Answer with what a handler has returned, once it is there."""
        if type(answer) is Later:
            answer.then(self._answer_later)
        elif type(answer) is GeneratorType:
            self._work(answer)
        elif asyncio.iscoroutine(answer):
            self._service.spawn(answer).add_done_callback(self._answer_later)
        else:
            self._answer(answer)

    def _begin(self) -> None:
        self._begun = time.monotonic()
        self._service.begin()

    def _too_large(self) -> TooLarge:
        limit = self._service.max_body
        return TooLarge(
            f"the body is larger than {limit} bytes: put it in parts, or raise --max-body",
            limit=limit,
        )

    # -- the answer ---------------------------------------------------------------------------

    def _answer_later(self, answer: Later | asyncio.Future[Answer]) -> None:
        try:
            self._take(answer.result())
        except Exception as error:
            self._refuse(error)

    def _work(self, work: Work[Answer]) -> None:
        """Work for a turn of the loop, and answer if that was enough."""
        if self._connection.stream.closed():
            # Nobody waits for it any more.
            self._service.end()
            return
        turns = self._service.turns
        until = time.monotonic() + turns.length
        try:
            next(work)
            while time.monotonic() < until:
                next(work)
        except StopIteration as end:
            answer = end.value
        except Exception as error:
            self._refuse(error)
            return
        else:
            turns.next().add_done_callback(lambda _: self._work(work))
            return
        self._take(answer)

    def _refuse_early(self, error: TegaError) -> None:
        """Refuse a request whose body is not read to its end: the connection cannot go on."""
        self._begin()
        self._answer(error_response(error, headers={"Connection": "close"}))

    def _refuse(self, error: Exception) -> None:
        if not isinstance(error, TegaError):
            assert self._start is not None
            error = internal(error, f"{self._start.method} {self._start.path[:512]!r}")
        error = self._who.told(error)
        headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
        self._answer(error_response(error, headers=headers))

    def _answer(self, answer: Answer) -> None:
        assert self._start is not None
        try:
            response = answer if type(answer) is Response else Response(strictjson.dumps(answer))
            if self._headers is not None and "Origin" in self._headers:
                more = {**response.headers, **self._service.door.cors(self._headers)}
                response = msgspec.structs.replace(response, headers=more)
            body = response.body
            if not isinstance(body, bytes):
                body, rest = self._service.turns.gather(body)
                if rest is not None:
                    if self._start.version != "HTTP/1.0":
                        self._service.spawn(self._stream(response, body, rest))
                        self._service.traffic.answered(self._start, response.status, self._begun)
                        return
                    body += b"".join(rest)
        except Exception as error:
            self._refuse(error)
            return
        traffic = self._service.traffic
        traffic.answered(self._start, response.status, self._begun)
        if response.refusal is not None:
            traffic.refused(self._start, response.refusal, self._connection, self._who)
        written = self._write_whole(response, body)
        self._connection.finish()
        # A client that reads slowly has its answer only when the last byte is on the way.
        if written.done():
            self._service.end()
        else:
            written.add_done_callback(lambda _: self._service.end())

    def _write_whole(self, response: Response, body: bytes) -> asyncio.Future[None]:
        assert self._start is not None
        assert self._headers is not None
        if (
            self._start.version == "HTTP/1.1"
            and self._start.method != "HEAD"
            and "Connection" not in self._headers
            and "Connection" not in response.headers
        ):
            # No header depends on the connection, so that all can be written at one go.
            return self._connection.write(self._service.head(response, len(body)) + body)
        headers = self._response_headers(response)
        headers["Content-Length"] = str(len(body))
        # What answers HEAD has no body, and tells how long it would be.
        sent = b"" if self._start.method == "HEAD" else body
        return self._write_headers(response.status, headers, sent)

    def _response_headers(self, response: Response) -> httputil.HTTPHeaders:
        headers = httputil.HTTPHeaders()
        headers["Content-Type"] = response.content_type
        headers["Date"] = self._service.date()
        for name, value in response.headers.items():
            headers[name] = value
        return headers

    def _write_headers(
        self, status: int, headers: httputil.HTTPHeaders, body: bytes
    ) -> asyncio.Future[None]:
        line = httputil.ResponseStartLine("HTTP/1.1", status, responses[status])
        return self._connection.write_headers(line, headers, body)

    async def _stream(self, response: Response, first: bytes, rest: Iterator[bytes]) -> None:
        """Send a long body in turns, as fast as the client takes it."""
        turns = self._service.turns
        try:
            await self._write_headers(response.status, self._response_headers(response), first)
            more: Iterator[bytes] | None = rest
            while more is not None:
                await turns.next()
                chunk, more = turns.gather(more)
                if chunk:
                    await self._connection.write(chunk)
            self._connection.finish()
        except StreamClosedError:
            log.debug("the client went away in the middle of an answer")
        except Exception:
            # Cut off, so that what has come is not taken for the whole.
            log.exception("bug in the middle of an answer")
            self._connection.close()
        finally:
            self._service.end()
