"""Whoever is away, for however long: afterwards the table equals the source."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from databases import SERVERS, SQLite, on
from mirrors import Mirror
from processes import until
from things import PREFIX, thing


def fill(mirror: Mirror, count: int) -> None:
    for number in range(count):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(f"t{number}", number))


# -- the sentinel is away -------------------------------------------------------------------------


def test_what_happened_while_it_was_away(one_mirror: Mirror) -> None:
    much_happens_while_away(one_mirror, compacted=False)


@on("mariadb")
def test_what_happened_while_it_was_away_and_the_history_is_gone(mirror: Mirror) -> None:
    much_happens_while_away(mirror, compacted=True)


def much_happens_while_away(mirror: Mirror, compacted: bool) -> None:
    fill(mirror, 30)
    mirror.prepare()
    mirror.sentinel.start()
    mirror.sentinel.kill()
    for number in range(10):
        mirror.etcd.delete(f"{PREFIX}lab/{number}")
        mirror.etcd.put(f"{PREFIX}lab/{number + 10}", thing(f"t{number + 10}", -1))
        mirror.etcd.put(f"{PREFIX}new/{number}", thing(f"n{number}"))
        # Come and gone: there may be a row for a while, but none at the end.
        mirror.etcd.put(f"{PREFIX}brief/{number}", thing(f"b{number}"))
        mirror.etcd.delete(f"{PREFIX}brief/{number}")
    if compacted:
        mirror.etcd.compact()
    mirror.sentinel.start()
    assert mirror.found() == mirror.expected(), "in step when it says so"
    mirror.check()
    lasting = Counter(op for op, name in mirror.audited() if not name.startswith("b"))
    assert lasting == {"insert": 10, "update": 10, "delete": 10}


def test_killed_at_each_line_that_it_prints(one_mirror: Mirror) -> None:
    """Changes wait for it; it is killed at its first line, at its second line, and so on."""
    mirror = one_mirror
    mirror.prepare()
    gone = set()
    for place in range(9):
        for one in range(4):
            mirror.etcd.put(f"{PREFIX}lab/t{place}-{one}", thing(f"t{place}-{one}"))
        if place >= 2:
            gone.add(f"t{place - 2}-1")
            mirror.etcd.delete(f"{PREFIX}lab/t{place - 2}-1")
        heard = 0

        def listen(line: str, place: int = place) -> None:
            nonlocal heard
            heard += 1
            if heard > place:
                mirror.sentinel.stop_at_once()

        mirror.sentinel.heard = listen
        mirror.sentinel.launch()
        until(
            lambda: not mirror.sentinel.alive or mirror.found() == mirror.expected(),
            "it is killed or in step",
        )
        mirror.sentinel.kill()
    mirror.sentinel.heard = lambda line: None
    mirror.sentinel.start()
    mirror.check()
    done: dict[str, list[str]] = {}
    for op, name in mirror.audited():
        done.setdefault(name, []).append(op)
    # What comes and goes while it is away may take no write at all, or just these two.
    for name in gone:
        assert done.pop(name, []) in ([], ["insert", "delete"]), name
    assert done == {name: ["insert"] for name in mirror.found()[0]}


def test_it_stands_still_for_a_while(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.prepare()
    mirror.sentinel.start()
    fill(mirror, 50)
    mirror.sentinel.pause()
    for number in range(25):
        mirror.etcd.delete(f"{PREFIX}lab/{number}")
    mirror.etcd.compact()
    time.sleep(1)
    mirror.sentinel.resume()
    mirror.check()


@on("mariadb", "postgresql")
def test_another_one_takes_over(mirror: Mirror) -> None:
    """Of two with one name and one sink, the later one goes on, and nothing is done twice."""
    mirror.prepare()
    mirror.sentinel.start()
    fill(mirror, 5)
    mirror.settle()
    other = Mirror(mirror.etcd, mirror.database, mirror.directory)
    try:
        other.sentinel.start()
        for number in range(5, 30):
            mirror.etcd.put(f"{PREFIX}lab/{number}", thing(f"t{number}", number))
        until(lambda: not mirror.sentinel.alive, "the first one has ended")
        assert mirror.sentinel.status not in (0, None)
        other.check()
    finally:
        other.close()
    assert Counter(mirror.audited()) == {("insert", f"t{number}"): 1 for number in range(30)}


def test_two_sinks_of_one_source_do_not_mind_each_other(one_mirror: Mirror, tmp_path: Path) -> None:
    mirror = one_mirror
    (tmp_path / "other").mkdir()
    other = Mirror(mirror.etcd, SQLite(tmp_path / "other.db"), tmp_path / "other")
    try:
        mirror.sentinel.start()
        other.sentinel.start()
        fill(mirror, 20)
        mirror.check()
        other.check()
    finally:
        other.close()


# -- the source is away ---------------------------------------------------------------------------


@on("postgresql", of=SERVERS)
def test_it_starts_before_its_source_and_its_database(mirror: Mirror) -> None:
    server = mirror.database.server
    assert server is not None
    fill(mirror, 5)
    mirror.etcd.kill()
    server.kill()
    mirror.sentinel.launch()
    time.sleep(2)
    assert mirror.sentinel.alive, mirror.sentinel.said
    server.start()
    time.sleep(1)
    mirror.etcd.start()
    mirror.check()


def test_the_source_stands_still(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.start()
    fill(mirror, 5)
    mirror.settle()
    mirror.etcd.pause()
    time.sleep(2)
    mirror.etcd.resume()
    fill(mirror, 10)
    mirror.check()


def test_the_source_forgets_history_again_and_again(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.arguments += ["--interval", "0.2"]
    mirror.sentinel.start()
    for number in range(40):
        mirror.etcd.put(f"{PREFIX}lab/{number % 7}", thing(f"t{number % 7}", number))
        mirror.etcd.compact()
    mirror.check()


@pytest.mark.parametrize("running", [True, False], ids=["running", "away"])
def test_the_source_is_begun_anew(one_mirror: Mirror, running: bool) -> None:
    """Its data is lost and its revisions begin again: the table is what it holds now."""
    mirror = one_mirror
    fill(mirror, 30)
    mirror.sentinel.start()
    if not running:
        mirror.sentinel.kill()
    mirror.etcd.kill()
    shutil.rmtree(mirror.etcd.directory / "data")
    mirror.etcd.start()
    # More revisions than there were, so that the old number says something of the new life.
    for number in range(100):
        mirror.etcd.put(f"{PREFIX}lab/0", thing("anew", number))
    if not running:
        mirror.sentinel.start()
    mirror.check()
    assert set(mirror.found()[0]) == {"anew"}


def test_the_source_is_begun_anew_and_comes_to_the_same_revisions(one_mirror: Mirror) -> None:
    """Everybody puts what they put before, in the same order, but for one value."""
    mirror = one_mirror
    fill_anew(mirror, 0)
    mirror.sentinel.start()
    mirror.check()
    fill_anew(mirror, 1)
    mirror.sentinel.start()
    mirror.check()
    assert mirror.found()[0]["t3"]["number"] == 4


def fill_anew(mirror: Mirror, more: int) -> None:
    """Lose the source's data, and fill it."""
    mirror.etcd.kill()
    shutil.rmtree(mirror.etcd.directory / "data")
    mirror.etcd.start()
    for number in range(10):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(f"t{number}", number + more * (number == 3)))


def test_history_is_forgotten_while_a_long_listing_is_read(one_mirror: Mirror) -> None:
    mirror = one_mirror
    for start in range(0, 5_000, 100):
        mirror.etcd.change({
            f"{PREFIX}lab/{one}": thing(f"t{one}", one) for one in range(start, start + 100)
        })  # fmt: skip
    mirror.sentinel.launch()
    for number in range(60):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(f"t{number}", -number))
        mirror.etcd.compact()
        time.sleep(0.03)
    assert mirror.sentinel.alive, mirror.sentinel.said[-2000:]
    mirror.check()


# -- the sink is away -----------------------------------------------------------------------------


@on("mariadb", of=SERVERS)
def test_a_long_outage_of_the_database_costs_bounded_memory(mirror: Mirror) -> None:
    """80 MiB of changes come meanwhile."""
    server = mirror.database.server
    assert server is not None
    mirror.sentinel.start()
    fill(mirror, 5)
    mirror.settle()
    server.kill()
    before = mirror.sentinel.memory()
    for number in range(160):
        note = chr(ord("a") + number % 26) * (512 << 10)
        mirror.etcd.put(f"{PREFIX}lab/{number % 8}", thing(f"t{number % 8}", number, note=note))
    mirror.etcd.delete(f"{PREFIX}lab/3")
    mirror.etcd.compact()
    assert mirror.sentinel.memory() - before < 60 << 20
    assert mirror.sentinel.alive
    server.start()
    mirror.check()


def test_the_database_takes_a_connection_and_says_nothing(server_mirror: Mirror) -> None:
    mirror = server_mirror
    server = mirror.database.server
    assert server is not None
    mirror.prepare()
    mirror.sentinel.start()
    server.pause()
    fill(mirror, 20)
    time.sleep(3)
    server.resume()
    mirror.check()
    assert Counter(mirror.audited()) == {("insert", f"t{number}"): 1 for number in range(20)}


def test_somebody_holds_locks_on_the_rows(server_mirror: Mirror) -> None:
    mirror = server_mirror
    fill(mirror, 3)
    mirror.prepare()
    mirror.sentinel.start()
    with mirror.database.transaction() as run:
        run("UPDATE thing SET number = 99 WHERE name = 't1'")
        mirror.etcd.put(f"{PREFIX}lab/1", thing("t1", 50))
        mirror.etcd.put(f"{PREFIX}lab/2", thing("t2", 51))
        time.sleep(2)
    mirror.settle()
    mirror.check()


def test_somebody_locks_the_file(mirror_of_sqlite: Mirror) -> None:
    mirror = mirror_of_sqlite
    assert isinstance(mirror.database, SQLite)
    mirror.prepare()
    mirror.sentinel.start()
    other = sqlite3.connect(mirror.database.file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    fill(mirror, 20)
    time.sleep(8)
    other.execute("ROLLBACK")
    other.close()
    mirror.check()
    assert Counter(mirror.audited()) == {("insert", f"t{number}"): 1 for number in range(20)}


def test_a_connection_is_cut_again_and_again(server_mirror: Mirror) -> None:
    """The server lives on, but throws clients out, as an administrator does."""
    mirror = server_mirror
    mirror.prepare()
    mirror.sentinel.start()
    for number in range(60):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(f"t{number}", number))
        if number % 10 == 0:
            mirror.database.cut_others()
    mirror.check()
    assert Counter(mirror.audited()) == {("insert", f"t{number}"): 1 for number in range(60)}


def test_the_table_goes_away(mirror: Mirror) -> None:
    """Somebody drops it: it is made again and filled, at the latest by the next start."""
    fill(mirror, 5)
    mirror.sentinel.arguments += ["--interval", "0.3"]
    mirror.sentinel.start()
    mirror.database.run("DROP TABLE thing")
    fill(mirror, 8)
    if not mirror.sentinel.alive:
        mirror.sentinel.start()
    mirror.check()
