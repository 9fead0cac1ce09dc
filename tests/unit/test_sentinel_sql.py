"""The SQL sink of tega-sentinel, on SQLite: rows, keys and checkpoint, whatever comes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from tega.sentinel.mappingfile import load
from tega.sentinel.sink import Again, Event, Fenced, SinkError, Unfit
from tega.sentinel.source import Batch, Entry, Position
from tega.sentinel.sql import dialect as dialects
from tega.sentinel.sql.schema import targets
from tega.sentinel.sql.sink import SqlSink

T = TypeVar("T")

MAPPING = """
tables:
  thing:
    keys: /thing/{id}
    primary_key: name
    columns: {name: string(8), size: integer}
  part:
    keys: /part/{id}
    primary_key: [name, number]
    delete: {mark: gone}
    columns: {name: string(8), number: integer, note: text}
"""
PREFIXES = [b"/part/", b"/thing/"]


def sink(url: str, name: str = "s", mapping: str = MAPPING) -> SqlSink:
    return SqlSink(sa.make_url(url), load(mapping, "m"), name, "etcd://x:1", 30)


def do(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def thing(key: str, revision: int, **value: Any) -> Entry:
    return Entry(f"/thing/{key}".encode(), json.dumps(value).encode(), revision)


def batch(*entries: Entry) -> Batch:
    return Batch(entries[0].revision, entries)


async def passed(
    mirror: SqlSink, entries: Sequence[Entry], revision: int, prefixes: Sequence[bytes] = PREFIXES
) -> list[Event]:
    """A full pass, as the engine makes it."""
    while True:
        made = mirror.full_pass(prefixes, Position("life", revision))
        try:
            for start in range(0, len(entries), 2):
                await made.take(entries[start : start + 2])
            return [*await made.finish(), *await made.commit()]
        except Again:
            continue
        finally:
            await made.close()


async def compared(mirror: SqlSink, entries: Sequence[Entry]) -> list[Event]:
    made = mirror.comparison(PREFIXES, Position("life", 0))
    await made.take(entries)
    return await made.finish()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'x.db'}"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def rows(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def run(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


KEYS = st.sampled_from([b"/thing/a", b"/thing/b", b"/thing/c", b"/part/a", b"/part/b"])
JSON = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", "X", "x ", "é", "';DROP--", 7, "too long!"]),
        "number": st.sampled_from([1, 2]),
        "size": st.sampled_from([None, 1, 2, -(1 << 63), "1"]),
        "note": st.sampled_from(["", "n" * 99]),
    },
).map(lambda value: json.dumps(value).encode()) | st.just(b"{")
CHANGES = st.lists(st.tuples(KEYS, st.none() | JSON), min_size=1, max_size=4)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["apply", "apply", "pass", "lost", "restart", "meddle"]),
        st.lists(CHANGES, min_size=1, max_size=3),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_tables_are_what_the_keys_say(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[Any]]]
) -> None:
    """By changes, or by passes after changes that were never told, or after somebody's meddling."""
    place = tmp_path_factory.mktemp("sql") / "x.db"
    engine = sa.create_engine(f"sqlite:///{place}")

    async def story() -> None:
        mirror = sink(f"sqlite:///{place}")
        await mirror.open()
        await passed(mirror, [], 1)
        source: dict[bytes, Entry] = {}
        revision = 1
        for kind, batches in steps:
            made = []
            for changes in batches:
                revision += 1
                entries = {}
                for key, value in changes:
                    if value is not None or key in source:
                        entries[key] = Entry(key, value, revision)
                for entry in entries.values():
                    source.pop(entry.key, None)
                    if entry.value is not None:
                        source[entry.key] = entry
                made.append(Batch(revision, tuple(entries.values())))
            position = Position("life", revision)
            if kind == "restart":
                await mirror.close()
                mirror = sink(f"sqlite:///{place}")
                assert await mirror.open() is not None
            if kind == "meddle":
                run(
                    engine,
                    "UPDATE thing SET size = 77", "DELETE FROM part WHERE name = 'x'",
                    "INSERT INTO thing VALUES ('alien', 1)",
                )  # fmt: skip
            if kind in ("apply", "restart"):
                await mirror.apply(made, position)
            else:
                await passed(mirror, sorted(source.values()), revision)
            assert await compared(mirror, list(source.values())) == []
            known = {e.key: e async for piece in mirror.known() for e in piece}
            assert known == source
            assert await passed(mirror, sorted(source.values()), revision) == []
        await mirror.close()

    try:
        do(story())
    finally:
        engine.dispose()


def test_each_change_is_written_once_and_in_order(url: str, engine: sa.Engine) -> None:
    async def story() -> list[Event]:
        mirror = sink(url)
        await mirror.open()
        await passed(mirror, [], 1)
        run(
            engine,
            "CREATE TABLE audit (what TEXT, size INTEGER)",
            "CREATE TRIGGER i AFTER INSERT ON thing BEGIN "
            "INSERT INTO audit VALUES ('i', new.size); END",
            "CREATE TRIGGER u AFTER UPDATE ON thing BEGIN "
            "INSERT INTO audit VALUES ('u', new.size); END",
            "CREATE TRIGGER d AFTER DELETE ON thing BEGIN "
            "INSERT INTO audit VALUES ('d', old.size); END",
        )
        batches = [batch(thing("a", n, name="x", size=n)) for n in range(2, 9)]
        batches.append(Batch(9, (Entry(b"/thing/a", None, 9),)))
        batches.append(batch(thing("a", 10, name="x", size=10)))
        done = await mirror.apply(batches, Position("life", 10))
        await mirror.close()
        return done

    kinds = ["insert", *["update"] * 6, "delete", "insert"]
    assert [event.kind for event in do(story())] == kinds
    expected = [("i", 2), *[("u", n) for n in range(3, 9)], ("d", 8), ("i", 10)]
    assert rows(engine, "SELECT * FROM audit") == expected
    assert rows(engine, "SELECT revision FROM tega_sentinel") == [(10,)]


def test_the_newest_of_several_keys_gives_the_row(url: str, engine: sa.Engine) -> None:
    async def story() -> list[list[tuple[Any, ...]]]:
        mirror = sink(url)
        await mirror.open()
        await passed(mirror, [], 1)
        seen = []
        for made in (
            batch(thing("a", 2, name="x", size=1)),
            batch(thing("b", 3, name="x", size=2)),
            batch(thing("a", 4, name="x", size=3)),
            Batch(5, (Entry(b"/thing/a", None, 5),)),
            batch(thing("b", 6, name="y", size=2)),
            batch(thing("b", 7, name=7)),
            batch(thing("a", 8, name="x", size=1), thing("b", 8, name="x", size=2)),
        ):
            await mirror.apply([made], Position("life", made.revision))
            seen.append(rows(engine, "SELECT * FROM thing"))
        await mirror.close()
        return seen

    assert do(story()) == [
        [("x", 1)], [("x", 2)], [("x", 3)], [("x", 2)], [("y", 2)], [], [("x", 2)],
    ]  # fmt: skip


def test_a_row_that_the_database_refuses_is_set_aside(url: str, engine: sa.Engine) -> None:
    run(
        engine,
        "CREATE TABLE thing (name VARCHAR(8) PRIMARY KEY, size INTEGER CHECK (size < 100), "
        "extra TEXT DEFAULT 'mine')",
    )

    async def story() -> tuple[list[Event], ...]:
        mirror = sink(url)
        await mirror.open()
        listed = [thing("a", 1, name="a", size=1), thing("b", 1, name="b", size=100)]
        first = await passed(mirror, listed, 1)
        several = [
            batch(thing("c", 2, name="c", size=2)),
            batch(thing("d", 3, name="d", size=200), thing("e", 3, name="e", size=3)),
            batch(thing("d", 4, name="d", size=4)),
        ]
        second = await mirror.apply(several, Position("life", 4))
        now = [*listed, thing("c", 2, name="c", size=2), thing("d", 4, name="d", size=4),
               thing("e", 3, name="e", size=3)]
        assert await compared(mirror, now) == []
        third = await passed(mirror, now, 4)
        await mirror.close()
        return first, second, third

    first, second, third = do(story())
    assert sorted([(event.kind, event.key) for event in first]) == [
        ("insert", b"/thing/a"), ("reject", b"/thing/b"),
    ]  # fmt: skip
    assert "CHECK constraint failed" in next(e.reason for e in first if e.kind == "reject")
    assert [(event.kind, event.key) for event in second] == [
        ("insert", b"/thing/c"), ("reject", b"/thing/d"), ("insert", b"/thing/e"),
        ("insert", b"/thing/d"),
    ]  # fmt: skip
    assert third == []
    kept = rows(engine, "SELECT name, size, extra FROM thing ORDER BY name")
    assert kept == [(n, s, "mine") for n, s in (("a", 1), ("c", 2), ("d", 4), ("e", 3))]
    assert rows(engine, "SELECT source_key FROM tega_sentinel_rejects") == [(b"/thing/b",)]


def test_rows_that_were_there_before_are_taken_over(url: str, engine: sa.Engine) -> None:
    run(
        engine,
        "CREATE TABLE thing (name VARCHAR(8) PRIMARY KEY, size INTEGER)",
        "INSERT INTO thing VALUES ('same', 1), ('other', 1), ('old', 1)",
    )

    async def story() -> list[Event]:
        mirror = sink(url)
        assert await mirror.open() is None
        listed = [thing("a", 1, name="same", size=1), thing("b", 1, name="other", size=2)]
        done = await passed(mirror, listed, 1)
        await mirror.close()
        return done

    done = do(story())
    assert [(event.kind, event.row, event.drift) for event in done] == [
        ("update", {"name": "other"}, False), ("delete", {"name": "old"}, False),
    ]  # fmt: skip
    assert rows(engine, "SELECT * FROM thing ORDER BY name") == [("other", 2), ("same", 1)]


def test_drift_is_told_and_mended(url: str, engine: sa.Engine) -> None:
    listed = [thing("a", 1, name="a", size=1), thing("b", 1, name="b", size=2)]

    async def story() -> list[Event]:
        mirror = sink(url)
        await mirror.open()
        await passed(mirror, listed, 1)
        run(
            engine, "UPDATE thing SET size = 9 WHERE name = 'a'",
            "DELETE FROM thing WHERE name = 'b'", "INSERT INTO thing VALUES ('c', 3)",
        )  # fmt: skip
        assert len(await compared(mirror, listed)) == 3
        done = await passed(mirror, listed, 1, [b"/thing/"])
        await mirror.close()
        return done

    done = do(story())
    assert all(event.drift for event in done)
    assert [(event.kind, event.row["name"]) for event in done] == [
        ("update", "a"), ("delete", "c"), ("insert", "b"),
    ]  # fmt: skip
    assert done[0].changed == {"size": (9, 1)}


def test_a_marked_row_comes_back(url: str, engine: sa.Engine) -> None:
    entry = Entry(b"/part/a", b'{"name": "x", "number": 1, "note": "n"}', 1)

    async def story() -> None:
        mirror = sink(url)
        await mirror.open()
        await passed(mirror, [entry], 1)
        await mirror.apply([Batch(2, (Entry(entry.key, None, 2),))], Position("life", 2))
        assert rows(engine, "SELECT * FROM part") == [("x", 1, "n", 1)]
        assert await compared(mirror, []) == []
        assert await passed(mirror, [], 2) == []
        await mirror.apply([batch(entry._replace(revision=3))], Position("life", 3))
        assert rows(engine, "SELECT * FROM part") == [("x", 1, "n", 0)]
        await mirror.close()

    do(story())


def test_the_second_of_a_name_takes_over(url: str, engine: sa.Engine) -> None:
    async def story() -> None:
        first, second, other = sink(url), sink(url), sink(url, "other")
        await first.open()
        await passed(first, [], 1)
        await other.open()
        await passed(other, [thing("a", 1, name="a", size=1)], 1)
        assert await second.open() == Position("life", 1)
        with pytest.raises(Fenced, match="has taken over the checkpoint 's'"):
            await first.apply([batch(thing("a", 2, name="a", size=2))], Position("life", 2))
        with pytest.raises(Fenced):
            await first.open()
        await second.apply([batch(thing("a", 2, name="a", size=3))], Position("life", 2))
        assert rows(engine, "SELECT * FROM thing") == [("a", 3)]
        assert await other.open() == Position("life", 1)
        for one in (first, second, other):
            await one.close()

    do(story())


def test_another_mapping_makes_all_anew(url: str, engine: sa.Engine) -> None:
    listed = [thing("a", 1, name="a", size=1), Entry(b"/part/a", b'{"name":"x","number":1}', 1)]

    async def story() -> None:
        mirror = sink(url)
        await mirror.open()
        await passed(mirror, listed, 1)
        await mirror.close()
        swapped = (
            "tables:\n  thing: {keys: '/part/{id}', primary_key: name, "
            "columns: {name: string(8), size: {type: integer, from: number}}}\n"
        )
        mirror = sink(url, mapping=swapped)
        assert await mirror.open() is None
        await passed(mirror, listed[1:], 1, [b"/part/"])
        assert [e.key async for piece in mirror.known() for e in piece] == [b"/part/a"]
        await mirror.close()

    do(story())
    assert rows(engine, "SELECT * FROM thing") == [("x", 1)]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("name VARCHAR(8) PRIMARY KEY", "table thing has no column size: add it"),
        ("name VARCHAR(8), size INTEGER", r"neither primary key nor unique constraint of \(name"),
        ("name VARCHAR(8) PRIMARY KEY, size INTEGER NOT NULL", "cannot be NULL, but the mapping"),
        ("name VARCHAR(8) PRIMARY KEY, size INTEGER, x TEXT NOT NULL", "column x must have"),
    ],
)
def test_a_table_that_does_not_match_is_refused(
    url: str, engine: sa.Engine, made: str, says: str
) -> None:
    run(engine, f"CREATE TABLE thing ({made})")

    async def story() -> None:
        mirror = sink(url)
        try:
            await mirror.open()
        finally:
            await mirror.close()

    with pytest.raises(Unfit, match=says):
        do(story())


def test_databases_without_upsert_are_written_too(engine: sa.Engine) -> None:
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("a", sa.Integer, primary_key=True),
        sa.Column("b", sa.Integer, primary_key=True), sa.Column("c", sa.Text),
    )  # fmt: skip
    table.create(engine)
    with engine.begin() as connection:
        for text in ("x", "y"):
            made = [{"a": 1, "b": n, "c": text} for n in (1, 2)]
            dialects.write(connection, table, ("a", "b"), made, one_by_one=True)
        dialects.write(connection, table, ("a", "b"), [{"a": 1, "b": 3, "c": "z"}], True)
    assert rows(engine, "SELECT * FROM t ORDER BY b") == [(1, 1, "y"), (1, 2, "y"), (1, 3, "z")]


def test_what_was_done_is_known_though_its_answer_is_lost(
    url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(connection: Any) -> None:
        connection.commit()
        raise sqlite3.OperationalError("gone")

    async def story() -> None:
        mirror = sink(url)
        await mirror.open()
        await passed(mirror, [], 1)
        with monkeypatch.context() as patched:
            patched.setattr(mirror._database._engine.dialect, "do_commit", commit)
            with pytest.raises(SinkError, match="gone"):
                await mirror.apply([batch(thing("a", 2, name="a"))], Position("life", 2))
        assert await mirror.open() == Position("life", 2)
        assert [(one.kind, one.row) for one in mirror.unanswered] == [("insert", {"name": "a"})]
        await mirror.close()

    do(story())
    assert rows(engine, "SELECT name FROM thing") == [("a",)]


@pytest.mark.parametrize(
    ("charset", "collation", "key", "says"),
    [
        ("utf8mb4", "utf8mb4_nopad_bin", True, None),
        ("utf8mb4", "utf8mb4_0900_bin", True, None),
        ("latin1", "latin1_bin", True, None),
        ("utf8mb4", "utf8mb4_0900_ai_ci", True, "may be the same under utf8mb4_0900_ai_ci"),
        ("utf8mb4", "utf8mb4_0900_as_cs", True, "may be the same under utf8mb4_0900_as_cs"),
        ("utf8mb4", "utf8mb4_general_ci", False, None),
        ("ucs2", "ucs2_bin", False, "its character set is ucs2: change it to utf8mb4"),
    ],
)
def test_collations(charset: str, collation: str, key: bool, says: str | None) -> None:
    found = dialects.Charset(charset, collation)
    for dialect in (mysql.dialect(), mysql.dialect(is_mariadb=True)):
        problem = found.problem(dialect, key)
        assert (problem is None) == (says is None)
        if problem is not None and says is not None:
            assert says in problem


def test_what_mysql_gets_is_not_what_mariadb_gets() -> None:
    for dialect, collation in (
        (mysql.dialect(), "utf8mb4_0900_bin"),
        (mysql.dialect(is_mariadb=True), "utf8mb4_nopad_bin"),
    ):
        made = str(CreateTable(targets(load(MAPPING, "m"), dialect)["thing"].sql)
                   .compile(dialect=dialect))  # fmt: skip
        assert f"name VARCHAR(8) CHARACTER SET utf8mb4 COLLATE {collation}" in made
        assert not dialects.Charset("utf8mb4", collation).pads
    assert dialects.Charset("utf8mb4", "utf8mb4_bin").pads
