"""The session of doc/sentinel.md happens so, to the letter, with real etcd and MariaDB.

A block tagged ``console titania`` is a terminal: lines after ``$ `` are commands, the others what
they print. ``console titania 1`` is another one, in which the sentinel runs: what a block of it
shows has come since the one before.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import MariaDB
from etcdserver import PROGRAM, Etcd
from processes import PATIENCE, find_program, until

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.compile(r"^```console titania( 1)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KILLED = "# the sentinel is killed\n"
SENTINEL = "$ tega-sentinel --preset titania\n"
#: What the document calls them.
ETCD, MARIADB = 2379, 3306


class Session:
    """Both terminals."""

    def __init__(self, etcd: Etcd, mariadb: MariaDB, place: Path) -> None:
        self._ports = {ETCD: etcd.port, MARIADB: mariadb.port}
        self._place = place
        self._environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "MY_ETCD_PORT": str(etcd.port),
            "MY_MYSQL_PORT": str(mariadb.port), "ETCDCTL_API": "3",
        }  # fmt: skip
        client = f"-h127.0.0.1 -P{mariadb.port} -uroot"
        self._functions = (
            f'tega-sentinel() {{ "{sys.executable}" -m tega.sentinel "$@"; }}\n'
            f'etcdctl() {{ command etcdctl --endpoints 127.0.0.1:{etcd.port} "$@"; }}\n'
            f'mariadb() {{ command mariadb --no-defaults {client} "$@"; }}\n'
        )
        self._sentinel: subprocess.Popen[bytes] | None = None
        self._said = place / "sentinel.txt"
        self._shown = 0

    def command(self, command: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            ["bash", "-c", self._functions + command], env=self._environment, check=False,
            cwd=self._place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        return self._named(done.stdout)

    def start(self) -> None:
        """Let the sentinel run."""
        with self._said.open("wb") as said:
            self._sentinel = subprocess.Popen(
                [sys.executable, "-m", "tega.sentinel", "--preset", "titania"],
                stdout=said, stderr=subprocess.STDOUT, env=self._environment, cwd=self._place,
            )  # fmt: skip
        self._shown = 0

    def kill(self) -> None:
        """Let it end as in a crash."""
        if self._sentinel is not None:
            self._sentinel.send_signal(signal.SIGKILL)
            self._sentinel.wait()

    def shows(self, expected: str) -> str:
        """What the sentinel has printed since, once it is this much."""

        def enough() -> bool:
            return len(self._new()) >= len(expected)

        until(enough, f"the sentinel prints {expected!r}, not {self._new()!r}")
        shown = self._new()
        self._shown += len(shown)
        return shown

    def _new(self) -> str:
        return self._named(self._said.read_text())[self._shown :]

    def _named(self, text: str) -> str:
        for shown, port in self._ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{shown}")
        return text


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    if PROGRAM is None or not MariaDB.is_installed():
        pytest.skip("etcd or MariaDB is not installed")
    if not find_program("etcdctl") or not find_program("mariadb"):
        pytest.skip("etcdctl or mariadb is not installed")
    # New ones, since the document shows how revisions begin.
    places = [tmp_path / name for name in ("etcd", "mariadb", "home")]
    for place in places:
        place.mkdir()
    etcd, mariadb = Etcd(places[0]), MariaDB(places[1])
    made = Session(etcd, mariadb, places[2])
    try:
        etcd.start()
        mariadb.start()
        yield made
    finally:
        made.kill()
        for service in (etcd, mariadb):
            if service.alive:
                service.end()


def test_the_session_of_the_document(session: Session) -> None:
    blocks = BLOCKS.findall((ROOT / "doc/sentinel.md").read_text())
    assert len(blocks) > 5
    for first, text in blocks:
        if first:
            lines = text
            if text.startswith(SENTINEL):
                session.start()
                lines = text.removeprefix(SENTINEL)
            assert session.shows(lines) == lines
            continue
        for part in re.split(r"^(?=\$ |# )", text, flags=re.MULTILINE)[1:]:
            if part == KILLED:
                session.kill()
                continue
            command, _, expected = part.removeprefix("$ ").partition("\n")
            assert session.command(command) == expected, command
