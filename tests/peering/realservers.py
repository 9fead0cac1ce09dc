"""Server processes that are peers, clients that write to them, and what must hold afterwards."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tega.cli import logtool
from tega.database import Database, new_life
from tega.log.file import FileLog

REPOSITORY = Path(__file__).resolve().parents[2]

#: Seconds after which a server that says nothing is gone, here.
PING_TIMEOUT = 1.5
QUICK = ("--ping-interval", "0.3", "--ping-timeout", str(PING_TIMEOUT))

#: Seconds within which all is well again after whatever was done to the servers: the longest
#: pauses before the next tries are short while nothing is away for long.
BOUND = 20.0

T = TypeVar("T")


def until(found: Callable[[], T], seconds: float = BOUND, what: str = "") -> T:
    """Ask again and again, until there is something that is true."""
    limit = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < limit, f"not within {seconds:g} s: {what or 'this'}"
        time.sleep(0.02)
    return value


class RealServer:
    """A server process on a directory: killed and started again, always on the same port.

    :param up: gives host and port of the global server; None where there is none
    :param within: a command that runs another one, such as in a network of its own
    """

    def __init__(
        self,
        directory: Path,
        tega_id: str,
        up: tuple[str, int] | None = None,
        config: Sequence[str] = (),
        operational: Sequence[str] = (),
        *flags: str,
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.tega_id = tega_id
        self.host = host
        self.port = 0
        self._within = within
        self._flags = [*QUICK, *flags]
        if up is not None:
            self._flags += ["-H", up[0], "-P", str(up[1])]
        for flag, names in (("-C", config), ("-O", operational)):
            if names:
                self._flags += [flag, *names]
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    @property
    def alive(self) -> bool:
        """Whether it was started, and not ended."""
        return self._process is not None

    @property
    def said(self) -> str:
        """What all its processes have written to stderr."""
        return (self.directory / "said.txt").read_text()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.directory.mkdir(exist_ok=True)
        command = [
            *self._within, sys.executable, "-m", "tega.server", "-t", self.tega_id,
            "-d", str(self.directory / "log"), "-a", self.host, "-p", str(self.port),
            # Some are tried on addresses of network namespaces.
            "--insecure", *self._flags,
        ]  # fmt: skip
        with (self.directory / "said.txt").open("ab") as said:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=REPOSITORY
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready on "):
                self.port = int(line.rpartition(":")[2])
                return
        raise AssertionError(f"{self.tega_id} does not start: {self.said[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End at once, as a crash does."""
        self._end(signal.SIGKILL)

    def end(self) -> None:
        """End in order."""
        assert self._end(signal.SIGTERM) == 0, self.said[-2000:]

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        process.send_signal(number)
        process.stdout.close()
        return process.wait(30)

    # -- asking ---------------------------------------------------------------------------------

    def ask(
        self, method: str, url: str, body: Any = None, key: str | None = None, timeout: float = 40
    ) -> tuple[int, Any]:
        """The status and the body of an answer.

        :param key: the client's transaction id
        """
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, url, text, {} if key is None else {"Idempotency-Key": key})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, url: str) -> Any:
        """What stands there; None where nothing does."""
        status, body = self.ask("GET", url)
        assert status in (200, 404), body
        return body if status == 200 else None

    def put(self, url: str, value: Any) -> dict[str, Any]:
        """Write something; what comes back."""
        status, body = self.ask("PUT", url, value)
        assert status == 200, body
        assert isinstance(body, dict)
        return body

    def tree(self, root: str) -> Any:
        """A root as anybody can see it, with the version of each node and the old versions."""
        old = next((found[root] for found in self.get("/_old") if root in found), None)
        version = self.get("/_roots").get(root)
        return version, self.get(f"/{root}/?internal=True"), old

    def health(self) -> dict[str, Any]:
        """What it says of itself."""
        status, body = self.ask("GET", "/_health")
        assert status == 200, body
        assert isinstance(body, dict)
        return body

    def peer(self, tega_id: str) -> dict[str, Any] | None:
        """What it says of another server; None where it does not know of it."""
        peers = self.health().get("peers", [])
        return next((one for one in peers if one["tega_id"] == tega_id), None)

    def is_up(self) -> bool:
        """Whether it is connected to its global server, and has all that it follows."""
        (up,) = [one for one in self.health()["peers"] if one["role"] == "global"]
        return up["state"] == "connected" and all(
            root["caught_up"] for root in up.get("roots", {}).values()
        )


def follows(root: str, leader: RealServer, *followers: RealServer) -> None:
    """Wait until some servers have a root just as its leader has it."""

    def same() -> bool:
        wanted = leader.tree(root)
        return all(one.tree(root) == wanted for one in followers)

    until(same, what=f"{root} of {leader.tega_id} everywhere")


def everywhere(url: str, value: Any, *servers: RealServer) -> None:
    """Wait until something stands at a URL of each server; None: until nothing does."""
    until(lambda: all(one.get(url) == value for one in servers), what=f"{value} at {url}")


def says(server: RealServer, reason: str, seconds: float = BOUND) -> None:
    """Wait until a server says that something is not as it should be."""
    until(lambda: reason in server.health().get("reason", ""), seconds, reason)


def logs_agree(root: str, *servers: RealServer) -> None:
    """Whether servers that have ended have the same history of a root in their logs."""
    found = set()
    for server in servers:
        assert not server.alive
        log = FileLog(server.directory / "log", server.tega_id, new_life)
        with Database(log, server.tega_id) as database:
            database.check()
            kept = database.state.roots[root]
            found.add((kept.version, kept.chain, tuple(kept.old_versions())))
            # No session is left, so nothing ephemeral is either.
            assert not database.state.ephemerals
    assert len(found) == 1, found


@contextmanager
def running(*servers: RealServer) -> Iterator[None]:
    """Start servers; at the end, stop those that still run, and look at what they leave behind."""
    try:
        for server in servers:
            if not server.alive:
                server.start()
        yield
        # Those that dial first.
        for server in reversed(servers):
            if server.alive:
                server.end()
    finally:
        for server in servers:
            if server.alive:
                server.kill()
    for server in servers:
        assert "Traceback" not in server.said, server.said
        assert " a bug" not in server.said, server.said
        assert logtool.main(["verify", str(server.directory / "log")]) == 0


class Three:
    """A global server g, and two local ones."""

    def __init__(self, directory: Path) -> None:
        self.g = RealServer(directory / "g", "g")
        self.g.start()
        up = self.g.address
        self.a = RealServer(directory / "a", "a", up, ("config-a", "shared"), ("op-a",))
        self.b = RealServer(directory / "b", "b", up, ("config-b", "shared"), ("op-b",))
        self.all = [self.g, self.a, self.b]

    def settle(self) -> None:
        """Wait until both are connected, and have all that they follow."""
        for local in (self.a, self.b):
            until(local.is_up, what=f"{local.tega_id} is connected")

    def agree(self) -> None:
        """Wait until all followers have what their leaders have."""
        for root, leader, *followers in self.followed():
            follows(root, leader, *followers)

    def followed(self) -> list[tuple[str, RealServer, RealServer] | Any]:
        g, a, b = self.all
        return [
            ("shared", g, a, b), ("config-a", g, a), ("config-b", g, b), ("op-a", a, g),
            ("op-b", b, g),
        ]  # fmt: skip

    def first_puts(self) -> None:
        """Something in each root that is followed."""
        for root, leader, *_ in self.followed():
            leader.put(f"/{root}/first/", 0)
        self.agree()


class Writer(threading.Thread):
    """A client that puts one new leaf after the other below a root, and keeps every answer.

    Where it does not learn what became of one, it asks again with the same transaction id, for as
    long as it takes.

    A server remembers 10 000 such ids: whoever asks again after more than that asks too late.

    :param pause: seconds from one to the next
    :ivar acknowledged: key and version of each leaf that was acknowledged
    :ivar refusals: the answers that say that nothing was done
    :ivar unknown: how often the outcome was unknown at first
    """

    def __init__(self, server: RealServer, root: str, name: str, pause: float = 0.0) -> None:
        super().__init__(name=f"{name} on {server.tega_id}", daemon=True)
        self.server = server
        self.root = root
        self.label = name
        self.acknowledged: dict[str, int] = {}
        self.refusals: list[dict[str, Any]] = []
        self.unknown = 0
        self.failure: str | None = None
        self._pause = pause
        self._over = threading.Event()
        self.start()

    def finish(self) -> None:
        """Let it end, once it knows what became of its last write."""
        self._over.set()
        self.join(BOUND + 40)
        assert not self.is_alive(), f"{self.name} does not get an answer"
        assert self.failure is None, self.failure

    def run(self) -> None:
        number = 0
        while not self._over.is_set() and self.failure is None:
            self._write(f"{self.label}-{number}")
            number += 1
            self._over.wait(self._pause)

    def _write(self, key: str) -> None:
        unknown = False
        while True:
            try:
                status, body = self.server.ask("PUT", f"/{self.root}/{key}/", key, key)
            except (OSError, http.client.HTTPException):
                status, body = 0, {}
            code = body.get("error", {}).get("code")
            if status == 200:
                self.acknowledged[key] = body["versions"][self.root]
                return
            if status == 503 and code != "outcome_unknown" and not unknown:
                self.refusals.append(body["error"])
                return
            if status not in (0, 503):
                self.failure = f"{self.name}: {status} {body}"
                return
            self.unknown += not unknown
            unknown = True
            # It may take a while until it runs again.
            time.sleep(0.05)


def go_on(writers: Sequence[Writer], count: int) -> None:
    """Wait until each of some writers has written so many more."""
    wanted = {one: len(one.acknowledged) + count for one in writers}
    until(
        lambda: all(len(one.acknowledged) >= number for one, number in wanted.items()),
        60, "all clients go on writing",
    )  # fmt: skip


def check_written(leader: RealServer, root: str, writers: Sequence[Writer]) -> None:
    """Whether all that was acknowledged is there, and was done once, and nothing else was.

    Each write makes a version of the root, and all are of leaves of their own.
    """
    there = leader.get(f"/{root}/") or {}
    acknowledged = {key: key for one in writers for key in one.acknowledged}
    assert there == acknowledged
    versions = [version for one in writers for version in one.acknowledged.values()]
    assert sorted(versions) == list(range(len(versions)))
    assert leader.get("/_roots")[root] == len(versions) - 1
