"""A clock that jumps by hours, both ways: only what tells the time of day follows it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from service import Service, check
from wsclient import WSClient

from tega.access.keeper import add_token

HOURS = ("+6h", "-6h", "+0", "-48h", "+48h")


def until(done: Callable[[], Any]) -> None:
    limit = time.monotonic() + 20
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def library() -> Path | None:
    """What lets a process see another time than there is."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    return found[0] if found and shutil.which("faketime") else None


class Clock:
    """The time of day that the server sees."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump("+0")

    def jump(self, offset: str) -> None:
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{offset}\n")
        draft.rename(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    found = library()
    if found is None:
        pytest.skip("faketime is not installed")
    started = Service(
        tmp_path / "var", "-t", "srv", "--ping-interval", "0.5", "--ping-timeout", "2",
        "--transaction-expiry", "3", "--rpc-timeout", "1", "--sync", "interval",
        "--sync-interval", "0.2", "-l", "100",
        environment={
            "LD_PRELOAD": str(found), "FAKETIME_TIMESTAMP_FILE": str(clock.file),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )  # fmt: skip
    yield started
    status, _ = started.end()
    assert status == 0
    check(tmp_path / "var", "srv")


def test_jumps_change_nothing_but_what_tells_the_time(
    service: Service, clock: Clock, tmp_path: Path
) -> None:
    begun = time.time()
    with WSClient(service.port, "stays") as stays, WSClient(service.port, "owner") as owner:
        owner.put("f", "%owner.f", ephemeral=True)
        owner.put("here", 1, ephemeral=True)
        stays.subscribe("seen")
        for number, offset in enumerate(HOURS):
            txid = service.ask("POST", "/_begin")[1]["txid"]
            call = stays.request("RPC", "f", {"args": [number]})
            asked = owner.wait_for(lambda m: m.command == "REQUEST")
            clock.jump(offset)
            # Calls, transactions and sessions that were open stay so.
            owner.send(f"RESPONSE {asked.words[1]} RPC owner\n{number}")
            assert stays.response(call).body == number
            assert service.ask("PUT", f"/tx?txid={txid}", number)[0] == 200
            assert service.ask("POST", f"/_commit?txid={txid}")[0] == 200
            assert "versions" in owner.put("seen.jumps", number)
            told = stays.wait_for(lambda m: m.command == "NOTIFY")
            assert told.body[0]["instance"] == number
            assert service.ask("GET", "/here/") == (200, 1)
            # Whoever answers pings is not silent, however late it is said to be.
            quiet = time.monotonic() + 0.6
            while time.monotonic() < quiet:
                stays.settle()
                owner.settle()
                time.sleep(0.1)
        # What is really over is so on time.
        txid = service.ask("POST", "/_begin")[1]["txid"]
        call = stays.request("RPC", "f", {"args": []})
        started = time.monotonic()
        clock.jump("-3h")
        assert stays.response(call).body["code"] == "call_timeout"
        assert 0.5 < time.monotonic() - started < 5
    until(lambda: service.ask("GET", "/here/")[0] == 404)
    # To look at it would renew it.
    time.sleep(max(0.0, started + 3.2 - time.monotonic()))
    assert service.ask("POST", f"/_commit?txid={txid}")[0] == 404
    # New tokens are seen, whatever the time is said to be.
    add_token(tmp_path / "var" / "tokens.yaml", "alice")
    until(lambda: service.ask("GET", "/seen/")[0] == 401)
    log = b"".join(file.read_bytes() for file in sorted((tmp_path / "var").glob("log.srv.?")))
    hours = {
        round((stamp - begun) / 3600)
        for stamp in map(seconds, re.findall(rb"^@(\S+)Z ", log, re.MULTILINE))
    }
    assert hours >= {0, 6, -6, 48, -48}, "commits say the time that it was"


def seconds(stamp: bytes) -> float:
    """A commit's time, in seconds."""
    return datetime.fromisoformat(stamp.decode()).replace(tzinfo=timezone.utc).timestamp()
