"""The server: put together from its settings, run, and ended cleanly."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from random import Random
from typing import Any, TextIO

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from tega import __version__, idb
from tega.database import new_life
from tega.driver.proxy import Proxy
from tega.embedded import Database
from tega.errors import Malformed, Refused, TegaError
from tega.heap import Heap
from tega.log.base import Progress
from tega.log.file import FileLog
from tega.logformat import begin_logging
from tega.metrics import Meters
from tega.paths import Path, check_tega_id
from tega.peering.aside import Aside
from tega.peering.dialer import Dialer
from tega.peering.link import Link
from tega.peering.peers import Peers
from tega.peering.wire import Wire
from tega.plugins import Plugins
from tega.protocol import SessionAck
from tega.settings import Settings, load
from tega.web.app import App
from tega.web.calls import Calls
from tega.web.committer import Committer
from tega.web.context import Context
from tega.web.http import Later, Service
from tega.web.pulse import Pulse
from tega.web.refusals import Refusals
from tega.web.sessions import Sessions
from tega.web.traffic import Traffic
from tega.web.transactions import Transactions
from tega.web.websocket import WebSockets

log = logging.getLogger(__name__)

LOGO = r"""
  _
 | |_ ___  __ _  __ _
 | __/ _ \/ _` |/ _` |   tega db {version}
 | ||  __/ (_| | (_| |   version control for the state of networks
  \__\___|\__, |\__,_|
          |___/
"""

#: Answers in flight have so long to be sent when the server ends, seconds.
_FAREWELL = 10.0

#: A connection quiet for so long is probed; one that does not answer for as long again ends, s.
_PROBE_AFTER = 60

#: Room for a request's header lines beside its URL, bytes.
_HEADERS = 1 << 16


def tega_id_of(directory: FilePath) -> str:
    """The tega id that a directory was given on its first use.

    :raises TegaError: where the file with it holds something else
    """
    file = directory / "tega_id"
    if file.exists():
        try:
            return check_tega_id(file.read_text(encoding="utf-8", errors="replace").strip())
        except Malformed as error:
            raise Malformed(
                f"{file}: {error}. Write the id there that the log.* files beside it carry"
            ) from None
    directory.mkdir(parents=True, exist_ok=True)
    made = str(uuid.uuid4())
    draft = file.with_suffix(".new")
    draft.write_text(made + "\n", encoding="utf-8")
    draft.rename(file)
    return made


def open_database(settings: Settings, out: TextIO) -> Database:
    """Open the database that the settings name, showing progress on a terminal.

    :raises LogError: where its log cannot be opened or does not check
    """
    meters = Meters()
    commit_log = FileLog(
        settings.logdir,
        settings.tegaid or tega_id_of(settings.logdir),
        new_life,
        settings.sync,
        settings.sync_interval,
        settings.snapshot_size,
        settings.keep,
        meters=meters,
    )
    return Database(
        commit_log,
        commit_log.tega_id,
        settings.maxlen,
        settings.max_depth,
        progress=_progress_on(out) if out.isatty() else None,
        resume=settings.resume,
        max_subscriptions=settings.max_subscriptions,
        meters=meters,
    )


def _progress_on(out: TextIO) -> Progress:
    """Progress on a terminal, from the second second on."""
    started = time.monotonic()
    shown = started

    def show(commits: int, done: int, size: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - started < 1 or (now - shown < 0.2 and done < size):
            return
        shown = now
        rate = commits / (now - started)
        out.write(f"\rreading the log: {commits} commits, {100 * done // size} %, {rate:.0f}/s ")
        out.write("\n" if done == size else "")
        out.flush()

    return show


class _Listener(HTTPServer):
    """Tornado's server, finding dead connections by TCP's own means.

    Tornado can end a connection that is idle for long, at the price of a timer for every request.
    Keep-alive probes cost nothing, and leave alone whoever is only quiet.

    :ivar meters: takes how many connections there are
    """

    meters: Meters

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        self.conn_params.header_timeout = None
        made = stream.socket
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_AFTER // 6)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)
        self.meters.accepted += 1
        self.meters.connections += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.meters.connections -= 1
        super().on_close(server_conn)


class Server:
    """A running server.

    :param settings: as `tega.settings.load` gives them
    :param database: open; closed when the server ends
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self.database = database
        self._http: HTTPServer | None = None
        self._service: Service | None = None
        self._context: Context | None = None
        self._pulse: Pulse | None = None
        self._random = Random()
        #: Where it listens, once it does.
        self.addresses: list[tuple[str, int]] = []

    def start(self) -> None:
        """Listen. To be called on the event loop.

        :raises OSError: where the address or port cannot be had
        """
        settings, database = self._settings, self.database
        sockets = bind_sockets(settings.port, settings.address, backlog=1024)
        self.addresses = [made.getsockname()[:2] for made in sockets]
        database.hub.run = _on_loop(asyncio.get_running_loop())
        sessions = Sessions(database, settings.ping_interval, settings.ping_timeout)
        calls = Calls(database, database.functions, sessions, settings.rpc_timeout)
        database.caller = calls
        committer = Committer(database, sessions.outboxes.flush)
        peers = self._peers(committer, calls)
        dialer = self._dialer(peers)
        context = Context(
            database,
            committer,
            Transactions(settings.transaction_expiry),
            {},
            sessions,
            calls,
            Plugins(database, settings.extensions, sessions.reserve),
            peers,
            Refusals(database.meters),
            dialer,
        )
        self._context = context
        loopback = all(_is_loopback(host) for host, _ in self.addresses)
        websockets = WebSockets(context, settings.max_body, loopback)
        self._service = Service(
            App(context),
            settings.max_body,
            settings.max_url,
            websockets.accept,
            Traffic(database.meters, context.refusals),
        )
        # The limits on URL and body are the service's own, so that it can answer with an error
        # where Tornado would hang up.
        self._http = _Listener(
            self._service,
            max_header_size=2 * settings.max_url + _HEADERS,
            max_body_size=sys.maxsize,
        )
        self._http.meters = database.meters
        # Before anybody can ask for what they offer.
        context.plugins.load()
        self._http.add_sockets(sockets)
        self._pulse = Pulse(database.meters)
        if dialer is not None:
            dialer.start()

    def _peers(self, committer: Committer, calls: Calls) -> Peers:
        settings = self._settings

        def call(path: Path, body: bytes, caller: str, seconds: float, came: Link | None) -> Later:
            return calls.submit(path, body, caller, seconds, came)

        where = None
        if settings.gport is not None:
            where = f"{settings.ghost}:{settings.gport}"
        peers = Peers(
            self.database,
            committer.enter_here,
            committer.leave,
            call,
            Aside(settings.logdir / "aside", self.database.tega_id),
            config=settings.config,
            operational=settings.operational,
            patience=settings.ping_timeout,
            where=where,
        )
        committer.elsewhere = peers.writes.submit
        committer.left = peers.session_ended
        calls.elsewhere = peers.routing.call
        self.database.forwarders = peers.forwarders
        return peers

    def _dialer(self, peers: Peers) -> Dialer | None:
        settings = self._settings
        if settings.gport is None:
            return None

        def connected(wire: Wire, ack: SessionAck) -> Link:
            if ack.tega_id == self.database.tega_id:
                raise Refused(f"the global server has this one's own tega id, {ack.tega_id}")
            return peers.connected(wire, ack.tega_id)

        return Dialer(
            settings.ghost,
            settings.gport,
            self.database.tega_id,
            connected,
            proxy=None if settings.proxy is None else Proxy.parse(settings.proxy),
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            random=self._random,
        )

    async def stop(self) -> None:
        """Take no more, send the answers in flight, sync and close the log."""
        assert self._http is not None
        assert self._service is not None
        assert self._context is not None
        assert self._pulse is not None
        self._http.stop()
        self._pulse.stop()
        if self._context.dialer is not None:
            await self._context.dialer.stop()
        self._context.sessions.ending = True
        await self._context.committer.idle()
        self._context.sessions.end()
        try:
            await asyncio.wait_for(self._service.idle(), _FAREWELL)
        except asyncio.TimeoutError:
            log.warning("some clients did not take their answers within %g s", _FAREWELL)
        self._context.plugins.unload()
        self._context.peers.close()
        await self._http.close_all_connections()
        self._context.calls.close()
        self._context.committer.close()
        self._context.refusals.close()
        self.database.close()


def _on_loop(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], None]:
    """Runs something on a loop: at once where that is the caller's own, else as soon as it can."""
    thread = threading.get_ident()

    def run(work: Callable[[], None]) -> None:
        if threading.get_ident() == thread:
            work()
        else:
            loop.call_soon_threadsafe(work)

    return run


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def url_of(address: tuple[str, int]) -> str:
    """An address as a URL."""
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run(settings: Settings, database: Database, out: TextIO) -> None:
    """Run a server until a signal ends it.

    :param out: takes the lines that say what it is and where it is ready
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        if ended.is_set():
            log.warning("ended at once")
            os._exit(1)
        log.info("ending: answers in flight are sent; a second signal ends at once")
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    server = Server(settings, database)
    try:
        server.start()
    except BaseException:
        database.close()
        raise
    state = database.state
    out.write(
        f"tega id {database.tega_id}, commit log {settings.logdir}, "
        f"{state.live_count} roots, {state.seq} commits\n"
    )
    for address in server.addresses:
        out.write(f"ready on {url_of(address)}\n")
    out.flush()
    await ended.wait()
    await server.stop()
    log.info("ended")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tega-server``.

    :returns: the exit status: 0, 1 where it could not start, 2 for a wrong setting
    """
    try:
        settings = load(sys.argv[1:] if arguments is None else arguments, os.environ)
    except TegaError as error:
        print(f"tega-server: {error}", file=sys.stderr)
        return 2
    formatter = begin_logging(settings)
    print(LOGO.format(version=__version__), flush=True)
    Heap().watch()
    try:
        database = open_database(settings, sys.stdout)
    except (TegaError, OSError) as error:
        print(f"tega-server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    formatter.tega_id = database.tega_id
    idb.use(database)
    try:
        asyncio.run(run(settings, database, sys.stdout))
    except TegaError as error:
        print(f"tega-server: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"tega-server: cannot listen on {settings.address}:{settings.port}: {error}. Choose "
            "another --address or --port, or stop what listens there",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
