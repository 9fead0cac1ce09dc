"""tega-sentinel's settings, addresses, lines and waits."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tega.errors import Malformed
from tega.sentinel import address
from tega.sentinel.ends import ends
from tega.sentinel.engine import Backoff, _Waiting
from tega.sentinel.report import JsonReport, TextReport, line
from tega.sentinel.settings import load
from tega.sentinel.sink import Event
from tega.sentinel.source import Away, Batch, Entry
from tega.sentinel.sql.dialect import read_url


@pytest.mark.parametrize(
    ("url", "prefix", "shown"),
    [
        ("etcd://h", b"", "etcd://h:2379"),
        ("etcd://h:1/", b"", "etcd://h:1"),
        ("etcds://[::1]:1/Device/", b"/Device/", "etcds://[::1]:1/Device/"),
        ("etcd://h/a%20b", b"/a b", "etcd://h:2379/a b"),
        ("tega://h", b"", "tega://h:8739/"),
        ("tega://h:1/a/x%2Fy/", b"a.x/y", "tega://h:1/a.x/y"),
    ],
)
def test_addresses(url: str, prefix: bytes, shown: str) -> None:
    read = address.parse(url)
    assert (read.prefix, str(read)) == (prefix, shown)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "right is etcd://HOST:PORT/PREFIX or tega://"),
        ("etcd://", "right is etcd"),
        ("etcd://h:x", "right is etcd"),
        ("etcd://h/?a=b", "right is etcd"),
        ("etcd://me:secret@h/", "do not go in here"),
        ("tega://h/_a", "malformed URL"),
    ],
)
def test_wrong_addresses(url: str, says: str) -> None:
    with pytest.raises(Malformed, match=says) as caught:
        address.parse(url)
    assert "secret" not in str(caught.value)


def test_a_wrong_sink_shows_no_password() -> None:
    for text in ("nosuch://me:secret@h/x", "mysql+pymysql://me:secret@h:port/x"):
        with pytest.raises(Malformed, match="right is one such as sqlite") as caught:
            read_url(text)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "give --source"),
        (["-s", "etcd://h"], "give --mapping"),
        (["-s", "etcd://h", "-k", "sqlite://"], "give --mapping"),
        (["-s", "etcd://h", "-k", "sqlite://", "-m", "/none"], "setting mapping: .*No such file"),
        (["-s", "tega://h", "--preset", "titania"], "the mapping is of etcd, and the source tega"),
        (["-s", "tega://h", "-k", "etcd://h"], "name a path of tega"),
        (["-s", "etcd://h/a", "-k", "etcd://h:2379/a/b"], "one is within the other"),
        (["--once", "--verify"], "give one of --once, --dry-run and --verify"),
        (["--once", "maybe"], "unrecognized arguments"),
        (["--sink-password-file", "/none"], "setting sink-password-file: .*No such file"),
    ],
)
def test_wrong_settings(flags: list[str], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        ends(load(flags, {}), {})


@pytest.mark.parametrize(
    ("source", "sink", "flags", "says"),
    [
        ("etcd://h", "tega://g/b", ["--source-token", "n.s"], "setting source-token: .*for tega"),
        ("etcd://h", "tega://g/b", ["--sink-user", "n"], "setting sink-user: .*sink-token-file"),
        ("etcd://h", "tega://g/b", ["--source-password", "p"], "no use without source-user"),
        ("etcd://h", "tega://g/b", ["--source-ca", "f"], "is without TLS: write etcds://"),
        ("tega://h/a", "etcd://g/b", ["--source-cert", "f"], "is without TLS: write tegas://"),
        ("etcds://h", "tega://g/b", ["--source-ca", "/none"], "source: /none cannot be read"),
        ("etcd://h", "tegas://g/b", ["--sink-key", "f"], "of the sink: the key f is for no"),
        ("etcd://h", "tega://g/b", ["--sink-token", "secret"], "sink: the token is not right"),
        ("etcd://h", "tega://g/b", ["--sink-token-file", "/none"], "/none cannot be read"),
        ("tega://h/a", "tegas://h/a", [], "one is within the other"),
        ("etcd://h", "etcd://g", ["--sink-token", "a.b", "--sink-token-file", "f"], "give one of"),
        ("etcd://h", None, ["--preset", "titania", "--sink-ca", "f"], "setting sink-ca: a SQL"),
    ],
)
def test_what_does_not_go_with_an_address(
    source: str, sink: str | None, flags: list[str], says: str
) -> None:
    where = ["-s", source, *(["-k", sink] if sink else [])]
    with pytest.raises(Malformed, match=says) as caught:
        ends(load([*where, *flags], {}), {})
    assert "secret" not in str(caught.value)


def test_a_tree_takes_no_mapping(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("tables: {}")
    flags = ["-s", "etcd://h", "-k", "tega://h/a/", "-m", str(file)]
    with pytest.raises(Malformed, match="a tree is mirrored key by key"):
        ends(load(flags, {}), {})


def test_switches_and_password_files(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    variables = {"TEGA_SENTINEL_DRY_RUN": "True", "TEGA_SENTINEL_SINK_PASSWORD_FILE": str(file)}
    settings = load(["-n", "n"], variables)
    assert (settings.dry_run, settings.once, settings.name) == (True, False, "n")
    assert settings.sink_password == "secret"
    with pytest.raises(Malformed, match=r"variable TEGA_SENTINEL_ONCE\): 'x' is wrong; .*true or"):
        load([], {"TEGA_SENTINEL_ONCE": "x"})


def test_five_quick_tries_then_slower_ones() -> None:
    backoff = Backoff(Random(1))
    waits = [backoff.next() for _ in range(30)]
    assert waits[:5] == [0.1] * 5
    for number, wait in enumerate(waits[5:], 1):
        longest = min(30.0, 0.1 * 2**number)
        assert longest / 2 <= wait <= longest
    backoff.reset()
    assert backoff.next() == 0.1


EVENTS = [
    (Event("insert", "t", {"a": "x\n", "b": 1}, b"/k", 7), r"insert t a='x\n' b=1 (/k at 7)"),
    (
        Event("update", "t", {"a": 1}, b"/k\x1b", 7, {"c": (None, "é")}, drift=True),
        r"update t a=1: c None -> '\xe9' (/k\x1b at 7) [drift]",
    ),
    (Event("delete", "t", {"a": 1}, b"", 0), "delete t a=1"),
    (Event("reject", "", {}, b"/\xff", 7, reason="bad\x1b"), r"reject /\xff: bad\x1b (at 7)"),
    (Event("insert", "", {}, b"/k", 7), "insert /k (at 7)"),
]


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_lines_move_no_cursor(event: Event, text: str) -> None:
    assert line(event) == text


def test_reports() -> None:
    out = io.StringIO()
    TextReport(out).events([EVENTS[0][0]], would=True)
    TextReport(out).error("sink", "gone")
    assert out.getvalue() == f"would {EVENTS[0][1]}\nerror sink: gone\n"
    out = io.StringIO()
    report = JsonReport(out)
    report.events([EVENTS[1][0]])
    report.say("in step", revision=3)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first.pop("time") <= second.pop("time")
    assert first == {
        "event": "update", "table": "t", "row": {"a": 1}, "key": "/k\\x1b", "revision": 7,
        "changed": {"c": [None, "é"]}, "drift": True,
    }  # fmt: skip
    assert second == {"event": "note", "text": "in step", "revision": 3}


def batches(count: int, size: int = 10) -> AsyncIterator[Batch]:
    async def made() -> AsyncIterator[Batch]:
        for revision in range(1, count + 1):
            yield Batch(revision, tuple([Entry(b"k%d" % n, b"v", revision) for n in range(size)]))
        raise Away("gone")

    return made()


def test_a_slow_sink_holds_back_the_source() -> None:
    async def story() -> list[Any]:
        waiting = _Waiting()
        reader = asyncio.create_task(waiting.fill(batches(3000)))
        taken: list[int] = []
        most = 0
        while len(taken) < 2995:
            assert await waiting.wait(1)
            await asyncio.sleep(0)
            most = max(most, len(waiting._batches))
            portion = waiting.take(5)
            assert sum(len(batch.entries) for batch in portion) <= 1000
            taken += [batch.revision for batch in portion]
        with pytest.raises(Away, match="gone"):
            await waiting.wait(1)
        await reader
        assert most <= 1001
        return taken

    assert asyncio.run(story()) == list(range(6, 3001))


def test_a_large_revision_goes_whole() -> None:
    async def story() -> list[Batch]:
        waiting = _Waiting()
        await waiting.fill(batches(1, 5000))
        return waiting.take(0)

    (taken,) = asyncio.run(story())
    assert len(taken.entries) == 5000
