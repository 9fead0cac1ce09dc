"""Where a sentinel shows how it is: ``/_metrics`` for Prometheus, ``/_health``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tega.errors import Malformed
from tega.sentinel.engine import Sentinel


class _Collector(Collector):
    """The numbers of a sentinel, as they are when they are asked for."""

    def __init__(self, sentinel: Sentinel) -> None:
        self._sentinel = sentinel

    def collect(self) -> Iterator[Metric]:
        sentinel, metrics = self._sentinel, self._sentinel.metrics
        yield _counter("events", "Rows and keys written or rejected", "kind", metrics.events)
        yield _counter("retries", "Tries after a failure", "where", metrics.retries)
        for name, number, help in (
            ("drift", metrics.drift, "Rows and keys mended that somebody else had changed"),
            ("full_passes", metrics.passes, "Full passes made"),
        ):
            yield CounterMetricFamily(f"tega_sentinel_{name}", help, value=number)
        newest = sentinel.newest
        for name, value, help in (
            ("revision", sentinel.revision, "Revision of the source that the mirror is at"),
            ("source_revision", newest, "Newest revision that the source has told of"),
            ("lag_revisions", max(newest - sentinel.revision, 0),
             "Revisions that the mirror is behind"),
            ("last_transaction_seconds", metrics.changed, "Time of the last transaction"),
            ("full_pass_seconds", metrics.pass_seconds, "Length of the last full pass"),
        ):  # fmt: skip
            yield GaugeMetricFamily(f"tega_sentinel_{name}", help, value=value)
        up = GaugeMetricFamily(
            "tega_sentinel_connected", "Whether it is connected: source and sink", labels=["end"]
        )
        for end, connected in sentinel.connected.items():
            up.add_metric([end], connected)
        yield up


def _counter(name: str, help: str, label: str, numbers: dict[str, int]) -> Metric:
    made = CounterMetricFamily(f"tega_sentinel_{name}", help, labels=[label])
    for value, number in numbers.items():
        made.add_metric([value], number)
    return made


def serve(port: int, address: str, sentinel: Sentinel) -> int:
    """Show them over HTTP, as long as the loop runs.

    :param port: 0: a free one
    :returns: the port
    :raises Malformed: where it cannot be had
    """
    registry = CollectorRegistry()
    registry.register(_Collector(sentinel))

    class ShowMetrics(RequestHandler):
        def get(self) -> None:
            self.set_header("Content-Type", CONTENT_TYPE_LATEST)
            self.finish(generate_latest(registry))

    class ShowHealth(RequestHandler):
        def get(self) -> None:
            state = sentinel.health()
            self.set_status(200 if state["ok"] else 503)
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps(state) + "\n")

    pages: Iterable[tuple[str, type[RequestHandler]]]
    pages = [("/_metrics", ShowMetrics), ("/_health", ShowHealth)]
    application = Application(list(pages), log_function=lambda handler: None)
    try:
        sockets = bind_sockets(port, address)
    except OSError as error:
        raise Malformed(
            f"setting port: {address}:{port} cannot be had: {error.strerror or error}"
        ) from None
    HTTPServer(application).add_sockets(sockets)
    found: int = sockets[0].getsockname()[1]
    return found
