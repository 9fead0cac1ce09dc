"""Rules, and what they say of every place in the tree. Pure: no file, clock or loop.

A rule stands on a path, in which ``*`` is any text of a key, and counts for that path and all below
it. Rules have an order: of those that stand on a place **the first one decides**, for every
operation. Where none does, nothing is allowed.

Going down the tree only a few rules stay of interest, so the rules make a small automaton: a
`Place` is one of its states, and `Place.child` a step. Places that the same rules have come to are
the same object, so that a tree of a million nodes has a handful of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec
import re2

from tega.errors import Malformed
from tega.paths import Path, split_globs

#: What a rule may allow: reading, writing, calling functions; hearing what is published on
#: channels, and publishing.
READ, WRITE, CALL, SUBSCRIBE, PUBLISH = OPERATIONS = "rwxsp"

#: The same in words, for messages.
WORDS: Final = {"r": "read", "w": "write", "x": "call", "s": "subscribe to", "p": "publish on"}

#: Paths, and places, that are remembered at most.
_REMEMBERED: Final = 4096

#: A key, or the parts of one between stars.
Glob: TypeAlias = str | tuple[str, ...]

#: Any key.
ANY: Final = ("", "")


class Rule(msgspec.Struct, frozen=True):
    """One rule.

    :ivar number: its place in the file, from 1
    :ivar who: names of identities and roles
    :ivar on: the path that it stands on, as it was written
    :ivar may: what it allows there, letters of `OPERATIONS`
    """

    number: int
    who: tuple[str, ...]
    on: str
    may: str

    def __str__(self) -> str:
        who = ", ".join(self.who)
        return f"rule {self.number}: {who} on {self.on} may {self.may or 'nothing'}"


def read_path(text: str) -> tuple[Glob, ...]:
    """The path of a rule.

    :raises Malformed: where it is none
    """
    return split_globs(text)


def read_operations(text: str) -> str:
    """What a rule allows, its letters in order and each once.

    :raises Malformed: for a letter that means nothing
    """
    wrong = sorted({letter for letter in text if letter not in OPERATIONS and letter != " "})
    if wrong:
        meanings = ", ".join(f"{letter} ({WORDS[letter]})" for letter in OPERATIONS)
        raise Malformed(f"{wrong[0]!r} is nothing that a rule may allow: there are {meanings}")
    return "".join(letter for letter in OPERATIONS if letter in text)


class Place:
    """What the rules say of one place, and of all below it.

    :ivar rule: the rule that decides here; None: there is none, and nothing is allowed
    """

    __slots__ = ("_every", "_globs", "_literals", "_may", "_open", "_others", "_rights", "_some",
                 "rule")  # fmt: skip

    def __init__(
        self, rights: Rights, rule: Rule | None, open_rules: tuple[tuple[int, int], ...]
    ) -> None:
        self._rights = rights
        self._open = open_rules
        self.rule = rule
        self._may = rule.may if rule is not None else ""
        below = [rights.rules[number].may for number, _ in open_rules]
        #: What is allowed here and everywhere below, and what is here or somewhere below.
        self._every = "".join(op for op in self._may if all(op in may for may in below))
        self._some = "".join(
            op for op in OPERATIONS if op in self._may or any(op in may for may in below)
        )
        levels = [rights.globs[number][depth] for number, depth in open_rules]
        self._literals: dict[str, Place | None] = {
            level: None for level in levels if isinstance(level, str)
        }
        self._globs = any(not isinstance(level, str) and level != ANY for level in levels)
        self._others: Place | None = None

    def may(self, operation: str) -> bool:
        """Whether an operation is allowed on what stands here itself."""
        return operation in self._may

    def everywhere(self, operation: str) -> bool:
        """Whether it is allowed here and on all that is, or ever will be, below."""
        return operation in self._every

    def somewhere(self, operation: str) -> bool:
        """Whether it is allowed here, or may be somewhere below."""
        return operation in self._some

    @property
    def same_below(self) -> bool:
        """Whether one rule decides here and everywhere below."""
        return not self._open

    @property
    def open_rules(self) -> list[Rule]:
        """The rules that may decide below, before the one that does here."""
        return [self._rights.rules[number] for number, _ in self._open]

    @property
    def listed(self) -> Iterable[str] | None:
        """The only keys below which anything differs from what holds here; None: any may."""
        return self._literals if self._others_are_alike() else None

    def _others_are_alike(self) -> bool:
        return not self._globs and self.child_of_no_name().same_below

    def child_of_no_name(self) -> Place:
        """What holds for every key that no rule names."""
        if self._others is None:
            self._others = self._rights.step(self.rule, self._open, None)
        return self._others

    def child(self, key: str) -> Place:
        """The place of a child."""
        if not self._open:
            return self
        if self._globs:
            return self._rights.step(self.rule, self._open, key)
        known = self._literals.get(key)
        if known is not None:
            return known
        if key not in self._literals:
            return self.child_of_no_name()
        made = self._literals[key] = self._rights.step(self.rule, self._open, key)
        return made


class Rights:
    """What some rules, in their order, allow. Those with the same rules share one object."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules: tuple[Rule, ...] = ()
        self.globs: list[tuple[Glob, ...]] = []
        for rule in rules:
            globs = read_path(rule.on)
            # One that stands behind another which covers all of it never decides anything.
            if not any(_covers(before, globs) for before in self.globs):
                self.rules += (rule,)
                self.globs.append(globs)
        self._matchers = [[_matcher(level) for level in levels] for levels in self.globs]
        self._places: dict[Any, Place] = {}
        self._at: dict[Path, Place] = {}
        self.top = self._place(None, tuple((number, 0) for number in range(len(self.rules))))

    def at(self, path: Path) -> Place:
        """What holds at a path."""
        place = self._at.get(path)
        if place is None:
            place = self.top
            for key in path:
                place = place.child(key)
            if len(self._at) >= _REMEMBERED:
                self._at.clear()
            self._at[path] = place
        return place

    def step(
        self, rule: Rule | None, open_rules: tuple[tuple[int, int], ...], key: str | None
    ) -> Place:
        """One step down, to a key; None: to one that no rule names."""
        still: list[tuple[int, int]] = []
        for number, depth in open_rules:
            level = self.globs[number][depth]
            if isinstance(level, str):
                matches = level == key
            else:
                matches = level == ANY or (
                    key is not None and self._matchers[number][depth].fullmatch(key) is not None
                )
            if not matches:
                continue
            if depth + 1 == len(self.globs[number]):
                # It decides from here on, but for the rules before it. What is open is in order.
                return self._place(self.rules[number], tuple(still))
            still.append((number, depth + 1))
        return self._place(rule, tuple(still))

    def _place(self, rule: Rule | None, open_rules: tuple[tuple[int, int], ...]) -> Place:
        key = (None if rule is None else rule.number, open_rules)
        place = self._places.get(key)
        if place is None:
            place = Place(self, rule, open_rules)
            if len(self._places) < _REMEMBERED:
                self._places[key] = place
        return place

    @property
    def unlimited(self) -> bool:
        """Whether everything is allowed everywhere."""
        return all(self.top.child_of_no_name().everywhere(op) for op in OPERATIONS) and all(
            self.top.child(key).everywhere(op)
            for key in self.top.listed or ()
            for op in OPERATIONS
        ) and self.top.listed is not None


def _matcher(level: Glob) -> Any:
    if isinstance(level, str) or level == ANY:
        return None
    options = re2.Options()
    options.dot_nl = True
    return re2.compile(".*".join([re2.escape(part) for part in level]), options)


def _covers(one: tuple[Glob, ...], other: tuple[Glob, ...]) -> bool:
    """Whether a path with stars covers all that another one does, as far as is plain to see."""
    return len(one) <= len(other) and all(
        a in (ANY, b) for a, b in zip(one, other, strict=False)
    )
