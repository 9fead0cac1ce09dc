"""Who takes part in a database: an identity, what it wants to hear, and what it offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Protocol

from tega.errors import Closed
from tega.leaf import Func
from tega.paths import check_tega_id


class SCOPE(Enum):
    """How far a subscription reaches."""

    #: This server only.
    LOCAL = "local"
    #: All servers that are connected through the global one.
    GLOBAL = "global"


class Subscriber:
    """A participant, told of what it subscribes to by calling its methods.

    Each of them may be a function or a coroutine function. They are called one at a time, in order.

    :param tega_id: its identity: letters, digits, ``-``, ``_`` and ``.``, not starting with ``_``
    :param scope: how far its subscriptions reach unless they say otherwise
    """

    def __init__(self, tega_id: str, scope: SCOPE = SCOPE.LOCAL) -> None:
        self.tega_id = check_tega_id(tega_id)
        self.scope = scope

    def on_init(self) -> Awaitable[None] | None:
        """It takes part from now on; of a driver: its session has begun, or begun again."""
        return None

    def on_notify(self, notifications: list[dict[str, Any]]) -> Awaitable[None] | None:
        """A transaction has changed something that it subscribes to.

        :param notifications: its changes in order: ``{"ope": "PUT", "DELETE" or "ROLLBACK",
            "path", "tega_id", "instance", "seq", "version"}``; a DELETE has the instance that was
            removed, a ROLLBACK has none, and ``backto``
        """
        return None

    def on_message(self, channel: str, tega_id: str, message: Any) -> Awaitable[None] | None:
        """Somebody has published a message on a channel that it subscribes to.

        :param tega_id: who
        """
        return None


class Host(Protocol):
    """What a plugin lives in: `tega.embedded.Database`."""

    def enter(self, subscriber: Subscriber) -> None:
        """Somebody takes part."""

    def tx(self, tega_id: str | None = None, subscriber: Subscriber | None = None) -> Any:
        """A transaction."""

    def get(self, path: str, version: int | None = None, regex_flag: bool = False) -> Any:
        """What stands at a path."""

    def subscribe(
        self,
        subscriber: Subscriber,
        path: str,
        scope: SCOPE = SCOPE.LOCAL,
        regex_flag: bool = False,
    ) -> None:
        """Let somebody hear of a path."""

    def unsubscribe(self, subscriber: Subscriber, path: str, regex_flag: bool = False) -> None:
        """Let somebody hear of a path no more."""

    def publish(
        self, channel: str, tega_id: str, message: Any, subscriber: Subscriber | None = None
    ) -> None:
        """Publish a message."""

    def call(self, path: str, args: Any, kwargs: Any, caller: str) -> Awaitable[Any]:
        """Call a function."""


class PlugIn(Subscriber):
    """A part of a server that users write.

    A server makes one of each class of this kind in ``EXT/plugins/*.py``. Its constructor may open
    transactions and put functions; `initialize`, a function or a coroutine function that may run as
    long as the plugin does, is called once the server's event loop is there.

    :param tega_id: its identity, by default the name of the class
    :param scope: how far its subscriptions reach unless they say otherwise
    """

    #: Set before the constructor runs.
    _host: Host | None = None

    def __init__(self, tega_id: str | None = None, scope: SCOPE = SCOPE.LOCAL) -> None:
        super().__init__(type(self).__name__ if tega_id is None else tega_id, scope)
        self._there.enter(self)

    @property
    def _there(self) -> Host:
        if self._host is None:
            raise Closed(f"{type(self).__name__} is in no server: it is made by one, not by hand")
        return self._host

    def initialize(self) -> Awaitable[None] | None:
        """Begin to work."""
        return None

    def tx(self) -> Any:
        """A transaction under its tega id: ``with`` or ``async with``; see `tega.tx.Tx`."""
        return self._there.tx(subscriber=self)

    def func(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Func:
        """A function of this plugin, to be put into a tree; see `tega.tree.Func`.

        A coroutine function runs on the server's event loop, any other in a thread.
        """
        return Func(self.tega_id, method, *args, **kwargs)

    def rpc(self, path: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call the function at a path, wherever it runs: to be awaited.

        :raises TegaError: where there is none, its owner is gone, or it raises
        """
        return self._there.call(path, args, kwargs, self.tega_id)

    def get(self, path: str, version: int | None = None, regex_flag: bool = False) -> Any:
        """See `tega.embedded.Database.get`."""
        return self._there.get(path, version, regex_flag)

    def subscribe(
        self, path: str, scope: SCOPE | None = None, regex_flag: bool = False
    ) -> None:
        """Hear of a path, or with `regex_flag` a pattern, and of messages on that channel."""
        self._there.subscribe(self, path, scope or self.scope, regex_flag)

    def unsubscribe(self, path: str, regex_flag: bool = False) -> None:
        """Hear of it no more."""
        self._there.unsubscribe(self, path, regex_flag)

    def publish(self, channel: str, message: Any) -> None:
        """Tell all that subscribe to a channel."""
        self._there.publish(channel, self.tega_id, message, self)
