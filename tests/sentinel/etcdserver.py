"""A real etcd, and what the tests do to it: over its JSON gateway, with no code of the product."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processes import Process, connect, find_program, free_port

PROGRAM = find_program("etcd")


def code(data: str | bytes) -> str:
    """Bytes as the gateway has them."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def _after(prefix: str) -> str:
    """The end of the range of keys that begin with a prefix, as etcd wants it."""
    data = prefix.encode()
    return code(data[:-1] + bytes([data[-1] + 1]))


class Etcd(Process):
    """An etcd server of one member.

    :param tls: how the tests speak TLS with it, where its flags say that it does
    """

    def __init__(
        self, directory: Path, *flags: str, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self._peer_port = free_port()
        self._flags = flags
        self._tls = tls
        self._user: tuple[str, str] | None = None
        self._token = ""

    def command(self) -> Sequence[str]:
        assert PROGRAM is not None
        url = f"http{'' if self._tls is None else 's'}://127.0.0.1:{self.port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        return [
            PROGRAM, "--data-dir", str(self.directory / "data"), "--logger", "zap",
            "--log-level", "error", "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}", "--max-request-bytes", "4194304",
            # One member need not wait long before it elects itself.
            "--heartbeat-interval", "10", "--election-timeout", "100", *self._flags,
        ]  # fmt: skip

    def is_ready(self) -> bool:
        try:
            self.revision()
        except (OSError, http.client.HTTPException, AssertionError):
            return False
        return True

    def url(self, prefix: str = "") -> str:
        """Where it is, as the product is told."""
        return f"etcd{'' if self._tls is None else 's'}://127.0.0.1:{self.port}{prefix}"

    def protect(self, users: Mapping[str, tuple[str, str]]) -> None:
        """Want a user and a password from now on.

        :param users: beside root: by name the password, and the prefix that may be used
        """
        for name in ("root", *users):
            password, prefix = users.get(name, ("of-root", ""))
            self.ask("auth/user/add", {"name": name, "password": password})
            self.ask("auth/role/add", {"name": name})
            self.ask("auth/user/grant", {"user": name, "role": name})
            if prefix:
                may = {"permType": "READWRITE", "key": code(prefix), "range_end": _after(prefix)}
                self.ask("auth/role/grant", {"name": name, "perm": may})
        self.ask("auth/enable", {})
        self._user = ("root", "of-root")

    def ask(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Call a method, such as ``kv/put``; what comes back."""
        if self._user is not None and method != "auth/authenticate":
            # A token is of one run of the server.
            name, password = self._user
            answer = self.ask("auth/authenticate", {"name": name, "password": password})
            self._token = answer["token"]
        connection = connect(self.port, self._tls)
        try:
            headers = {"Authorization": self._token} if self._token else {}
            connection.request("POST", f"/v3/{method}", json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status == 200, data
            found = json.loads(data)
            assert isinstance(found, dict)
            return found
        finally:
            connection.close()

    def revision(self) -> int:
        """The newest revision."""
        found = self.ask("kv/range", {"key": code("\0"), "count_only": True})
        return int(found["header"]["revision"])

    def put(self, key: str | bytes, value: str | bytes) -> int:
        """Put a value at a key; the revision that this made."""
        answer = self.ask("kv/put", {"key": code(key), "value": code(value)})
        return int(answer["header"]["revision"])

    def delete(self, key: str) -> int:
        """Delete a key; the revision that this made."""
        answer = self.ask("kv/deleterange", {"key": code(key)})
        return int(answer["header"]["revision"])

    def delete_below(self, prefix: str) -> None:
        """Delete all keys with a prefix, at one revision."""
        self.ask("kv/deleterange", {"key": code(prefix), "range_end": _after(prefix)})

    def change(self, changes: Mapping[str, str | bytes | None]) -> int:
        """Put and delete (None) several keys in one transaction; the revision that this made."""
        operations = [
            {"request_delete_range": {"key": code(key)}} if value is None
            else {"request_put": {"key": code(key), "value": code(value)}}
            for key, value in changes.items()
        ]  # fmt: skip
        answer = self.ask("kv/txn", {"success": operations})
        return int(answer["header"]["revision"])

    def read(self, prefix: str) -> dict[str, tuple[bytes, int]]:
        """All keys with a prefix, each with its value and the revision of its last change."""
        asked = {"key": code(prefix), "range_end": _after(prefix)}
        return {
            base64.b64decode(one["key"]).decode(): (
                base64.b64decode(one.get("value", "")), int(one["mod_revision"]),
            )
            for one in self.ask("kv/range", asked).get("kvs", [])
        }  # fmt: skip

    def compact(self) -> None:
        """Forget all history before now."""
        # A revision of its own: the newest one may have been forgotten already.
        self.ask("kv/compaction", {"revision": self.put("/compacted", ""), "physical": True})
