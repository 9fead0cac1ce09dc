"""``tega-cli watch``, ``pub``, ``rpc``, ``wait`` for scripts: lines, statuses, and how they end."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from service import ROOT, Service
from terminal import PATIENCE, cli

BROKEN_PIPE = 141


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("var"), "-t", "srv", "-e", str(ROOT / "plugins/local1")
    )
    yield service
    assert service.end()[0] == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a server, on the same data each time; none is left."""
    started: list[Service] = []

    def start(*flags: str) -> Service:
        started.append(Service(tmp_path / "var", "-t", "srv", *flags))
        return started[-1]

    yield start
    for service in started:
        service.process.kill()
        service.process.communicate()


def command(port: int, *words: str) -> list[str]:
    return [sys.executable, "-m", "tega.cli.main", "-p", str(port), *words]


def run(port: int, *words: str) -> tuple[int, str, str]:
    """Run a command: status, output, messages."""
    done = subprocess.run(
        command(port, *words), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def put(service: Service, url: str, value: Any) -> int:
    status, answer = service.ask("PUT", f"{url}?tega_id=ops", value)
    assert status == 200, answer
    seq: int = answer["seq"]
    return seq


class Watching:
    """A watch that is under way."""

    def __init__(self, service: Service, tega_id: str, *words: str) -> None:
        self.process = subprocess.Popen(
            command(service.port, "watch", *words, "-t", tega_id),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        self._rest = b""
        wait_for(lambda: tega_id in service.ask("GET", "/_subscribers")[1])

    def line(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], self._rest
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it has ended: {self._rest!r}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def end(self, number: int) -> tuple[int, str]:
        """End it by a signal.

        :returns: the exit status, and the messages
        """
        self.process.send_signal(number)
        output, messages = self.process.communicate(timeout=PATIENCE)
        assert self._rest + output == b""
        return self.process.returncode, messages.decode()


@contextmanager
def watching(service: Service, tega_id: str, *words: str) -> Iterator[Watching]:
    watch = Watching(service, tega_id, *words)
    try:
        yield watch
    finally:
        watch.process.kill()
        watch.process.communicate()


def wait_for(condition: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "this did not come true"
        select.select([], [], [], 0.02)


# ---- watch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "number"), [("yaml", signal.SIGINT), ("json", signal.SIGTERM), ("raw", signal.SIGINT)]
)
def test_a_line_a_change_until_interrupted(service: Service, form: str, number: int) -> None:
    root = f"lines{form}"
    with watching(service, f"by-{form}", root, "-o", form) as watch:
        for version, value in enumerate(({"b": {"c": "no"}}, "x\n\x1b[2J", False, 0)):
            seq = put(service, f"/{root}/a", value)
            line = watch.line()
            if form == "yaml":
                shown = ("{b: {c: no}}", '"x\\n\\u001b[2J"', "false", "0")[version]
                assert line == (
                    f"{{ope: PUT, path: {root}.a, tega_id: ops, instance: {shown}, "
                    f"seq: {seq}, version: {version}}}"
                )
            else:
                assert line.isprintable()
                assert list(json.loads(line).items()) == [
                    ("ope", "PUT"), ("path", f"{root}.a"), ("tega_id", "ops"),
                    ("instance", value), ("seq", seq), ("version", version),
                ]  # fmt: skip
        assert watch.end(number) == (0, "")


def test_a_pattern_and_from_where_to_begin(service: Service) -> None:
    first = str(put(service, "/since/a", 1))
    put(service, "/since/b", 2)
    put(service, "/since/a", 3)
    words = r"since\.(a|z)", "--regex", "--since", first, "-o", "json"
    with watching(service, "by-since", *words) as watch:
        assert json.loads(watch.line())["instance"] == 3
        put(service, "/since/z", 4)
        assert json.loads(watch.line())["path"] == "since.z"
        assert watch.end(signal.SIGINT) == (0, "")
    with watching(service, "by-future", "since", "--since", "999999999", "-o", "json") as watch:
        change = json.loads(watch.line())
        assert (change["instance"], change["resync"]) == ({"a": 3, "b": 2, "z": 4}, True)


def test_it_ends_when_nobody_reads_any_more(service: Service) -> None:
    with watching(service, "by-head", "head") as watch:
        put(service, "/head/", 1)
        watch.line()
        assert watch.process.stdout is not None
        watch.process.stdout.close()
        assert watch.process.wait(PATIENCE) == BROKEN_PIPE
        assert watch.process.stderr is not None
        assert watch.process.stderr.read() == b""
    with watching(service, "by-head-2", "head") as watch:
        assert watch.process.stdout is not None
        watch.process.stdout.close()
        put(service, "/head/", 2)
        assert watch.process.wait(PATIENCE) == BROKEN_PIPE
        wait_for(lambda: "by-head-2" not in service.ask("GET", "/_ids")[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_although_the_reader_stands_still(service: Service, number: int) -> None:
    with watching(service, f"by-still-{number}", "still") as watch:
        for size in range(3):
            put(service, "/still/", "x" * (1000_000 + size))
        assert watch.process.stdout is not None
        assert select.select([watch.process.stdout], [], [], PATIENCE)[0]
        watch.process.send_signal(number)
        assert watch.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_when_the_server_is_there_again(
    start: Callable[..., Service], number: int
) -> None:
    service = start()
    with watching(service, "watcher", "a", "-o", "json") as watch:
        put(service, "/a/b", 1)
        assert json.loads(watch.line())["instance"] == 1
        service.process.send_signal(number)
        service.process.communicate(timeout=PATIENCE)
        service = start("-p", str(service.port))
        put(service, "/a/b", 2)
        # What happened while there was no connection, be it as a change or as how things stand.
        while (change := json.loads(watch.line()))["instance"] not in (2, {"b": 2}):
            assert change.get("resync"), change
        put(service, "/a/b", 3)
        change = json.loads(watch.line())
        assert (change["instance"], change["seq"], "resync" in change) == (3, 3, False)
        status, messages = watch.end(signal.SIGINT)
        assert status == 0
        assert "the connection to 127.0.0.1:" in messages
        assert messages.endswith("connected again: the watch goes on\n")
        assert service.end()[0] == 0


def test_a_session_that_is_taken_over_ends_it(service: Service) -> None:
    with (
        watching(service, "twin", "a") as first,
        watching(service, "twin", "a") as second,
    ):
        assert first.process.wait(PATIENCE) == 1
        assert first.process.stderr is not None
        assert b"taken over" in first.process.stderr.read()
        assert second.end(signal.SIGINT) == (0, "")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["watch", "a..b"], 2, "malformed path 'a..b'"),
        (["watch", "(a", "--regex"], 1, "malformed pattern '(a'"),
        (["watch", "a", "-t", "srv"], 1, "choose another"),
        (["pub", "a", "{"], 2, "bad value at line 1"),
        (["pub", "a", "1", "-t", "srv"], 1, "choose another"),
        (["rpc", "inventory.ne1.f3"], 1, "404 Not Found\nno function at inventory.ne1.f3"),
    ],
)
def test_refusals(service: Service, words: list[str], status: int, message: str) -> None:
    done = run(service.port, *words)
    assert done[:2] == (status, "")
    assert message in done[2]


@pytest.mark.parametrize("words", [["watch", "a"], ["pub", "a", "1"]])
def test_without_a_server(tmp_path: Path, words: list[str]) -> None:
    service = Service(tmp_path)
    service.end()
    status, output, messages = run(service.port, *words)
    assert (status, output) == (3, "")
    assert messages == (
        f"cannot connect to a tega server at 127.0.0.1:{service.port}: Connection refused\n"
    )


# ---- pub and rpc ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["{text: fan 2}", "null", "0", "''", "[]"])
def test_a_message(service: Service, tmp_path: Path, value: str) -> None:
    process = subprocess.Popen(
        command(service.port, "-s", "-t", "hears"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write("sub alarms\n")
        process.stdin.flush()
        wait_for(lambda: "hears" in service.ask("GET", "/_subscribers")[1])
        assert run(service.port, "pub", "alarms", value, "-t", "tells") == (0, "", "")
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    message = f"<MESSAGE>\nchannel: alarms\ntega_id: tells\nmessage: {value}\n\n"
    assert message in output


def test_functions_of_a_plugin(service: Service) -> None:
    assert run(service.port, "rpc", "inventory.ne1.f1", "1", "2") == (0, "2\n", "")
    assert run(service.port, "rpc", "inventory.ne1.f1", "a", "c", "b", "-o", "json")[1] == '"c"\n'
    status, date, _ = run(service.port, "rpc", "inventory.ne1.f2")
    assert status == 0
    assert date.startswith(time.strftime("%Y-"))


# ---- what several servers have, of which there is one here ---------------------------------------


def test_waiting_for_what_is_there_or_does_not_come(service: Service) -> None:
    put(service, "/waits", "version 0")
    put(service, "/waits", "version 1")
    for words in ("1", "0 --on srv", "1 --timeout 0"):
        assert run(service.port, "wait", "waits", *words.split()) == (0, "", "")
    for words, lagging in (
        ("2 --timeout 0.2", "srv: version 1"),
        ("1 --on srv ne1 --timeout 0", "ne1: not there"),
        ("1 --all --timeout 0", "another server: not there"),
    ):
        status, output, messages = run(service.port, "wait", "waits", *words.split())
        assert (status, output) == (1, "")
        assert re.fullmatch(
            rf"version \d of waits is not everywhere after [0.2]+ s:\n{lagging}\n", messages
        )


def test_waiting_for_what_comes(service: Service, tmp_path: Path) -> None:
    with cli(service.port, tmp_path) as terminal:
        terminal.type("wait comes 0\n")
        terminal.wait_for(r"\[tega: 0\] wait comes 0\nwaiting for every server \(no such root\)$")
        put(service, "/comes", 1)
        terminal.wait_for(r"\[tega: 0\] wait comes 0\n\[tega: 1\]$")
        terminal.type("wait comes 1\n")
        terminal.wait_for(r"waiting for srv \(version 0\)$")
        terminal.interrupt()
        terminal.wait_for(r"(?s)interrupted: .*\n\[tega: 2\]$")


def test_nothing_to_release(service: Service) -> None:
    put(service, "/mine", 1)
    status, output, messages = run(service.port, "release", "mine")
    assert (status, output) == (1, "")
    assert messages == (
        "404 Not Found\nroot mine is led by this server: there is nothing to release\n"
    )
