"""What a server counts: plain numbers, kept where things happen, read when somebody asks.

To count must cost next to nothing, for a transaction as a whole takes some 40 us. So there is no
lock and no registry here: a number is added to by whoever does the work, which for each of them is
one thread at a time, and `tega.web.metrics` makes Prometheus' text of all of them when it is asked.
Nothing here reads a clock: durations and times are passed in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from tega.errors import BY_CODE

#: Upper bounds of durations, seconds: from a read in memory to a function that takes its time.
SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0
)  # fmt: skip

#: Upper bounds of numbers of commits.
COMMITS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

#: The verbs of HTTP requests that are counted each, and what all others are counted as.
VERBS: Final = frozenset(("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"))
OTHER: Final = "other"

#: The limits that are counted from the start, so that their first hit shows as a rise.
LIMITS: Final = (
    "backlog", "body", "calls", "connections", "functions", "levels", "patterns", "rate",
    "sessions", "subscriptions", "transactions", "url",
)  # fmt: skip

#: What an HTTP request can be about.
REQUESTS: Final = ("get", "put", "delete", "command", OTHER)

#: Messages of a session after which it takes a while until they are done.
LASTING: Final = ("TX", "RPC", "NOTIFY", "ROLLBACK")

#: The largest of something is kept for so long at least, and at most twice as long, seconds.
_SPAN: Final = 60.0


class Histogram:
    """How often values fell between bounds.

    :param bounds: ascending; a value equal to one counts as below it
    :ivar counts: for each bound how many fell below it and not below the one before, and last
        those above all
    :ivar sum: of all values
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Take one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Take several."""
        for value in values:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.sum += value


class Peak:
    """The largest value of the last while, whoever asks for it and how often.

    :param span: a value is kept for so long at least, and at most twice as long, seconds
    """

    __slots__ = ("_before", "_begun", "_largest", "_span")

    def __init__(self, span: float = _SPAN) -> None:
        self._span = span
        self._begun = 0.0
        self._largest = 0.0
        self._before = 0.0

    def note(self, value: float, now: float) -> None:
        """Take one value.

        :param now: seconds, never going back
        """
        self._turn(now)
        if value > self._largest:
            self._largest = value

    def largest(self, now: float) -> float:
        """The largest; 0 where there was none."""
        self._turn(now)
        return max(self._largest, self._before)

    def _turn(self, now: float) -> None:
        if now - self._begun < self._span:
            return
        self._before = self._largest if now - self._begun < 2 * self._span else 0.0
        self._begun, self._largest = now, 0.0


class Meters:
    """The numbers of one server.

    :ivar requests: HTTP requests by verb and status
    :ivar request_seconds: from a whole request to its answer, by what it is about
    :ivar connections: TCP connections that are open
    :ivar accepted: TCP connections that ever were
    :ivar messages: what came from sessions, by command
    :ivar session_seconds: from a message to its being done, by what it asks for
    :ivar notices: of commits, sent to sessions
    :ivar publications: messages on channels, sent to sessions
    :ivar behind: times that a watcher fell behind
    :ivar commits: made durable
    :ivar commit_seconds: from being judged to being durable
    :ivar sync_seconds: of each sync of the log
    :ivar sync_commits: how many commits each sync made durable
    :ivar appended: bytes of commits written to the log
    :ivar snapshots: by outcome
    :ivar calls: of functions, by outcome
    :ivar call_seconds: of each call
    :ivar refusals: by code
    :ivar limits: those for a limit's sake, by its name
    :ivar loop_lag: how late the event loop came to what was due, seconds
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.request_seconds = {kind: Histogram(SECONDS) for kind in REQUESTS}
        self.connections = 0
        self.accepted = 0
        self.messages: Counter[str] = Counter()
        self.session_seconds = {kind: Histogram(SECONDS) for kind in LASTING}
        self.notices = 0
        self.publications = 0
        self.behind = 0
        self.commits = 0
        self.commit_seconds = Histogram(SECONDS)
        self.sync_seconds = Histogram(SECONDS)
        self.sync_commits = Histogram(COMMITS)
        self.appended = 0
        self.snapshots = Counter(done=0, failed=0)
        self.calls: Counter[str] = Counter(done=0)
        self.call_seconds = Histogram(SECONDS)
        self.refusals = Counter(dict.fromkeys(BY_CODE, 0))
        self.limits = Counter(dict.fromkeys(LIMITS, 0))
        self.loop_lag = Peak()
