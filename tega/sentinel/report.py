"""What is told of the work: a line for everything that is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, TextIO

from tega.sentinel.columns import shown
from tega.sentinel.sink import Event

#: Seconds between two signs of progress, on a terminal and elsewhere.
_OFTEN, _SELDOM = 0.2, 10.0


class Report(Protocol):
    """Takes what is to be told."""

    def events(self, events: Sequence[Event], would: bool = False) -> None:
        """Things done, or with `would` only found."""

    def say(self, text: str, **facts: Any) -> None:
        """Something for people."""

    def error(self, where: str, text: str) -> None:
        """Something failed."""

    def progress(self, done: int, total: int) -> None:
        """How far a pass is; at its end `done` is `total`."""


class TextReport:
    """Lines for people.

    :param out: takes the lines
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = sys.stderr if sys.stderr.isatty() else None
        self._pace = _Pace(1.0, _OFTEN) if self._terminal is not None else _Pace(_SELDOM, _SELDOM)

    def events(self, events: Sequence[Event], would: bool = False) -> None:
        self._out.writelines([f"{'would ' if would else ''}{line(event)}\n" for event in events])
        self._out.flush()

    def say(self, text: str, **facts: Any) -> None:
        self._out.write(f"tega-sentinel: {text}\n")
        self._out.flush()

    def error(self, where: str, text: str) -> None:
        self._out.write(f"error {where}: {text}\n")
        self._out.flush()

    def progress(self, done: int, total: int) -> None:
        rate = self._pace.rate(done, total)
        if rate is None:
            return
        percent = 100 * done // max(total, 1)
        text = f"full pass: {done} of {total} keys, {percent} %, {rate:.0f}/s"
        if self._terminal is None:
            self.say(text)
        else:
            # A line that is written over.
            self._terminal.write(f"\r{text} " + ("\n" if done >= total else ""))
            self._terminal.flush()


class JsonReport:
    """A JSON object a line, for programs.

    :param out: takes the lines
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._pace = _Pace(_SELDOM, _SELDOM)

    def events(self, events: Sequence[Event], would: bool = False) -> None:
        for event in events:
            facts = {
                "event": event.kind,
                "table": event.table or None,
                "row": event.row or None,
                "key": _key(event.key) if event.key else None,
                "revision": event.revision,
                "changed": event.changed or None,
                "reason": event.reason or None,
                "drift": event.drift or None,
                "would": would or None,
            }  # fmt: skip
            self._write({name: fact for name, fact in facts.items() if fact is not None})

    def say(self, text: str, **facts: Any) -> None:
        self._write({"event": "note", "text": text, **facts})

    def error(self, where: str, text: str) -> None:
        self._write({"event": "error", "where": where, "text": text})

    def progress(self, done: int, total: int) -> None:
        if self._pace.rate(done, total) is not None:
            self._write({"event": "progress", "done": done, "total": total})

    def _write(self, facts: dict[str, Any]) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self._out.write(json.dumps({"time": time, **facts}, default=str) + "\n")
        self._out.flush()


def line(event: Event) -> str:
    """An event as a line: ``update Device.device deviceName='d': os 'a' -> 'b' (/Device/d at 7)``.
    """
    words = [event.kind]
    if event.table:
        words.append(event.table)
    words += [f"{name}={shown(value)}" for name, value in event.row.items()]
    text = " ".join(words)
    if not event.row:
        text += " " + _key(event.key)
    if event.changed:
        text += ": " + ", ".join(
            f"{name} {shown(old)} -> {shown(new)}" for name, (old, new) in event.changed.items()
        )
    if event.reason:
        text += ": " + _plain(event.reason)
    if event.row and event.key:
        text += f" ({_key(event.key)} at {event.revision})"
    elif event.revision:
        text += f" (at {event.revision})"
    return text + (" [drift]" if event.drift else "")


def _key(key: bytes) -> str:
    text = _plain(key.decode(errors="backslashreplace"))
    return text if len(text) <= 200 else text[:197] + "..."


def _plain(text: str) -> str:
    """The text without what moves a terminal's cursor."""
    return "".join([c if c.isprintable() else ascii(c)[1:-1] for c in text])


class _Pace:
    """Tells when it is time to show how far a pass is.

    :param first: seconds that a pass takes at least to be shown at all
    :param often: seconds between two signs; the end is shown where anything was
    """

    def __init__(self, first: float, often: float) -> None:
        self._first = first
        self._often = often
        self._begun = 0.0
        self._shown: float | None = None

    def rate(self, done: int, total: int) -> float | None:
        """Keys in a second since its begin; None: it is not time yet."""
        now = time.monotonic()
        if done == 0:
            self._begun, self._shown = now, None
        if self._shown is None:
            due = now - self._begun >= self._first
        else:
            due = now - self._shown >= self._often or done >= total
        if not due:
            return None
        self._shown = now
        return done / max(now - self._begun, 1e-9)
