"""What is shown for each answer and refusal, at the prompt and in one-shot calls."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.cli import arguments, oneshot, session, yamltext
from tega.cli.board import Board
from tega.cli.commands import Answer, CommitRefused
from tega.cli.printing import (
    Format,
    change_line,
    conversation,
    message,
    notice,
    output,
    refusal,
)
from tega.cli.prompt import Prompt
from tega.driver import CRUDException, Driver, TransactionException
from tega.errors import Malformed


class FakeDriver(Driver):
    """A driver whose answers are given; it notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(tega_id="me")
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def _answer(self, verb: str, *asked: Any) -> Any:
        self.asked.append((verb, *asked))
        answer = self.answers.get(verb)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def get(self, path: str, version: int | None = None, *rest: Any, **options: Any) -> Any:
        return self._answer("get", path, version, *sorted(options))

    def put(self, instance: Any, version: int | None = None, *rest: Any, **options: Any) -> Any:
        return self._answer("put", instance, version, *sorted(options.items()))

    def delete(self, path: str, version: int | None = None) -> Any:
        return self._answer("delete", path, version)

    def begin(self) -> str:
        self.join("t1")
        return "t1"

    def commit(self) -> Any:
        return self._answer("commit")

    def cancel(self) -> Any:
        return self._answer("cancel")

    def cand(self, internal: bool = False, python_dict: bool = False) -> Any:
        return self._answer("cand", internal)

    def rollback(self, root_oid: str, backto: int) -> Any:
        return self._answer("rollback", root_oid, backto)

    def rpc(self, path: str, /, *args: Any, **kwargs: Any) -> Any:
        return self._answer("rpc", path, args, kwargs)

    def _manage(self, method: str, command: str, **params: Any) -> Any:
        return self._answer(command)


class Typed(Prompt):
    """A prompt at which these lines are typed; an exception is what happens instead of a line."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self.board = Board()
        self._lines: Iterator[str | type[BaseException]] = iter(lines)
        self.prompts: list[str] = []

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self._next()

    def read_value(self) -> str:
        text = ""
        while line := self._next():
            text += line + "\n"
        return text

    def _next(self) -> str:
        line = next(self._lines, EOFError)
        if isinstance(line, str):
            return line
        raise line


GONE = CRUDException("nothing at a", 404, "Not Found", "not_found")
REFUSED = TransactionException("collision at a", 406, "Not Acceptable", "collision")

# ---- answers and refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer({"b": {"c": 1}, "x": 2}), "b: {c: 1}\nx: 2\n\n"),
        (Answer(None), "null\n\n"),
        (Answer({}), "{}\n\n"),
        (Answer("t1", "txid: t1 accepted"), "txid: t1 accepted\n"),
        (Answer(), ""),
    ],
)
def test_conversation(answer: Answer, text: str) -> None:
    assert conversation(answer) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (GONE, "404 Not Found\nnothing at a"),
        (TransactionException("begin one first", code="not_open"), "begin one first"),
        (
            CommitRefused(REFUSED, "t1", "rejected"),
            "406 Not Acceptable\ncollision at a\nid: t1 rejected",
        ),
        (Malformed("bad value"), "bad value"),
        (ConnectionRefusedError("cannot connect"), "cannot connect"),
        (CRUDException("\x1b]0;x\x07", 500, "\x9b2J"), "500 \\u009b2J\n\\u001b]0;x\\u0007"),
    ],
)
def test_refusals(error: Exception, text: str) -> None:
    assert refusal(error) == text


@pytest.mark.parametrize(
    ("data", "form", "text"),
    [
        ({"b": {"c": "no"}}, Format.YAML, "b: {c: no}\n"),
        ({"b": [1, "é", None]}, Format.JSON, '{"b": [1, "é", null]}\n'),
        ({"b": "x"}, Format.RAW, '{"b": "x"}\n'),
        ("x\n\x1b", Format.RAW, "x\n\x1b\n"),
        ("1", Format.RAW, "1\n"),
        (1.0, Format.RAW, "1.0\n"),
        (None, Format.RAW, "null\n"),
    ],
)
def test_output(data: Any, form: Format, text: str) -> None:
    assert output(data, form, terminal=False) == text


def test_a_terminal_gets_no_escape_sequence_in_any_format() -> None:
    for form in Format:
        assert output("\x1b[2J\x9b", form, terminal=True).strip().strip('"') == "\\u001b[2J\\u009b"


@given(st.recursive(st.text() | st.integers(), lambda of: st.dictionaries(st.text(), of)))
def test_json_is_one_printable_line_and_reads_back(data: Any) -> None:
    text = output(data, Format.JSON, terminal=False)
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert json.loads(text) == data


CHANGE = {
    "instance": {"ne1": {"name": "sw1"}},
    "seq": 3,
    "version": 0,
    "tega_id": "ops",
    "path": "inventory",
    "ope": "PUT",
}


def test_a_notification() -> None:
    removed = {**CHANGE, "ope": "DELETE", "path": 'x."a b"', "instance": "\x1b[2J"}
    assert notice([CHANGE, removed]) == (
        "<NOTIFY>\n"
        "- ope: PUT\n  path: inventory\n  tega_id: ops\n  instance:\n    ne1: {name: sw1}\n"
        "  seq: 3\n  version: 0\n"
        "- ope: DELETE\n  path: x.\"a b\"\n  tega_id: ops\n  instance: \"\\u001b[2J\"\n"
        "  seq: 3\n  version: 0\n"
        "\n"
    )
    assert yamltext.loads(notice([CHANGE]).partition("\n")[2]) == [CHANGE]
    rollback = {**CHANGE, "ope": "ROLLBACK", "instance": None, "backto": -1}
    assert notice([rollback]).endswith("  instance: null\n  seq: 3\n  version: 0\n  backto: -1\n\n")


def test_a_message() -> None:
    assert message("a.b", "ops", {"x": {"y": "no\x07"}}) == (
        "<MESSAGE>\nchannel: a.b\ntega_id: ops\nmessage:\n  x: {y: \"no\\u0007\"}\n\n"
    )
    assert message("a", "b", None) == "<MESSAGE>\nchannel: a\ntega_id: b\nmessage: null\n\n"


def test_a_change_on_a_line() -> None:
    assert change_line(CHANGE, Format.YAML) == (
        "{ope: PUT, path: inventory, tega_id: ops, instance: {ne1: {name: sw1}}, "
        "seq: 3, version: 0}\n"
    )
    for form in (Format.JSON, Format.RAW):
        text = change_line({**CHANGE, "instance": "\x1b\n", "resync": True}, form)
        assert text.startswith('{"ope": "PUT", "path": "inventory", "tega_id": "ops", "instance"')
        assert text.endswith('"version": 0, "resync": true}\n')
        assert text[:-1].isprintable()


# ---- the prompt ----------------------------------------------------------------------------------


def test_the_session_of_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    driver = FakeDriver(get={"b": {"c": 1}, "x": 2})
    prompt = Typed("put a.b.c", "1", "", "put a.x -1", "2", "", "", "get a", "q")
    assert session.interact(driver, prompt)
    assert capsys.readouterr().out == "tega CLI (q: quit, h:help)\nb: {c: 1}\nx: 2\n\n"
    assert prompt.prompts == [
        "[tega: 0] ",
        "[tega: 1] ",
        "[tega: 2] ",
        "[tega: 2] ",
        "[tega: 3] ",
    ]
    assert driver.asked == [
        ("put", 1, None, ("path", "a.b.c")),
        ("put", 2, -1, ("path", "a.x")),
        ("get", "a", None, "python_dict"),
    ]


@pytest.mark.parametrize(
    ("line", "answers", "asked", "shown"),
    [
        ("get a 3", {"get": None}, ("get", "a", 3, "python_dict"), "null\n\n"),
        ("geta a", {"get": {"_value": 1}}, ("get", "a", None, "internal"), "{_value: 1}\n\n"),
        ("getr a", {"get": {}}, ("get", "a", None, "python_dict", "regex_flag"), "{}\n\n"),
        ("del a", {"delete": GONE}, ("delete", "a", None), "404 Not Found\nnothing at a\n"),
        ("del a 0", {}, ("delete", "a", 0), ""),
        ("cancel", {"cancel": "t1"}, ("cancel",), "txid: t1 cancelled\n"),
        ("rollback a -1", {"rollback": (200, "OK", {})}, ("rollback", "a", -1), "200 OK\n"),
        ("roots", {"roots": (200, "OK", {"a": 0})}, ("roots",), "{a: 0}\n\n"),
        ("old", {"old": (200, "OK", [{"a": [0]}])}, ("old",), "[{a: [0]}]\n\n"),
        ("global", {"global": (200, "OK", [])}, ("global",), "[]\n\n"),
        ("ss", {"ss": (200, "OK", {"seq": 1})}, ("ss",), "200 OK\n"),
        ("sync", {"sync": GONE}, ("sync",), "404 Not Found\nnothing at a\n"),
        ("release a", {"release": (200, "OK", {})}, ("release",), "200 OK\n"),
        ("release a", {"release": GONE}, ("release",), "404 Not Found\nnothing at a\n"),
        ("wait a 1", {"applied": (200, "OK", {"x": 1})}, ("applied",), ""),
        (
            "wait a 2 --timeout 0",
            {"applied": (200, "OK", {"x": 1})},
            ("applied",),
            "version 2 of a is not everywhere after 0 s:\nx: version 1\n",
        ),
        ("clear", {"clear": (200, "OK", {})}, ("clear",), "200 OK\n"),
        ("get a b", {}, None, "VERSION 'b' is not an integer\n"),
        ("a.f(1,b=2)", {"rpc": (200, "OK", 0)}, ("rpc", "a.f", (1,), {"b": 2}), "0\n\n"),
        ("roots", {"roots": ConnectionRefusedError("no")}, ("roots",), "no\n"),
        (
            "cand",
            {
                "cand": [
                    {"_oid": "a", "b": {"_oid": "b", "_value": [1]}, "c": {"_oid": "c"}},
                    {"_oid": "l", "_value": None},
                    {"_oid": "z", "_deleted": True},
                ]
            },
            ("cand", True),
            "a:\n  b: [1]\n  c: {}\nl: null\nz: {_deleted: true}\n\n",
        ),
    ],
)
def test_commands(
    line: str,
    answers: dict[str, Any],
    asked: tuple[Any, ...] | None,
    shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver = FakeDriver(**answers)
    assert session.interact(driver, Typed(line, "quit"))
    assert driver.asked == ([asked] if asked else [])
    assert capsys.readouterr().out == session.BANNER + "\n" + shown


def test_a_refused_commit_says_what_became_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    session.interact(FakeDriver(commit=REFUSED), Typed("begin", "commit", "q"))
    # The fake leaves the transaction open, as a driver does where the outcome is not known.
    assert capsys.readouterr().out.splitlines()[1:] == [
        "txid: t1 accepted",
        "406 Not Acceptable",
        "collision at a",
        "id: t1 open",
    ]


def test_what_is_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    driver = FakeDriver(roots=KeyboardInterrupt())
    prompt = Typed(KeyboardInterrupt, "put a", "1", KeyboardInterrupt, "roots", EOFError)
    assert session.interact(driver, prompt)
    assert driver.asked == [("roots",)]
    assert "interrupted: " in capsys.readouterr().out
    assert prompt.prompts[1:] == ["[tega: 0] ", "[tega: 1] ", "[tega: 2] "]


def test_an_end_within_a_value_puts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    driver = FakeDriver()
    assert not session.interact(driver, Typed("put a", "1"))
    assert not driver.asked
    assert "nothing was put" in capsys.readouterr().out


def test_a_bad_value_puts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    driver = FakeDriver()
    assert session.interact(driver, Typed("put a", "b: 1", "b: 2", "", "put a", "", "q"))
    assert not driver.asked
    shown = capsys.readouterr().out
    assert "bad value at line 2, column 1: duplicate key 'b'" in shown
    assert "no value: " in shown


def test_lines_from_a_pipe_are_echoed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("put a\r\n{\n\n \x1b\nget a\n"))
    driver = FakeDriver(get=1)
    assert session.interact(driver, Prompt(session.Asked(driver), Board()))
    out = capsys.readouterr().out
    assert out.startswith("tega CLI (q: quit, h:help)\n[tega: 0] put a\n{\n\nbad value at line 2")
    assert out.endswith("\n[tega: 1]  \\u001b\n" + out.split("\\u001b\n")[1])
    assert "[tega: 2] get a\n1\n\n[tega: 3] \n" in out


def test_completion_lists_what_there_is_and_is_silent_about_errors() -> None:
    driver = FakeDriver(
        roots=(200, "OK", {"a": 1}),
        get={"x.y": {"z": 1}, "l": [1]},
        channels=(200, "OK", {"c": []}),
    )
    asked = session.Asked(driver)
    assert asked.keys(()) == {"a": True}
    assert asked.keys(("a", "b c")) == {"x.y": True, "l": False}
    assert driver.asked[1][1] == 'a."b c"'
    assert asked.channels() == ["c"]
    assert session.Asked(FakeDriver(get=3)).keys(("a",)) == {}
    for error in (GONE, ConnectionRefusedError()):
        failing = session.Asked(FakeDriver(get=error, roots=error, channels=error))
        assert failing.keys(("a",)) == {}
        assert failing.keys(()) == {}
        assert failing.channels() == []


@pytest.mark.parametrize(
    "line", ["sub a", "subr a", "unsub *", "unsubr a", "pub a", "pute a", "publish a"]
)
def test_what_needs_a_session_says_so(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    driver = FakeDriver()
    assert session.interact(driver, Typed(line, "q"))
    name = "pub" if line.startswith("pub") else line.split()[0]
    shown = capsys.readouterr().out.splitlines()[1:]
    assert shown == [f"{name} needs a session: start tega-cli with -s"]
    assert driver.asked == []


# ---- one-shot ------------------------------------------------------------------------------------


def run(driver: Driver, *words: str) -> int:
    return oneshot.run(arguments.parse(words), SimpleNamespace(driver=lambda: driver))


@pytest.mark.parametrize(
    ("words", "answers", "status", "out", "err"),
    [
        ("get a", {"get": {"b": {}}}, 0, "b: {}\n", ""),
        ("get a -o json", {"get": [1]}, 0, "[1]\n", ""),
        ("get a -o raw", {"get": "x y"}, 0, "x y\n", ""),
        ("get a", {"get": GONE}, 1, "", "404 Not Found\nnothing at a\n"),
        ("get a", {"get": ConnectionRefusedError("no server")}, 3, "", "no server\n"),
        ("get a", {"get": TimeoutError("no answer")}, 3, "", "no answer\n"),
        ("put a 1", {}, 0, "", ""),
        ("put a {", {}, 2, "", "bad value at line 1, column 2: "),
        ("begin", {}, 0, "t1\n", ""),
        ("commit --txid t2", {"commit": "t2"}, 0, "", ""),
        ("rollback a -1", {"rollback": (200, "OK", {})}, 0, "", ""),
        ("release a", {"release": (200, "OK", {})}, 0, "", ""),
        ("release a", {"release": GONE}, 1, "", "404 Not Found\nnothing at a\n"),
        ("rpc a.f 1", {"rpc": (200, "OK", None)}, 0, "null\n", ""),
        ("rpc a.f -k path=1 -k self=2", {"rpc": (200, "OK", 3)}, 0, "3\n", ""),
        ("id", {}, 0, "me\n", ""),
    ],
)
def test_one_shot(
    words: str,
    answers: dict[str, Any],
    status: int,
    out: str,
    err: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(FakeDriver(**answers), *words.split()) == status
    shown = capsys.readouterr()
    assert shown.out == out
    assert shown.err.startswith(err)
    assert bool(shown.err) is bool(err)


def test_one_shot_joins_the_transaction() -> None:
    driver = FakeDriver()
    assert run(driver, "put", "a", "1", "--txid", "t7", "--version", "-1") == 0
    assert driver.txid == "t7"
    assert driver.asked == [("put", 1, -1, ("path", "a"))]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_value_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, value in (("c: é\nd: |\n  x\n", {"c": "é", "d": "x\n"}), ("[1]", [1])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        driver = FakeDriver()
        assert run(driver, "put", "a") == 0
        assert driver.asked == [("put", value, None, ("path", "a"))]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (Terminal("1\n"), "on standard input"),
        (io.TextIOWrapper(io.BytesIO(b"")), "no value"),
        (io.TextIOWrapper(io.BytesIO(b"a: \xff")), "the byte 0xFF, which is not UTF-8"),
    ],
)
def test_no_value_or_none_that_reads(
    stdin: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    driver = FakeDriver()
    assert run(driver, "put", "a") == 2
    assert not driver.asked
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stdin", "words", "status"),
    [
        (Terminal("y\n"), ["clear"], 0),
        (Terminal("\n"), ["clear"], 1),
        (Terminal(""), ["clear"], 1),
        (Terminal(""), ["clear", "--yes"], 0),
        (io.StringIO(""), ["clear"], 0),
    ],
)
def test_clear_asks_on_a_terminal(
    stdin: Any, words: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    driver = FakeDriver(clear=(200, "OK", {}))
    assert run(driver, *words) == status
    assert bool(driver.asked) is (status == 0)
