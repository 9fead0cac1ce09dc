"""Which subscriptions a change touches: a trie of paths with literal and pattern edges.

A subscription is on a path, or on a pattern: one RE2 expression a level, matched from the start of
the key. A change walks the trie along its own path, so what it costs depends on its depth and on
the subscriptions that it meets, not on how many there are elsewhere.

`Topics.covering` gives the topics at and above a path, `Topics.below` those below it that a tree
put or removed there has something for.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from tega.errors import Malformed
from tega.paths import Path
from tega.store.children import in_order
from tega.store.match import compile_level
from tega.store.node import ABSENT, Content, MaybeContent, Node

#: Patterns that are tried together, by one expression that matches where any of them does; and
#: gates of that kind that are tried together once more.
_GATE: Final = 32

#: So few patterns are tried without a gate.
_WORTH_IT: Final = 4

#: Keys of which it is remembered which patterns they match, for each place in the trie.
_REMEMBERED: Final = 512

_LITERAL_START = re.compile(r"[A-Za-z0-9_/:, -]*")


class Topic:
    """A place in the trie.

    :ivar entries: who subscribes to exactly this path or pattern, each with the sequence number
        after which it wants to hear
    :ivar newest: no entry has a larger one
    """

    __slots__ = ("entries", "literals", "newest", "patterns")

    def __init__(self) -> None:
        self.entries: dict[Any, int] = {}
        self.newest = 0
        self.literals: dict[str, Topic] = {}
        self.patterns: _Patterns | None = None

    def next(self, key: str) -> Iterator[Topic]:
        """The topics that a key leads to."""
        child = self.literals.get(key)
        if child is not None:
            yield child
        if self.patterns is not None:
            yield from self.patterns.matching(key)

    @property
    def leads_on(self) -> bool:
        """Whether there are topics below."""
        return bool(self.literals) or self.patterns is not None

    @property
    def _empty(self) -> bool:
        return not self.entries and not self.literals and self.patterns is None


class Topics:
    """Subscriptions."""

    def __init__(self) -> None:
        self._top: Topic = Topic()

    def add(self, levels: Path, regex: bool, who: Any, since: int) -> None:
        """Enter a subscription, in place of an earlier one of the same.

        :param levels: keys, or patterns
        :param since: the sequence number after which it counts
        :raises Malformed: where RE2 refuses a pattern
        """
        if regex:
            for level in levels:
                compile_level(level)
        topic = self._top
        for level in levels:
            if regex:
                if topic.patterns is None:
                    topic.patterns = _Patterns()
                topic = topic.patterns.at(level)
            else:
                topic = topic.literals.setdefault(level, Topic())
        topic.entries[who] = since
        topic.newest = max(topic.newest, since)

    def remove(self, levels: Path, regex: bool, who: Any) -> None:
        """Take a subscription out; nothing where there is none."""
        way: list[Topic] = [self._top]
        for level in levels:
            there = way[-1]
            if regex:
                child = there.patterns.get(level) if there.patterns is not None else None
            else:
                child = there.literals.get(level)
            if child is None:
                return
            way.append(child)
        way[-1].entries.pop(who, None)
        for level in reversed(levels):
            if not way.pop()._empty:
                return
            above = way[-1]
            if not regex:
                del above.literals[level]
            elif above.patterns is not None:
                above.patterns.remove(level)
                if not above.patterns:
                    above.patterns = None

    def covering(self, path: Path) -> tuple[list[Topic], list[Topic]]:
        """What stands along a path.

        :returns: the topics with entries at and above `path`, and all topics at `path` itself
        """
        found: list[Topic] = []
        here = [self._top]
        for key in path:
            there: list[Topic] = []
            for topic in here:
                child = topic.literals.get(key)
                if child is not None:
                    there.append(child)
                if topic.patterns is not None:
                    there.extend(topic.patterns.matching(key))
            if not there:
                return found, there
            here = there
            found += [topic for topic in here if topic.entries]
        return found, here

    def at(self, path: Path) -> list[Topic]:
        """The topics with entries that match a path as a whole."""
        return [topic for topic in self.covering(path)[1] if topic.entries]


def below(
    topic: Topic, path: Path, new: MaybeContent, old: MaybeContent
) -> Iterator[tuple[Topic, Path, MaybeContent, Content] | None]:
    """The topics below `topic` that have something in either of two trees.

    None in between is a place to pause; subscriptions may come and go meanwhile.

    :param path: where the trees stand
    :returns: topic with entries, path, what stands there in the new tree, and in the old one
    """
    after = new.children if type(new) is Node else {}
    before = old.children if type(old) is Node else {}
    if not after and not before:
        return
    for edge in _edges(topic, after, before):
        if edge is None:
            yield None
            continue
        key, child = edge
        there, gone = after.get(key, ABSENT), before.get(key, ABSENT)
        if there is ABSENT and gone is ABSENT:
            continue
        if child.entries:
            yield child, (*path, key), there, gone
        yield from below(child, (*path, key), there, gone)


def _edges(topic: Topic, after: Any, before: Any) -> Iterator[tuple[str, Topic] | None]:
    if topic.patterns is None and len(topic.literals) <= len(after) + len(before):
        for key in in_order(topic.literals):
            child = topic.literals.get(key) if key is not None else None
            yield (key, child) if key is not None and child is not None else None
    elif topic.patterns is not None or topic.literals:
        for key in in_order(chain(after, (key for key in before if key not in after))):
            yield None
            if key is not None:
                for child in topic.next(key):
                    yield key, child


class _Patterns:
    """The pattern edges of one topic.

    They stand in buckets by the literal text that they begin with, so that a key meets only those
    that begin as it does; the many in one bucket are tried by the `_GATE`.
    """

    __slots__ = ("_buckets", "_known", "_lengths", "_topics")

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._lengths: list[int] = []
        self._known: OrderedDict[str, list[Topic]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._topics)

    def get(self, level: str) -> Topic | None:
        return self._topics.get(level)

    def at(self, level: str) -> Topic:
        """The topic behind a pattern, made if missing."""
        topic = self._topics.get(level)
        if topic is None:
            topic = self._topics[level] = Topic()
            start = _literal_start(level)
            self._buckets.setdefault(start, _Bucket()).add(level)
            self._changed()
        return topic

    def remove(self, level: str) -> None:
        del self._topics[level]
        start = _literal_start(level)
        bucket = self._buckets[start]
        bucket.remove(level)
        if not bucket:
            del self._buckets[start]
        self._changed()

    def _changed(self) -> None:
        self._lengths = sorted({len(start) for start in self._buckets})
        self._known.clear()

    def matching(self, key: str) -> list[Topic]:
        """The topics behind the patterns that match a key."""
        known = self._known.get(key)
        if known is None:
            known = []
            for length in self._lengths:
                if length > len(key):
                    break
                bucket = self._buckets.get(key[:length])
                if bucket is not None:
                    known += [self._topics[level] for level in bucket.matching(key)]
            self._known[key] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known


class _Bucket:
    """Patterns that begin alike: in gates of `_GATE` patterns, those in groups of `_GATE` gates."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: list[_Group] = []

    def __bool__(self) -> bool:
        return bool(self.groups)

    def add(self, level: str) -> None:
        if not self.groups or self.groups[-1].full:
            self.groups.append(_Group())
        self.groups[-1].add(level)

    def remove(self, level: str) -> None:
        for group in self.groups:
            if group.remove(level):
                if not group.gates:
                    self.groups.remove(group)
                return

    def matching(self, key: str) -> list[str]:
        return [level for group in self.groups for level in group.matching(key)]


class _Group:
    """Some gates, and once there are so many that no more come, one expression for all."""

    __slots__ = ("_any", "full", "gates")

    def __init__(self) -> None:
        self.gates: list[_Gate] = []
        self.full = False
        self._any: Any = None

    def add(self, level: str) -> None:
        if not self.gates or self.gates[-1].full:
            self.gates.append(_Gate())
        self.gates[-1].add(level)
        if len(self.gates) == _GATE and self.gates[-1].full:
            self.full = True
            self._any = _joined([level for gate in self.gates for level in gate.matchers])

    def remove(self, level: str) -> bool:
        for gate in self.gates:
            if level in gate.matchers:
                # The expression lets too much through from now on, never too little.
                del gate.matchers[level]
                if not gate.matchers:
                    self.gates.remove(gate)
                return True
        return False

    def matching(self, key: str) -> list[str]:
        if self._any is not None and self._any.match(key) is None:
            return []
        return [level for gate in self.gates for level in gate.matching(key)]


class _Gate:
    """Some patterns, and one expression that matches wherever any of them does."""

    __slots__ = ("_any", "_made", "full", "matchers")

    def __init__(self) -> None:
        self.matchers: dict[str, Any] = {}
        self.full = False
        self._any: Any = None
        self._made = False

    def add(self, level: str) -> None:
        self.matchers[level] = compile_level(level)
        self._made = False
        self.full = len(self.matchers) >= _GATE

    def matching(self, key: str) -> list[str]:
        if not self._made:
            self._any = _joined(list(self.matchers))
            self._made = True
        if self._any is not None and self._any.match(key) is None:
            return []
        return [level for level, matcher in self.matchers.items() if matcher.match(key)]


def _joined(levels: list[str]) -> Any:
    """An expression that matches wherever one of the patterns does; None where there cannot be."""
    # An open quotation would reach into the next pattern.
    if len(levels) < _WORTH_IT or any("\\Q" in level for level in levels):
        return None
    try:
        return compile_level("|".join([f"(?:{level})" for level in levels]), 2 * _GATE)
    except Malformed:
        # Two groups of one name, or too much at once: each is tried by itself.
        return None


def _literal_start(level: str) -> str:
    """The text that every key matching a pattern begins with, as far as that is plain to see."""
    if "|" in level:
        return ""
    found = _LITERAL_START.match(level)
    start = found[0] if found is not None else ""
    if level[len(start) : len(start) + 1] in ("*", "?", "{"):
        # The last character may be missing.
        return start[:-1]
    return start
