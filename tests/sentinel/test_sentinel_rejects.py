"""What does not fit is set aside, with its value and the reason; the rest goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from databases import Database, MariaDB
from etcdserver import Etcd
from mirrors import REJECTS, Mirror, text
from things import PREFIX, thing

LONG = "x" * (1 << 20)

#: By name: a value that makes no row, and a word of the reason.
BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "JSON"),
    "not JSON": ("{name: no}", "JSON"),
    "torn": (thing("torn")[:-1], "JSON"),
    "two values": (thing("a") + thing("b"), "JSON"),
    "not UTF-8": (b'{"name": "\xff\xfe"}', "UTF-8"),
    "a NaN": ('{"name": "n", "ratio": NaN}', "NaN|JSON"),
    "bytes": (bytes(range(256)), "JSON|UTF-8"),
    "a NUL byte": (b'{"name": "a\0b"}', "JSON"),
    "a NUL character": ('{"name": "a\\u0000b"}', "NUL"),
    "a lone surrogate": ('{"name": "a\\ud800b"}', "surrogate|JSON"),
    "twice": ('{"name": "a", "name": "b"}', "twice|name"),
    "deep": ("[" * 100_000 + "]" * 100_000, "deep|nest"),
    "a list": ("[]", "name"),
    "a text": ('"name"', "name"),
    "null": ("null", "name"),
    "no name": ('{"number": 1}', "name"),
    "name is null": ('{"name": null}', "name"),
    "name is a number": ('{"name": 5}', "name"),
    "name is true": ('{"name": true}', "name"),
    "name is an object": ('{"name": {"a": 1}}', "name"),
    "name too long": (thing("n" * 65), "name"),
    "kind too long": (thing("n", kind="😀" * 41), "kind"),
    "number is a text": ('{"name": "n", "number": "5"}', "number"),
    "number is a fraction": ('{"name": "n", "number": 5.5}', "number"),
    "number is true": ('{"name": "n", "number": true}', "number"),
    "number of 65 bits": (thing("n", 2**63), "number"),
    "number far below": (thing("n", -(2**63) - 1), "number"),
    "number of 5000 digits": ('{"name": "n", "number": 1' + "0" * 5000 + "}", "number|digits"),
    "ratio beyond": ('{"name": "n", "ratio": 1e400}', "ratio|number"),
    "up is 1": ('{"name": "n", "up": 1}', "up"),
    "seen is no time": (thing("n", seen="yesterday"), "seen"),
    "seen on 30 February": (thing("n", seen="2021-02-30T00:00:00Z"), "seen"),
    "injection": ("'); DROP TABLE thing; --", "JSON"),
    "injected number": ('{"name": "n", "number": "1); DROP TABLE thing; --"}', "number"),
    "a MiB": (LONG, "JSON"),
    "a MiB of name": (thing(LONG), "name"),
}  # fmt: skip


def rejects(mirror: Mirror) -> dict[str, tuple[bytes, str]]:
    """What is set aside: by key the raw value and the reason."""
    return {
        text(row["source_key"]): (bytes(row["value"]), row["reason"])
        for row in mirror.database.rows(REJECTS)
    }


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "followed"])
def test_bad_values_are_set_aside(mirror: Mirror, listed: bool) -> None:
    def put() -> None:
        for name, (value, _) in BAD.items():
            mirror.etcd.put(f"{PREFIX}lab/{name}", value)
        mirror.etcd.put(f"{PREFIX}lab/good", thing("good"))

    if listed:
        put()
    mirror.sentinel.start()
    if not listed:
        put()
    mirror.settle()
    assert set(mirror.found()[0]) == {"good"}
    found = rejects(mirror)
    for name, (value, reason) in BAD.items():
        raw, why = found[f"{PREFIX}lab/{name}"]
        assert raw == (value.encode() if isinstance(value, str) else value), name
        assert any(word.lower() in why.lower() for word in reason.split("|")), (name, why)
        assert len(why) < 1000, name
    assert not any(len(line) > 2000 for line in mirror.sentinel.lines), "a MiB in the log"
    mirror.check()


def test_large_and_unusual_values_that_do_fit(mirror: Mirror) -> None:
    mirror.sentinel.start()
    for number, value in enumerate([
        thing("most", 2**63 - 1, ratio=1e308, up=True), thing("least", -(2**63), ratio=-1e-300),
        thing("n" * 64, kind="k" * 40), thing("😀" * 64, kind="😀" * 40), thing("a MiB", note=LONG),
        thing("null", None, kind=None, ratio=None, up=None, seen=None, note=None),  # type: ignore[arg-type]
        thing("empty", kind="", note=""), thing("zero", 0, ratio=0, up=False),
        thing("more", unknown={"a": [1, {}]}), "\n\t " + thing("space") + "\n",
        thing("time", seen="1969-12-31T23:59:59Z"), thing("late", seen="9999-12-31T23:59:59Z"),
        json.dumps({"name": "é\u2028\u202e\x1b[31m"}),
    ]):  # fmt: skip
        mirror.etcd.put(f"{PREFIX}lab/{number}", value)
    mirror.settle()
    assert not mirror.expected()[1]
    assert not any("\x1b" in line for line in mirror.sentinel.lines), "it moves the terminal"
    mirror.check()


def test_a_key_is_bad_then_good_then_bad_then_gone(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.start()
    key = f"{PREFIX}lab/1"
    for value in ("{", thing("one"), "[]", "{}", thing("one", 2), thing("two"), "{"):
        mirror.etcd.put(key, value)
        mirror.settle()
    mirror.etcd.delete(key)
    mirror.settle()
    assert rejects(mirror) == {}
    mirror.check()


def test_a_bad_key_beside_good_ones_in_one_transaction(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.start()
    mirror.etcd.change({
        f"{PREFIX}lab/1": thing("one"), f"{PREFIX}lab/2": "{", f"{PREFIX}lab/3": thing("three"),
        f"{PREFIX}lab": thing("no"), f"{PREFIX}lab/4/5": thing("no"), f"{PREFIX}/": "x",
        f"{PREFIX}lab/": thing("no"),
    })  # fmt: skip
    mirror.settle()
    assert set(mirror.found()[0]) == {"one", "three"}
    assert set(rejects(mirror)) == {
        f"{PREFIX}lab/2", f"{PREFIX}lab", f"{PREFIX}lab/4/5", f"{PREFIX}/", f"{PREFIX}lab/",
    }  # fmt: skip
    mirror.check()


def test_many_bad_values_do_not_hold_up_a_good_one(one_mirror: Mirror) -> None:
    mirror = one_mirror
    for number in range(500):
        mirror.etcd.put(f"{PREFIX}bad/{number}", "{")
    mirror.sentinel.start()
    for number in range(100):
        mirror.etcd.put(f"{PREFIX}bad/more-{number}", "{")
    mirror.etcd.put(f"{PREFIX}lab/1", thing("good"))
    mirror.settle()
    assert len(rejects(mirror)) == 600
    mirror.check()


def test_a_key_that_is_no_text(mirror: Mirror) -> None:
    mirror.sentinel.start()
    mirror.etcd.put(PREFIX.encode() + b"lab/\xff\xfe", thing("no"))
    mirror.etcd.put(f"{PREFIX}lab/1", thing("yes"))
    mirror.sentinel.says("yes")
    (row,) = mirror.database.rows(REJECTS)
    assert bytes(row["source_key"]) == PREFIX.encode() + b"lab/\xff\xfe"
    assert "UTF-8" in row["reason"]
    mirror.etcd.delete_below(PREFIX)
    mirror.check()


# -- what only the database refuses ---------------------------------------------------------------


def test_the_database_refuses_a_row(mirror: Mirror) -> None:
    """A rule of the database that the mapping does not know."""
    mirror.prepare()
    mirror.database.refuse("thing", "number", 13)
    mirror.etcd.change({f"{PREFIX}lab/{one}": thing(f"t{one}", one) for one in range(20)})
    mirror.sentinel.start()
    found = rejects(mirror)
    assert set(found) == {f"{PREFIX}lab/13"}
    assert found[f"{PREFIX}lab/13"][1]
    assert len(mirror.database.rows("thing")) == 19
    # What was refused once may be taken another time, and the other way round.
    mirror.etcd.put(f"{PREFIX}lab/13", thing("t13", 14))
    mirror.etcd.put(f"{PREFIX}lab/5", thing("t5", 13))
    mirror.etcd.put(f"{PREFIX}lab/end", thing("end"))
    mirror.sentinel.says("end")
    assert set(rejects(mirror)) == {f"{PREFIX}lab/5"}
    names = {row["name"] for row in mirror.database.rows("thing")}
    assert names == {f"t{number}" for number in range(20) if number != 5} | {"end"}
    assert mirror.sentinel.end() == 0
    # And after a restart the same.
    mirror.sentinel.start()
    assert set(rejects(mirror)) == {f"{PREFIX}lab/5"}
    mirror.etcd.delete(f"{PREFIX}lab/5")
    mirror.check()


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
def test_a_table_that_is_there_cannot_hold_all_of_unicode(
    etcd: Etcd, one_mariadb: MariaDB, tmp_path: Path, charset: str
) -> None:
    one_mariadb.mend()
    database = one_mariadb.database(f"old_{charset}", charset)
    database.run(
        "CREATE TABLE thing (name VARCHAR(64) COLLATE $_bin PRIMARY KEY, site VARCHAR(64) COLLATE "
        "$_bin, kind VARCHAR(40) COLLATE $_bin, number BIGINT, ratio DOUBLE, up BOOLEAN, seen "
        "DATETIME, note LONGTEXT COLLATE $_bin) CHARACTER SET $".replace("$", charset)
    )
    mirror = Mirror(etcd, database, tmp_path)
    try:
        etcd.put(f"{PREFIX}lab/1", thing("plain"))
        etcd.put(f"{PREFIX}lab/2", thing("smile 😀"))
        mirror.sentinel.start()
        etcd.put(f"{PREFIX}lab/3", thing("note", note="a\U0001f600b"))
        etcd.put(f"{PREFIX}lab/4", thing("café"))
        mirror.sentinel.says("caf")
        names = {row["name"] for row in database.rows("thing")}
        assert names == {"plain", "café"}
        assert set(rejects(mirror)) == {f"{PREFIX}lab/2", f"{PREFIX}lab/3"}
        assert mirror.sentinel.end() == 0
    finally:
        mirror.close()


def test_a_table_that_is_there_compares_its_texts_as_old_ones_do(
    etcd: Etcd, one_mariadb: MariaDB, tmp_path: Path
) -> None:
    """Its key must tell texts apart, but for spaces at their end; the others need not."""
    one_mariadb.mend()
    database = one_mariadb.database("loose")
    database.run(
        "CREATE TABLE thing (name VARCHAR(64) PRIMARY KEY, site VARCHAR(64), kind VARCHAR(40), "
        "number BIGINT, ratio DOUBLE, up BOOLEAN, seen DATETIME, note LONGTEXT) "
        "COLLATE utf8mb4_general_ci"
    )
    mirror = Mirror(etcd, database, tmp_path)
    etcd.put(f"{PREFIX}lab/1", thing("one", kind="a"))
    try:
        done = mirror.sentinel.run("--once")
        assert done.status == 4
        assert "table thing: column name" in done.said
        assert "collation utf8mb4_nopad_bin" in done.said
        database.run("ALTER TABLE thing MODIFY name VARCHAR(64) COLLATE utf8mb4_bin")
        mirror.sentinel.arguments += ["--interval", "0.3"]
        mirror.sentinel.start()
        etcd.put(f"{PREFIX}lab/2", thing("one ", kind="b"))
        etcd.put(f"{PREFIX}lab/1", thing("one", kind="A"))
        mirror.sentinel.says("update.*'a' -> 'A'")
        time.sleep(1)
        assert [(row["name"], row["kind"]) for row in database.rows("thing")] == [("one", "A")]
        assert "spaces at its end" in rejects(mirror)[f"{PREFIX}lab/2"][1]
        assert "drift" not in mirror.sentinel.said
        assert mirror.sentinel.end() == 0
        mirror.verify()
    finally:
        mirror.close()


def test_a_new_table_holds_all_of_unicode_whatever_the_database_prefers(
    etcd: Etcd, one_mariadb: MariaDB, tmp_path: Path
) -> None:
    one_mariadb.mend()
    mirror = Mirror(etcd, one_mariadb.database("narrow", "latin1"), tmp_path)
    try:
        etcd.put(f"{PREFIX}lab/1", thing("smile 😀", note="日本"))
        mirror.sentinel.start()
        mirror.check()
    finally:
        mirror.close()


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("name VARCHAR(64) PRIMARY KEY", "site"),
        ("name VARCHAR(64), site VARCHAR(64), kind VARCHAR(40), number BIGINT, ratio DOUBLE "
         "PRECISION, up BOOLEAN, seen TIMESTAMP, note TEXT", "primary key"),
        ("name VARCHAR(9) PRIMARY KEY, site VARCHAR(64), kind VARCHAR(40), number BIGINT, ratio "
         "DOUBLE PRECISION, up BOOLEAN, seen TIMESTAMP, note TEXT", "name"),
        ("name INTEGER PRIMARY KEY, site VARCHAR(64), kind VARCHAR(40), number BIGINT, ratio "
         "DOUBLE PRECISION, up BOOLEAN, seen TIMESTAMP, note TEXT", "name"),
    ],
    ids=["no column", "no key", "too short", "another type"],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_by_name(
    etcd: Etcd, postgresql: Database, tmp_path: Path, columns: str, reason: str
) -> None:
    postgresql.run(f"CREATE TABLE thing ({columns})")
    mirror = Mirror(etcd, postgresql, tmp_path)
    done = mirror.sentinel.run("--once")
    assert done.status != 0
    assert "thing" in done.said
    assert reason in done.said


def test_a_table_with_more_columns_keeps_them(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.prepare()
    mirror.database.run("ALTER TABLE thing ADD COLUMN remark VARCHAR(20) DEFAULT 'mine'")
    mirror.etcd.put(f"{PREFIX}lab/1", thing("one"))
    mirror.sentinel.start()
    mirror.database.run("UPDATE thing SET remark = 'changed'")
    mirror.etcd.put(f"{PREFIX}lab/1", thing("one", 2))
    mirror.sentinel.says(r"(?i)update.*one")
    (row,) = mirror.database.rows("thing")
    assert (row["number"], row["remark"]) == (2, "changed")
    assert mirror.sentinel.end() == 0
    mirror.verify()
