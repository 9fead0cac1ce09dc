"""What takes connections: dead ones are found, and where there are certificates, TLS is spoken."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, SSLIOStream

from tega.driver.websocket import within
from tega.errors import Malformed, OverLimit, TegaError
from tega.metrics import Meters
from tega.tls import Certificates
from tega.web.http import Service, error_response

log = logging.getLogger(__name__)

#: A connection quiet for so long is probed; one that does not answer for as long again ends, s.
_PROBE_AFTER: Final = 60

#: A client may take so long for the TLS handshake, and to hang up where there is none, seconds.
_HANDSHAKE: Final = 10.0
_PARTING: Final = 2.0

#: So many that find no room are waited for to read that; each has a descriptor meanwhile.
_PARTINGS: Final = 16

#: What every TLS client begins with: a record of the handshake.
_FIRST: Final = b"\x16"


class Room:
    """Room for connections, in order of the last request on each.

    Where there is none left, the one goes that has waited for longest for a request to come, or to
    come in full: many that connect and say little keep nobody else out.

    :param most: connections, those of sessions among them
    :param sessions: tells how many of those there are
    """

    def __init__(self, most: int, sessions: Callable[[], int]) -> None:
        self._most = most
        self._sessions = sessions
        self._waiting: OrderedDict[Any, tuple[Callable[[], object], Any]] = OrderedDict()

    def awaits(
        self, connection: Any, hang_up: Callable[[], object], exchange: Any = None
    ) -> None:
        """A request may come on a connection; `exchange.asked` tells whether all of it has."""
        self._waiting[connection] = hang_up, exchange
        self._waiting.move_to_end(connection)

    def left(self, connection: Any) -> None:
        """A connection has ended, or is one of a session now."""
        self._waiting.pop(connection, None)

    def make(self) -> bool:
        """Make room for one more.

        :returns: whether there is some
        """
        while len(self._waiting) + self._sessions() >= self._most:
            for connection, (_, exchange) in self._waiting.items():
                if exchange is None or not exchange.asked:
                    longest = connection
                    break
            else:
                return False
            hang_up, _ = self._waiting.pop(longest)
            hang_up()
        return True


class _Gate(socket.socket):
    """A listening socket with a descriptor in reserve.

    Where the process has no other, who comes is turned away. Left waiting, it would keep the event
    loop busy with trying.

    :param made: the socket that this is made of
    :param turn_away: is called with a connection that is about to be closed
    """

    def __init__(self, made: socket.socket, turn_away: Callable[[socket.socket], None]) -> None:
        super().__init__(fileno=made.detach())
        self._turn_away = turn_away
        self._reserve = os.open(os.devnull, os.O_RDONLY)

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        os.close(self._reserve)
        try:
            made, _ = super().accept()
            with made:
                self._turn_away(made)
        finally:
            self._reserve = os.open(os.devnull, os.O_RDONLY)
        raise BlockingIOError

    def close(self) -> None:
        super().close()
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1


class _PlainStream(IOStream):
    """A connection without TLS. One that begins with a TLS handshake is over at once: as HTTP it
    would lack an end of its header, and both ends would wait for the other.

    :ivar spoke_tls: is called where it does, before the connection is closed
    """

    spoke_tls: Callable[[], None]
    _begun = False

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        if not self._begun and count:
            self._begun = True
            if bytes(buf[:1]) == _FIRST:
                self.spoke_tls()
                return 0
        return count


class Listener(HTTPServer):
    """Tornado's server, finding dead connections by TCP's own means.

    Tornado can end a connection that is idle for long, at the price of a timer for every request.
    Keep-alive probes cost nothing, and leave alone whoever is only quiet.

    The TLS handshake is done before Tornado has the connection: one that does not come to its end
    is given up, and who speaks HTTP is told in HTTP that this is not the way.

    :param service: answers the requests
    :param certificates: None: without TLS
    :param room: for connections
    :param meters: takes how many there are
    """

    service: Service
    certificates: Certificates | None

    def initialize(  # type: ignore[override]
        self,
        service: Service,
        certificates: Certificates | None,
        room: Room,
        meters: Meters,
        **options: Any,
    ) -> None:
        super().initialize(service, **options)
        self.service = service
        self.certificates = certificates
        self._room = room
        self._meters = meters
        self._greeted: set[asyncio.Task[None]] = set()

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        super().add_sockets([_Gate(made, self._turn_away) for made in sockets])

    def _turn_away(self, made: socket.socket) -> None:
        self._meters.limits["connections"] += 1
        made.send(self._answer(OverLimit("no room for more connections: try again later")))

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        self.conn_params.header_timeout = None
        made = stream.socket
        self._meters.accepted += 1
        if not self._room.make():
            self._turn_away(made)
            if len(self._greeted) < _PARTINGS:
                self._spawn(_see_off(made))
            else:
                stream.close()
            return
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_AFTER // 6)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)
        # Nothing has been read from the stream yet, nor is it known to the loop.
        if self.certificates is None:
            plain = _PlainStream(
                made, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
            )
            plain.spoke_tls = functools.partial(self._spoke_tls, made, address)
            self._enter(plain, address)
            return
        task = self._spawn(self._greet(made, self.certificates.context, address))
        self._room.awaits(made, task.cancel)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._greeted.add(task)
        task.add_done_callback(self._greeted.discard)
        return task

    async def close_all_connections(self) -> None:
        for greeting in self._greeted:
            greeting.cancel()
        await super().close_all_connections()

    async def _greet(self, made: socket.socket, context: ssl.SSLContext, address: Any) -> None:
        try:
            secured = await within(_HANDSHAKE, self._secure(made, context))
        except OSError as error:
            log.info("no TLS with %s: %s", address[0], error)
            return
        finally:
            self._room.left(made)
        stream = SSLIOStream(
            secured, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
        )
        self._enter(stream, address)

    def _enter(self, stream: IOStream, address: Any) -> None:
        self._meters.connections += 1
        # From now on, not from its first turn of the loop: many may come in this one.
        self._room.awaits(stream, stream.close)
        super().handle_stream(stream, address)

    def start_request(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        exchange = super().start_request(server_conn, request_conn)
        stream = server_conn.stream  # type: ignore[attr-defined]
        self._room.awaits(stream, stream.close, exchange)
        return exchange

    def on_close(self, server_conn: object) -> None:
        self._meters.connections -= 1
        self._room.left(server_conn.stream)  # type: ignore[attr-defined]
        super().on_close(server_conn)

    async def _secure(self, made: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Shake hands.

        :raises OSError: where nothing comes of it; the connection is closed
        """
        try:
            await _ready(made)
            first = made.recv(1, socket.MSG_PEEK)
            if first not in (_FIRST, b""):
                made.send(self._no_tls())
                await _part(made)
                raise ConnectionError("it did not begin with a handshake")
            secured = context.wrap_socket(made, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            made.close()
            raise
        try:
            await _shake_hands(secured)
        except BaseException as error:
            made = socket.socket(fileno=secured.detach())
            try:
                if isinstance(error, ssl.SSLError):
                    await _part(made)
            finally:
                made.close()
            raise
        return secured

    def _spoke_tls(self, made: socket.socket, address: Any) -> None:
        log.info(
            "%s speaks TLS, and this server does not: start it with --tls-cert and --tls-key, or "
            "connect without TLS", address[0],
        )  # fmt: skip
        made.send(self._answer(Malformed("this server does not speak TLS: connect with http")))

    def _no_tls(self) -> bytes:
        """The answer to who does not speak TLS."""
        return self._answer(
            Malformed("this server speaks TLS here: connect with https, --tls or tls=True")
        )

    def _answer(self, refusal: TegaError) -> bytes:
        answer = error_response(refusal, headers={"Connection": "close"})
        assert isinstance(answer.body, bytes)
        return self.service.head(answer, len(answer.body)) + answer.body


async def _shake_hands(secured: ssl.SSLSocket) -> None:
    while True:
        try:
            secured.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _ready(secured)
        except ssl.SSLWantWriteError:
            await _ready(secured, writing=True)


async def _ready(made: socket.socket, writing: bool = False) -> None:
    """Wait until there is something to read, or room to write."""
    loop = asyncio.get_running_loop()
    turn = loop.create_future()

    def wake() -> None:
        if not turn.done():
            turn.set_result(None)

    add, remove = loop.add_reader, loop.remove_reader
    if writing:
        add, remove = loop.add_writer, loop.remove_writer
    add(made, wake)
    try:
        await turn
    finally:
        remove(made)


async def _see_off(made: socket.socket) -> None:
    try:
        await _part(made)
    finally:
        made.close()


async def _part(made: socket.socket) -> None:
    """Let the other end read what was said: closed with something unread, it would be lost."""

    async def read_on() -> None:
        while await asyncio.get_running_loop().sock_recv(made, 1 << 16):
            pass

    try:
        made.shutdown(socket.SHUT_WR)
        await within(_PARTING, read_on())
    except OSError as error:
        log.debug("it does not take leave: %s", error)
