"""The server: put together from its settings, run, and ended cleanly."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import os
import resource
import signal
import ssl
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path as FilePath
from random import Random
from typing import TextIO

from tornado.http1connection import HTTP1Connection
from tornado.netutil import bind_sockets

from tega import __version__, idb
from tega.access import command
from tega.access.keeper import Keeper
from tega.access.rates import Rates
from tega.database import new_life
from tega.driver.credentials import Credentials, Tls, read_token
from tega.driver.exchange import where
from tega.driver.proxy import Proxy
from tega.embedded import Database
from tega.errors import Malformed, Refused, TegaError
from tega.heap import Heap
from tega.listener import Listener, Room
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
from tega.tls import Certificates, names_of
from tega.web.app import App
from tega.web.bodies import Bodies
from tega.web.calls import Calls
from tega.web.committer import Committer
from tega.web.context import Context
from tega.web.door import Door
from tega.web.http import Service
from tega.web.later import Later
from tega.web.limits import Limits
from tega.web.pulse import Pulse
from tega.web.refusals import Refusals
from tega.web.sessions import Sessions
from tega.web.traffic import Traffic
from tega.web.transactions import Transactions
from tega.web.turns import in_turns, on_loop
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

#: The files with certificates are looked at so often, seconds.
_RENEWAL = 5.0

#: How often it is looked whether the files with tokens and rules have changed, seconds.
_LOOK = 1.0

#: Requests that one who has rested may make at once, where a rate is set.
_BURST = 100.0

#: Descriptors that are left for all but connections: the log, plugins, what is being accepted.
_RESERVED = 64

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


def keeper_of(settings: Settings) -> Keeper:
    """Who may do what, as the files say that the settings name.

    :raises Malformed: where one is wrong
    """
    return Keeper(
        settings.tokens or settings.logdir / "tokens.yaml",
        settings.access or settings.logdir / "access.yaml",
        named=settings.access is not None,
    )


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


class Server:
    """A running server.

    :param settings: as `tega.settings.load` gives them
    :param database: open; closed when the server ends
    :raises Malformed: naming the certificate or key that cannot be used, and why
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self.database = database
        self._http: Listener | None = None
        self._service: Service | None = None
        self._context: Context | None = None
        self._pulse: Pulse | None = None
        self._random = Random()  # noqa: S311  # no secret: it only spreads retries
        self._keeper = keeper_of(settings)
        self._looking: asyncio.TimerHandle | None = None
        #: None: it listens without TLS.
        self.certificates: Certificates | None = None
        if settings.tls_cert is not None:
            self.certificates = Certificates(
                settings.tls_cert, settings.tls_key, settings.tls_client_ca
            )
        self._renewal: asyncio.TimerHandle | None = None
        #: Where it listens, once it does.
        self.addresses: list[tuple[str, int]] = []

    def start(self) -> None:
        """Listen. To be called on the event loop.

        :raises OSError: where the address or port cannot be had
        """
        settings, database = self._settings, self.database
        sockets = bind_sockets(settings.port, settings.address, backlog=1024)
        self.addresses = [made.getsockname()[:2] for made in sockets]
        loop = asyncio.get_running_loop()
        database.hub.run, database.hub.go_on = on_loop(loop), in_turns(loop)
        limits = Limits(
            settings.max_sessions,
            settings.max_requests,
            settings.max_backlog,
            Rates(settings.max_rate, max(settings.max_rate, _BURST)),
        )
        sessions = Sessions(
            database, settings.ping_interval, settings.ping_timeout, limits.sessions
        )
        calls = Calls(database, database.functions, sessions, settings.rpc_timeout)
        database.caller = calls
        committer = Committer(database, sessions.outboxes.flush)
        peers = self._peers(committer, calls)
        dialer = self._dialer(peers)
        context = Context(
            database,
            committer,
            Transactions(settings.transaction_expiry, settings.max_transactions),
            {},
            sessions,
            calls,
            Plugins(database, settings.extensions, sessions.reserve),
            peers,
            limits,
            Refusals(database.meters),
            Bodies(),
            dialer,
        )
        self._context = context
        loopback = all(_is_loopback(host) for host, _ in self.addresses)
        if not (loopback or self._keeper.on or settings.insecure):
            raise Refused(
                f"{self.addresses[0][0]} can be reached from other machines, and there are no "
                "tokens: anybody could do anything. Make one with 'tega-server token add NAME "
                f"--logdir {settings.logdir}', or say --insecure"
            )
        websockets = WebSockets(context, settings.max_body)
        door = Door(self._keeper, settings.allow_origin, loopback, limits.rates, _names_of)
        self._service = Service(
            App(context),
            settings.max_body,
            settings.max_url,
            websockets.accept,
            door,
            Traffic(database.meters, context.refusals),
        )
        self._keeper.changed = lambda: sessions.judge_again(self._keeper.again)
        self._look_again()
        # The limits on URL and body are the service's own, so that it can answer with an error
        # where Tornado would hang up.
        self._http = Listener(
            self._service,
            self.certificates,
            Room(_connections(settings), lambda: len(sessions) + websockets.opening),
            database.meters,
            max_header_size=2 * settings.max_url + _HEADERS,
            max_body_size=sys.maxsize,
        )
        # Before anybody can ask for what they offer.
        context.plugins.load()
        self._http.add_sockets(sockets)
        self._renew()
        self._pulse = Pulse(database.meters)
        if dialer is not None:
            dialer.start()

    def look(self) -> None:
        """Read credentials, rules and certificates where they have changed."""
        self._keeper.look()
        if self.certificates is not None:
            self.certificates.renew()

    def _look_again(self) -> None:
        """Look for other credentials and rules, and again in a moment."""
        self._keeper.look()
        self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look_again)

    def _renew(self) -> None:
        """Take new certificates, now and from time to time."""
        if self.certificates is not None:
            self.certificates.renew()
            self._renewal = asyncio.get_running_loop().call_later(_RENEWAL, self._renew)

    def _peers(self, committer: Committer, calls: Calls) -> Peers:
        settings = self._settings

        def call(path: Path, body: bytes, caller: str, seconds: float, came: Link | None) -> Later:
            return calls.submit(path, body, caller, seconds, came)

        above = None
        if settings.gport is not None:
            above = where(settings.ghost, settings.gport)
        peers = Peers(
            self.database,
            committer.enter_here,
            committer.leave,
            call,
            Aside(settings.logdir / "aside", self.database.tega_id),
            config=settings.config,
            operational=settings.operational,
            patience=settings.ping_timeout,
            where=above,
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
            credentials=functools.partial(_for_global_server, settings),
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
        self._context.bodies.close()
        self._context.committer.close()
        self._context.refusals.close()
        self.database.close()


def _for_global_server(settings: Settings) -> Credentials:
    """What this server connects to its global one with, as the files have it now.

    :raises Malformed: naming the file that cannot be used, and why
    """
    file = settings.gtoken_file
    tls = Tls(settings.gca, settings.gcert, settings.gkey) if settings.gtls else None
    return Credentials.of(None if file is None else read_token(file), tls)


def _names_of(connection: HTTP1Connection) -> list[str]:
    """The names in the certificate that a client has shown, and the server has verified."""
    made = connection.stream.socket
    certificate = made.getpeercert() if isinstance(made, ssl.SSLSocket) else None
    return names_of(certificate) if certificate else []


def _connections(settings: Settings) -> int:
    """How many connections there may be: the process must not run out of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or settings.max_connections <= hard - _RESERVED:
        return int(settings.max_connections)
    log.info("%d connections at most: the process may have %d descriptors", hard - _RESERVED, hard)
    return max(1, hard - _RESERVED)


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def url_of(address: tuple[str, int], secure: bool) -> str:
    """An address as a URL.

    :param secure: TLS is spoken there
    """
    return f"{'https' if secure else 'http'}://{where(*address)}"


async def run(settings: Settings, database: Database, out: TextIO) -> None:
    """Run a server until a signal ends it.

    :param out: takes the lines that say what it is and where it is ready
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        if ended.is_set():
            log.warning("ended at once")
            logging.shutdown()
            os._exit(1)
        log.info("ending: answers in flight are sent; a second signal ends at once")
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        server = Server(settings, database)
        server.start()
    except BaseException:
        database.close()
        raise
    loop.add_signal_handler(signal.SIGHUP, server.look)
    state = database.state
    out.write(
        f"tega id {database.tega_id}, commit log {settings.logdir}, "
        f"{state.live_count} roots, {state.seq} commits\n"
    )
    for address in server.addresses:
        out.write(f"ready on {url_of(address, server.certificates is not None)}\n")
    out.flush()
    await ended.wait()
    await server.stop()
    log.info("ended")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tega-server``.

    :returns: the exit status: 0, 1 where it could not start, 2 for a wrong setting
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in command.COMMANDS:
        return command.run(given)
    try:
        settings = load(given, os.environ)
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
