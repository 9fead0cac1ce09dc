"""The diagrams of `doc/message-sequence.md`: who says what to the server, line by line.

::

    cli-1 -> SUBSCRIBE inventory local False
    cli-1 <- NOTIFY
             [{"ope":"PUT",...}]
    cli-1 <- close 4001 taken over

A line is a message, or ``ping``, ``pong``, ``close [CODE REASON]`` or ``cut``; what follows with
more indent is its body. ``"..."`` in a body stands for any text. A line in parentheses is a remark.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_LINE = re.compile(r"(?P<who>[a-z0-9-]+) +(?P<arrow>->|<-) (?P<text>\S.*)")
_FRAME_WORDS = ("ping", "pong", "close", "cut")


class Step(NamedTuple):
    """One line of a diagram.

    :ivar who: the client
    :ivar sends: whether the client says it, and not the server
    :ivar head: the first line of a message, or what happens
    :ivar body: of a message; empty where it has none
    """

    who: str
    sends: bool
    head: str
    body: str

    @property
    def is_message(self) -> bool:
        return self.head.split()[0] not in _FRAME_WORDS

    @property
    def text(self) -> str:
        """The message."""
        return f"{self.head}\n{self.body}" if self.body else self.head


class Block(NamedTuple):
    """A fenced block of a document.

    :ivar name: the heading that it stands under, and which one it is there
    """

    name: str
    text: str


def fences(page: str, language: str) -> list[Block]:
    """The blocks of a document that are marked with a language."""
    found: list[Block] = []
    for section in re.split(r"^#+ ", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE):
        title = section.partition("\n")[0]
        blocks = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        found += [Block(f"{title} {number}", text) for number, text in enumerate(blocks, 1)]
    return found


def steps(block: str) -> list[Step]:
    """The lines of a diagram."""
    found: list[Step] = []
    for line in block.splitlines():
        if not line.strip() or line.strip().startswith("("):
            continue
        read = _LINE.fullmatch(line.rstrip())
        if read is not None:
            found.append(Step(read["who"], read["arrow"] == "->", read["text"], ""))
            continue
        assert line.startswith("  "), f"no line of a diagram: {line!r}"
        assert found, f"nothing that this could go on from: {line!r}"
        found[-1] = found[-1]._replace(body=found[-1].body + line.strip())
    return found


def alike(shown: Any, happened: Any) -> bool:
    """Whether JSON is as a document shows it."""
    if shown == "...":
        return isinstance(happened, str)
    if isinstance(shown, dict) and isinstance(happened, dict):
        return shown.keys() == happened.keys() and all(
            alike(value, happened[key]) for key, value in shown.items()
        )
    if isinstance(shown, list) and isinstance(happened, list):
        return len(shown) == len(happened) and all(map(alike, shown, happened))
    return type(shown) is type(happened) and bool(shown == happened)


def body_alike(shown: str, happened: str) -> bool:
    """Whether the body of a message is as a document shows it."""
    if not shown or not happened:
        return shown == happened
    return alike(json.loads(shown), json.loads(happened))
