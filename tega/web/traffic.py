"""Counting HTTP requests, and telling of those that are refused."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import parse_qs

from tornado.http1connection import HTTP1Connection
from tornado.httputil import RequestStartLine

from tega.access.who import Who
from tega.errors import TegaError
from tega.metrics import OTHER, VERBS, Meters
from tega.web.refusals import Refusals

#: What a request is about that is not about a command.
_KINDS: Final = {"GET": "get", "PUT": "put", "DELETE": "delete"}


class Traffic:
    """The requests of a server.

    :param meters: takes what is counted
    :param refusals: takes what is refused
    """

    def __init__(self, meters: Meters, refusals: Refusals) -> None:
        self._meters = meters
        self._refusals = refusals

    def answered(self, line: RequestStartLine, status: int, begun: float) -> None:
        """A request has its answer, or the beginning of one that is sent in turns.

        :param begun: when the whole request was there, by the monotonic clock
        """
        method = line.method
        self._meters.requests[method if method in VERBS else OTHER, status] += 1
        kind = "command" if line.path.startswith("/_") else _KINDS.get(method, OTHER)
        self._meters.request_seconds[kind].observe(time.monotonic() - begun)

    def refused(
        self, line: RequestStartLine, error: TegaError, connection: HTTP1Connection, who: Who
    ) -> None:
        """A request is refused.

        :param who: whoever asks; where no credential is asked for, who they say that they are
        """
        path, _, query = line.path.partition("?")
        tega_id = parse_qs(query, errors="replace").get("tega_id", [""])[0]
        source = getattr(connection.context, "remote_ip", "unknown")
        self._refusals.refused(error, who.called(tega_id), source, f"{line.method} {path}")
