"""``tega-cli -s`` at a terminal: what arrives breaks no line, whatever is being typed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service import ROOT, Service
from terminal import PATIENCE, Terminal, cli

UP = "--- session ready ---"
LEFT, HOME, TAB, SEARCH, END = "\x02", "\x01", "\t", "\x12", "\x04"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("var"), "-t", "srv", "-e", str(ROOT / "plugins/local2")
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


@pytest.fixture
def root(request: pytest.FixtureRequest) -> str:
    """A root that no other test uses."""
    name: str = request.node.name
    return "r" + "".join(character for character in name if character.isalnum())[-40:]


def put(service: Service, path: str, value: Any) -> int:
    """Change something as somebody else."""
    status, answer = service.ask("PUT", f"/{path.replace('.', '/')}/?tega_id=ops", value)
    assert status == 200, answer
    seq: int = answer["seq"]
    return seq


def block(seq: int, path: str, value: Any, version: int = 0) -> list[str]:
    """The rows of a notification of a put."""
    return [
        "<NOTIFY>", "- ope: PUT", f"  path: {path}", "  tega_id: ops", f"  instance: {value}",
        f"  seq: {seq}", f"  version: {version}", "",
    ]  # fmt: skip


def subscribed(terminal: Terminal, path: str) -> None:
    """Wait for the session and subscribe, with the first prompt."""
    terminal.wait_for(rf"{UP}\n\[tega: 0\]$")
    terminal.type(f"sub {path}\n")
    terminal.wait_for(r"\[tega: 1\]$")


def at(terminal: Terminal) -> tuple[int, int]:
    """How far above the last row the cursor is, and its column."""
    return len(terminal.screen.lines) - terminal.screen.row, terminal.screen.column


def typed(terminal: Terminal, keys: str, rows: list[str], column: int | None = None) -> None:
    """Press keys; wait until the last rows are these."""
    screen = terminal.screen
    terminal.type(keys)
    shown = terminal.wait_until(
        lambda: screen.lines[-len(rows) :] == rows and column in (None, screen.column)
    )
    assert shown, f"{rows}, column {column}, are not on the screen:\n{screen}"


# ---- the line being typed ------------------------------------------------------------------------

COLUMNS = 40


@pytest.mark.parametrize(
    ("length", "back"),
    [
        (0, 0),
        (7, 3),
        # Prompt and line fill the row to one character less than its width, to that, to one more.
        *[(COLUMNS - 10 + more, 0) for more in (-1, 0, 1)],
        *[(3 * COLUMNS - 10 + more, 0) for more in (-1, 0, 1)],
        # The cursor is in the first row, in the middle one, at the beginning and end of one.
        (3 * COLUMNS, 3 * COLUMNS),
        (3 * COLUMNS, 3 * COLUMNS - 5),
        (3 * COLUMNS, 60),
        (3 * COLUMNS, 50),
        (3 * COLUMNS, 51),
        (3 * COLUMNS, 49),
    ],
)
def test_a_notification_in_the_middle_of_a_line(
    service: Service, root: str, tmp_path: Path, length: int, back: int
) -> None:
    with cli(service.port, tmp_path, "-s", columns=COLUMNS) as terminal:
        subscribed(terminal, root)
        line = "".join(chr(ord("a") + place % 26) for place in range(length))
        terminal.type(line + LEFT * back)
        # Where it goes on is where readline itself says that it is.
        whole = "[tega: 1] " + line
        rows = [whole[start : start + COLUMNS].rstrip() for start in range(0, len(whole), COLUMNS)]
        offset = len(whole) - back
        column = offset % COLUMNS

        def drawn(above: list[str]) -> bool:
            screen = terminal.screen
            shown = [*above, *rows]
            return (
                screen.lines[: len(shown)] == shown
                and not any(screen.lines[len(shown) :])
                and screen.row == len(above) + offset // COLUMNS
                and screen.column == column
            )

        above = terminal.screen.lines[: terminal.screen.lines.index(f"[tega: 0] sub {root}"[:40])]
        above += _wrapped(f"[tega: 0] sub {root}")
        assert terminal.wait_until(lambda: drawn(above)), (terminal.screen.lines, at(terminal))
        above += block(put(service, f"{root}.x", 1), f"{root}.x", 1)
        above = [row for line in above for row in _wrapped(line)]
        assert terminal.wait_until(lambda: drawn(above)), (terminal.screen.lines, at(terminal))
        # Readline has the same in mind as the screen shows.
        terminal.type("[]")
        changed = line[: length - back] + "[]" + line[length - back :]
        rows = _wrapped(f"[tega: 1] {changed}")
        terminal.type("\n")
        terminal.wait_for(r"\[tega: 2\]$")
        assert terminal.screen.lines[len(above) : len(above) + len(rows)] == rows


def _wrapped(line: str) -> list[str]:
    rows = [line[start : start + COLUMNS].rstrip() for start in range(0, len(line), COLUMNS)]
    return rows or [""]


def test_a_notification_within_a_value(service: Service, root: str, tmp_path: Path) -> None:
    with cli(service.port, tmp_path, "-s", "-t", "typist") as terminal:
        subscribed(terminal, root)
        terminal.type("put typed.value\na: 1\n")
        typed(terminal, "b: {c: 2", ["[tega: 1] put typed.value", "a: 1", "b: {c: 2"])
        rows = block(put(service, root, 1), root, 1)
        typed(terminal, "", [*rows, "b: {c: 2"], 8)
        # At the beginning of a line of the value.
        typed(terminal, "}\n", ["b: {c: 2}", ""])
        rows = block(put(service, root, 2), root, 2, 1)
        typed(terminal, "", [*rows, ""], 0)
        terminal.type("d: 3\n\n")
        terminal.wait_for(r"\[tega: 2\]$")
        assert service.ask("GET", "/typed/value/")[1] == {"a": 1, "b": {"c": 2}, "d": 3}


def test_200_notifications_while_typing(service: Service, root: str, tmp_path: Path) -> None:
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, root)
        seqs: list[int] = []
        writer = threading.Thread(
            target=lambda: seqs.extend(put(service, root, number) for number in range(200))
        )
        writer.start()
        line = ""
        while writer.is_alive():
            for key in "get burst.abc" + HOME + "\x05":  # To its beginning and to its end.
                terminal.type(key)
                terminal.wait_until(lambda: False, 0.002)
            line += "get burst.abc"
        writer.join()
        rows = [
            row
            for number, seq in enumerate(seqs)
            for row in block(seq, root, number, number)
        ]
        start = 3  # The banner, the session, `sub`.
        last = "[tega: 1] " + line
        last_rows = [last[place : place + 80].rstrip() for place in range(0, len(last), 80)]
        typed(terminal, "", [*rows, *last_rows])
        assert terminal.screen.lines[start:] == [*rows, *last_rows]


def test_completions_stay_and_the_line_too(service: Service, root: str, tmp_path: Path) -> None:
    put(service, f"{root}done", {"alpha": 1, "alpine": 2, "beta": 3})
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, f"{root}.x")
        line = f"[tega: 1] get {root}done.alp"
        listed = [line, "alpha   alpine", line]
        typed(terminal, f"get {root}done.a{TAB}{TAB}{TAB}", listed)
        listed[0] = "alpha   alpine"
        rows = block(put(service, f"{root}.x", 1), f"{root}.x", 1)
        typed(terminal, "", [listed[1], *rows, listed[2]])
        typed(terminal, "h" + TAB + "\n", ["1", "", "[tega: 2]"])


def test_completion_in_the_middle_of_a_line(service: Service, root: str, tmp_path: Path) -> None:
    put(service, root, {"alpha": 1, "alpine": 2})
    with cli(service.port, tmp_path, "-s") as terminal:
        terminal.wait_for(r"\[tega: 0\]$")
        terminal.type(f"get {root}.alp 0{LEFT}{LEFT}{TAB}{TAB}")
        line = f"[tega: 0] get {root}.alp 0"
        typed(terminal, "", ["alpha   alpine", line], len(line) - 2)


def test_tabs_among_notifications(service: Service, root: str, tmp_path: Path) -> None:
    put(service, f"{root}done", {"alpha": 1, "alpine": 2})
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, root)
        writer = threading.Thread(
            target=lambda: [put(service, root, number) for number in range(100)]
        )
        writer.start()
        terminal.type(f"get {root}done.alp")
        while writer.is_alive():
            terminal.type(TAB)
            terminal.wait_until(lambda: False, 0.01)
        writer.join()
        terminal.wait_for("instance: 99\n")
        typed(terminal, "", ["", f"[tega: 1] get {root}done.alp"])
        lines = terminal.screen.lines
        assert [line for line in lines if "instance" in line] == [
            f"  instance: {number}" for number in range(100)
        ]
        for start in [number for number, line in enumerate(lines) if line == "<NOTIFY>"]:
            assert [line[:4] for line in lines[start + 1 : start + 8]] == [
                "- op", "  pa", "  te", "  in", "  se", "  ve", "",
            ]  # fmt: skip


def test_a_notification_while_the_history_is_searched(
    service: Service, root: str, tmp_path: Path
) -> None:
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, root)
        search = f"(reverse-i-search)`su': sub {root}"
        typed(terminal, f"{SEARCH}su", [search])
        rows = block(put(service, root, 1), root, 1)
        typed(terminal, "", [*rows, search])
        typed(terminal, "\x05.more", [f"[tega: 1] sub {root}.more"])


def test_without_the_means_to_draw_it_again_the_line_is_shown_once_more(
    service: Service, root: str, tmp_path: Path
) -> None:
    program = (
        "from tega.cli import editor, main\n"
        "editor._Drawing.of = lambda file: None\n"
        f"main.main(['-s', '-p', '{service.port}'])"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    with Terminal([sys.executable, "-c", program], environment) as terminal:
        subscribed(terminal, root)
        typed(terminal, "get abc", ["[tega: 1] get abc"])
        rows = block(put(service, root, 1), root, 1)
        typed(terminal, "", ["[tega: 1] get abc", *rows, "[tega: 1] get abc"])
        typed(terminal, "\n", ["nothing at abc", "[tega: 2]"])


def test_a_command_under_way(service: Service, root: str, tmp_path: Path) -> None:
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, root)
        call = "[tega: 1] operational-local2.ne2.echo({'done': True}, delay=1)"
        typed(terminal, call[10:] + "\n", [call, ""])
        rows = block(put(service, root, 1), root, 1)
        typed(terminal, "", [call, *rows, ""])
        typed(terminal, "", [call, *rows, "{done: true}", "", "[tega: 2]"])


def test_nothing_that_comes_is_obeyed(service: Service, root: str, tmp_path: Path) -> None:
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, root)
        put(service, root, {"x": "\x1b[2J\x9b0m", "\x1b]0;t\x07": 1})
        terminal.wait_for("version: 0")
        assert b"\x1b[2J" not in terminal.raw
        assert b"\x1b]0" not in terminal.raw
        assert "\\u001b[2J\\u009b0m" in terminal.screen.text


# ---- messages and the end ------------------------------------------------------------------------


KILL = ""


@pytest.mark.parametrize("end", [END, "q\n", KILL])
def test_two_prompts(service: Service, root: str, tmp_path: Path, end: str) -> None:
    with (
        cli(service.port, tmp_path, "-s", "-t", "one") as one,
        cli(service.port, tmp_path, "-s", "-t", "two") as two,
    ):
        subscribed(one, root)
        two.wait_for(r"\[tega: 0\]$")
        typed(two, f"pub {root}\nhello: [1, 2]\n\n", ["", "[tega: 1]"])
        message = ["<MESSAGE>", f"channel: {root}", "tega_id: two", "message: {hello: [1, 2]}", ""]
        typed(one, "", [*message, "[tega: 1]"])
        typed(two, f"pute {root}.y\n1\n\n", ["", "[tega: 2]"])
        one.wait_for(rf"- ope: PUT\n  path: {root}.y")
        two.type(end)
        if end == KILL:
            os.kill(two.pid, signal.SIGKILL)
        assert two.wait_for_end() == (-signal.SIGKILL if end == KILL else 0)
        one.wait_for(rf"- ope: DELETE\n  path: {root}.y\n  tega_id: two")
        assert service.ask("GET", f"/{root}/")[0] == 404
        typed(one, "unsub *\nchannels\n", ["[tega: 2] channels", "{}", "", "[tega: 3]"])


def test_ctrl_c_drops_the_line_alone(service: Service, root: str, tmp_path: Path) -> None:
    with cli(service.port, tmp_path, "-s") as terminal:
        subscribed(terminal, root)
        typed(terminal, "get abc", ["[tega: 1] get abc"])
        terminal.interrupt()
        terminal.wait_for(r"get abc(\^C)?\n\[tega: 1\]$")
        rows = block(put(service, root, 1), root, 1)
        typed(terminal, "", [*rows, "[tega: 1]"])
        typed(terminal, "put a\nb: 1", ["[tega: 1] put a", "b: 1"])
        terminal.interrupt()
        terminal.wait_for(r"b: 1(\^C)?\n\[tega: 2\]$")
        terminal.type(END)
        assert terminal.wait_for_end() == 0


def test_the_session_is_taken_over(service: Service, tmp_path: Path) -> None:
    with cli(service.port, tmp_path, "-s", "-t", "twin") as first:
        first.wait_for(r"\[tega: 0\]$")
        with cli(service.port, tmp_path, "-s", "-t", "twin") as second:
            second.wait_for(rf"{UP}\n\[tega: 0\]$")
            first.wait_for(r"(?s)--- session lost: .*taken over.* ---\n\[tega: 0\]$")
            first.type("sub a\n")
            first.wait_for(r"(?s)the session is over .*\n\[tega: 1\]$")
            typed(first, "id\n", ["[tega: 1] id", "twin", "", "[tega: 2]"])
            first.type("q\n")
            assert first.wait_for_end() == 0
            typed(second, "ids\n", ["[Echo, twin]", "", "[tega: 1]"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_goes_and_comes(
    start: Callable[..., Service], tmp_path: Path, number: int
) -> None:
    service = start()
    with cli(service.port, tmp_path, "-s", columns=200) as terminal:
        subscribed(terminal, "a")
        typed(terminal, "pute mine\n1\n\n", ["", "[tega: 2]"])
        typed(terminal, "get typed", ["[tega: 2] get typed"])
        service.process.send_signal(number)
        service.process.communicate(timeout=20)
        terminal.wait_for(r"--- session lost: .* ---\n(---.*---\n)*\[tega: 2\] get typed$")
        typed(terminal, " now\n", ["[tega: 3]"])
        terminal.wait_for(r"(?s)cannot connect .*\n\[tega: 3\]$")
        typed(terminal, "sub b\n", ["this will be done when the session is ready", "[tega: 4]"])
        service = start("-p", str(service.port))
        seq = put(service, "a", 1)
        terminal.wait_for(rf"{UP}\n(?s:.*)\[tega: 4\]$")
        terminal.wait_for(r"- ope: PUT\n(?:  .*\n)*  version: 0\n\n\[tega: 4\]$")
        lines = terminal.screen.lines
        assert lines.count(UP) == 2
        # The server has no history of before its start: it tells how things stand. Where the
        # session was ready before the put, that is a DELETE, and the put comes after it.
        stands = block(seq, "a", 1)
        stands[3] = "  tega_id: srv"
        told = [lines[n:][:8] for n, line in enumerate(lines) if line == "<NOTIFY>"]
        assert told[-1] == (stands if len(told) == 1 else block(seq, "a", 1))
        assert all(one[1] == "- ope: DELETE" for one in told[:-1])
        assert len(told) <= 2
        rows = block(put(service, "b", 1), "b", 1)
        typed(terminal, "", [*rows, "[tega: 4]"])
        typed(terminal, "get mine\n", ["1", "", "[tega: 5]"])
        terminal.type("q\n")
        assert terminal.wait_for_end() == 0
        assert service.ask("GET", "/mine/")[0] == 404
    assert service.end()[0] == 0


def test_there_is_no_server_yet(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start()
    service.end()
    with cli(service.port, tmp_path, "-s", columns=200) as terminal:
        terminal.wait_for(r"--- cannot connect to .*; trying again ---\n\[tega: 0\]$")
        start("-p", str(service.port))
        terminal.wait_for(rf"{UP}\n\[tega: 0\]$")


def test_from_a_pipe_it_is_printed_in_order(service: Service, root: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tega.cli.main", "-p", str(service.port), "-s"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(f"sub {root}\n".encode())
        process.stdin.flush()
        before = read_until(process, "[tega: 1] ")
        rows = "\n".join(block(put(service, root, 1), root, 1))
        told = read_until(process, "[tega: 1] ")
        rest, errors = process.communicate(b"id\n", timeout=20)
    finally:
        process.kill()
    assert before == f"tega CLI (q: quit, h:help)\n{UP}\n[tega: 0] sub {root}\n[tega: 1] "
    assert told == f"\n{rows}\n[tega: 1] "
    assert rest.startswith(b"id\ncli-")
    assert rest.endswith(b"[tega: 2] \n")
    assert not errors


def read_until(process: subprocess.Popen[bytes], end: str) -> str:
    """What a program prints, as far as some text."""
    assert process.stdout is not None
    text = ""
    while not text.endswith(end):
        assert select.select([process.stdout], [], [], PATIENCE)[0], f"no {end!r} in {text!r}"
        data = os.read(process.stdout.fileno(), 65536)
        assert data, text
        text += data.decode()
    return text
