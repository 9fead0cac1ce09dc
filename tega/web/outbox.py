"""What goes out on a WebSocket: framed once, written together, never more than the client takes.

A message may go to thousands of connections, so it is framed by itself and the bytes are shared.
Whatever one turn of the event loop has for a connection is written at one go. A message that is
long is sent in fragments, each made when the one before is on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from tega.protocol.frames import CONTINUATION, PING, TEXT, frame
from tega.web.streams import Stream
from tega.web.turns import CHUNK, Pieces, Turns

log = logging.getLogger(__name__)

#: Bytes in one fragment of a long message, and in a message that is not fragmented.
FRAGMENT: Final = CHUNK

#: A ping without any payload.
PING_FRAME: Final = frame(b"", PING)


class Outboxes:
    """All the connections of a server that have something to send in this turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Outbox] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.turns = Turns()

    def enter(self, outbox: Outbox) -> None:
        """Write what an outbox has once this turn is over."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(outbox)

    def flush(self) -> None:
        """Write now."""
        waiting, self._waiting = self._waiting, []
        for outbox in waiting:
            outbox.flush()

    def spawn(self, outbox: Outbox, message: Pieces, begun: bool) -> None:
        """Send the rest of a long message beside everything else."""
        task = self._loop.create_task(outbox.stream(message, begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Outbox:
    """What goes out on one connection.

    :param drained: called whenever the client has taken all that was written
    """

    __slots__ = (
        "_drained", "_ended", "_frames", "_later", "_outboxes", "_stream", "_streaming", "_turn",
        "_waits",
    )  # fmt: skip

    def __init__(self, stream: Stream, outboxes: Outboxes, drained: Callable[[], None]) -> None:
        self._stream = stream
        self._outboxes = outboxes
        self._drained = drained
        self._frames: list[bytes] = []
        self._waits = 0
        # What comes while a long message is being sent.
        self._later: deque[bytes | Pieces] = deque()
        self._streaming = False
        self._ended = False
        self._turn: asyncio.Future[None] | None = None

    @property
    def backlog(self) -> int:
        """Bytes that the client has still to take."""
        return self._waits + self._stream.unsent

    @property
    def busy(self) -> bool:
        """Whether the client has still to take something; `drained` tells when it has."""
        return self._streaming or self._stream.unsent > 0

    def send(self, made: bytes) -> None:
        """Send a frame, or several; nothing after `end`."""
        if self._ended:
            return
        self._waits += len(made)
        if self._streaming:
            self._later.append(made)
            return
        if not self._frames:
            self._outboxes.enter(self)
        self._frames.append(made)

    def send_pieces(self, pieces: Pieces) -> None:
        """Send a text message that is still to be made, unless it comes to nothing.

        Nothing is sent after `end`.
        """
        if self._ended:
            return
        if self._streaming:
            # Nobody knows how long it gets; but it holds the state that it is made of.
            self._waits += FRAGMENT
            self._later.append(pieces)
            return
        payload, rest = self._outboxes.turns.gather(pieces)
        if rest is None:
            if payload:
                self.send(frame(payload))
            return
        if payload:
            self.send(frame(payload, last=False))
        self._streaming = True
        self._outboxes.spawn(self, rest, bool(payload))

    def flush(self) -> None:
        """Write what was sent."""
        frames, self._frames = self._frames, []
        if not frames:
            return
        data = b"".join(frames) if len(frames) > 1 else frames[0]
        self._waits -= len(data)
        self._stream.write(data)
        if len(data) > FRAGMENT and not self.busy:
            # So much that somebody may be waiting for room.
            self._drained()

    def end(self, last: bytes) -> None:
        """Write what was sent and one frame more, and nothing after it."""
        # It may stand in the middle of a long message, which is cut by it.
        self._waits += len(last)
        self._frames.append(last)
        self.flush()
        self._ended = True
        self._later.clear()

    def taken(self) -> None:
        """The client has taken all that was written, or takes nothing any more."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        if not self.busy and not self._stream.closed():
            self._drained()

    async def stream(self, rest: Pieces, begun: bool) -> None:
        """Send the fragments that are left of a long message, as fast as the client takes them.

        :param begun: whether its first fragment is on the way
        """
        try:
            more: Pieces | None = rest
            while more is not None and not self._ended:
                self.flush()
                if not await self._has_room() or self._ended:
                    return
                payload, more = self._outboxes.turns.gather(more)
                if not payload and (more is not None or not begun):
                    continue
                made = frame(payload, CONTINUATION if begun else TEXT, more is None)
                begun = True
                self._waits += len(made)
                self._frames.append(made)
            self.flush()
        except Exception:
            # Cut off, so that what has come is not taken for the whole.
            log.exception("bug in the middle of a long message")
            self._stream.close()
            return
        self._streaming = False
        while self._later and not self._streaming:
            one = self._later.popleft()
            if isinstance(one, bytes):
                self._waits -= len(one)
                self.send(one)
            else:
                self._waits -= FRAGMENT
                self.send_pieces(one)
        if not self.busy:
            self._drained()

    async def _has_room(self) -> bool:
        """Wait until the client has taken all that was written, and then for a turn of the loop.

        :returns: whether it is still there
        """
        if self._stream.unsent:
            self._turn = asyncio.get_running_loop().create_future()
            await self._turn
        await self._outboxes.turns.next()
        return not self._stream.closed()
