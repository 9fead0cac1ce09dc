"""One subscription: a path or a pattern, and who listens to it."""

from __future__ import annotations

from typing import Any

import re2

from tega import paths
from tega.driver.listeners import Listener
from tega.errors import Malformed
from tega.paths import Path
from tega.protocol import Since, Subscribe
from tega.subscriber import SCOPE


class Subscription:
    """A path or a pattern that is subscribed to, once for all that listen to it.

    :param text: a dotted path, or with `regex` one pattern (RE2) a level, split at ``\\.``
    :ivar heard: who listens, each with what it has heard up to; None: nothing yet
    :ivar since: where the next SUBSCRIBE is to go on; None: at what is new then
    :ivar seen: the number up to which this connection has brought all there was; negative: it is
        still to tell how all stands
    :ivar awaits: how many times the server is still to go back for it: no notice is taken until
        then
    :ivar dirty: something has come for it meanwhile
    :raises Malformed: for what is no path or pattern
    """

    def __init__(self, text: str, regex: bool, scope: SCOPE) -> None:
        self.levels = _patterns(text) if regex else paths.parse(text)
        # As the server names it: a parameter of a message holds no space.
        self.text = text.replace(" ", "\\x20") if regex else paths.dotted(self.levels)
        self.regex = regex
        self.scope = scope
        self.heard: dict[Listener, Since | None] = {}
        self.since: Since | None = None
        self.seen = -1
        self.awaits = 0
        self.dirty = False
        self._matchers = [_compiled(level) for level in self.levels] if regex else []

    def covers(self, path: Path) -> bool:
        """Whether a path is one of those subscribed to, or stands below one."""
        levels = self.levels
        if not self.regex:
            return path[: len(levels)] == levels
        return len(path) >= len(levels) and all(
            matcher.match(key) is not None
            for matcher, key in zip(self._matchers, path, strict=False)
        )

    def covers_root(self, root: str) -> bool:
        """Whether a root has, or may have, something of it."""
        if not self.regex:
            return self.levels[0] == root
        return self._matchers[0].match(root) is not None

    def message(self) -> Subscribe:
        """What asks the server for it."""
        return Subscribe(self.text, self.scope.value, self.regex, self.since)


def _patterns(text: str) -> Path:
    if "\n" in text or "\r" in text:
        raise Malformed(f"malformed pattern {text[:64]!r}: write a line break as \\n")
    return paths.split_pattern(text)


def _compiled(level: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(level, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise Malformed(
            f"malformed pattern {level[:64]!r}: {shown}. A pattern is RE2 syntax, one a level",
            pattern=level[:64],
        ) from None
