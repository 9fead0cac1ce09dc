"""What a line may go on with: commands, and keys of paths and channels asked from a lister."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from tega import paths
from tega.cli.grammar import INTERACTIVE, WORD, Argument, Kind
from tega.paths import Path


class Lister(Protocol):
    """Knows what there is."""

    def keys(self, path: Path) -> Mapping[str, bool]:
        """The keys below a path, and whether each holds a container; the roots for ``()``."""

    def channels(self) -> Iterable[str]:
        """The channels that somebody subscribes to, as they are typed."""


# The keys of a path that is being typed, each with the dot that ends it.
_WHOLE_KEY = re.compile(r'("(?:[^"\\]|\\.)*"|[^\s".]*)\.')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def complete(line: str, lister: Lister) -> list[str]:
    """All lines that this one may become by finishing its last word.

    A key that needs quotes gets them. A container that is typed in full is offered with a dot, so
    that its keys come next.

    :param line: as far as the cursor
    :returns: whole lines, sorted; all start with ``line[:stem(line)]``
    """
    words, last = _split(line)
    commands = [line + name[len(last) :] for name in sorted(INTERACTIVE) if name.startswith(last)]
    if not words:
        return commands or _paths(line, last, lister.keys)
    argument = _argument(words)
    if argument is None:
        return []
    if argument.kind is Kind.COMMAND:
        return commands
    if argument.kind is Kind.ROOT:
        return _paths(
            line, last, lambda path: {} if path else dict.fromkeys(lister.keys(()), False)
        )
    if argument.kind in (Kind.CHANNEL, Kind.CHANNELS):
        names = [name for name in lister.channels() if name.startswith(last)]
        return [line + name[len(last) :] for name in sorted(names)]
    return _paths(line, last, lister.keys) if argument.kind is Kind.PATH else []


def stem(line: str) -> int:
    """Where in a line the key or word starts that completion works on."""
    _, last = _split(line)
    return len(line) - len(_split_path(last)[1])


def _split(line: str) -> tuple[list[str], str]:
    """The words that are finished, and the one being typed, which may be empty."""
    words = WORD.findall(line)
    return (words[:-1], words[-1]) if words and line.endswith(words[-1]) else (words, "")


def _argument(words: list[str]) -> Argument | None:
    """The argument that comes after these words."""
    verb = INTERACTIVE.get(words[0])
    if verb is None or len(words) > len(verb.arguments):
        return None
    return verb.arguments[len(words) - 1]


def _split_path(word: str) -> tuple[list[str], str]:
    """The keys that are finished, as typed, and the one being typed."""
    keys = []
    end = 0
    while found := _WHOLE_KEY.match(word, end):
        keys.append(found[1])
        end = found.end()
    return keys, word[end:]


def _paths(line: str, word: str, keys_below: Callable[[Path], Mapping[str, bool]]) -> list[str]:
    typed, last = _split_path(word)
    try:
        keys = [key for name in typed for key in paths.parse(name)]
        start = _typed_part(last)
    except ValueError:
        return []  # What is typed is no path, so nothing completes it.
    below = keys_below(tuple(keys))
    if below.get(start) and last in (start, paths.dotted((start,))):
        longer = [key for key in below if key.startswith(start) and key != start]
        if not longer:
            return [line + "."]
    names = sorted(paths.dotted((key,)) for key in below if key.startswith(start))
    # Readline cuts the line to what all matches share, so they must all begin as it is typed; a
    # quote is added or dropped only where no other match is left.
    names = [name for name in names if name.startswith(last)] or names
    head = line[: len(line) - len(last)]
    return [head + name for name in names]


def _typed_part(last: str) -> str:
    """The text of a key as far as it is typed: its quote may still be open.

    :raises ValueError: for an escape that is not finished
    """
    if not last.startswith('"'):
        return last
    text: str = json.loads(last if _QUOTED.fullmatch(last) else last + '"')
    return text
