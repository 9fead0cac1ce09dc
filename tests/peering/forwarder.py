"""A TCP forwarder between two servers: the network that can be paused, cut, slowed and healed."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

#: Bytes that are passed on at a time.
_PIECE = 1 << 14


class Forwarder:
    """Passes connections on to a server; on an event loop in a thread of its own.

    :param address: of the server
    :ivar port: where it listens, on 127.0.0.1
    :ivar passed: bytes that went from the server to those who connected
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._target = address
        self.port = 0
        self.passed = 0
        self._rate: float | None = None
        self._refused = False
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._do(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    # -- what happens to the network ------------------------------------------------------------

    def pause(self) -> None:
        """Let nothing through, and tell nobody: a blackhole."""
        self._do(self._open.clear)

    def cut(self) -> None:
        """Reset all connections, and each new one."""
        self._do(self._cut)

    def heal(self) -> None:
        """Let all through again, what was held up first."""
        self._do(self._heal)

    def slow(self, rate: float | None) -> None:
        """Let so many bytes a second through on each connection; None: all."""
        self._rate = rate

    def has_passed(self, count: int) -> bool:
        """Whether so many bytes went from the server to those who connected."""
        return self.passed >= count

    def _cut(self) -> None:
        self._refused = True
        for writer in self._writers:
            _reset(writer)

    def _heal(self) -> None:
        self._refused = False
        self._open.set()

    # -- on its event loop ----------------------------------------------------------------------

    def _do(self, work: Callable[[], Any]) -> None:
        done = threading.Event()

        def doing() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(doing)
        assert done.wait(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refused:
            _reset(writer)
            return
        self._writers.add(writer)
        await self._open.wait()
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers.add(far_writer)
            ways = (self._pump(reader, far_writer, 0), self._pump(far_reader, writer, 1))
            pumps = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            # Nobody listens there.
            _reset(writer)
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: int
    ) -> None:
        while data := await reader.read(_PIECE):
            await self._open.wait()
            if self._rate is not None:
                await asyncio.sleep(len(data) / self._rate)
            writer.write(data)
            await writer.drain()
            self.passed += counted * len(data)
        # The end of a connection does not get through either.
        await self._open.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a machine does that does not know of it."""
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
