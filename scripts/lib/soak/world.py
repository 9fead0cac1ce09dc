"""The servers, with TLS, tokens and rules; and what befalls them."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from certificates import Authority, flags
from forwarder import Forwarder
from prometheus_client.parser import text_string_to_metric_families
from realservers import RealServer, until

from soak.judge import Judge, Life, Sample
from tega.access.keeper import add_token, remove_tokens
from tega.driver.credentials import Tls

#: Seconds within which a server has taken over what has changed in its files.
TAKEN = 30.0

#: The loop's lag that a server reports is that of the last minutes, seconds.
_LAG_LASTS = 130.0

_RULES = """\
identities:
  admin: {tega_ids: ["*"]}
  writer: {tega_ids: ["*"]}
rules:
- {who: admin, on: "*", may: rwxsp}
- {who: writer, on: shared, may: rwxsp}
- {who: writer, on: "op-*", may: rwxsp}
- {who: [reader, guest], on: shared.secret, may: ""}
- {who: [reader, guest], on: shared, may: rsp}
- {who: [reader, guest], on: "op-*", may: rs}
manage: [admin]
monitor: [admin]
"""

#: Those of the global server have more to say.
_GLOBAL_RULES = (
    _RULES.replace("rules:\n", """\
  local1: {tega_ids: [a, "*"]}
  local2: {tega_ids: [b, "*"]}
rules:
- {who: [local1, local2], on: "*", may: rwxsp}
""") + "peer: [local1, local2]\n"
)  # fmt: skip

#: Everybody but the peers has a token of the same name at each server.
NAMES = ("admin", "writer", "reader", "guest")


class Server(RealServer):
    """A server with TLS and tokens."""

    tokens: dict[str, str]
    context: ssl.SSLContext
    life: Life
    stopped: float = float("-inf")

    def ask(
        self, method: str, url: str, body: Any = None, key: str | None = None, timeout: float = 40,
        who: str = "admin",
    ) -> tuple[int, Any]:
        status, text = self.ask_text(method, url, body, key, timeout, who)
        return status, json.loads(text)

    def ask_text(
        self, method: str, url: str, body: Any = None, key: str | None = None, timeout: float = 40,
        who: str = "admin",
    ) -> tuple[int, bytes]:
        """As `ask`, with the body as it came.

        :param who: whose token goes along
        """
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        made = http.client.HTTPSConnection(*self.address, timeout=timeout, context=self.context)
        try:
            made.request(method, url, None if body is None else json.dumps(body), headers)
            answer = made.getresponse()
            return answer.status, answer.read()
        finally:
            made.close()

    @property
    def files(self) -> Path:
        """Where its log, its tokens and its rules are."""
        return self.directory / "log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


class World:
    """A global server `g`, two local ones `a` and `b`, and the links between them.

    :param directory: for all their files
    """

    def __init__(self, directory: Path, judge: Judge, chance: random.Random) -> None:
        self.judge = judge
        self._chance = chance
        self.all: list[Server] = []
        self.links: list[Forwarder] = []
        self._directory = directory
        self.authority = Authority(directory)
        self._pair = self.authority.issue("127.0.0.1", "localhost")
        self.tls = Tls(ca=self.authority.file)
        self.context = ssl.create_default_context(cafile=str(self.authority.file))
        self.g = Server(directory / "g", "g", None, (), (), *flags(self._pair))
        self.all.append(self.g)
        self._equip(self.g, _GLOBAL_RULES, *NAMES, "local1", "local2")

    def begin(self) -> None:
        """Start the servers, and wait until they have found each other.

        :raises AssertionError: where they do not
        """
        self._start(self.g)
        self.links = [Forwarder(self.g.address), Forwarder(self.g.address)]
        self.locals = [
            self._local(name, self.links[number], f"local{number + 1}")
            for number, name in enumerate("ab")
        ]
        self.a, self.b = self.locals
        self.g.put("/shared/secret/", "x")
        for server in self.locals:
            server.put(f"/op-{server.tega_id}/begun/", 1)
            until(server.is_up, TAKEN, f"{server.tega_id} is connected")
        self.resting = [descriptors(server.pid) for server in self.all]

    def _equip(self, server: Server, rules: str, *names: str) -> None:
        server.files.mkdir(parents=True)
        server.context = self.context
        server.tokens = {name: add_token(server.files / "tokens.yaml", name) for name in names}
        (server.files / "access.yaml").write_text(rules)

    def _local(self, name: str, link: Forwarder, identity: str) -> Server:
        token = self._directory / f"{identity}.token"
        token.touch(mode=0o600)
        token.write_text(self.g.tokens[identity])
        server = Server(
            self._directory / name, name, ("127.0.0.1", link.port), ("shared",), (f"op-{name}",),
            *flags(self._pair), "--gca", str(self.authority.file), "--gtoken-file", str(token),
        )  # fmt: skip
        self.all.append(server)
        self._equip(server, _RULES, *NAMES)
        self._start(server)
        return server

    def _start(self, server: Server) -> None:
        server.start()
        server.life = Life(server.tega_id)
        self.judge.lives.append(server.life)

    # -- what befalls it ------------------------------------------------------------------------

    def strike(self, interval: float, over: threading.Event) -> None:
        """One fault after the other, each kind in turn, until it is over.

        :param interval: seconds from one to the next
        """
        faults: list[Callable[[], None]] = [
            self.kill, self.stop, self.cut, self.hold_up, self.revoke, self.renew, self.snapshot
        ]  # fmt: skip
        while not over.is_set():
            self._chance.shuffle(faults)
            for fault in faults:
                if over.wait(interval):
                    break
                fault()
                self.judge.struck((fault.__doc__ or "").rstrip("."))

    def kill(self) -> None:
        """A server killed with SIGKILL, and started again."""
        server = self._chance.choice(self.all)
        server.kill()
        time.sleep(self._chance.uniform(0, 1))
        self._start(server)

    def stop(self) -> None:
        """A server stopped for a while (SIGSTOP, SIGCONT)."""
        server = self._chance.choice(self.all)
        server.send(signal.SIGSTOP)
        try:
            time.sleep(self._chance.uniform(0.2, 4))
        finally:
            server.send(signal.SIGCONT)
            server.stopped = time.monotonic()

    def cut(self) -> None:
        """A link between servers cut, and healed."""
        link = self._chance.choice(self.links)
        link.cut()
        time.sleep(self._chance.uniform(0, 3))
        link.heal()

    def hold_up(self) -> None:
        """A link between servers that lets nothing through for a while."""
        link = self._chance.choice(self.links)
        link.pause()
        time.sleep(self._chance.uniform(0, 4))
        link.heal()

    def revoke(self) -> None:
        """A token revoked, and another one made."""
        server = self._chance.choice(self.all)
        file = server.files / "tokens.yaml"
        remove_tokens(file, "guest")
        refused = self._within(lambda: server.ask("GET", "/shared/", who="guest")[0] == 401)
        self.judge.check("a token that was revoked is refused", refused, server.tega_id)
        server.tokens["guest"] = add_token(file, "guest")
        valid = self._within(lambda: server.ask("GET", "/_roots", who="guest")[0] == 200)
        self.judge.check("a new token is taken", valid, server.tega_id)

    def renew(self) -> None:
        """A certificate renewed."""
        self.authority.issue("127.0.0.1", "localhost", into=self._pair)
        wanted = _first(self._pair.cert.read_text())
        for server in self.all:
            shown = self._within(
                lambda server=server: _first(ssl.get_server_certificate(server.address)) == wanted
            )
            self.judge.check("a new certificate is shown", shown, server.tega_id)

    def snapshot(self) -> None:
        """A snapshot asked for (no fault)."""
        server = self._chance.choice(self.all)
        status, body = server.ask("POST", "/_ss")
        self.judge.check("a snapshot can be made", status == 200, body)

    @staticmethod
    def _within(holds: Callable[[], bool]) -> bool:
        limit = time.monotonic() + TAKEN
        while time.monotonic() < limit:
            try:
                if holds():
                    return True
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                # It is asked again: what counts is what it says in the end.
                time.sleep(0.1)
            time.sleep(0.1)
        return False

    # -- how it is ------------------------------------------------------------------------------

    def look(self) -> None:
        """Take the figures of all servers."""
        for server in self.all:
            if not server.alive:
                continue
            life = server.life
            try:
                size, count = rss(server.pid), descriptors(server.pid)
                _, text = server.ask_text("GET", "/_metrics", timeout=10)
            except (OSError, http.client.HTTPException, AssertionError):
                # It is stopped, or it has just been killed.
                continue
            figures = figures_in(text.decode())
            now = time.monotonic()
            lag = figures.get("tega_event_loop_lag_seconds")
            if now - server.stopped < _LAG_LASTS:
                lag = None
            life.samples.append(Sample(now, size, count, lag, figures))
            refused = figures.get("tega_http_requests_total 500", 0.0)
            self.judge.check("no answer is a 500", refused == 0, f"{server.tega_id}: {refused:g}")

    def end(self) -> None:
        """End the servers that run, and the links."""
        for server in reversed(self.all):
            if server.alive:
                server.end()
        for link in self.links:
            link.__exit__(None, None, None)

    def drop(self) -> None:
        """End whatever still runs, at once."""
        for server in self.all:
            if server.alive:
                server.kill()


def figures_in(text: str) -> dict[str, float]:
    """Samples of gauges and counters without labels, and of requests by status."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.labels:
                found[sample.name] = sample.value
            elif sample.name == "tega_http_requests_total":
                name = f"{sample.name} {sample.labels['status']}"
                found[name] = found.get(name, 0.0) + sample.value
    return found


def rss(pid: int) -> int:
    """Bytes that a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Files and sockets that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def secure(server: Server, timeout: float = 20.0) -> ssl.SSLSocket:
    """A bare connection to a server, after the handshake."""
    made = socket.create_connection(server.address, timeout=timeout)
    try:
        return server.context.wrap_socket(made, server_hostname="127.0.0.1")
    except BaseException:
        made.close()
        raise


def _first(chain: str) -> bytes:
    """The first certificate of some, in one form."""
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(chain[: chain.index(end) + len(end)])
