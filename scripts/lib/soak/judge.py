"""What was seen: what the clients did, the figures of each server, and what must hold and did not.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from typing import NamedTuple

#: Examples of one kind of breach that are kept.
_KEPT = 5

#: A server may grow so much after it has warmed up, bytes.
GROWTH = 48 << 20

#: And never be larger than this, bytes.
LARGEST = 400 << 20


class Sample(NamedTuple):
    """A server at one moment.

    :ivar when: seconds of the monotonic clock
    :ivar rss: bytes
    :ivar lag: longest time that the loop was held up lately, seconds; None: not known
    """

    when: float
    rss: int
    descriptors: int
    lag: float | None
    figures: dict[str, float]


class Life:
    """One server process, from its start to its end."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.samples: list[Sample] = []

    @property
    def growth(self) -> float:
        """Bytes that it has grown by, from its second quarter to its last."""
        quarter = len(self.samples) // 4
        sizes = [sample.rss for sample in self.samples]
        return statistics.median(sizes[-quarter:]) - statistics.median(sizes[quarter : 2 * quarter])


class Judge:
    """Takes what everybody reports; may be used from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begun = time.monotonic()
        #: What was done, by who did it and outcome.
        self.done: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.lives: list[Life] = []
        #: What must hold: how often it was looked at, and what was found where it did not.
        self.checked: Counter[str] = Counter()
        self.broken: dict[str, list[str]] = {}

    def did(self, who: str, outcome: str = "done", count: int = 1) -> None:
        """Somebody has done something."""
        with self._lock:
            self.done[who, outcome] += count

    def struck(self, fault: str) -> None:
        """Something was broken on purpose."""
        with self._lock:
            self.faults[fault] += 1

    def check(self, what: str, holds: bool, found: object = "") -> None:
        """Something that must hold was looked at.

        :param found: what there is instead
        """
        with self._lock:
            self.checked[what] += 1
            if not holds:
                after = time.monotonic() - self.begun
                kept = self.broken.setdefault(what, [])
                if len(kept) < _KEPT:
                    kept.append(f"after {after:.0f} s: {str(found)[:300]}")

    def weigh(self) -> None:
        """Judge the memory of all processes that lived long enough to tell."""
        for life in self.lives:
            largest = max((sample.rss for sample in life.samples), default=0)
            found = f"{life.server}: {largest >> 20} MiB"
            self.check("memory is bounded", largest < LARGEST, found)
            if len(life.samples) >= 60:
                self.check(
                    "memory does not grow", life.growth < GROWTH,
                    f"{life.server} by {life.growth / (1 << 20):.0f} MiB",
                )

    @property
    def total(self) -> int:
        """How many things were done."""
        with self._lock:
            return sum(self.done.values())

    def report(self, seed: int) -> str:
        """All of it as Markdown."""
        seconds = time.monotonic() - self.begun
        text = [
            "# Soak", "",
            f"{seconds / 60:.1f} minutes, seed {seed}, {sum(self.done.values())} operations, "
            f"{sum(self.faults.values())} faults: "
            + ("**everything held**." if not self.broken else f"**{len(self.broken)} broken**."),
            "", "## What must hold", "", "| | looked at | |", "| --- | --- | --- |",
        ]
        for what, count in sorted(self.checked.items()):
            found = self.broken.get(what)
            verdict = "held" if found is None else "**broken**: " + "<br>".join(found)
            text.append(f"| {what} | {count} | {verdict} |")
        text += ["", "## What was done", "", "| who | outcome | times |", "| --- | --- | --- |"]
        text += [f"| {who} | {how} | {n} |" for (who, how), n in sorted(self.done.items())]
        text += ["", "## What was broken on purpose", "", "| fault | times |", "| --- | --- |"]
        text += [f"| {fault} | {count} |" for fault, count in sorted(self.faults.items())]
        text += ["", "## The servers", "", *self._servers()]
        return "\n".join(text) + "\n"

    def _servers(self) -> list[str]:
        rows = [
            "Memory and descriptors of each process from its first to its last look, and the most. "
            "The lag is the longest that the event loop was held up, in times when the process was "
            "not stopped on purpose; it has the load of this machine in it.", "",
            "| server | seconds | MiB | most | descriptors | most | lag, ms "
            "| most in outboxes, KiB | sessions, most |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for life in self.lives:
            if not life.samples:
                continue
            first, last = life.samples[0], life.samples[-1]
            lags = [sample.lag for sample in life.samples if sample.lag is not None]
            rows.append(
                f"| {life.server} | {last.when - first.when:.0f} "
                f"| {first.rss >> 20} to {last.rss >> 20} "
                f"| {max(sample.rss for sample in life.samples) >> 20} "
                f"| {first.descriptors} to {last.descriptors} "
                f"| {max(sample.descriptors for sample in life.samples)} "
                f"| {f'{1e3 * max(lags):.0f}' if lags else ''} "
                f"| {max(s.figures.get('tega_outbox_bytes', 0) for s in life.samples) / 1024:.0f} "
                f"| {max(s.figures.get('tega_sessions', 0) for s in life.samples):.0f} |"
            )
        return rows
