"""The lean client: closed-loop conversations over raw sockets in one epoll loop.

Each connection keeps ``depth`` operations in flight: as soon as one is answered, the next is
sent. Requests are made by joining prebuilt bytes and replies are only framed and judged, so that
the client costs little beside the server; its share of the CPU is measured all the same.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: A client that uses more of its core than this may be what limits the result.
BUSY = 0.9

#: Seconds without any reply after which a run is given up.
STALLED = 30.0


class BadReply(Exception):
    """The server refused, or answered what cannot be an answer."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(f"bad reply: {reply[:400]!r}")


class Conversation:
    """One connection: how its operations are asked, and how answers are told apart.

    :param connect: opens the connection, handshake included
    :param request: the bytes of the n-th operation, from 0
    :param feed: takes what has arrived and tells how many operations it ended;
        raises :class:`BadReply`
    :param depth: operations in flight
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        request: Callable[[int], bytes],
        feed: Callable[[bytes], int],
        depth: int = 1,
    ) -> None:
        self._connect = connect
        self._request = request
        self._feed = feed
        self.depth = depth
        #: Operations begun at most.
        self.limit = 1 << 62
        #: Operations answered; since answers come in order, these are the first ones asked.
        self.done = 0
        self._asked = 0

    def connect(self) -> socket.socket:
        """Open the connection."""
        return self._connect()

    def left(self, count: int) -> int:
        """So many operations, or fewer where the limit is near."""
        return min(count, self.limit - self._asked)

    def begin(self, count: int) -> bytes:
        """The bytes that ask for the next ``count`` operations."""
        first, self._asked = self._asked, self._asked + count
        if count == 1:
            return self._request(first)
        return b"".join([self._request(n) for n in range(first, first + count)])

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Take what has arrived.

        :returns: how many operations ended, and what must be sent to go on with those under way
        """
        ended = self._feed(data)
        self.done += ended
        return ended, b""

    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return self.done == self._asked


class Subscriber(ABC):
    """A connection that is told things and asks nothing: how it begins, and what is counted."""

    @abstractmethod
    def connect(self) -> socket.socket:
        """Open the connection and subscribe; the subscription holds when this returns."""

    @abstractmethod
    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Take what has arrived.

        :returns: how many notifications ended, and what must be sent back
        :raises BadReply: for anything else
        """


@dataclass(frozen=True)
class Timing:
    """What one run of the client measured."""

    operations: int
    seconds: float
    #: Of each operation, sorted.
    latencies: Sequence[float]
    #: CPU time of the client over wall time.
    client_cpu: float
    #: By ``time.perf_counter``, which all processes share.
    began: float = 0.0

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in seconds that this share of the operations did not exceed."""
        return self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


def drive(
    conversations: Sequence[Conversation],
    seconds: float,
    most: int = 1_000_000,
    until: Callable[[], bool] | None = None,
) -> Timing:
    """Run the conversations side by side for a time, then let what is in flight end.

    :param seconds: how long new operations are begun
    :param most: operations begun at most, about
    :param until: ends the run early once it is true; asked after every turn of the loop
    :raises BadReply: where a server refuses; OSError: where a connection breaks
    """
    poll = select.epoll()
    by_fd: dict[int, tuple[socket.socket, Conversation, deque[float]]] = {}
    try:
        for conversation in conversations:
            sock = conversation.connect()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(STALLED)
            by_fd[sock.fileno()] = (sock, conversation, deque())
            poll.register(sock.fileno(), select.EPOLLIN)
        collecting = gc.isenabled()
        gc.disable()
        try:
            return _loop(poll, by_fd, seconds, most, until)
        finally:
            if collecting:
                gc.enable()
    finally:
        poll.close()
        for sock, _, _ in by_fd.values():
            sock.close()


def _loop(
    poll: select.epoll,
    by_fd: dict[int, tuple[socket.socket, Conversation, deque[float]]],
    seconds: float,
    most: int,
    until: Callable[[], bool] | None,
) -> Timing:
    clock = time.perf_counter
    latencies: list[float] = []
    open_conversations = 0
    cpu = time.process_time()
    start = now = clock()
    end = start + seconds
    for sock, conversation, sent in by_fd.values():
        count = conversation.left(conversation.depth)
        sent.extend([clock()] * count)
        sock.sendall(conversation.begin(count))
        open_conversations += count > 0
    while open_conversations:
        events = poll.poll(STALLED)
        if not events:
            raise TimeoutError(f"no reply for {STALLED:.0f} s")
        for fd, _ in events:
            sock, conversation, sent = by_fd[fd]
            data = sock.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            ended, more = conversation.feed(data)
            now = clock()
            for _ in range(ended):
                latencies.append(now - sent.popleft())
            if ended and now < end:
                count = conversation.left(ended)
                more += conversation.begin(count)
                sent.extend([now] * count)
            if more:
                sock.sendall(more)
            if ended and conversation.idle():
                open_conversations -= 1
        if len(latencies) >= most or (until is not None and until()):
            end = start
    wall = now - start
    share = (time.process_time() - cpu) / wall
    latencies.sort()
    return Timing(len(latencies), wall, latencies, share, start)
