"""tega's own server, over REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec

from tegabench import httpwire, values
from tegabench.client import BadReply, Conversation
from tegabench.process import BenchError, python
from tegabench.systems.bare import get_request, put_request, target
from tegabench.systems.base import BATCH, CONNECTIONS, KEYS, Fillable, Kind

#: Four characters from these name 100 000 siblings within a body of one MiB.
_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


class Tega(Fillable):
    """One server process; requests over REST."""

    name = "tega"
    title = "tega"
    durable = "fdatasync before every answer; one for all that arrive together"
    role = "tega"
    pipelined = False
    #: Old roots kept.
    maxlen = 10

    @classmethod
    def missing(cls) -> str | None:
        found = find_spec("tega") and find_spec("tega.server")
        return None if found else "tega.server cannot be imported: pip install -e ."

    def command(self) -> list[str]:
        return python(
            *("-m", "tega.server", "-d", str(self.directory / "data"), "-t", "bench"),
            *("-p", str(self.address[1]), "-a", self.address[0], "--maxlen", str(self.maxlen)),
        )

    def ready(self) -> bool:
        return bool(httpwire.call(self.address, "GET", "/_health"))

    def prepare(self) -> None:
        document = json.loads(values.document(values.tag(0, 0, 0)))
        keys = {f"k{key}": document for key in range(KEYS)}
        self.put("/bench/", {f"c{connection}": keys for connection in range(CONNECTIONS)})

    def put(self, path: str, value: object) -> None:
        """One PUT outside the measurement."""
        httpwire.call_json(self.address, "PUT", path, value)

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        connect = httpwire.connector(self.address)
        if kind == "tx":
            return httpwire.Steps(connect, _transaction(connection, generation))
        if kind == "get":
            fixed = [httpwire.request("GET", target(connection, key)) for key in range(KEYS)]
            ask = get_request(fixed)
        else:
            ask = put_request(connection, generation)
        return Conversation(connect, ask, httpwire.Replies().count)

    def tags(self, connection: int) -> list[bytes]:
        held = httpwire.call_json(self.address, "GET", f"/bench/c{connection}/")
        return [held[f"k{key}"]["tag"].encode() for key in range(KEYS)]

    def revision(self) -> int | None:
        roots: dict[str, int] = httpwire.call_json(self.address, "GET", "/_roots")
        return roots["bench"]

    def fill(self, leaves: int) -> None:
        """Containers of 1000 leaves below ``/big/``, one PUT each."""
        for number, body in values.batches(leaves):
            httpwire.call(self.address, "PUT", f"/big/c{number}/", body)

    def widen(self, path: str, siblings: int) -> None:
        """Put so many small leaves into one container in one PUT.

        :param path: the container's URL; what it held before is replaced
        """
        names = [a + b + c + d for a in _DIGITS for b in _DIGITS for c in _DIGITS for d in _DIGITS]
        body = json.dumps(dict.fromkeys(names[:siblings], 1), separators=(",", ":")).encode()
        if len(body) > 1 << 20:
            raise BenchError(f"{siblings} siblings are more than one body can carry")
        httpwire.call(self.address, "PUT", path, body)

    def leaf_writer(self, ask: Callable[[int], tuple[int, int]], new: bool) -> Conversation:
        def request(serial: int) -> bytes:
            number, value = ask(serial)
            return httpwire.request("PUT", f"/restart/leaf{number:06d}/", b"%d" % value)

        return Conversation(httpwire.connector(self.address), request, httpwire.Replies().count)

    def leaf(self, number: int) -> int | None:
        try:
            return int(httpwire.call(self.address, "GET", f"/restart/leaf{number:06d}/"))
        except BadReply:
            return None

    def leaves(self, count: int) -> list[int]:
        held = httpwire.call_json(self.address, "GET", "/restart/")
        return [held[f"leaf{number:06d}"] for number in range(count)]


def _transaction(
    connection: int, generation: int
) -> Callable[[int], Callable[[list[bytes]], bytes | None]]:
    """Begin, ten puts and commit: twelve round trips, the way of 2017."""
    begin = httpwire.request("POST", "/_begin", b"")

    def operation(serial: int) -> Callable[[list[bytes]], bytes | None]:
        body = values.document(values.tag(generation, connection, serial))
        txid = ""

        def step(replies: list[bytes]) -> bytes | None:
            nonlocal txid
            number = len(replies)
            if number == 0:
                return begin
            if number == 1:
                txid = json.loads(replies[0])["txid"]
            if number <= BATCH:
                url = target(connection, number - 1)
                return httpwire.request("PUT", f"{url}?txid={txid}", body)
            if number == BATCH + 1:
                return httpwire.request("POST", f"/_commit?txid={txid}", b"")
            return None

        return step

    return operation
