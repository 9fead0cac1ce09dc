"""``/_metrics``: what a server counts and how it stands, as Prometheus reads it.

One table has every family: its name, what it means, and where its numbers are found when somebody
asks. No label takes a value that a client makes up, but for the tega ids of connected peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from math import inf
from typing import Final, Literal, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tega import __version__
from tega.log.base import Measured
from tega.metrics import Histogram, Meters
from tega.peering.health import roots_over
from tega.watch import Census
from tega.web.context import Context
from tega.web.http import Call, Response
from tega.web.later import Answer

#: The text format that every scraper reads.
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Numbers by the values of their labels.
Numbers: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
Histograms: TypeAlias = Iterable[tuple[tuple[str, ...], Histogram]]


class Now(NamedTuple):
    """A server at the moment when somebody asks.

    :ivar log: how large its log is
    :ivar census: who watches
    """

    context: Context
    meters: Meters
    log: Measured
    census: Census


class Family(NamedTuple):
    """A family of metrics.

    :ivar name: as samples have it; for a histogram, before ``_bucket``, ``_sum`` and ``_count``
    :ivar help: its meaning and unit
    :ivar read: finds its numbers
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    read: Callable[[Now], Numbers]
    labels: tuple[str, ...] = ()

    def metric(self, now: Now) -> Metric:
        """What is to be told of it now."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        made = kind(self.name, self.help, labels=self.labels)
        for values, number in self.read(now):
            made.add_metric(values, number)
        return made


class Distribution(NamedTuple):
    """A family of histograms; as `Family`."""

    name: str
    help: str
    read: Callable[[Now], Histograms]
    labels: tuple[str, ...] = ()
    kind: Literal["histogram"] = "histogram"

    def metric(self, now: Now) -> Metric:
        """What is to be told of it now."""
        made = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for values, histogram in self.read(now):
            made.add_metric(values, _buckets(histogram), histogram.sum)
        return made


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """The number of values up to each bound, as Prometheus adds them up."""
    found = []
    total = 0
    for bound, count in zip([*histogram.bounds, inf], histogram.counts, strict=True):
        total += count
        found.append(("+Inf" if bound == inf else str(float(bound)), float(total)))
    return found


def _one(number: float) -> Numbers:
    return [((), number)]


def _each(counts: Mapping[str, int]) -> Numbers:
    return [((name,), count) for name, count in sorted(counts.items())]


def _requests(now: Now) -> Numbers:
    counts = now.meters.requests
    return [((verb, str(status)), count) for (verb, status), count in sorted(counts.items())]


def _by_kind(histograms: Mapping[str, Histogram]) -> Histograms:
    return [((kind,), histogram) for kind, histogram in histograms.items()]


def _snapshot_time(now: Now) -> Numbers:
    text = now.log.snapshot_time
    if text is None:
        return []
    return _one(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def _peers(now: Now) -> Numbers:
    found = {"global": 0, "local": 0}
    for link in now.context.peers.links():
        found["global" if link.upward else "local"] += 1
    return _each(found)


def _peer_lag(now: Now) -> Iterator[tuple[tuple[str, ...], float]]:
    peers = now.context.peers
    for link in peers.links():
        lags = {"here": 0, "there": 0}
        for root in roots_over(peers, link).values():
            follower = "here" if root["leads"] == link.peer else "there"
            lags[follower] = max(lags[follower], root["lag"])
        for follower, lag in lags.items():
            yield (link.peer, follower), lag


def _loop_lag(now: Now) -> Numbers:
    return _one(now.meters.loop_lag.largest(asyncio.get_running_loop().time()))


def _info(now: Now) -> Numbers:
    database = now.context.database
    return [((__version__, database.tega_id, database.state.life), 1)]


FAMILIES: Final[tuple[Family | Distribution, ...]] = (
    # -- what clients ask for -----------------------------------------------------------------
    Family(
        "tega_http_requests_total", "counter",
        "HTTP requests that were answered, by verb and status; 101: a WebSocket began",
        _requests, ("verb", "status"),
    ),
    Distribution(
        "tega_http_request_seconds",
        "Seconds from a whole HTTP request to its answer, by what it asks for",
        lambda n: _by_kind(n.meters.request_seconds), ("kind",),
    ),
    Family(
        "tega_http_connections", "gauge", "Open connections that speak HTTP, WebSockets left out",
        lambda n: _one(n.meters.connections),
    ),
    Family(
        "tega_connections_total", "counter", "Connections that were accepted",
        lambda n: _one(n.meters.accepted),
    ),
    Family(
        "tega_session_messages_total", "counter", "Messages that sessions have sent, by command",
        lambda n: _each(n.meters.messages), ("command",),
    ),
    Distribution(
        "tega_session_request_seconds",
        "Seconds from a message of a session to its being done, by what it asks for",
        lambda n: _by_kind(n.meters.session_seconds), ("kind",),
    ),
    Family(
        "tega_refusals_total", "counter", "Requests and messages that were refused, by error code",
        lambda n: _each(n.meters.refusals), ("code",),
    ),
    Family(
        "tega_limit_hits_total", "counter", "Refusals for the sake of a limit, by its name",
        lambda n: _each(n.meters.limits), ("limit",),
    ),
    Family(
        "tega_transactions_open", "gauge", "Open transactions of REST clients",
        lambda n: _one(len(n.context.transactions)),
    ),
    # -- commits and the log ------------------------------------------------------------------
    Family(
        "tega_commits_total", "counter", "Commits made durable since the start",
        lambda n: _one(n.meters.commits),
    ),
    Distribution(
        "tega_commit_seconds", "Seconds from a commit's being judged to its being durable",
        lambda n: [((), n.meters.commit_seconds)],
    ),
    Family(
        "tega_sequence_number", "gauge", "Sequence number of the newest commit",
        lambda n: _one(n.context.database.state.seq),
    ),
    Family(
        "tega_read_only", "gauge",
        "1 where the log cannot be written, or could not lately for want of room, or 0",
        lambda n: _one(n.context.database.refusal is not None or n.context.database.full),
    ),
    Distribution(
        "tega_log_sync_seconds", "Seconds that a sync of the log to disk takes",
        lambda n: [((), n.meters.sync_seconds)],
    ),
    Distribution(
        "tega_log_sync_commits", "Commits that one sync makes durable together",
        lambda n: [((), n.meters.sync_commits)],
    ),
    Family(
        "tega_log_appended_bytes_total", "counter", "Bytes of commits written to the log",
        lambda n: _one(n.meters.appended),
    ),
    Family(
        "tega_log_bytes", "gauge", "Bytes of all segments of the log",
        lambda n: _one(n.log.size),
    ),
    Family(
        "tega_log_segments", "gauge", "Segments of the log",
        lambda n: _one(n.log.segments),
    ),
    Family(
        "tega_snapshots_total", "counter", "Snapshots since the start, by outcome",
        lambda n: _each(n.meters.snapshots), ("outcome",),
    ),
    Family(
        "tega_snapshot_bytes", "gauge",
        "Bytes of the newest snapshot: all trees and their old versions as text",
        lambda n: _one(n.log.snapshot_size),
    ),
    Family(
        "tega_snapshot_timestamp_seconds", "gauge",
        "When the newest snapshot was made, seconds since 1970", _snapshot_time,
    ),
    Family(
        "tega_roots", "gauge", "Roots that have content",
        lambda n: _one(n.context.database.state.live_count),
    ),
    # -- watchers and sessions ----------------------------------------------------------------
    Family(
        "tega_sessions", "gauge", "Open sessions, those of peers included",
        lambda n: _one(n.context.sessions.entered),
    ),
    Family(
        "tega_websockets", "gauge", "Open WebSocket connections, with a session or still without",
        lambda n: _one(len(n.context.sessions)),
    ),
    Family(
        "tega_outbox_bytes", "gauge", "Bytes that sessions have still to take",
        lambda n: _one(n.context.sessions.backlog),
    ),
    Family(
        "tega_watchers", "gauge", "Sessions, plugins and others that subscribe to something",
        lambda n: _one(n.census.watchers),
    ),
    Family(
        "tega_subscriptions", "gauge", "Paths and patterns that are subscribed to, by all together",
        lambda n: _one(n.census.subscriptions),
    ),
    Family(
        "tega_watchers_behind", "gauge", "Watchers that are catching up",
        lambda n: _one(n.census.behind),
    ),
    Family(
        "tega_watcher_lag_commits", "gauge",
        "Commits that the watcher furthest behind has still to be told of",
        lambda n: _one(n.census.lag),
    ),
    Family(
        "tega_watchers_fell_behind_total", "counter",
        "Times that a watcher did not take what it was sent, and had to catch up",
        lambda n: _one(n.meters.behind),
    ),
    Family(
        "tega_notices_sent_total", "counter", "Notifications of commits sent to sessions",
        lambda n: _one(n.meters.notices),
    ),
    Family(
        "tega_messages_sent_total", "counter", "Messages on channels sent to sessions",
        lambda n: _one(n.meters.publications),
    ),
    # -- functions ----------------------------------------------------------------------------
    Family(
        "tega_calls_total", "counter",
        "Calls of functions, by outcome: done, or the code of the error",
        lambda n: _each(n.meters.calls), ("outcome",),
    ),
    Distribution(
        "tega_call_seconds", "Seconds from a call to its answer",
        lambda n: [((), n.meters.call_seconds)],
    ),
    # -- peers --------------------------------------------------------------------------------
    Family("tega_peers", "gauge", "Connected servers, by what they are to this one", _peers,
           ("role",)),
    Family(
        "tega_peer_expected", "gauge", "1 where a global server is configured, or 0",
        lambda n: _one(n.context.dialer is not None),
    ),
    Family(
        "tega_peer_lag_versions", "gauge",
        "Versions that the root furthest behind lacks, by peer and by which end follows",
        _peer_lag, ("peer", "follower"),
    ),
    Family(
        "tega_roots_stale", "gauge", "Roots whose leader is away",
        lambda n: _one(len(n.context.peers.stale)),
    ),
    # -- the process --------------------------------------------------------------------------
    Family(
        "tega_event_loop_lag_seconds", "gauge",
        "The longest that the event loop was held up in the last minute or two, seconds",
        _loop_lag,
    ),
    Family(
        "tega_info", "gauge",
        "Always 1: the version, this server's tega id and the life of its database",
        _info, ("version", "tega_id", "life"),
    ),
)  # fmt: skip


class _Server(Collector):
    """All families of one server."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        database = self._context.database
        now = Now(self._context, database.meters, database.measure(), database.hub.census())
        for family in FAMILIES:
            yield family.metric(now)


def metrics(context: Context, call: Call) -> Answer:
    """What this server counts and how it stands, for Prometheus."""
    # One of its own: the library's registry is one for the whole process, and for good.
    registry = CollectorRegistry()
    registry.register(_Server(context))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return Response(generate_latest(registry), content_type=_CONTENT_TYPE)
