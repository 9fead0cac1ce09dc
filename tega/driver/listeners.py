"""Who hears of changes and messages, each in its own time: iterators, and a subscriber's callbacks.

What is still to be read waits with each `Listener`, up to a limit. A listener that lets more come
falls *behind*: of changes it is given no more, and once it has read what waits it goes on from
there out of the server's history, as after a lost connection. Messages have no history: those that
come meanwhile are lost, which is logged. So a slow listener costs a bounded amount of memory, and
holds up neither the others nor answers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from tega import strictjson

log = logging.getLogger(__name__)

#: Most changes and messages that wait with one listener.
MAX_WAITING: Final = 10_000

#: Most bytes of them, as they came.
MAX_BYTES: Final = 64 << 20

T = TypeVar("T")
Self = TypeVar("Self", bound="Stream[Any]")


class Change(NamedTuple):
    """A change that somebody else made.

    :ivar ope: ``PUT``, ``DELETE`` or ``ROLLBACK``
    :ivar path: where, dotted: at or below what is watched; of a ROLLBACK the root
    :ivar instance: what was put, or removed, in plain Python, the reader's own; None with ROLLBACK
    :ivar tega_id: who made it
    :ivar seq: sequence number of the transaction; all changes of one transaction have the same
    :ivar version: the version that it made of the root
    :ivar backto: with ROLLBACK: how many versions back
    :ivar resync: no change, but how it stands by now: what happened since was not kept. A PUT for
        each part that is there; of a path with nothing there a DELETE without an instance. What a
        pattern covered before and is not told is gone.
    """

    ope: str
    path: str
    instance: Any
    tega_id: str
    seq: int
    version: int
    backto: int | None = None
    resync: bool = False

    def as_data(self) -> dict[str, Any]:
        """The change as callbacks get it."""
        data = {
            "ope": self.ope,
            "path": self.path,
            "tega_id": self.tega_id,
            "instance": self.instance,
            "seq": self.seq,
            "version": self.version,
        }
        if self.backto is not None:
            data["backto"] = self.backto
        return data


class Message(NamedTuple):
    """What somebody else has published, in plain Python, on a channel: a dotted path."""

    channel: str
    tega_id: str
    message: Any


class Noted(msgspec.Struct, gc=False, eq=False):
    """A change as it came: its instance is read once somebody wants it, by each for itself."""

    ope: str
    path: str
    tega_id: str
    seq: int
    version: int
    instance: msgspec.Raw = msgspec.Raw(b"null")
    backto: int | None = None

    def change(self, resync: bool) -> Change:
        """The change as users get it."""
        return Change(
            self.ope,
            self.path,
            strictjson.loads(bytes(self.instance)),
            self.tega_id,
            self.seq,
            self.version,
            self.backto,
            resync,
        )


class Listener:
    """What waits for somebody to read it.

    :param name: for the log: what it listens to
    :param go_on: is called when one that was behind has read all that waited
    :ivar behind: whether it has let too much come, and gets no changes
    """

    def __init__(self, name: str, go_on: Callable[[Listener], None]) -> None:
        self.name = name
        self.behind = False
        self._go_on = go_on
        self._waiting: deque[tuple[Callable[[], Any], int]] = deque()
        self._bytes = 0
        self._losing = False
        self._there = asyncio.Event()
        self._end: BaseException | None = None

    @property
    def full(self) -> bool:
        """Whether as much waits as may."""
        return len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_BYTES

    def notice(self, notes: list[Noted], resync: bool) -> None:
        """The changes of one transaction."""
        for note in notes:
            self.add(_Later(note, resync), len(note.instance))

    def message(self, channel: str, tega_id: str, body: bytes) -> None:
        """A message, as ``{"message": ...}``."""

    def add(self, make: Callable[[], Any], size: int = 0) -> None:
        """Let something wait."""
        self._waiting.append((make, size))
        self._bytes += size
        self._there.set()

    def add_message(self, make: Callable[[], Any], size: int) -> None:
        """Let a message wait, unless there is too much."""
        if not self.full:
            self._losing = False
            self.add(make, size)
        elif not self._losing:
            self._losing = True
            log.warning("%s is too slow: messages get lost until it has caught up", self.name)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes: what waits can be read, then the error is raised, if there is one."""
        if self._end is None:
            self._end = error or StopAsyncIteration()
            self._there.set()

    def check(self) -> None:
        """Raise the error that it has ended with, if it has."""
        if self._end is not None and not isinstance(self._end, StopAsyncIteration):
            raise self._end

    async def next(self) -> Any:
        """What comes next.

        :raises StopAsyncIteration: at the end, unless that was an error
        """
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._there.clear()
            await self._there.wait()
        make, size = self._waiting.popleft()
        self._bytes -= size
        if self.behind and not self._waiting:
            self.behind = False
            self._go_on(self)
        return make()


class _Later:
    """Makes a change when its turn comes."""

    __slots__ = ("note", "resync")

    def __init__(self, note: Noted, resync: bool) -> None:
        self.note = note
        self.resync = resync

    def __call__(self) -> Change:
        return self.note.change(self.resync)


class Watcher(Listener):
    """Takes changes, for a `Watch`."""


class Reader(Listener):
    """Takes messages, for `Messages`."""

    def notice(self, notes: list[Noted], resync: bool) -> None:
        pass

    def message(self, channel: str, tega_id: str, body: bytes) -> None:
        self.add_message(
            lambda: Message(channel, tega_id, strictjson.loads(body)["message"]), len(body)
        )


class Callbacks(Listener):
    """Takes both, for a subscriber: calls it back, with one thing at a time and in order.

    :param subscriber: may have ``on_init``, ``on_notify`` and ``on_message``, functions or
        coroutine functions
    """

    def __init__(self, subscriber: Any, go_on: Callable[[Listener], None]) -> None:
        super().__init__(f"the subscriber {type(subscriber).__name__}", go_on)
        self._subscriber = subscriber

    def begun(self) -> None:
        """A connection is there."""
        self.add(lambda: ("on_init", ()))

    def notice(self, notes: list[Noted], resync: bool) -> None:
        size = sum([len(note.instance) for note in notes])
        self.add(
            lambda: ("on_notify", ([note.change(resync).as_data() for note in notes],)), size
        )

    def message(self, channel: str, tega_id: str, body: bytes) -> None:
        self.add_message(
            lambda: ("on_message", (channel, tega_id, strictjson.loads(body)["message"])), len(body)
        )

    def end(self, error: BaseException | None = None) -> None:
        """The session may go on one day."""

    async def run(self) -> None:
        """Call back, until cancelled."""
        # It may be another event loop than the last time.
        self._there = asyncio.Event()
        while True:
            name, arguments = await self.next()
            try:
                callback = getattr(self._subscriber, name, None)
                done = None if callback is None else callback(*arguments)
                if inspect.isawaitable(done):
                    await done
            except Exception:
                log.exception("%s of %s failed", name, self.name)


class Stream(Generic[T]):
    """An asynchronous iterator over what comes.

    It hears from the moment that it is made, whether or not it is read yet; ``async with`` waits
    until the server has confirmed that, and raises its refusal; it ends it, as `aclose` and letting
    go of it do.

    :param listener: where what comes waits
    :param ready: waits for the server
    :param leave: stops it from coming
    """

    _left = True

    def __init__(
        self,
        listener: Listener,
        ready: Callable[[], Any],
        leave: Callable[[Listener], None],
    ) -> None:
        self._listener = listener
        self._ready = ready
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._left = False

    def __aiter__(self: Self) -> Self:
        return self

    async def __anext__(self) -> T:
        item: T = await self._listener.next()
        return item

    async def __aenter__(self: Self) -> Self:
        await self._ready()
        self._listener.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hear no more. What has come already can still be read."""
        if not self._left:
            self._left = True
            self._leave(self._listener)

    def __del__(self) -> None:
        # The collector may run in any thread.
        if not self._left and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._leave, self._listener)


class Watch(Stream[Change]):
    """Changes, in the order in which they were committed, each once."""


class Messages(Stream[Message]):
    """Messages of a channel."""
