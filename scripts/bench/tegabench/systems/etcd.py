"""etcd 3.4 through its JSON gateway."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from typing import Any

from tegabench import httpwire, values
from tegabench.client import Conversation
from tegabench.process import free_port
from tegabench.systems.base import BATCH, CONNECTIONS, KEYS, Fillable, Kind, System


def b64(data: bytes) -> str:
    """Bytes as the gateway takes and gives them."""
    return base64.b64encode(data).decode()


def key(connection: int, number: int) -> bytes:
    """The key of a document."""
    return b"/bench/c%d/k%d" % (connection, number)


def leaf_key(number: int) -> bytes:
    """The key of a leaf written by commits; in order of number."""
    return b"/restart/leaf%06d" % number


class Member(System):
    """One member; loaded and checked over JSON, whatever it is measured with."""

    durable = "fdatasync of its WAL before every answer; proposals that arrive together share one"
    pipelined = False

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("etcd") else "etcd is not on PATH: apt-get install etcd-server"

    def command(self) -> list[str]:
        client = f"http://{self.address[0]}:{self.address[1]}"
        peer = f"http://127.0.0.1:{free_port()}"
        return [
            *("etcd", "--name", "bench", "--data-dir", str(self.directory / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"bench={peer}", "--log-level", "error"),
            *("--max-txn-ops", "1024", "--quota-backend-bytes", str(8 << 30)),
        ]

    def ready(self) -> bool:
        # A read is linearizable: it answers only once there is a leader.
        return b"header" in self.post("range", {"key": b64(b"x")})

    def prepare(self) -> None:
        document = values.document(values.tag(0, 0, 0))
        for connection in range(CONNECTIONS):
            self.put_all([(key(connection, number), document) for number in range(KEYS)])

    def tags(self, connection: int) -> list[bytes]:
        held = self._range(b"/bench/c%d/" % connection, b"/bench/c%d0" % connection)
        return [values.tag_of(held[key(connection, number)]) for number in range(KEYS)]

    def revision(self) -> int | None:
        return int(json.loads(self.post("range", {"key": b64(b"x")}))["header"]["revision"])

    def post(self, verb: str, body: Any) -> bytes:
        """Ask the JSON gateway."""
        return httpwire.call(self.address, "POST", f"/v3/kv/{verb}", json.dumps(body).encode())

    def put_all(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Put several keys in one transaction."""
        puts = [{"requestPut": {"key": b64(k), "value": b64(v)}} for k, v in pairs]
        self.post("txn", {"success": puts})

    def _range(self, first: bytes, end: bytes) -> dict[bytes, bytes]:
        found = json.loads(self.post("range", {"key": b64(first), "range_end": b64(end)}))
        return {
            base64.b64decode(pair["key"]): base64.b64decode(pair["value"])
            for pair in found.get("kvs", [])
        }


class Etcd(Member, Fillable):
    """Asked over its JSON gateway."""

    name = "etcd"
    title = "etcd gateway"

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        keys = [b64(key(connection, number)) for number in range(KEYS)]

        def document(serial: int) -> str:
            return b64(values.document(values.tag(generation, connection, serial)))

        def put(serial: int) -> bytes:
            body = b'{"key":"%s","value":"%s"}' % (
                keys[serial % KEYS].encode(),
                document(serial).encode(),
            )
            return httpwire.request("POST", "/v3/kv/put", body)

        def transaction(serial: int) -> bytes:
            value = document(serial)
            puts = [{"requestPut": {"key": keys[n], "value": value}} for n in range(BATCH)]
            return httpwire.request("POST", "/v3/kv/txn", json.dumps({"success": puts}).encode())

        fixed = [
            httpwire.request("POST", "/v3/kv/range", json.dumps({"key": k}).encode()) for k in keys
        ]
        ask: httpwire.Ask
        if kind == "get":
            ask = lambda serial: fixed[serial % KEYS]  # noqa: E731
        else:
            ask = put if kind == "put" else transaction
        return Conversation(httpwire.connector(self.address), ask, httpwire.Replies().count)

    def fill(self, leaves: int) -> None:
        for number, body in values.batches(leaves):
            pairs = json.loads(body)
            self.put_all(
                [(f"/big/c{number}/{k}".encode(), str(v).encode()) for k, v in pairs.items()]
            )

    def leaf_writer(self, ask: Callable[[int], tuple[int, int]], new: bool) -> Conversation:
        def request(serial: int) -> bytes:
            number, value = ask(serial)
            body = {"key": b64(leaf_key(number)), "value": b64(b"%d" % value)}
            return httpwire.request("POST", "/v3/kv/put", json.dumps(body).encode())

        return Conversation(httpwire.connector(self.address), request, httpwire.Replies().count)

    def leaf(self, number: int) -> int | None:
        name = leaf_key(number)
        held = self._range(name, name + b"\0")
        return int(held[name]) if held else None

    def leaves(self, count: int) -> list[int]:
        found: list[int] = []
        # In pages: one answer of everything is past a limit of the gateway's own connection.
        for first in range(0, count, 10_000):
            held = self._range(leaf_key(first), leaf_key(min(first + 10_000, count)))
            found += [int(value) for value in held.values()]
        return found
