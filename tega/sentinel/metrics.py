"""What is measured, and where it is shown: ``/_metrics`` for Prometheus, ``/_health``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tega.sentinel.sink import Event


class Metrics:
    """What is measured of one sentinel."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = self._counter("events", "Rows and keys written or rejected", "kind")
        self.drift = self._counter("drift", "Rows and keys mended that somebody else had changed")
        self.retries = self._counter("retries", "Tries after a failure", "where")
        self.passes = self._counter("full_passes", "Full passes made")
        self.revision = self._gauge("revision", "Revision of the source that the mirror is at")
        self.newest = self._gauge("source_revision", "Newest revision that the source has told of")
        self.lag = self._gauge("lag_revisions", "Revisions that the mirror is behind")
        self.changed = self._gauge("last_transaction_seconds", "Time of the last transaction")
        self.pass_seconds = self._gauge("full_pass_seconds", "Length of the last full pass")
        self.connected = self._gauge("connected", "Whether it is connected: source and sink", "end")
        # What has not happened yet is there as 0.
        for kind in ("insert", "update", "delete", "reject", "error"):
            self.events.labels(kind)
        for end in ("source", "sink"):
            self.retries.labels(end)
            self.connected.labels(end)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"tega_sentinel_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"tega_sentinel_{name}", help, labels, registry=self.registry)

    def done(self, events: Sequence[Event]) -> None:
        """Count what was done."""
        for event in events:
            self.events.labels(event.kind).inc()
            if event.drift:
                self.drift.inc()


def serve(
    port: int, address: str, metrics: Metrics, health: Callable[[], dict[str, Any]]
) -> tuple[HTTPServer, int]:
    """Show them over HTTP.

    :param port: 0: a free one
    :param health: what ``/_health`` tells; its ``ok`` says whether with status 200 or 503
    :returns: the server and its port
    :raises OSError: where the port cannot be had
    """

    class ShowMetrics(RequestHandler):
        def get(self) -> None:
            self.set_header("Content-Type", CONTENT_TYPE_LATEST)
            self.finish(generate_latest(metrics.registry))

    class ShowHealth(RequestHandler):
        def get(self) -> None:
            state = health()
            self.set_status(200 if state["ok"] else 503)
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps(state) + "\n")

    application = Application(
        [("/_metrics", ShowMetrics), ("/_health", ShowHealth)], log_function=lambda handler: None
    )
    sockets = bind_sockets(port, address)
    server = HTTPServer(application)
    server.add_sockets(sockets)
    return server, sockets[0].getsockname()[1]
