"""Clients that write, read and ask: each in a thread, noting what it was told."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from soak.judge import Judge
from soak.world import Server, World
from tega.driver import Driver
from tega.driver.errors import DriverError

#: Places that each writer writes to, over and over, so that the trees stay small.
KEYS = 100

#: Refusals that are in order while servers are killed, stopped and cut off.
PASSING = frozenset((401, 406, 409, 429, 502, 503, 504))


class Client(threading.Thread):
    """Somebody who does one thing again and again until it is over.

    :param pause: seconds from one to the next
    """

    def __init__(
        self, world: World, name: str, over: threading.Event, seed: int, pause: float
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.world = world
        self.judge: Judge = world.judge
        self.over = over
        self.chance = random.Random(f"{seed} {name}")
        self._pause = pause

    def run(self) -> None:
        while not self.over.wait(self.chance.uniform(0, 2 * self._pause)):
            try:
                self.act()
                self.judge.did(self.kind)
            except DriverError as error:
                self.judge.did(self.kind, f"{error.status} {error.code}")
                self.judge.check(
                    "refusals are those of the documents", error.status in PASSING, error
                )
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                self.judge.did(self.kind, f"no answer: {type(error).__name__}")
            except Exception as error:
                self.judge.check("no client fails", False, f"{self.name}: {error!r}")
        self.finish()

    @property
    def kind(self) -> str:
        """What it does, without its number."""
        return self.name.rstrip("0123456789 ")

    def act(self) -> None:
        """Do it once."""
        raise NotImplementedError

    def finish(self) -> None:
        """It is over."""


class Writer(Client):
    """Puts ever larger numbers, and does not rest before it knows what became of each.

    :param root: below which it has a place of its own
    :ivar expected: what stands at each of its keys
    """

    def __init__(self, server: Server, root: str, *rest: Any) -> None:
        super().__init__(*rest)
        self.server = server
        self.root = root
        self.expected: dict[str, int] = {}
        self._number = 0

    @property
    def place(self) -> str:
        """Where it writes."""
        return f"{self.root}/{self.name.replace(' ', '-')}"

    def act(self) -> None:
        self._number += 1
        number, key = self._number, f"k{self._number % KEYS}"
        url = f"/{self.place}/{key}/"
        once = f"{self.name} {number}"
        unknown = False
        while True:
            try:
                status, body = self.server.ask("PUT", url, number, once, who="writer")
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                status, body = 0, {}
            if status == 200:
                break
            code = body.get("error", {}).get("code")
            in_order = status in (0, 503)
            self.judge.check("writes are taken or refused in order", in_order, (status, body))
            if not in_order or (status == 503 and code != "outcome_unknown" and not unknown):
                self.judge.did(self.kind, f"{status} {code}")
                return
            unknown = True
            time.sleep(0.1)
        self.expected[key] = number
        if self.chance.random() < 0.2:
            self._look(url, number)

    def _look(self, url: str, number: int) -> None:
        status, found = self.server.ask("GET", url, who="reader")
        holds = (status, found) == (200, number)
        self.judge.check("what was acknowledged is there", holds, (url, number, status, found))

    def check(self) -> None:
        """At the end: all that was acknowledged is there, and nothing else."""
        status, found = self.server.ask("GET", f"/{self.place}/")
        there = found if status == 200 else {}
        wrong = {
            key: (self.expected.get(key), there.get(key))
            for key in self.expected.keys() | there.keys()
            if self.expected.get(key) != there.get(key)
        }
        self.judge.check("at the end all that was acknowledged is there", not wrong, wrong)


class Pairs(Client):
    """Makes two leaves equal in one transaction, over REST."""

    def act(self) -> None:
        server = self.chance.choice(self.world.all)
        number = self.chance.randrange(1_000_000)
        token = server.tokens["writer"]
        with Driver(
            *server.address, self.name.replace(" ", "-"), token=token, tls=self.world.tls,
            timeout=20,
        ) as driver:
            driver.begin()
            driver.put(number, path="shared.pair.one")
            if self.chance.random() < 0.1:
                driver.cancel()
                return
            driver.put(number, path="shared.pair.other")
            driver.commit()


class Readers(Client):
    """Reads both leaves at once, at any server, and what it may not read."""

    def act(self) -> None:
        server = self.chance.choice(self.world.all)
        status, pair = server.ask("GET", "/shared/pair/", who="reader")
        if status == 200:
            same = pair.get("one") == pair.get("other")
            self.judge.check("a transaction is seen whole", same, pair)
        status, shared = server.ask("GET", "/shared/", who=self.chance.choice(["reader", "guest"]))
        if status == 200:
            self.judge.check("what may not be read does not show", "secret" not in shared)
        status, _ = server.ask("PUT", "/shared/x/", 1, who="reader")
        refused = status in (403, 503)
        self.judge.check("who may not write is refused", refused, status)


class Commands(Client):
    """The command line: one command, one process."""

    def __init__(self, files: Path, *rest: Any) -> None:
        super().__init__(*rest)
        self._files = files

    def act(self) -> None:
        server = self.chance.choice(self.world.all)
        token = self._files / f"{server.tega_id}.cli.token"
        token.touch(mode=0o600)
        token.write_text(server.tokens["writer"])
        number = self.chance.randrange(1_000_000)
        command = self.chance.choice(
            [["put", "shared.cli", str(number)], ["get", "shared.pair"], ["roots"], ["old"]]
        )
        done = subprocess.run(
            [
                sys.executable, "-m", "tega.cli.main", "-a", "127.0.0.1", "-p", str(server.port),
                "--ca", str(self.world.authority.file), "--token-file", str(token), *command,
            ],
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.judge.did(self.kind, f"status {done.returncode}")
        in_order = done.returncode in (0, 1, 3) and "Traceback" not in done.stderr
        self.judge.check("the command line ends in order", in_order, done.stderr[-300:])


def begin(clients: list[Client]) -> None:
    """Let all of them begin."""
    for client in clients:
        client.start()


def finish(clients: list[Client], seconds: float, judge: Judge) -> None:
    """Wait until all have come to their end."""
    limit = time.monotonic() + seconds
    for client in clients:
        client.join(max(0.0, limit - time.monotonic()))
        judge.check("every client gets its answer in the end", not client.is_alive(), client.name)


