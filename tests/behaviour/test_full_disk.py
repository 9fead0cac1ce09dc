"""A small real disk that fills, and has room again: a file system in memory, of one MiB."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service import Service, check
from wsclient import WSClient

#: Mounts a small disk that this process alone sees, and becomes what follows.
SMALL = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=1m tega "$0" && exec "$@"'


def may_mount(directory: Path) -> bool:
    """Whether such a disk can be had here."""
    if shutil.which("unshare") is None:
        return False
    tried = [*SMALL, MOUNT, str(directory), "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def until(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 40
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


class Disk:
    """The small disk under a server, as it is seen from outside."""

    def __init__(self, service: Service, directory: Path) -> None:
        self.root = Path(f"/proc/{service.process.pid}/root{directory}")

    def fill(self, spare: int) -> None:
        """Leave so many bytes, or a few less."""
        with (self.root / "filler").open("wb", buffering=0) as filler:
            while shutil.disk_usage(self.root).free > spare:
                filler.write(bytes(4096))

    def free(self) -> None:
        (self.root / "filler").unlink()


def scraped(service: Service) -> str:
    """Whether the metrics say that no commit is taken."""
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/_metrics") as answer:
        found = re.search(r"^tega_read_only (.*)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return found[1]


def code_of(body: Any) -> str | None:
    return body["error"]["code"] if isinstance(body, dict) and "error" in body else None


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_what_is_acknowledged_stays_and_it_goes_on_once_there_is_room(
    tmp_path: Path, sync: str
) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    if not may_mount(directory):
        pytest.skip("no file system can be mounted in a user namespace here")
    service = Service(
        directory, "-t", "srv", "--sync", sync, "--sync-interval", "0.1", "--snapshot-size",
        "100000", "-l", "1", under=[*SMALL, MOUNT, str(directory)],
    )  # fmt: skip
    disk, there, refused = Disk(service, directory), {}, 0
    with WSClient(service.port, "stays") as client, WSClient(service.port, "goes") as goes:
        goes.put("fleeting", 1, ephemeral=True)
        disk.fill(30_000)
        for number in range(120):
            # Of all sizes, so that some go in in part.
            key, value = f"k{number}", "x" * (100 + 700 * (number % 5))
            answer = client.put(f"kept.{key}", value)
            if answer.get("code") is None:
                there[key] = value
                continue
            refused += 1
            assert answer["code"] == "read_only"
            assert "No space left on device: nothing of this was written" in answer["message"]
        assert there
        assert refused > 20
        status, body = service.ask("PUT", "/more/", "x" * 5_000)
        assert (status, code_of(body)) == (503, "read_only")
        assert service.ask("GET", "/kept/") == (200, there), "reads go on"
        status, body = service.ask("GET", "/_health")
        assert (status, body["status"]) == (200, "degraded")
        assert body["reason"] == "there was no room on the disk for the last commit"
        assert scraped(service) == "1.0"
        # What is ephemeral cannot go at once: that is a commit too.
        goes.close()
        disk.free()
        until(lambda: code_of(service.ask("PUT", "/more/", "x" * 5_000)[1]) is None)
        assert service.ask("GET", "/_health")[1]["status"] == "ok"
        assert scraped(service) == "0.0"
        until(lambda: service.ask("GET", "/fleeting/")[0] == 404)
        client.put("kept.last", 1)
    # As a power cut leaves it.
    service.process.send_signal(signal.SIGSTOP)
    left = tmp_path / "left"
    shutil.copytree(disk.root, left)
    service.process.kill()
    _, messages = service.process.communicate()
    assert "Traceback" not in messages
    assert "commits are refused until there is room again" in messages
    again = Service(left, "-t", "srv")
    assert again.ask("GET", "/kept/") == (200, there | {"last": 1})
    assert again.ask("GET", "/fleeting/")[0] == 404
    assert again.end()[0] == 0
    check(left, "srv")


def test_a_follower_whose_disk_was_full_catches_up(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    if not may_mount(directory):
        pytest.skip("no file system can be mounted in a user namespace here")
    leader = Service(tmp_path / "leader", "-t", "g")
    follower = Service(
        directory, "-t", "f", "-P", str(leader.port), "-C", "conf", "-l", "1",
        under=[*SMALL, MOUNT, str(directory)],
    )  # fmt: skip
    disk = Disk(follower, directory)

    def same() -> bool:
        return leader.ask("GET", "/conf/") == follower.ask("GET", "/conf/")

    leader.ask("PUT", "/conf/k/", 0)
    until(same)
    disk.fill(20_000)
    # More than there is room for, also of what the log has got ahead.
    for number in range(60):
        assert leader.ask("PUT", f"/conf/k{number}/", "x" * 2_000)[0] == 200
    until(lambda: "no room" in follower.ask("GET", "/_health")[1].get("reason", ""))
    assert not same()
    disk.free()
    until(same)
    leader.ask("PUT", "/conf/k/", 1)
    until(same)
    assert follower.ask("GET", "/_health")[1]["status"] == "ok"
    assert follower.end()[0] == 0
    assert leader.end()[0] == 0
