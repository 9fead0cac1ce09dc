"""Once, dry run, verify; drift; the end; what is shown, and what never is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from databases import PASSWORD, QUOTED, Database, SQLite
from etcdserver import Etcd
from mirrors import Mirror
from processes import PATIENCE, REPOSITORY, free_port, until
from sentinels import Ended
from sqlalchemy.engine import make_url
from things import PREFIX, thing

from tega.sentinel import report
from tega.sentinel.sql import dialect


def fill(mirror: Mirror, count: int = 10) -> None:
    for number in range(count):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(f"t{number}", number))


def drift(mirror: Mirror) -> None:
    """Somebody else changes one row, removes one and adds one."""
    mirror.database.run("UPDATE thing SET number = 1000 WHERE name = 't1'")
    mirror.database.run("DELETE FROM thing WHERE name = 't2'")
    mirror.database.run("INSERT INTO thing (name, number) VALUES ('foreign', 5)")


def names_three(done: Ended) -> None:
    """Whether all three of `drift` are told of."""
    for kind, name in (("update", "t1"), ("insert", "t2"), ("delete", "foreign")):
        assert re.search(f"(?i){kind}.*{name}", done.said), done.said


# -- once -----------------------------------------------------------------------------------------


def test_once_makes_one_pass_and_ends(mirror: Mirror) -> None:
    fill(mirror)
    mirror.etcd.put(f"{PREFIX}lab/bad", "{")
    done = mirror.sentinel.run("--once")
    assert done.status == 0, done.said
    assert mirror.found() == mirror.expected()
    mirror.database.audit("thing", "name")
    # Again, with nothing to do.
    assert mirror.sentinel.run("--once").status == 0
    assert mirror.audited() == []
    # And with something.
    mirror.etcd.put(f"{PREFIX}lab/1", thing("t1", -1))
    mirror.etcd.delete(f"{PREFIX}lab/2")
    mirror.etcd.put(f"{PREFIX}lab/new", thing("new"))
    assert mirror.sentinel.run("--once").status == 0
    assert mirror.found() == mirror.expected()
    assert sorted(mirror.audited()) == [("delete", "t2"), ("insert", "new"), ("update", "t1")]


# -- dry run --------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_change_and_changes_nothing(mirror: Mirror) -> None:
    fill(mirror)
    mirror.prepare()
    drift(mirror)
    mirror.etcd.put(f"{PREFIX}lab/3", thing("t3", -3))
    mirror.etcd.put(f"{PREFIX}lab/bad", "{")
    for own in mirror.own_tables():
        mirror.database.audit(own, "name")
    rows, written = mirror.database.rows("thing"), mirror.audited()
    done = mirror.sentinel.run("--dry-run")
    assert done.status == 0, done.said
    names_three(done)
    assert re.search("(?i)update.*t3", done.said), done.said
    assert "lab/bad" in done.said
    assert mirror.database.rows("thing") == rows
    assert mirror.audited() == written
    for own in mirror.own_tables():
        assert mirror.database.audited(own) == []


def test_a_dry_run_makes_no_tables(mirror: Mirror) -> None:
    fill(mirror, 3)
    done = mirror.sentinel.run("--dry-run")
    assert done.status == 0, done.said
    assert len(re.findall("(?i)insert.*t[0-2]", done.said)) == 3, done.said
    assert mirror.database.tables() == []


def test_a_dry_run_beside_the_service_takes_nothing_from_it(one_mirror: Mirror) -> None:
    mirror = one_mirror
    fill(mirror)
    mirror.sentinel.start()
    for number in range(3):
        assert mirror.sentinel.run("--dry-run").status == 0
        mirror.etcd.put(f"{PREFIX}lab/more{number}", thing(f"more{number}"))
    mirror.check()


# -- verify ---------------------------------------------------------------------------------------


def test_verify_tells_every_difference(mirror: Mirror) -> None:
    fill(mirror)
    mirror.prepare()
    assert mirror.sentinel.run("--verify").status == 0
    drift(mirror)
    before = mirror.audited()
    done = mirror.sentinel.run("--verify")
    assert done.status == 1, done.said
    names_three(done)
    assert mirror.audited() == before, "it wrote"


def test_verify_sees_small_differences(mirror: Mirror) -> None:
    fill(mirror, 9)
    mirror.etcd.put(f"{PREFIX}lab/bad", "{")
    mirror.prepare()
    mirror.verify()
    for statement in (
        "UPDATE thing SET kind = 'x' WHERE name = 't1'",
        "UPDATE thing SET number = NULL WHERE name = 't2'",
        "UPDATE thing SET note = '' WHERE name = 't3'",
        "UPDATE thing SET name = 'T4' WHERE name = 't4'",
        "UPDATE thing SET site = 'lab ' WHERE name = 't5'",
        "DELETE FROM thing WHERE name = 't6'",
        "INSERT INTO thing (name) VALUES ('t7 ')",
        "UPDATE thing SET ratio = 0 WHERE name = 't8'",
        "DELETE FROM tega_sentinel_rejects",
    ):
        mirror.database.run(statement)
    done = mirror.sentinel.run("--verify")
    assert done.status == 1, done.said
    for difference in (
        "update.*'t1'", "update.*'t2'", "update.*'t3'", "insert.*'t4'", "delete.*'T4'",
        "update.*'t5'", "insert.*'t6'", "delete.*'t7 '", "update.*'t8'", "reject.*lab/bad",
    ):  # fmt: skip
        assert re.search(f"(?i){difference}", done.said), (difference, done.said)
    assert "'t0'" not in done.said
    assert mirror.sentinel.run("--once").status == 0
    mirror.verify()
    assert mirror.found() == mirror.expected()


def test_verify_before_there_is_anything(one_mirror: Mirror) -> None:
    mirror = one_mirror
    fill(mirror, 2)
    for mode, status in (("--verify", 1), ("--dry-run", 0)):
        done = mirror.sentinel.run(mode)
        assert done.status == status
        assert len(re.findall("would insert thing", done.said)) == 2
        if isinstance(mirror.database, SQLite):
            assert f"file {mirror.database.file} is not there yet" in done.said
            assert not mirror.database.file.exists()
        else:
            assert "table thing is not there yet" in done.said
        assert mirror.database.tables() == []


def test_verify_while_all_is_changing(one_mirror: Mirror) -> None:
    """The table lags a little behind the source, which is no difference."""
    mirror = one_mirror
    fill(mirror)
    mirror.sentinel.start()
    for number in range(3):
        stream = [f"{PREFIX}lab/{one % 10}" for one in range(60)]
        for one, key in enumerate(stream):
            mirror.etcd.put(key, thing(f"t{one % 10}", 1000 * number + one))
        done = mirror.sentinel.run("--verify")
        assert done.status == 0, done.said
    mirror.check()


# -- drift ----------------------------------------------------------------------------------------


def test_drift_is_reported_and_mended(mirror: Mirror) -> None:
    mirror.sentinel.arguments += ["--interval", "0.5"]
    mirror.sentinel.with_port()
    fill(mirror)
    mirror.prepare()
    mirror.sentinel.start()
    drift(mirror)
    mirror.settle()
    for name in ("t1", "t2", "foreign"):
        mirror.sentinel.says(f"(?i)'{name}'.*drift")
    metrics = mirror.sentinel.ask("/_metrics")[1]
    assert re.search(r"(?m)^\w*drift\w*(\{.*\})? 3(\.0)?$", metrics), metrics
    mirror.check()
    # Once by somebody else, once by the pass, and that was all.
    assert Counter(mirror.audited()) == {
        ("update", "t1"): 2, ("delete", "t2"): 1, ("insert", "t2"): 1,
        ("insert", "foreign"): 1, ("delete", "foreign"): 1,
    }  # fmt: skip


def test_drift_is_told_before_it_is_mended(
    etcd: Etcd, postgresql: Database, tmp_path: Path
) -> None:
    mirror = Mirror(etcd, postgresql, tmp_path, ["--interval", "0.5"])
    try:
        fill(mirror, 3)
        mirror.prepare()
        # To commit takes a while.
        postgresql.run(
            "CREATE FUNCTION slow() RETURNS trigger AS "
            "$$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$ LANGUAGE plpgsql"
        )
        postgresql.run(
            "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON thing DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW WHEN (NEW.number = 1) EXECUTE FUNCTION slow()"
        )
        mirror.sentinel.start()
        postgresql.run("UPDATE thing SET number = 1000 WHERE name = 't1'")
        mirror.sentinel.says(r"update.*'t1'.*number 1000 -> 1 .*\[drift\]")
        assert mirror.found()[0]["t1"]["number"] == 1000
        mirror.check()
        assert len(re.findall(r"\[drift\]", mirror.sentinel.said)) == 1
    finally:
        mirror.close()


def test_full_passes_without_drift_write_nothing(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.arguments += ["--interval", "0.1"]
    fill(mirror)
    mirror.prepare()
    mirror.sentinel.start()
    time.sleep(2)
    mirror.check()
    assert mirror.audited() == []
    assert not re.search("(?i)drift", mirror.sentinel.said), mirror.sentinel.said


def test_drift_while_it_is_away_is_mended(one_mirror: Mirror) -> None:
    mirror = one_mirror
    fill(mirror)
    mirror.prepare()
    mirror.sentinel.start()
    mirror.sentinel.kill()
    drift(mirror)
    mirror.sentinel.arguments += ["--interval", "0.5"]
    mirror.sentinel.start()
    mirror.check()


# -- the end --------------------------------------------------------------------------------------


def test_it_ends_in_order_whenever_it_is_asked_to(one_mirror: Mirror) -> None:
    mirror = one_mirror
    fill(mirror, 100)
    for wait in (0, 0.2, 0.4, 0.6):
        mirror.sentinel.launch_until_it_hears()
        time.sleep(wait)
        assert mirror.sentinel.end() == 0, mirror.sentinel.said[-2000:]
    mirror.sentinel.start()
    mirror.check()


def test_what_is_done_once_and_ended_before_is_not_done(one_mirror: Mirror) -> None:
    """Nobody may take it for an answer."""
    sentinel = one_mirror.sentinel
    fill(one_mirror, 3)
    plain = list(sentinel.arguments)
    for mode in ("--verify", "--once"):
        sentinel.arguments = [*plain, mode]
        for number in (signal.SIGTERM, signal.SIGINT):
            sentinel.launch_until_it_hears()
            assert sentinel.end(number) == 128 + number, sentinel.said
    sentinel.arguments = plain
    sentinel.launch_until_it_hears()
    assert sentinel.end(signal.SIGINT) == 0


def test_it_ends_in_order_while_its_database_is_away(server_mirror: Mirror) -> None:
    server = server_mirror.database.server
    assert server is not None
    fill(server_mirror)
    server_mirror.sentinel.start()
    server.kill()
    fill(server_mirror, 20)
    server_mirror.sentinel.says("(?i)retry|again|cannot|refused|lost|gone")
    started = time.monotonic()
    assert server_mirror.sentinel.end() == 0
    assert time.monotonic() - started < 10
    server.start()
    server_mirror.sentinel.start()
    server_mirror.check()


def test_it_ends_in_order_while_its_source_is_away(one_mirror: Mirror) -> None:
    mirror = one_mirror
    fill(mirror)
    mirror.sentinel.start()
    mirror.etcd.kill()
    mirror.sentinel.says("(?i)retry|again|cannot|refused|lost|away")
    assert mirror.sentinel.end() == 0
    mirror.etcd.start()
    mirror.sentinel.start()
    mirror.check()


# -- what is shown --------------------------------------------------------------------------------


def test_no_password_is_shown(server_mirror: Mirror) -> None:
    """Given in a variable it stands in no command line; and in no message either way."""
    mirror = server_mirror
    server = mirror.database.server
    assert server is not None
    mirror.sentinel.arguments[mirror.sentinel.arguments.index("--sink") + 1] = (
        mirror.database.url.replace(f":{QUOTED}@", "@")
    )
    mirror.sentinel.variables["TEGA_SENTINEL_SINK_PASSWORD"] = PASSWORD
    fill(mirror)
    mirror.sentinel.start()
    shown = Path(f"/proc/{mirror.sentinel.pid}/cmdline").read_bytes().decode()
    server.restart()
    fill(mirror, 12)
    mirror.settle()
    mirror.check()
    mirror.sentinel.variables["TEGA_SENTINEL_SINK_PASSWORD"] = "wr0ng"
    wrong = mirror.sentinel.run("--once")
    for text in (shown, mirror.sentinel.said):
        assert PASSWORD not in text
        assert QUOTED not in text
    assert wrong.status != 0
    assert "wr0ng" not in wrong.said


def test_health_and_metrics(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.with_port()
    fill(mirror, 5)
    mirror.etcd.put(f"{PREFIX}lab/bad", "{")
    mirror.sentinel.start()
    status, body = mirror.sentinel.health()
    assert status == 200, body
    metrics = mirror.sentinel.ask("/_metrics")[1]
    for word in ("events", "lag", "drift", "retries"):
        assert re.search(rf"(?m)^\w*{word}\w*(\{{.*\}})? [0-9]", metrics), (word, metrics)
    assert mirror.sentinel.ask("/nosuch")[0] == 404
    mirror.etcd.kill()
    until(lambda: mirror.sentinel.health()[0] == 503, "it says that it is not in step")
    mirror.etcd.start()
    until(lambda: mirror.sentinel.health()[0] == 200, "it says that it is in step again")
    mirror.check()


def test_progress_of_a_long_pass_is_shown(mirror_of_sqlite: Mirror) -> None:
    mirror = mirror_of_sqlite
    for start in range(0, 40_000, 100):
        mirror.etcd.change({
            f"{PREFIX}lab/{number}": thing(f"t{number}", number)
            for number in range(start, start + 100)
        })  # fmt: skip
    reader, terminal = os.openpty()
    process = subprocess.Popen(
        [*mirror.sentinel.command, "--once"], stdout=subprocess.DEVNULL, stderr=terminal,
        cwd=REPOSITORY,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # So a terminal ends.
        while data := os.read(reader, 4096):
            shown += data
    os.close(reader)
    assert process.wait(PATIENCE) == 0
    percents = [int(one) for one in re.findall(rb"(\d+) ?%", shown)]
    assert b"40000" in shown
    assert percents == sorted(percents)
    assert len(set(percents)) >= 3, shown
    mirror.verify()


def test_progress_of_a_long_pass_is_a_line_where_there_is_no_terminal(
    mirror_of_sqlite: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = mirror_of_sqlite
    for start in range(0, 2_000, 100):
        mirror.etcd.change({
            f"{PREFIX}lab/{number}": thing(f"t{number}", number)
            for number in range(start, start + 100)
        })  # fmt: skip
    # As if a moment were ten seconds.
    monkeypatch.setattr(report, "_SELDOM", 0.01)
    done = mirror.sentinel.run("--once")
    assert re.search(r"(?m)^tega-sentinel: full pass: \d+ of 2000 keys, \d+ %, \d+/s$", done.said)
    done = mirror.sentinel.run("--verify", "--log-format", "json")
    lines = [json.loads(line) for line in done.said.splitlines()]
    shown = [(one["done"], one["total"]) for one in lines if one["event"] == "progress"]
    assert shown == sorted(shown)
    assert shown[-1] == (2000, 2000)


def test_a_connection_that_breaks_is_told_without_a_traceback(
    server_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot even be rolled back, which is no news: what was under way tells that it failed."""
    engine = dialect.connect(make_url(server_database.url))
    connection = engine.raw_connection()
    connection.cursor().execute("SELECT 1")
    server_database.cut_others()
    with caplog.at_level(logging.DEBUG):
        connection.close()
    engine.dispose()
    assert [record.message for record in caplog.records if record.exc_info] == []


# -- wrong use ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "--source"),
        (["--mapping", "/nonexistent.yaml", "--source", "etcd://h", "--sink", "sqlite://"],
         "/nonexistent.yaml"),
        (["--preset", "nosuch"], "nosuch"),
        (["--nosuch"], "--nosuch"),
        (["--preset", "titania", "--interval", "no"], "interval"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused_by_name(
    mirror_of_sqlite: Mirror, arguments: list[str], word: str
) -> None:
    mirror_of_sqlite.sentinel.arguments = arguments
    done = mirror_of_sqlite.sentinel.run_apart(seconds=20)
    assert done.status != 0
    assert word in done.said


def test_once_does_not_wait_for_ever(mirror_of_sqlite: Mirror) -> None:
    """A source that is not there: one pass cannot be made, which is an error in the end."""
    assert isinstance(mirror_of_sqlite.database, SQLite)
    place = mirror_of_sqlite.sentinel.arguments.index("--source") + 1
    mirror_of_sqlite.sentinel.arguments[place] = f"etcd://127.0.0.1:{free_port()}"
    for mode in ("--once", "--verify", "--dry-run"):
        done = mirror_of_sqlite.sentinel.run_apart(mode, seconds=60)
        assert done.status not in (0, 1) or mode != "--verify"
        assert done.status != 0
