"""What the operator reads: whatever a client sends, a message stays a message."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.logformat import JsonFormatter, TextFormatter, Writer

#: Clears a screen, forges a line, turns what follows around, is half a character.
HOSTILE = "\x1b[2J\n2026-01-01 00:00:00,000 INFO tega.server: all is well\r\x9b\u202e\udc80\0"


def record(text: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("tega.x", logging.WARNING, __file__, 1, text, args, None)
    vars(made).update(more)
    return made


def raised(text: str) -> logging.LogRecord:
    made = record("it failed")
    try:
        raise ValueError(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_is_as_it_was() -> None:
    line = TextFormatter().format(record("%s begins", "cli-1"))
    assert line.endswith(" WARNING tega.x: cli-1 begins")


def test_a_line_stays_one_line() -> None:
    line = TextFormatter().format(record("%s begins", HOSTILE))
    assert line.isprintable()
    assert r"\u001b[2J\n2026" in line


def test_a_traceback_follows_indented() -> None:
    first, *rest = TextFormatter().format(raised(HOSTILE)).split("\n")
    assert first.endswith("it failed")
    assert "Traceback" in rest[0]
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_an_object_has_what_it_should() -> None:
    formatter = JsonFormatter()
    made = record("%s falls behind at number %d", "cli-1", 7, seq=7, created=1763689800.25)
    told = json.loads(formatter.format(made))
    assert told == {
        "time": "2025-11-21T01:50:00.250000Z", "level": "WARNING", "logger": "tega.x",
        "message": "cli-1 falls behind at number 7", "seq": 7,
    }
    formatter.tega_id = "global"
    assert json.loads(formatter.format(made))["tega_id"] == "global"


def test_an_object_has_its_traceback() -> None:
    line = JsonFormatter().format(raised(HOSTILE))
    assert "\n" not in line
    told = json.loads(line)
    assert told["message"] == "it failed"
    assert told["exception"].startswith("Traceback")
    assert "all is well" in told["exception"]


@pytest.mark.parametrize("value", [b"x", {1, 2}, object()])
def test_what_json_cannot_say_is_told_as_text(value: object) -> None:
    told = json.loads(JsonFormatter().format(record("x", what=value)))
    assert told["what"] == str(value)


@given(st.text(), st.text())
def test_any_text(message: str, exception: str) -> None:
    for made in (record("%s", message), raised(exception)):
        line = JsonFormatter().format(made)
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["message"] == made.getMessage()
        first, *rest = TextFormatter().format(made).split("\n")
        assert first.isprintable()
        assert all(one.startswith("    ") and one.isprintable() for one in rest)


def left_out(lines: list[str]) -> int:
    return sum([int(line.split()[0]) for line in lines if "left out" in line])


def told(lines: list[str]) -> int:
    """Of how many messages these lines tell: those that are there, and those that are not."""
    return len([line for line in lines if "left out" not in line]) + left_out(lines)


def test_a_reader_that_stands_still_is_not_waited_for_and_is_told_what_it_missed() -> None:
    source, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
    writer = Writer(sink, most=10)
    writer.setFormatter(logging.Formatter("%(message)s"))
    handled = 0
    lines: list[str] = []
    with open(source) as reader:
        while handled < 1_000:
            writer.handle(record("x" * 500))
            handled += 1
        reading = threading.Thread(target=lambda: lines.extend(reader))
        reading.start()
        # Each message tells of those that were left out before it; the last ones wait for another.
        for _ in range(200):
            writer.handle(record("is there room again?"))
            handled += 1
            time.sleep(0.1)
            if told(lines) == handled:
                break
        assert told(lines) == handled
        assert left_out(lines) > 0
        writer.close()
        os.close(sink)
        reading.join(20)


def test_a_reader_that_is_gone_does_no_harm() -> None:
    source, sink = os.pipe()
    os.close(source)
    writer = Writer(sink)
    writer.setFormatter(TextFormatter())
    for _ in range(10):
        writer.handle(record("nobody hears this"))
    writer.close()
    os.close(sink)
