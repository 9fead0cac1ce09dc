"""A real tega server, and what the tests do to it: over REST, with no driver of the product."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from processes import REPOSITORY, Process, connect, free_port


def _url(path: Sequence[str]) -> str:
    return "".join(f"/{quote(key, safe='')}" for key in path) + "/"


class TegaServer(Process):
    """A tega server, with data of its own.

    :param tls: how the tests speak TLS with it, where it does
    :ivar token: what the tests show, where it wants one
    """

    def __init__(
        self, directory: Path, *flags: str, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.token: str | None = None
        self._flags = flags
        self._tls = tls

    def command(self) -> Sequence[str]:
        return [
            sys.executable, "-m", "tega.server", "-d", str(self.directory / "log"), "-t", "served",
            "-a", "127.0.0.1", "-p", str(self.port), *self._flags,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(REPOSITORY)}

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/_health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def url(self, path: str) -> str:
        """Where a dotted path is, as the product is told."""
        return f"tega{'' if self._tls is None else 's'}://127.0.0.1:{self.port}/{path}"

    def ask(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; the status and the body of the answer."""
        connection = connect(self.port, self._tls)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        try:
            connection.request(method, url, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def _done(self, method: str, url: str, body: Any = None) -> Any:
        status, answer = self.ask(method, url, body)
        assert status == 200, answer
        return answer

    def get(self, *path: str) -> Any:
        """What stands at a path; None where nothing does."""
        status, body = self.ask("GET", _url(path))
        assert status in (200, 404), body
        return body if status == 200 else None

    def put(self, path: Sequence[str], value: Any) -> None:
        """Put a value at a path."""
        self._done("PUT", _url(path), value)

    def delete(self, path: Sequence[str]) -> None:
        """Delete what stands at a path, if anything does."""
        status, body = self.ask("DELETE", _url(path))
        assert status in (200, 404), body

    def change(self, changes: Mapping[tuple[str, ...], Any]) -> None:
        """Put and delete (None) at several paths in one transaction."""
        txid = self._done("POST", "/_begin?tega_id=tester")["txid"]
        for path, value in changes.items():
            url = f"{_url(path)}?txid={txid}&tega_id=tester"
            if value is None:
                status, body = self.ask("DELETE", url)
                assert status in (200, 404), body
            else:
                self._done("PUT", url, value)
        self._done("POST", f"/_commit?txid={txid}&tega_id=tester")

    def clear(self) -> None:
        """Forget everything: a new life begins."""
        self._done("POST", "/_clear")
