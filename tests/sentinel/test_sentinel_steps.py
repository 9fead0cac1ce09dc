"""What is put, changed and deleted in etcd is so in each kind of database."""

from __future__ import annotations

import re

from mirrors import REJECTS, Mirror
from processes import until
from things import PREFIX, thing


def test_rows_come_change_and_go(mirror: Mirror) -> None:
    mirror.etcd.put(f"{PREFIX}lab/1", thing("first"))
    mirror.sentinel.start()
    assert set(mirror.found()[0]) == {"first"}

    mirror.etcd.put(f"{PREFIX}lab/2", thing("second", 5, kind="router", ratio=0.5, up=True))
    mirror.settle()
    row = mirror.found()[0]["second"]
    assert (row["site"], row["kind"], row["number"], row["ratio"], row["up"]) == (
        "lab", "router", 5, 0.5, True,
    )  # fmt: skip

    mirror.etcd.put(f"{PREFIX}lab/2", thing("second", 6, up=False, seen="2020-05-17T10:00:00Z"))
    mirror.settle()
    mirror.etcd.delete(f"{PREFIX}lab/1")
    mirror.settle()
    assert set(mirror.found()[0]) == {"second"}
    mirror.etcd.delete_below(PREFIX)
    mirror.settle()
    assert mirror.found() == ({}, set())
    mirror.check()


def test_every_step_is_printed(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.start()
    mirror.etcd.put(f"{PREFIX}lab/1", thing("printed", 1))
    mirror.sentinel.says(r"(?i)insert.*printed")
    mirror.etcd.put(f"{PREFIX}lab/1", thing("printed", 2))
    mirror.sentinel.says(r"(?i)update.*printed")
    mirror.etcd.delete(f"{PREFIX}lab/1")
    mirror.sentinel.says(r"(?i)delete.*printed")
    mirror.etcd.put(f"{PREFIX}lab/broken", "{")
    mirror.sentinel.says(r"(?i)reject.*lab/broken")
    mirror.check()


def test_what_changes_at_one_revision_changes_at_once(mirror: Mirror) -> None:
    mirror.sentinel.start()
    for number in range(20):
        mirror.etcd.change({
            f"{PREFIX}lab/{one}": thing(f"t{one}", number) for one in range(10)
        })  # fmt: skip
        numbers = {row["number"] for row in mirror.found()[0].values()}
        assert len(numbers) <= 1, numbers
    mirror.check()


def test_a_row_of_several_keys_is_of_the_newest_and_goes_with_the_last(mirror: Mirror) -> None:
    mirror.prepare()
    mirror.sentinel.start()
    for number, site in enumerate(["a", "b", "c"]):
        mirror.etcd.put(f"{PREFIX}{site}/1", thing("one", number))
        mirror.settle()
    assert mirror.found()[0]["one"]["site"] == "c"
    mirror.etcd.put(f"{PREFIX}a/1", thing("one", 10))
    mirror.settle()
    assert mirror.found()[0]["one"]["site"] == "a"
    # One that does not show goes, then the one that does.
    mirror.etcd.delete(f"{PREFIX}b/1")
    mirror.etcd.delete(f"{PREFIX}a/1")
    mirror.settle()
    assert mirror.found()[0]["one"]["site"] == "c"
    mirror.etcd.delete(f"{PREFIX}c/1")
    mirror.settle()
    assert mirror.found()[0] == {}
    mirror.check()
    # b's deletion changed nothing that shows.
    assert [op for op, _ in mirror.audited()] == [
        "insert", "update", "update", "update", "update", "delete",
    ]  # fmt: skip


def test_a_key_that_moves_to_another_row_leaves_the_old_one(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.sentinel.start()
    mirror.etcd.put(f"{PREFIX}lab/1", thing("before"))
    mirror.etcd.put(f"{PREFIX}lab/2", thing("before", 7))
    mirror.settle()
    mirror.etcd.put(f"{PREFIX}lab/2", thing("after", 8))
    mirror.settle()
    assert {row["name"]: row["number"] for row in mirror.found()[0].values()} == {
        "before": 0, "after": 8,
    }  # fmt: skip
    mirror.etcd.put(f"{PREFIX}lab/1", thing("after", 9))
    mirror.settle()
    # And to none.
    mirror.etcd.put(f"{PREFIX}lab/1", "[]")
    mirror.settle()
    assert mirror.found()[0]["after"]["number"] == 8
    mirror.etcd.put(f"{PREFIX}lab/1", thing("after", 10))
    mirror.settle()
    assert mirror.database.rows(REJECTS) == []
    mirror.check()


def test_rows_are_marked_instead_of_removed(mirror: Mirror) -> None:
    """Where the mapping says so; a row that is marked comes back when its key does."""
    mapping = mirror.directory / "things.yaml"
    mapping.write_text(mapping.read_text() + "    delete: {mark: gone}\n")

    def marks() -> dict[str, tuple[int, bool]]:
        return {
            row["name"]: (row["number"], bool(row["gone"]))
            for row in mirror.database.rows("thing")
        }

    mirror.etcd.put(f"{PREFIX}lab/1", thing("one", 1))
    mirror.etcd.put(f"{PREFIX}lab/2", thing("two", 2))
    mirror.sentinel.start()
    mirror.etcd.delete(f"{PREFIX}lab/1")
    until(lambda: marks() == {"one": (1, True), "two": (2, False)}, "it is marked")
    mirror.sentinel.kill()
    mirror.etcd.delete(f"{PREFIX}lab/2")
    mirror.etcd.put(f"{PREFIX}new/1", thing("one", 3))
    mirror.etcd.compact()
    mirror.sentinel.start()
    until(lambda: marks() == {"one": (3, False), "two": (2, True)}, "after a listing too")
    mirror.verify()
    # Somebody takes the mark away.
    mirror.database.run("UPDATE thing SET gone = (1 = 0)")
    assert mirror.sentinel.run("--verify").status == 1
    assert mirror.sentinel.end() == 0
    assert mirror.sentinel.run("--once").status == 0
    assert marks() == {"one": (3, False), "two": (2, True)}
    mirror.verify()


def test_other_keys_are_nobodys_business(one_mirror: Mirror) -> None:
    mirror = one_mirror
    mirror.prepare()
    mirror.sentinel.start()
    for key in ("/other/lab/1", "/thing", "/thingsx/lab/1", "/a", "/zz"):
        mirror.etcd.put(key, thing("no"))
    mirror.etcd.put(f"{PREFIX}lab/1", thing("yes"))
    mirror.settle()
    mirror.check()
    assert mirror.audited() == [("insert", "yes")]


def test_names_of_all_alphabets_and_of_sql(mirror: Mirror) -> None:
    names = [
        "Ω", "日本", "😀", "a'b", 'a"b', "`", "x'); DROP TABLE thing; --", "%s", ":name", "?", "\\",
        "line\nbreak", "tab\t", "é", "e\u0301",
    ]  # fmt: skip
    mirror.etcd.put(f"{PREFIX}lab/0", thing("listed 😀'"))
    mirror.sentinel.start()
    for number, name in enumerate(names):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(name, number, note=name, kind=name))
    mirror.settle()
    assert set(mirror.found()[0]) == set(names)
    mirror.check()
    assert not re.search("[\n\t]", mirror.sentinel.lines[-1])


def test_names_that_differ_in_case_or_by_trailing_spaces_only(mirror: Mirror) -> None:
    """Two rows, as they are two names; a database that takes them for one must not lose either."""
    mirror.sentinel.start()
    for number, name in enumerate(["name", "NAME", "Name", "name ", "ñame", "name\u00a0"]):
        mirror.etcd.put(f"{PREFIX}lab/{number}", thing(name, number))
    mirror.settle()
    mirror.etcd.delete(f"{PREFIX}lab/1")
    mirror.settle()
    mirror.check()
