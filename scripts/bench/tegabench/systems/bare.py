"""The bare Tornado handler as a server under measurement."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from tegabench import httpwire, values
from tegabench.client import Conversation
from tegabench.process import python
from tegabench.systems.base import CONNECTIONS, KEYS, Kind, System


class Bare(System):
    """Keeps nothing: the limit of what Tornado can answer."""

    name = "bare"
    title = "bare Tornado handler"
    durable = "keeps nothing"
    role = "limit"
    pipelined = False
    #: A log to read before serving.
    log: Path | None = None

    @classmethod
    def missing(cls) -> str | None:
        return None if find_spec("tornado") else "tornado is not installed: pip install tornado"

    def command(self) -> list[str]:
        log = [] if self.log is None else [str(self.log)]
        return python("-m", "tegabench.bare", str(self.address[1]), *log)

    def ready(self) -> bool:
        return bool(httpwire.call(self.address, "GET", "/"))

    def prepare(self) -> None:
        pass

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        if kind == "get":
            fixed = [httpwire.request("GET", target(connection, key)) for key in range(KEYS)]
            ask = get_request(fixed)
        else:
            ask = put_request(connection, generation)
        return Conversation(httpwire.connector(self.address), ask, httpwire.Replies().count)

    def tags(self, connection: int) -> list[bytes]:
        return []


def target(connection: int, key: int) -> str:
    """The URL of a document."""
    return f"/bench/c{connection}/k{key}/"


def get_request(fixed: list[bytes]) -> httpwire.Ask:
    """Requests taken in turn."""
    return lambda serial: fixed[serial % KEYS]


def put_request(connection: int, generation: int) -> httpwire.Ask:
    """PUT requests of a new document each, on the keys of the connection in turn."""
    heads = [httpwire.head("PUT", target(connection, key), values.SIZE) for key in range(KEYS)]
    return lambda serial: heads[serial % KEYS] + values.document(
        values.tag(generation, connection, serial)
    )


def log_lines(commits: int, wide: bool) -> bytes:
    """The least that a log of one-leaf commits can be, for :func:`tegabench.bare.replay`."""
    paths = commits if wide else CONNECTIONS
    return b"".join(
        [
            json.dumps({"path": f"restart.leaf{n % paths:06d}", "instance": n}).encode() + b"\n"
            for n in range(commits)
        ]
    )
