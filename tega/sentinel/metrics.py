"""What is measured of a sentinel: plain numbers, added to where things happen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tega.sentinel.sink import Event


@dataclass
class Metrics:
    """The numbers. What has not happened yet is there as 0.

    :ivar events: rows and keys written or rejected, by kind
    :ivar drift: those of them that somebody else had changed
    :ivar retries: tries after a failure, by end
    :ivar passes: full passes made
    :ivar pass_seconds: how long the last one took
    :ivar changed: when something was written last, or was found not to have to be; since 1970
    """

    events: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("insert", "update", "delete", "reject", "error"), 0)
    )
    drift: int = 0
    retries: dict[str, int] = field(default_factory=lambda: {"source": 0, "sink": 0})
    passes: int = 0
    pass_seconds: float = 0.0
    changed: float = 0.0

    def done(self, events: Sequence[Event]) -> None:
        """Count what was done."""
        for event in events:
            self.events[event.kind] += 1
            self.drift += event.drift
        self.changed = time.time()
