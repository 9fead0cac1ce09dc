"""A small server that keeps to the protocol unless a test tells it otherwise, and a wire to cut."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tega.protocol import (
    Connection,
    Message,
    Publish,
    Request,
    Response,
    Role,
    Session,
    SessionAck,
    Subscribe,
    Unsubscribe,
)

#: Most seconds to wait for what must happen.
PATIENCE = 10

Step = Callable[["Peer", Message], Any]


class Peer(WebSocketHandler):
    """The server's end of one connection."""

    scripted: Scripted

    def initialize(self, scripted: Scripted) -> None:
        self.scripted = scripted
        self.protocol = Connection(Role.SERVER)
        self.received: list[Message] = []
        self.subscribed: dict[tuple[str, bool], int] = {}
        #: Up to where it has been told, while it is not told of changes as they come.
        self.cursor: int | None = None
        self.pings = 0
        self.gone = asyncio.Event()

    def check_origin(self, origin: str) -> bool:
        return True

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self.scripted.peers.append(self)
        self.scripted.changed()

    def on_message(self, message: str | bytes) -> None:
        try:
            assert isinstance(message, str)
            one = self.protocol.receive(message)
            self.received.append(one)
            self.scripted.received.append(one)
            if not self.scripted.step(self, one):
                self.scripted.play(self, one)
        except Exception as error:
            self.scripted.failures.append(error)
            raise
        self.scripted.changed()

    def on_ping(self, data: bytes) -> None:
        self.pings += 1
        self.scripted.changed()

    def on_close(self) -> None:
        self.gone.set()
        self.scripted.changed()

    def say(self, text: str) -> None:
        """Send a text; nothing where the connection is over."""
        try:
            written = self.write_message(text)
        except WebSocketClosedError:
            return
        written.add_done_callback(lambda done: done.cancelled() or done.exception())

    def tell(self, message: Message) -> None:
        """Send a message."""
        self.say(self.protocol.send(message))

    def answer(self, request: Request, value: Any, error: bool = False) -> None:
        """Answer a request."""
        body = json.dumps(value).encode()
        self.tell(Response(request.seq_no, request.type, request.tega_id, error, body))

    def cut(self) -> None:
        """End the connection without a word."""
        self.ws_connection.stream.close()  # type: ignore[union-attr]


class Scripted:
    """The server.

    It acknowledges sessions, does every transaction once, and tells changes to who subscribes; it
    can tell them again from a sequence number on.

    :ivar script: is asked of every message first, and says whether it has dealt with it
    """

    def __init__(self) -> None:
        self.life = "first"
        #: Whether it goes back as soon as it is asked to, rather than a little later.
        self.at_once = False
        #: After so many transactions told of what was missed it cuts the connection, once.
        self.torn_after: int | None = None
        self.seq = 0
        self.port = 0
        self.peers: list[Peer] = []
        self.received: list[Message] = []
        self.applied: list[dict[str, Any]] = []
        self.history: list[list[dict[str, Any]]] = []
        self.results: dict[str, Any] = {}
        self.script: Step | None = None
        #: What went wrong here, which fails the test.
        self.failures: list[Exception] = []
        self._server: HTTPServer | None = None
        self._changes = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scripted]:
        """Listen on a free port."""
        sockets = bind_sockets(self.port, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        self._server = HTTPServer(Application(self.handlers()))
        self._server.add_sockets(sockets)
        try:
            yield self
        finally:
            self._server.stop()
            for peer in self.peers:
                if not peer.gone.is_set():
                    peer.cut()
            await self._server.close_all_connections()
        assert not self.failures, self.failures

    def handlers(self) -> list[Any]:
        """What answers which URLs."""
        return [("/_pubsub", Peer, {"scripted": self})]

    def changed(self) -> None:
        """Something has happened that somebody may wait for."""

        async def wake() -> None:
            async with self._changes:
                self._changes.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to happen here."""
        async with self._changes:
            await asyncio.wait_for(self._changes.wait_for(condition), PATIENCE)

    @property
    def peer(self) -> Peer:
        """The newest connection."""
        return self.peers[-1]

    def of(self, kind: type[Message]) -> list[Any]:
        """The messages of a kind that have come."""
        return [one for one in self.received if isinstance(one, kind)]

    def transactions(self) -> list[Any]:
        """The operations of each transaction that has come, probes left out."""
        bodies = [json.loads(one.body) for one in self.of(Request) if one.type == "TX"]
        return [body["ops"] for body in bodies if body["ops"]]

    # -- what it does ---------------------------------------------------------------------------

    def step(self, peer: Peer, message: Message) -> bool:
        return self.script is not None and bool(self.script(peer, message))

    def play(self, peer: Peer, message: Message) -> None:
        """Do what a server does."""
        if isinstance(message, Session):
            peer.tell(SessionAck("scripted", self.life, self.seq))
        elif isinstance(message, Request) and message.type == "TX":
            peer.answer(message, self.transact(json.loads(message.body)))
        elif isinstance(message, Subscribe):
            self.subscribe(peer, message)
        elif isinstance(message, Unsubscribe):
            if message.path is None:
                peer.subscribed.clear()
            else:
                peer.subscribed.pop((message.path, message.regex), None)
        elif isinstance(message, Publish):
            for other in self.peers:
                if other is not peer:
                    other.say(f"MESSAGE {message.channel} x\n{message.body.decode()}")

    def transact(self, body: dict[str, Any]) -> dict[str, Any]:
        txid = body.get("txid")
        if txid in self.results:
            return dict(self.results[txid])
        results = []
        changes = [one for one in body["ops"] if one["ope"] != "GET"]
        for one in body["ops"]:
            if one["ope"] == "GET":
                error = {"code": "not_found", "message": f"no {one['path']}"}
                found = [put for put in self.applied if put["path"] == one["path"]]
                there = bool(found) and found[-1]["ope"] == "PUT"
                results.append(
                    {"instance": found[-1]["instance"], "version": 0} if there else {"error": error}
                )
        if changes:
            self.seq += 1
            self.applied += changes
        result = {"seq": self.seq, "versions": {}, "results": results}
        if changes and txid is not None:
            self.results[txid] = result
        return result

    def subscribe(self, peer: Peer, message: Subscribe) -> None:
        key = message.path, message.regex
        if message.since is None:
            peer.subscribed.setdefault(key, self.seq)
        elif message.since.life not in (None, self.life):
            peer.subscribed[key] = 0
            self.gone(peer, message.path)
        else:
            cursor = self.seq if peer.cursor is None else peer.cursor
            for other, since in peer.subscribed.items():
                peer.subscribed[other] = max(since, cursor)
            peer.subscribed[key] = message.since.seq
            peer.cursor = min(cursor, message.since.seq)
            if self.at_once:
                self.catch_up(peer)
            else:
                asyncio.get_running_loop().call_soon(self.catch_up, peer)

    def catch_up(self, peer: Peer) -> None:
        """Tell what was missed."""
        for changes in self.history if peer.cursor is not None else ():
            if changes[0]["seq"] > peer.cursor:
                if self.torn_after == 0:
                    self.torn_after = None
                    # The writes before are on their way by then.
                    asyncio.get_running_loop().call_soon(peer.cut)
                    return
                self.notify(peer, changes)
                if self.torn_after is not None:
                    self.torn_after -= 1
        peer.cursor = None

    def gone(self, peer: Peer, path: str) -> None:
        """Tell how a path stands, where nothing else can be told."""
        if (path, False) in peer.subscribed:
            peer.subscribed[path, False] = self.seq
        body = {"path": path, "regex_flag": False, "seq": self.seq, "life": self.life,
                "message": "gone"}  # fmt: skip
        peer.say(f"ERROR gone\n{json.dumps(body)}")
        change = {"ope": "PUT", "path": path, "tega_id": "scripted", "instance": {"is": self.seq},
                  "seq": self.seq, "version": 0}  # fmt: skip
        peer.say(f"NOTIFY\n{json.dumps([change])}")

    def commit(self, *changes: dict[str, Any]) -> int:
        """Somebody else changes something: tell who subscribes."""
        self.seq += 1
        made = [
            {"ope": "PUT", "tega_id": "other", "seq": self.seq, "version": 0, "instance": None}
            | change
            for change in changes
        ]
        self.history.append(made)
        for peer in self.peers:
            if not peer.gone.is_set() and peer.cursor is None:
                self.notify(peer, made)
        return self.seq

    def notify(self, peer: Peer, changes: list[dict[str, Any]]) -> None:
        """Tell a client of those changes that it subscribes to."""
        mine = [
            one for one in changes
            if any(covers(path, one["path"]) and since < one["seq"]
                   for (path, _), since in peer.subscribed.items())
        ]  # fmt: skip
        if mine:
            peer.say(f"NOTIFY\n{json.dumps(mine)}")


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a coroutine function be a test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 6 * PATIENCE))

    return run


def covers(path: str, other: str) -> bool:
    return other == path or other.startswith(f"{path}.")


class Wire:
    """A way to a server that can be cut, at any byte, or silenced.

    :ivar cuts: of each connection to come: where to cut it, as ``("down", bytes from the server)``
        or ``("up", bytes to it)``; None: nowhere
    :ivar carried: bytes that each connection has carried, down and up
    :ivar silent: nothing comes through, but nothing is cut
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.cuts: list[tuple[str, int] | None] = []
        self.carried: list[dict[str, int]] = []
        self.silent = False
        self._held: bytearray | None = None
        self._held_for: asyncio.StreamWriter | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def strung(self) -> AsyncIterator[Wire]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def hold(self) -> None:
        """Keep what the client sends from now on."""
        self._held = bytearray()

    def release(self, count: int | None = None) -> int:
        """Let so many bytes of that go on, or all, and hold no more.

        :returns: how many wait
        """
        assert self._held is not None
        if count is None:
            count = len(self._held)
        if self._held_for is not None:
            self._held_for.write(bytes(self._held[:count]))
        del self._held[:count]
        waiting = len(self._held)
        if not waiting:
            self._held = None
        return waiting

    async def until_held(self, count: int) -> None:
        """Wait until so many bytes are kept."""
        for _ in range(1000 * PATIENCE):
            if self._held is not None and len(self._held) >= count:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"{len(self._held or b'')} bytes are held")

    def cut(self) -> None:
        """Cut all connections now."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        limit = self.cuts.pop(0) if self.cuts else None
        carried = {"down": 0, "up": 0}
        self.carried.append(carried)
        pair = [writer, there_writer]
        self._writers += pair
        for way, source, drain in (
            ("down", there_reader, writer), ("up", reader, there_writer)
        ):  # fmt: skip
            most = limit[1] if limit is not None and limit[0] == way else None
            task = asyncio.get_running_loop().create_task(
                self._carry(source, drain, pair, carried, way, most)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        drain: asyncio.StreamWriter,
        pair: list[asyncio.StreamWriter],
        carried: dict[str, int],
        way: str,
        most: int | None,
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if self.silent:
                    continue
                if way == "up" and self._held is not None:
                    self._held += data
                    self._held_for = drain
                    continue
                if most is not None and carried[way] + len(data) >= most:
                    drain.write(data[: most - carried[way]])
                    carried[way] = most
                    await drain.drain()
                    break
                carried[way] += len(data)
                drain.write(data)
                await drain.drain()
        except ConnectionError:
            pass
        finally:
            for writer in pair:
                if writer.transport.get_write_buffer_size() and writer is drain:
                    writer.close()
                else:
                    writer.transport.abort() if writer is not drain else writer.close()
