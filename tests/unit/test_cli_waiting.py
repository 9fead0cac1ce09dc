"""``wait``: who has to have it, how often is asked, what is told meanwhile and at the end."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tega.cli import arguments, oneshot, waiting
from tega.driver import CRUDException, Driver
from tega.subscriber import Subscriber

NO_ROOT = CRUDException("no root r", 404, "Not Found", "not_found")


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waiting, "time", made)
    return made


class Asked(Driver):
    """A driver to which servers come nearer; the last answer stays."""

    def __init__(self, *answers: dict[str, int] | Exception, subscriber: Any = None) -> None:
        super().__init__(tega_id="me", subscriber=subscriber)
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def _manage(self, method: str, command: str, **params: Any) -> Any:
        self.asked.append((f"{method} {command}", params))
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return 200, "OK", answer


def run(driver: Driver, words: str) -> int:
    access = SimpleNamespace(driver=lambda: driver)
    return oneshot.run(arguments.parse(words.split()), access)


@pytest.mark.parametrize(
    ("words", "answers", "looks"),
    [
        ("wait r 2", [{"g": 2}], 1),
        ("wait r 2", [{"g": 2, "a": 3, "b": 1}, {"g": 2, "a": 3, "b": 2}], 2),
        ("wait r 0", [NO_ROOT, NO_ROOT, {"g": 0}], 3),
        ("wait r 2", [{"g": 2, "a": 1}, {"g": 2}], 2),
        ("wait r 2 --on a", [{"g": 1, "a": 2}], 1),
        ("wait r 2 --on a b", [{"a": 2}, {"a": 2, "b": 1}, {"a": 2, "b": 2}], 3),
        ("wait r 2 --on a", [NO_ROOT, {"a": 2}], 2),
        ("wait r 2 --all", [{"g": 2}, {"g": 2, "a": 1}, {"g": 2, "a": 2}], 3),
        ("wait r 2 --timeout 0", [{"g": 2}], 1),
    ],
)
def test_until_everybody_has_it(
    words: str, answers: list[Any], looks: int, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = Asked(*answers)
    assert run(driver, words) == oneshot.DONE
    assert driver.asked == [("GET applied", {"root_oid": "r"})] * looks
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "answer", "lagging"),
    [
        ("wait r 2", {"g": 2, "b": 1, "a": 0}, ["a: version 0", "b: version 1"]),
        ("wait r 2", NO_ROOT, ["every server: no such root"]),
        ("wait r 2 --all", {"g": 2}, ["another server: not there"]),
        ("wait r 2 --all", {"g": 1}, ["g: version 1", "another server: not there"]),
        ("wait r 2 --all", NO_ROOT, ["every server: no such root"]),
        ("wait r 2 --on b a", {"g": 2, "a": 1}, ["b: not there", "a: version 1"]),
        ("wait r 2 --on a", NO_ROOT, ["a: not there"]),
    ],
)
def test_who_lags_when_the_time_is_up(
    words: str, answer: Any, lagging: list[str], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Asked(answer), f"{words} --timeout 2.5") == oneshot.REFUSED
    assert clock.now == 102.5
    told = "\n".join(["version 2 of r is not everywhere after 2.5 s:", *lagging, ""])
    assert capsys.readouterr() == ("", told)


def test_it_asks_often_at_first_and_gives_up_after_a_minute(clock: Clock) -> None:
    driver = Asked({"g": 0})
    assert run(driver, "wait r 1") == oneshot.REFUSED
    assert clock.now == pytest.approx(160)
    assert clock.pauses[0] == 0.05
    assert clock.pauses[:-1] == sorted(clock.pauses[:-1])
    assert max(clock.pauses) == 1
    assert len(driver.asked) == len(clock.pauses) + 1 < 75


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CRUDException("no such command", 404, "Not Found", "no_command"), oneshot.REFUSED),
        (CRUDException("later", 503, "Service Unavailable", "unavailable"), oneshot.REFUSED),
        (ConnectionRefusedError("no server"), oneshot.NO_CONNECTION),
    ],
)
def test_other_trouble_ends_it(error: Exception, status: int, clock: Clock) -> None:
    assert run(Asked(error), "wait r 1") == status
    assert clock.pauses == []


@pytest.mark.parametrize("words", ["wait r -1", "wait r 1 --all --on a"])
def test_what_makes_no_sense(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    driver = Asked({})
    assert run(driver, words) == oneshot.USAGE
    assert driver.asked == []
    assert "give" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_who_is_missing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    driver = Asked({"a": 1, "b": 0, "c": 0}, {"a": 1, "b": 1, "\x1bc": 0}, {"b": 1, "c": 0})
    assert run(driver, "wait r 1 --timeout 0.1") == oneshot.REFUSED
    assert isinstance(sys.stderr, Terminal)
    shown = sys.stderr.getvalue().split("\r")
    assert shown == [
        "",
        "waiting for b (version 0), c (version 0"  # As much as goes on one line.
        "\x1b[K",
        "waiting for \\u001bc (version 0)\x1b[K",
        "\x1b[Kversion 1 of r is not everywhere after 0.1 s:\nc: version 0\n",
    ]


def test_what_is_there_at_once_shows_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run(Asked({"g": 1}), "wait r 1") == oneshot.DONE
    # A session writes to the terminal too: one of them has to be quiet.
    assert run(Asked({"g": 0}, {"g": 1}, subscriber=Subscriber("me")), "wait r 1") == oneshot.DONE
    assert isinstance(sys.stderr, Terminal)
    assert sys.stderr.getvalue() == ""
