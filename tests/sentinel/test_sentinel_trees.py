"""Trees: tega as a source of tables, and etcd and tega as mirrors of each other."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import things
from databases import Database
from etcdserver import Etcd
from mirrors import REJECTS, text
from processes import until
from sentinels import Sentinel
from tegaserver import TegaServer
from things import Row


def a_thing(name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "number": number, **more}


class TegaMirror:
    """Things of a tega server, mirrored into a database."""

    def __init__(self, served: TegaServer, database: Database, directory: Path) -> None:
        self.served = served
        self.database = database
        (directory / "things.yaml").write_text(things.TEGA_MAPPING)
        self.sentinel = Sentinel([
            "--mapping", str(directory / "things.yaml"), "--source",
            f"tega://127.0.0.1:{served.port}", "--sink", database.url,
        ])  # fmt: skip

    def expected(self) -> tuple[dict[str, Row], set[str]]:
        """What the table must be, where no two nodes give one row."""
        made: dict[str, Row] = {}
        rejected = set()
        for site, below in (self.served.get("things") or {}).items():
            for key, value in below.items() if isinstance(below, dict) else ():
                try:
                    one = things.row(site, json.dumps(value).encode())
                except things.Bad:
                    rejected.add(f"things.{site}.{key}")
                else:
                    assert one["name"] not in made
                    made[one["name"]] = one
        return made, rejected

    def found(self) -> tuple[dict[str, Row], set[str]]:
        rows = [things.plain(row) for row in self.database.rows("thing")]
        rejected = {text(row["source_key"]) for row in self.database.rows(REJECTS)}
        return {row["name"]: row for row in rows}, rejected

    def settle(self) -> None:
        expected = self.expected()
        try:
            until(lambda: self.found() == expected, "the table equals the tree")
        except AssertionError:
            assert self.found() == expected, self.sentinel.said[-2000:]

    def check(self) -> None:
        self.settle()
        assert self.sentinel.end() == 0, self.sentinel.said[-2000:]
        assert self.found() == self.expected()
        assert self.sentinel.run("--verify").status == 0


@contextmanager
def mirrored(served: TegaServer, database: Database, directory: Path) -> Iterator[TegaMirror]:
    made = TegaMirror(served, database, directory)
    try:
        yield made
    finally:
        if made.sentinel.alive:
            made.sentinel.kill()
    made.sentinel.check_words()


@pytest.fixture
def mirror(served: TegaServer, database: Database, tmp_path: Path) -> Iterator[TegaMirror]:
    """Things, from tega into each kind of database; nothing runs yet."""
    with mirrored(served, database, tmp_path) as made:
        yield made


@pytest.fixture
def one_mirror(served: TegaServer, one_database: Database, tmp_path: Path) -> Iterator[TegaMirror]:
    """The same where the kind does not matter."""
    with mirrored(served, one_database, tmp_path) as made:
        yield made


# -- from tega into tables ------------------------------------------------------------------------


def test_rows_come_change_and_go(mirror: TegaMirror) -> None:
    served = mirror.served
    served.put(("things", "lab", "1"), a_thing("one"))
    mirror.sentinel.start()
    assert set(mirror.found()[0]) == {"one"}
    served.put(("things", "lab", "2"), a_thing("two", 2, up=True, note="a\n😀"))
    mirror.settle()
    # Inside a row, and above several.
    served.put(("things", "lab", "2", "number"), 3)
    mirror.settle()
    served.delete(("things", "lab", "2", "note"))
    mirror.settle()
    served.put(("things", "field"), {str(n): a_thing(f"f{n}", n) for n in range(5)})
    mirror.settle()
    served.put(("things", "field"), {str(n): a_thing(f"f{n}", n * 2) for n in range(3, 8)})
    mirror.settle()
    assert set(mirror.found()[0]) == {"one", "two", "f3", "f4", "f5", "f6", "f7"}
    served.change({("things", "lab", "1"): None, ("things", "lab", "3"): a_thing("one", 9)})
    mirror.settle()
    served.put(("things",), {"new": {"1": a_thing("last")}})
    mirror.settle()
    served.delete(("things",))
    mirror.settle()
    assert mirror.found() == ({}, set())
    served.put(("things", "lab", "1"), a_thing("again"))
    mirror.check()


def test_bad_values_are_set_aside(one_mirror: TegaMirror) -> None:
    mirror = one_mirror
    mirror.sentinel.start()
    for key, value in {
        "leaf": 5, "list": [1], "no name": {"number": 1}, "long": a_thing("x" * 65),
        "wide": a_thing("n", 2**63), "good": a_thing("good"),
    }.items():  # fmt: skip
        mirror.served.put(("things", "lab", key), value)
    until(lambda: len(mirror.database.rows(REJECTS)) == 5, "five are set aside")
    until(lambda: set(mirror.found()[0]) == {"good"}, "the good one is there")
    mirror.served.put(("things", "lab", "no name", "name"), "named")
    until(lambda: set(mirror.found()[0]) == {"good", "named"}, "it is taken now")
    until(lambda: len(mirror.database.rows(REJECTS)) == 4, "it is set aside no more")


def test_a_row_of_several_nodes_is_of_the_newest(mirror: TegaMirror) -> None:
    """Also after full passes, which tell nothing of what is newer."""
    mirror.sentinel.arguments += ["--interval", "0.2"]

    def shows(site: str | None) -> None:
        wanted = [] if site is None else [site]
        until(lambda: [row["site"] for row in mirror.database.rows("thing")] == wanted, str(site))

    mirror.served.put(("things", "a", "1"), a_thing("one"))
    mirror.sentinel.start()
    for site in ("b", "c", "a"):
        mirror.served.put(("things", site, "1"), a_thing("one", 1))
        shows(site)
    mirror.database.audit("thing", "name")
    time.sleep(1)
    assert mirror.database.audited("thing") == []
    mirror.sentinel.kill()
    mirror.sentinel.start()
    shows("a")
    assert mirror.database.audited("thing") == []
    mirror.served.delete(("things", "a"))
    until(lambda: mirror.database.rows("thing")[0]["site"] in ("b", "c"), "another one shows")
    mirror.served.delete(("things", "b"))
    shows("c")
    mirror.served.delete(("things", "c"))
    shows(None)


def test_keys_that_need_quotes(mirror: TegaMirror) -> None:
    mirror.sentinel.start()
    for number, key in enumerate(["10.0.0.0/24", 'a"b', "a b", "😀", "%s", "\\"]):
        mirror.served.put(("things", key, key), a_thing(f"n{number}"))
    mirror.settle()
    assert {row["site"] for row in mirror.found()[0].values()} >= {"10.0.0.0/24", "😀", 'a"b'}
    mirror.check()


def test_the_server_is_killed_and_the_sentinel_too(one_mirror: TegaMirror) -> None:
    mirror = one_mirror
    dice = random.Random(5)
    mirror.served.put(("things", "lab", "0"), a_thing("t0"))
    assert mirror.sentinel.run("--once").status == 0
    mirror.database.audit("thing", "name")
    mirror.sentinel.start()
    for number in range(1, 61):
        mirror.served.put(("things", "lab", str(number)), a_thing(f"t{number}", number))
        if number % 3 == 0:
            mirror.served.delete(("things", "lab", str(number - 2)))
        if number % 6 == 0:
            mirror.served.restart()
        if number % 10 == 0:
            mirror.sentinel.kill()
            time.sleep(dice.uniform(0, 0.1))
            mirror.sentinel.launch()
            time.sleep(dice.uniform(0, 1.2))
    mirror.check()
    done: dict[str, list[str]] = {}
    for op, name in mirror.database.audited("thing"):
        done.setdefault(name, []).append(op)
    # One that came and went unseen may take no write.
    expected: dict[str, list[list[str]]] = {
        f"t{number}": [["insert"]] if number % 3 != 1 else [["insert", "delete"], []]
        for number in range(1, 61)
    }
    for name, ways in expected.items():
        assert done.pop(name, []) in ways, name
    assert done == {}


@pytest.mark.parametrize("running", [True, False], ids=["running", "away"])
def test_the_tree_is_cleared(one_mirror: TegaMirror, running: bool) -> None:
    """A new life begins, and its numbers begin again."""
    mirror = one_mirror
    for number in range(20):
        mirror.served.put(("things", "lab", str(number)), a_thing(f"t{number}"))
    mirror.sentinel.start()
    if not running:
        mirror.sentinel.kill()
    mirror.served.clear()
    for number in range(30):
        mirror.served.put(("things", "new", "1"), a_thing("new", number))
    if not running:
        mirror.sentinel.start()
    mirror.settle()
    assert set(mirror.found()[0]) == {"new"}
    mirror.check()


def test_the_history_of_the_server_is_too_short(tmp_path: Path, sqlite: Database) -> None:
    """It keeps 5 commits for whoever comes back: the sentinel lists."""
    (tmp_path / "short").mkdir()
    served = TegaServer(tmp_path / "short", "--resume", "5")
    served.start()
    try:
        with mirrored(served, sqlite, tmp_path) as mirror:
            lists_again(mirror, served)
    finally:
        served.end()


def lists_again(mirror: TegaMirror, served: TegaServer) -> None:
    """Whether it lists once the history is too short."""
    mirror.sentinel.start()
    served.put(("things", "lab", "old"), a_thing("old"))
    mirror.settle()
    mirror.sentinel.kill()
    for number in range(50):
        served.put(("things", "lab", str(number)), a_thing(f"t{number}"))
    served.delete(("things", "lab", "old"))
    mirror.sentinel.start()
    mirror.check()
    assert "old" not in mirror.found()[0]


# -- trees into trees -----------------------------------------------------------------------------


@pytest.fixture
def run() -> Iterator[Any]:
    started: list[Sentinel] = []

    def start(*arguments: str) -> Sentinel:
        started.append(Sentinel(arguments))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        if one.alive:
            one.kill()
        one.check_words()


def test_etcd_into_tega(etcd: Etcd, served: TegaServer, run: Any) -> None:
    etcd.put("/net/r1/eth0", '{"mtu": 1500}')
    sentinel = run("--source", etcd.url("/net/"), "--sink", served.url("copy"))

    def served_values() -> list[Any]:
        return _leaves(served.get("copy"))

    until(lambda: "1500" in json.dumps(served.get("copy")), "it is mirrored")
    etcd.put("/net/r1/eth1", '{"mtu": 9000}')
    until(lambda: "9000" in json.dumps(served.get("copy")), "a change is mirrored")
    sentinel.kill()
    etcd.delete("/net/r1/eth0")
    etcd.put("/net/r1/eth1", '{"mtu": 9001}')
    etcd.compact()
    sentinel.start()
    until(lambda: set(served_values()) == {9001}, "what happened meanwhile is mirrored")
    served.restart()
    etcd.put("/net/r2/eth0", '{"mtu": 1}')
    until(lambda: set(served_values()) == {9001, 1}, "after a restart too")
    # Drift is mended by a full pass.
    assert sentinel.run("--verify").status == 0
    served.delete(("copy",))
    assert sentinel.run("--verify").status == 1
    assert sentinel.end() == 0
    assert sentinel.run("--once").status == 0
    assert sentinel.run("--verify").status == 0
    assert set(served_values()) == {9001, 1}


def _leaves(found: Any) -> list[Any]:
    if not isinstance(found, dict):
        return [] if found is None else [found]
    return [leaf for below in found.values() for leaf in _leaves(below)]


def test_tega_into_etcd(etcd: Etcd, served: TegaServer, run: Any) -> None:
    served.put(("net", "r1", "eth0"), {"mtu": 1500, "up": True})
    sentinel = run("--source", served.url("net"), "--sink", etcd.url("/copy/"))

    def values() -> str:
        return " ".join(value.decode() for value, _ in etcd.read("/copy/").values())

    until(lambda: "1500" in values(), "it is mirrored")
    served.put(("net", "r1", "eth0", "mtu"), 9000)
    until(lambda: "9000" in values() and "1500" not in values(), "a change is mirrored")
    sentinel.kill()
    served.put(("net", "r2"), {"eth0": {"mtu": 7777}})
    served.delete(("net", "r1"))
    etcd.put("/copy/foreign", "1")
    sentinel.start()
    until(lambda: "7777" in values() and "9000" not in values(), "what happened meanwhile")
    etcd.restart()
    served.clear()
    served.put(("net", "r3"), {"eth0": {"mtu": 4444}})
    until(lambda: "4444" in values() and "7777" not in values(), "a new life is mirrored")
    assert sentinel.run("--verify").status in (0, 1)
    assert sentinel.end() == 0
    assert sentinel.run("--once").status == 0
    assert sentinel.run("--verify").status == 0
    assert not any(key == "/copy/foreign" for key in etcd.read("/copy/"))
    before = etcd.read("/copy/")
    assert sentinel.run("--dry-run").status == 0
    assert etcd.read("/copy/") == before


def test_tega_to_etcd_and_back_is_the_same_tree(
    etcd: Etcd, served: TegaServer, run: Any, tmp_path: Path
) -> None:
    tree = {
        "a": {"b": 1, "c": [1, {"d": None}], "10.0.0.0/24": "x"}, "e": {"f": {"g": True}},
        "h": "😀", "i": 0.5, "j": "",
    }  # fmt: skip
    served.put(("net",), tree)
    (tmp_path / "back").mkdir()
    back = TegaServer(tmp_path / "back")
    back.start()
    try:
        run("--source", served.url("net"), "--sink", etcd.url("/copy/"))
        run("--source", etcd.url("/copy/"), "--sink", back.url("net"))
        until(lambda: back.get("net") == tree, f"back again: {etcd.read('/copy/')}")
        served.put(("net", "a", "b"), 2)
        served.delete(("net", "e"))
        until(lambda: back.get("net") == served.get("net"), "changes come back too")
    finally:
        back.end()
