"""Ordinary use, the same through REST, both drivers, `tega-cli` and `tega.idb`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from adapters import ADAPTERS, DELETED, Adapter, Refusal, opened

#: What network people store.
DOCUMENT = {
    "routes": {"10.0.0.0/24": {"metric": 5}, "2001:db8::/32": {"metric": 7}},
    "interfaces": {"ge-0/0/0": {"mtu": 1500, "up": True}, "eth0.100": {"up": False}},
    "name": "ルータ \"one\"\n\x1b",
    "counter": 2**70 + 1,
    "load": -0.25,
    "none": None,
    "presence": {},
    "tags": ["a", 1, None, {"_any": {"key": []}}],
    "items": {"get": "a key named like a method"},
}


@pytest.fixture(params=list(ADAPTERS))
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapter]:
    with opened(request.param, tmp_path) as adapter:
        yield adapter


@contextmanager
def refused(status: int, *says: str) -> Iterator[None]:
    """What follows is refused with this status, in a message that holds all these words."""
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.status == status
    for word in says:
        assert word in str(caught.value)


def test_what_is_put_is_what_is_got(db: Adapter) -> None:
    db.put("r", DOCUMENT)
    assert db.get("r") == DOCUMENT
    assert list(db.get("r")) == sorted(DOCUMENT)
    assert db.get('r.routes."10.0.0.0/24".metric') == 5
    assert db.get('r.interfaces."eth0.100"') == {"up": False}
    assert db.get("r.counter") == 2**70 + 1
    assert db.get("r.tags") == DOCUMENT["tags"]
    assert db.get("r.none") is None
    with refused(404, "r.nothing"):
        db.get("r.nothing")
    db.put("leaf", "a root may be a leaf")
    assert db.roots() == {"leaf": 0, "r": 0}


def test_a_put_replaces_and_a_delete_prunes(db: Adapter) -> None:
    db.put("r", {"a": {"b": {"c": 1}}, "d": 2})
    db.put("r.a", {"e": 3})
    assert db.get("r") == {"a": {"e": 3}, "d": 2}
    with refused(409, "r.d"):
        db.put("r.d.below", 1)
    db.delete("r.a.e")
    assert db.get("r") == {"d": 2}, "the parent was left empty"
    with refused(404, "r.a.e"):
        db.delete("r.a.e")
    db.delete("r.d")
    assert db.roots() == {}
    assert db.old() == {"r": [0, 1, 2]}
    db.put("r", 1)
    assert db.roots() == {"r": 4}, "a version number is never used again"


def test_versions_guard_a_change(db: Adapter) -> None:
    db.put("r.a", 1, version=-1)
    with refused(409, "r.a", "nothing there", "version 0"):
        db.put("r.a", 2, version=-1)
    db.put("r.b", 1)
    db.put("r.a", 2, version=0)
    with refused(409, "r.a", "version 0", "version 2"):
        db.put("r.a", 3, version=0)
    with refused(409, "r.b", "version 2", "version 1"):
        db.delete("r.b", version=2)
    with refused(409, "r.c", "version 0", "nothing there"):
        db.put("r.c", 1, version=0)
    db.delete("r.b", version=1)
    assert db.get("r") == {"a": 2}
    assert db.roots() == {"r": 3}, "what was refused made no version"


def test_a_transaction_is_all_or_nothing(db: Adapter) -> None:
    db.put("r", {"a": 1, "b": 2})
    db.put("gone", 1)
    txid = db.begin()
    db.put("r.a", 10, txid=txid)
    db.delete("r.b", txid=txid)
    db.put("new.x", {"y": 1}, version=-1, txid=txid)
    db.delete("gone", txid=txid)
    assert db.get("r") == {"a": 1, "b": 2}, "a get reads what is committed"
    assert db.candidate(txid) == {"gone": DELETED, "new": {"x": {"y": 1}}, "r": {"a": 10}}
    db.commit(txid)
    assert (db.get("r"), db.get("new")) == ({"a": 10}, {"x": {"y": 1}})
    assert db.roots() == {"new": 0, "r": 1}, "one version for each root that was touched"

    txid = db.begin()
    db.put("other", 1, txid=txid)
    db.put("r.a", 11, version=0, txid=txid)
    with refused(409, "r.a", "version 0", "version 1"):
        db.commit(txid)
    txid = db.begin()
    db.put("other", 1, txid=txid)
    db.cancel(txid)
    assert db.roots() == {"new": 0, "r": 1}


def test_history_and_rollback(db: Adapter) -> None:
    for value in range(5):
        db.put("r", {"v": value, "same": 0})
    assert db.old() == {"r": [1, 2, 3]}, "as many as maxlen says"
    assert [db.get("r.v", version) for version in (1, -1, -3)] == [1, 3, 1]
    for version in (0, 5, -4):
        with refused(404, f"version {version} of r", "1 to 4"):
            db.get("r", version)
    db.rollback("r", 2)
    assert db.get("r") == {"v": 2, "same": 0}
    db.rollback("r", -1)
    assert db.get("r.v") == 4, "a rollback can be rolled back"
    db.delete("r")
    with refused(404):
        db.get("r")
    db.rollback("r", -1)
    assert (db.get("r.v"), db.roots()) == (4, {"r": 8})
    with refused(404, "nothing"):
        db.rollback("nothing", -1)


def test_regex_paths(db: Adapter) -> None:
    db.put("r-a", {"a": {"x": 1}, "b": 2})
    db.put("r-b.ab", 3)
    assert db.match(r"(r)-(.*)\.(a.*)") == {
        "r-a.a": ([["r", "a"], ["a"]], {"x": 1}),
        "r-b.ab": ([["r", "b"], ["ab"]], 3),
    }
    assert db.match(r"r-a\.a\.(x)") == {"r-a.a.x": ([["x"]], 1)}
    assert db.match(r"nothing\.a") == {}
    with refused(400, "(?=x)"):
        db.match("(?=x)")


def test_a_restart_forgets_nothing(db: Adapter) -> None:
    for value in range(3):
        db.put("r.a", value)
        db.put("doc", DOCUMENT)
    db.snapshot()
    db.delete("doc.routes")
    db.rollback("r", 0)
    db.put("gone", 1)
    db.delete("gone")
    before = (db.roots(), db.old(), db.get("doc"), db.get("r.a"), db.get("r.a", -2))
    db.stop()
    db.start()
    assert (db.roots(), db.old(), db.get("doc"), db.get("r.a"), db.get("r.a", -2)) == before
    db.rollback("doc", -1)
    assert db.get("doc") == DOCUMENT
    db.put("gone", 2)
    assert db.roots()["gone"] == 2
