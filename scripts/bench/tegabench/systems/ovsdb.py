"""OVSDB over JSON-RPC: one table of documents, durable commits."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from typing import Any

from tegabench import values
from tegabench.client import BadReply, Conversation
from tegabench.httpwire import connector
from tegabench.systems.base import BATCH, CONNECTIONS, KEYS, Kind, System

_DATABASE = "bench"
_DURABLE = {"op": "commit", "durable": True}


class Replies:
    """Frames JSON-RPC replies, which follow each other without any separator."""

    def __init__(self) -> None:
        self._buffer = ""
        self._decode = json.JSONDecoder().raw_decode

    def take(self, data: bytes) -> list[Any]:
        """The results of the replies that these bytes end."""
        buffer = self._buffer + data.decode()
        at = 0
        found = []
        while at < len(buffer):
            try:
                message, at = self._decode(buffer, at)
            except json.JSONDecodeError:
                break
            # Requests of the server's own (echo) are not answers; within seconds it asks none.
            if "result" in message:
                found.append(_judged(message))
        self._buffer = buffer[at:]
        return found

    def count(self, data: bytes) -> int:
        """How many replies these bytes end."""
        return len(self.take(data))


def _judged(message: Any) -> Any:
    """The result of a reply in which no operation failed."""
    result = message["result"]
    failed = message["error"] or any("error" in (part or {}) for part in result)
    if failed:
        raise BadReply(json.dumps(message).encode())
    return result


class Ovsdb(System):
    """One server; a document is a row, found by its UUID (a key column would be searched)."""

    name = "ovsdb"
    title = "OVSDB"
    durable = "fsync of its log where a transaction asks for a durable commit"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("ovsdb-server") and shutil.which("ovsdb-tool"):
            return None
        return "ovsdb-server is not on PATH: apt-get install openvswitch-switch"

    def command(self) -> list[str]:
        database = self.directory / "bench.db"
        if not database.exists():
            columns = {"connection": "integer", "key": "integer", "document": "string"}
            schema = {
                "name": _DATABASE,
                "version": "1.0.0",
                "tables": {
                    "Doc": {
                        "columns": {name: {"type": kind} for name, kind in columns.items()},
                        "isRoot": True,
                    }
                },
            }
            schema_file = self.directory / "schema.json"
            schema_file.write_text(json.dumps(schema))
            subprocess.run(["ovsdb-tool", "create", database, schema_file], check=True)
        return [
            *("ovsdb-server", f"--remote=ptcp:{self.address[1]}:{self.address[0]}"),
            *(f"--unixctl={self.directory / 'ctl'}", "--log-file=/dev/null", "-vconsole:off"),
            str(database),
        ]

    def ready(self) -> bool:
        return bool(self._transact([{"op": "select", "table": "Doc", "where": []}]))

    def prepare(self) -> None:
        text = values.document(values.tag(0, 0, 0)).decode()
        rows: list[dict[str, Any]] = [
            {
                "op": "insert",
                "table": "Doc",
                "row": {"connection": connection, "key": number, "document": text},
            }
            for connection in range(CONNECTIONS)
            for number in range(KEYS)
        ]
        added = self._transact([*rows, _DURABLE])
        self._uuids = [part["uuid"] for part in added[: len(rows)]]

    def conversation(self, kind: Kind, connection: int, generation: int) -> Conversation:
        uuids = self._uuids[connection * KEYS : (connection + 1) * KEYS]

        def update(number: int, serial: int) -> bytes:
            document = values.document(values.tag(generation, connection, serial)).decode()
            where = [["_uuid", "==", uuids[number]]]
            row = {"document": document}
            operation = {"op": "update", "table": "Doc", "where": where, "row": row}
            return json.dumps(operation).encode()

        def put(serial: int) -> bytes:
            return _request(serial, update(serial % KEYS, serial), json.dumps(_DURABLE).encode())

        def transaction(serial: int) -> bytes:
            updates = [update(number, serial) for number in range(BATCH)]
            return _request(serial, *updates, json.dumps(_DURABLE).encode())

        selects = [
            json.dumps(
                {
                    "op": "select",
                    "table": "Doc",
                    "where": [["_uuid", "==", uuid]],
                    "columns": ["document"],
                }
            ).encode()
            for uuid in uuids
        ]

        def get(serial: int) -> bytes:
            return _request(serial, selects[serial % KEYS])

        ask = {"get": get, "put": put, "tx": transaction}[kind]
        return Conversation(connector(self.address), ask, Replies().count)

    def tags(self, connection: int) -> list[bytes]:
        where = [["connection", "==", connection]]
        rows = self._transact([{"op": "select", "table": "Doc", "where": where}])[0]["rows"]
        ordered = sorted(rows, key=lambda row: int(row["key"]))
        return [values.tag_of(row["document"]) for row in ordered]

    def _transact(self, operations: list[Any]) -> Any:
        parts = [json.dumps(operation).encode() for operation in operations]
        replies = Replies()
        with socket.create_connection(self.address, 10) as sock:
            sock.sendall(_request(0, *parts))
            while True:
                data = sock.recv(1 << 18)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                if found := replies.take(data):
                    return found[0]


def _request(number: int, *operations: bytes) -> bytes:
    return b'{"id":%d,"method":"transact","params":["%s",%s]}' % (
        number,
        _DATABASE.encode(),
        b",".join(operations),
    )
