"""Patterns of keys: which keys a table takes, and what their parts are called. Pure.

``/Device/{id}/{status:0|1}`` is one of etcd: a placeholder stands for one or more characters other
than ``/``, or for one of those named after a colon. ``inventory.{device}.{port}`` is one of tega: a
placeholder stands for a whole key of the path, or for a part of one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from tega import paths
from tega.errors import Malformed

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})(?::([^{}]+))?\}")


class Pattern(ABC):
    """A pattern.

    :ivar text: as it is written
    :ivar names: of its placeholders
    :ivar prefix: what all its keys begin with
    """

    text: str
    names: tuple[str, ...]
    prefix: bytes

    @abstractmethod
    def match(self, key: str) -> dict[str, str] | None:
        """The parts of a key by name; None: it is another key."""


class KeyPattern(Pattern):
    """A pattern of whole keys of etcd.

    :raises Malformed: for what is no pattern
    """

    def __init__(self, text: str) -> None:
        self.text = text
        source, self.names = _compile(text, "[^/]+")
        self._compiled = re.compile(source, re.DOTALL)
        self.prefix = text[: text.find("{")].encode() if "{" in text else text.encode()
        if not self.prefix:
            raise Malformed(f"pattern {text!r} begins with a placeholder: begin with a prefix")

    def match(self, key: str) -> dict[str, str] | None:
        found = self._compiled.fullmatch(key)
        return None if found is None else found.groupdict()


class PathPattern(Pattern):
    """A pattern of paths of tega, of a fixed number of keys.

    :ivar literal: the keys before the first placeholder
    :ivar depth: how many keys its paths have
    :raises Malformed: for what is no pattern
    """

    def __init__(self, text: str) -> None:
        self.text = text
        levels = paths.parse(text)
        self.depth = len(levels)
        self.names = ()
        self._compiled = []
        self.literal: paths.Path = ()
        for level in levels:
            source, names = _compile(level, ".+")
            repeated = set(names) & set(self.names)
            if repeated:
                raise Malformed(f"pattern {text!r} names {sorted(repeated)[0]} twice")
            self._compiled.append(re.compile(source, re.DOTALL))
            if not names and len(self.literal) == len(self._compiled) - 1:
                self.literal += (level,)
            self.names += names
        if not self.literal:
            raise Malformed(f"pattern {text!r} begins with a placeholder: begin with a root")
        self.prefix = paths.dotted(self.literal).encode()

    def match(self, key: str) -> dict[str, str] | None:
        path = paths.parse(key)
        return self.match_path(path)

    def match_path(self, path: paths.Path) -> dict[str, str] | None:
        """As `match`, of a path."""
        if len(path) != self.depth:
            return None
        parts: dict[str, str] = {}
        for compiled, key in zip(self._compiled, path, strict=True):
            found = compiled.fullmatch(key)
            if found is None:
                return None
            parts |= found.groupdict()
        return parts


def _compile(text: str, anything: str) -> tuple[str, tuple[str, ...]]:
    """A pattern as a regular expression of named groups, and their names."""
    source, names, place = "", [], 0
    for found in _PLACEHOLDER.finditer(text):
        source += _literal(text, place, found.start())
        name, choice = found.groups()
        if name in names:
            raise Malformed(f"pattern {text!r} names {name} twice")
        names.append(name)
        allowed = anything if choice is None else "|".join(map(re.escape, choice.split("|")))
        source += f"(?P<{name}>{allowed})"
        place = found.end()
    return source + _literal(text, place, len(text)), tuple(names)


def _literal(text: str, start: int, end: int) -> str:
    part = text[start:end]
    if "{" in part or "}" in part:
        raise Malformed(
            f"pattern {text!r}: a placeholder is {{name}} or {{name:one|other}}, its name of "
            "letters, digits and '_'"
        )
    return re.escape(part)
