"""Those who hear of commits and messages, what they subscribe to, and what they are told."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from tega import strictjson
from tega.access.rules import Rights
from tega.notices import Notice
from tega.paths import Path
from tega.store.commit import Commit
from tega.subscriber import SCOPE
from tega.topics import Topics


class Subscription(msgspec.Struct, eq=False):
    """What a watcher subscribes to.

    :ivar text: the dotted path or pattern
    :ivar levels: its keys, or one pattern a level
    :ivar since: the sequence number after which it wants to hear
    """

    text: str
    levels: Path
    regex: bool
    scope: SCOPE
    since: int


class Publication:
    """A message on a channel, on its way to all that subscribe to it.

    :ivar body: ``{"message": ...}`` as JSON
    :ivar frame: for whoever sends it: what it has made of the text
    """

    __slots__ = ("_message", "body", "channel", "frame", "tega_id")

    def __init__(self, channel: Path, tega_id: str, body: bytes) -> None:
        self.channel = channel
        self.tega_id = tega_id
        self.body = body
        self.frame: Any = None

    @property
    def message(self) -> Any:
        """The message, a value of the caller's own."""
        return strictjson.loads(self.body)["message"]


class Run:
    """Notices one after the other, for all the same watchers.

    :ivar frames: for whoever sends them: what it has made of their texts
    """

    __slots__ = ("frames", "notices")

    def __init__(self, notices: list[Notice]) -> None:
        self.notices = notices
        self.frames: Any = None


class Watcher:
    """Somebody who can subscribe: a session, a plugin, a subscriber in this process.

    :cvar takes_runs: whether it may be told of several commits at once: what it is told must not
        make it change its subscriptions then
    :ivar live: whether it is handed notices as they come
    :ivar levels: of all that it subscribes to: of paths, and (True) of patterns
    :ivar rights: what it may be told of; None: everything
    """

    takes_runs: ClassVar[bool] = False

    def __init__(self, tega_id: str) -> None:
        self.tega_id = tega_id
        self.rights: Rights | None = None
        self.live = True
        self.subscriptions: dict[tuple[str, bool], Subscription] = {}
        self.levels = {False: 0, True: 0}

    @property
    def cursor(self) -> int | None:
        """The sequence number that it has come to, where it catches up; None where it does not."""
        return None

    def hears(self, commit: Commit) -> bool:
        """Whether it is told of a commit as it comes: what somebody has made itself, it knows."""
        return self.live and self.tega_id != commit.tega_id

    def notify(self, notice: Notice) -> None:
        """Here is what a commit means to it."""
        raise NotImplementedError

    def notify_run(self, run: Run) -> None:
        """Here is what several commits mean to it, all by others."""
        for notice in run.notices:
            if self.live:
                self.notify(notice)

    def tell(self, publication: Publication) -> None:
        """Here is a message on one of its channels."""
        raise NotImplementedError

    def cleared(self) -> None:
        """The database was cleared: nothing that it has seen is there any more."""


def own_topics(watcher: Watcher) -> Topics:
    """The subscriptions of a watcher by themselves."""
    own = Topics()
    for one in watcher.subscriptions.values():
        own.add(one.levels, one.regex, watcher, one.since)
    return own
