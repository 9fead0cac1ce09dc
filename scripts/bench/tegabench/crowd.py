"""Many subscribers, in a process of their own that counts what each is told."""

from __future__ import annotations

import gc
import multiprocessing
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tegabench.client import STALLED, BadReply, Subscriber
from tegabench.process import BenchError, allow_files

#: Seconds that a crowd may take to connect.
_CONNECTING = 120.0

#: Subscribers of which everything is kept that they are told.
SAMPLE = 3


@dataclass(frozen=True)
class Tally:
    """What a crowd has been told so far."""

    #: Notifications, by subscriber.
    counts: Sequence[int]
    #: When the last one came, by ``time.perf_counter``.
    last: float
    #: Processor seconds since all had subscribed.
    cpu: float
    #: All bytes that a few of them got.
    streams: Sequence[bytes]


class Crowd:
    """Subscribers that hold their connections for the time of a ``with`` block."""

    def __init__(self, subscribers: Sequence[Subscriber], sample: int = SAMPLE) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, list(subscribers), sample)
        self._process = context.Process(target=_attend, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Crowd:
        try:
            self._receive(_CONNECTING)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def tally(self, each: int) -> Tally:
        """What they were told, once every one has been told so many things.

        :raises BenchError: where that does not happen, or one was told more or something else
        """
        self._pipe.send(each)
        tally: Tally = self._receive(_CONNECTING)
        if set(tally.counts) != {each}:
            raise BenchError(
                f"each subscriber should have got {each} notifications; they got "
                f"{min(tally.counts)} to {max(tally.counts)}"
            )
        return tally

    def _receive(self, patience: float) -> Any:
        if not self._pipe.poll(patience):
            raise BenchError(f"the subscribers did not answer for {patience:.0f} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise BenchError("the process of the subscribers ended") from None
        if isinstance(answer, BenchError):
            raise answer
        return answer

    def _end(self) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _attend(pipe: Connection, subscribers: Sequence[Subscriber], sample: int) -> None:
    """Run the crowd until the other end of the pipe is closed."""
    try:
        _Attendance(pipe, subscribers, sample).run()
    except (OSError, BadReply) as error:
        # Where the other side has left already, there is nobody to tell.
        with suppress(BrokenPipeError):
            pipe.send(BenchError(f"subscribers: {type(error).__name__}: {error}"))


class _Attendance:
    """The crowd in its own process."""

    def __init__(self, pipe: Connection, subscribers: Sequence[Subscriber], sample: int) -> None:
        self._pipe = pipe
        self._subscribers = subscribers
        self._counts = [0] * len(subscribers)
        self._streams = [bytearray() for _ in range(min(sample, len(subscribers)))]
        self._total = 0
        self._last = 0.0
        self._wanted: int | None = None

    def run(self) -> None:
        allow_files()
        poll = select.epoll()
        by_fd: dict[int, tuple[int, socket.socket]] = {}
        for number, subscriber in enumerate(self._subscribers):
            sock = subscriber.connect()
            sock.settimeout(STALLED)
            by_fd[sock.fileno()] = number, sock
            poll.register(sock.fileno(), select.EPOLLIN)
        commands = self._pipe.fileno()
        poll.register(commands, select.EPOLLIN)
        gc.disable()
        self._pipe.send(None)
        started = time.process_time()
        patience: float | None = None
        while True:
            events = poll.poll(patience)
            for fd, _ in events:
                if fd == commands:
                    try:
                        self._wanted = self._pipe.recv()
                    except EOFError:
                        return
                    # From now on something must come, or there is nothing more to wait for.
                    patience = STALLED
                else:
                    self._hear(*by_fd[fd])
            if self._wanted is not None and (
                not events or self._total >= self._wanted * len(self._subscribers)
            ):
                cpu = time.process_time() - started
                streams = [bytes(stream) for stream in self._streams]
                self._pipe.send(Tally(self._counts, self._last, cpu, streams))
                self._wanted = patience = None

    def _hear(self, number: int, sock: socket.socket) -> None:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError(f"the server closed the connection of {number}")
        told, answer = self._subscribers[number].feed(data)
        if answer:
            sock.sendall(answer)
        if number < len(self._streams):
            self._streams[number] += data
        if told:
            self._counts[number] += told
            self._total += told
            self._last = time.perf_counter()
