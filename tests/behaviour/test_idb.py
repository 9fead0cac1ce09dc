"""`tega.idb`: embedded use, as scripts and plugins see it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tega import idb
from tega.errors import Closed, NoSession, OwnerGone
from tega.subscriber import SCOPE, Subscriber
from tega.tree import RPC, Cont, Func


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Path]:
    idb.start(tmp_path, "me", maxlen=3)
    yield tmp_path
    if idb.is_started():
        idb._db().check()
    idb.stop()


def put(path: str, value: object, **more: object) -> None:
    with idb.tx() as t:
        t.put(value, path=path, **more)  # type: ignore[arg-type]


def test_start_and_stop(tmp_path: Path) -> None:
    assert not idb.is_started()
    with pytest.raises(Closed, match="start"):
        idb.get("r")
    idb.start(tmp_path, "me")
    assert idb.is_started()
    with pytest.raises(ValueError, match="stop"):
        idb.start(tmp_path, "me")
    idb.stop()
    idb.stop()
    assert not idb.is_started()


def test_a_document_knows_its_path(started: Path) -> None:
    r = Cont("r")
    r.a.b = 1
    r.a.c = ["x", {"y": None}]
    with idb.tx() as t:
        t.put(r)
    assert idb.get("r") == {"a": {"b": 1, "c": ["x", {"y": None}]}}
    found = idb.get("r.a.b")
    assert (found, found._version, found.qname_()) == (1, 0, ["r", "a", "b"])
    r.a.b = 2
    with idb.tx("somebody") as t:
        t.put(r.a.b, version=0)
    assert (idb.get_version("r.a.b"), idb.get_version("r.a.c")) == (1, 0)
    with pytest.raises(ValueError, match="path="), idb.tx() as t:
        t.put({"no": "place"})


def test_what_is_put_is_copied(started: Path) -> None:
    value = {"a": [1, {"b": 2}]}
    with idb.tx() as t:
        t.put(value, path="r", deepcopy=False)
        value["a"].append(3)
    value["a"][1]["b"] = 9  # type: ignore[index]
    assert idb.get("r") == {"a": [1, {"b": 2}]}
    idb.get("r")["x"] = 1
    assert "x" not in idb.get("r")


def test_an_exception_discards(started: Path) -> None:
    def fail() -> None:
        with idb.tx() as t:
            t.put(1, path="r")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert idb.roots() == {}
    with idb.tx() as t:
        t.put(1, path="r")
        t.commit(write_log=False)
        with pytest.raises(ValueError, match="ended"):
            t.put(2, path="r")
    idb.reload_log()
    assert idb.get("r") == 1, "logged all the same"


def test_the_candidate(started: Path) -> None:
    put("r", {"a": 1})
    with idb.tx() as t:
        t.put(2, path="r.b")
        t.put(3, path="s")
        t.delete("s")
        assert t.get_candidate() == {"r": {"a": 1, "b": 2}, "s": None}
        with pytest.raises(KeyError):
            idb.get("r.b")
    assert t.result.versions["r"] == 1


def test_an_id_that_was_asked_for_is_kept(started: Path) -> None:
    with idb.tx() as t:
        t.put(1, path="r")
        asked = t.txid
    assert idb._db().state.ids.results[asked] == t.result
    put("r", 2)
    assert list(idb._db().state.ids.results) == [asked]


def test_collisions(started: Path) -> None:
    put("r.a", 1)
    for path, version in (("r.a", 5), ("r.a", -1), ("r.nothing", 0)):
        with pytest.raises(ValueError, match="collision"):
            put(path, 2, version=version)
    put("r.new", 2, version=-1)
    with pytest.raises(ValueError, match=r"leaf stands at r\.a"):
        put("r.a.b", 1)
    with pytest.raises(KeyError), idb.tx() as t:
        t.delete("nothing.here")
    with pytest.raises(NoSession):
        put("r.e", 1, ephemeral=True)


def test_history_and_rollback(started: Path) -> None:
    for value in range(5):
        put("r", value)
    assert idb.old() == [{"r": [1, 2, 3]}]
    assert (idb.get("r", version=1), idb.get("r", version=-1)) == (1, 3)
    with pytest.raises(KeyError, match="there are 1 to 4"):
        idb.get("r", version=0)
    idb.rollback("me", "r", 1)
    assert (idb.get("r"), idb.roots()) == (1, {"r": 5})
    with pytest.raises(KeyError):
        idb.rollback("me", "nothing", -1)
    idb.save_snapshot("me")
    idb.reload_log()
    assert (idb.get("r"), idb.old()) == (1, [{"r": [2, 3, 4]}])


def test_regex(started: Path) -> None:
    put("r-a.a", {"x": 1})
    found = idb.get(r"(r)-(.*)\.(.*)", regex_flag=True)
    assert found == {"r-a.a": ([["r", "a"], ["a"]], {"x": 1})}
    assert found["r-a.a"].instance.qname_() == ["r-a", "a"]


def test_the_log_for_synchronising(started: Path) -> None:
    put("r.a", 1)
    idb.save_snapshot("me")
    with idb.tx("you") as t:
        t.put(2, path="r.a")
        t.put(3, path="other")
        t.delete("r.a")
    put("r", 5)
    idb.rollback("me", "r", 0)
    first, second, third, fourth = idb.loglist_for_sync("r", -1)
    assert first == [{"ope": "PUT", "path": "r.a", "tega_id": "me", "instance": 1}]
    assert [(c["ope"], c["path"], c["tega_id"]) for c in second] == [
        ("PUT", "r.a", "you"), ("DELETE", "r.a", "you"),
    ]  # fmt: skip
    assert third[0]["instance"] == 5
    assert fourth == [
        {"ope": "ROLLBACK", "path": "r", "tega_id": "me", "instance": None, "backto": -2}
    ]
    assert len(idb.loglist_for_sync("r", 1)) == 2


def test_a_batch(started: Path) -> None:
    idb.crud_batch(
        [{"ope": "PUT", "path": "r.a", "instance": {"b": 1}, "tega_id": "x"},
         {"ope": "DELETE", "path": "r.a.b"}, {"ope": "PUT", "path": "s", "instance": None}]
    )  # fmt: skip
    assert (idb.roots(), idb.get("s")) == ({"s": 0}, None), "r was left empty, and so is gone"
    with pytest.raises(ValueError, match="MOVE"):
        idb.crud_batch([{"ope": "MOVE", "path": "r"}])
    with pytest.raises(ValueError, match="without a path"):
        idb.crud_batch([{"ope": "PUT"}])


def test_functions_are_stored_as_text_and_read_as_functions(started: Path) -> None:
    put("r", {"f": Func("me", max), "g": Func("me", max, 1, 2)})
    found = idb.get("r")
    assert found.serialize_() == {"f": "%me.max", "g": "%me.max(1,2)"}
    assert isinstance(found.f, RPC)
    assert (found.f(3, 1), found.g(), found.f.owner_id) == (3, 2, "me")
    assert (found.f.qname_(), found.f._version) == (["r", "f"], 0)
    assert idb.rpc("r.f", [5, 4]) == 5
    assert idb.rpc("r.g") == 2
    with pytest.raises(ValueError, match="bound"):
        idb.rpc("r.g", [5])
    put("r.f", "%other.max")
    assert idb.get("r.f") == "%other.max"
    with pytest.raises(OwnerGone, match="'other'"):
        idb.rpc("r.f")
    with pytest.raises(KeyError, match="no function at r"):
        idb.rpc("r")


def test_ephemeral_nodes_go_with_their_tega_id(started: Path) -> None:
    with pytest.raises(ValueError, match="agent has no live session"), idb.tx("agent") as t:
        t.put(1, path="r.e", ephemeral=True)
    idb.add_tega_id("agent")
    r = Cont("r")
    r.lasting = 1
    r.a.marked = 2
    r.a.marked.ephemeral_()
    with idb.tx("agent") as t:
        t.put(r)
    assert idb.get("r") == {"lasting": 1, "a": {"marked": 2}}
    assert idb.get("r").a.marked.is_ephemeral_()
    assert not idb.get("r.lasting").is_ephemeral_()
    assert idb.get_tega_ids() == ["agent"]
    idb.reload_log()
    assert idb.get("r") == {"lasting": 1}
    assert idb.get_tega_ids() == []


class Recorder(Subscriber):
    """Writes down what it is told."""

    def __init__(self, tega_id: str) -> None:
        super().__init__(tega_id)
        self.told: list[Any] = []

    def on_init(self) -> None:
        self.told.append("init")

    def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        self.told.append([(one["ope"], one["path"], one["instance"]) for one in notifications])

    def on_message(self, channel: str, tega_id: str, message: Any) -> None:
        self.told.append((channel, tega_id, message))


class Coroutines(Recorder):
    """The same, with coroutines."""

    async def on_notify(self, notifications: list[dict[str, Any]]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        Recorder.on_notify(self, notifications)


@pytest.mark.parametrize("kind", [Recorder, Coroutines])
def test_subscribers_are_told(started: Path, kind: type[Recorder]) -> None:
    one, other = kind("one"), kind("other")
    idb.subscribe(one, "r.a")
    idb.subscribe(other, r"r\.(.)", SCOPE.GLOBAL, regex_flag=True)
    put("r", {"a": 1, "b": 2})
    with idb.tx(subscriber=one) as t:
        t.delete("r.a")
    idb.publish("r.a", "me", 0)
    idb.publish("r.a", "one", False, one)
    assert one.told == ["init", [("PUT", "r.a", 1)], ("r.a", "me", 0)]
    assert other.told == [
        "init",
        [("PUT", "r.a", 1), ("PUT", "r.b", 2)],
        [("DELETE", "r.a", 1)],
        ("r.a", "me", 0),
        ("r.a", "one", False),
    ]
    assert idb.get_channels() == {"r.a": ["one"], r"r\.(.)": ["other"]}
    assert idb.get_subscribers() == {"one": ["r.a"], "other": [r"r\.(.)"]}
    assert idb.get_global_channels() == [(r"r\.(.)", "global")]
    assert idb.get_subscribe_forwarders() == []
    idb.unsubscribe(one, "r.a")
    idb.unsubscribe_all(other)
    put("r", 1)
    assert len(one.told) == 3
    assert idb.get_channels() == {}


def test_a_subscriber_may_commit_and_may_fail(started: Path) -> None:
    class Copier(Subscriber):
        def on_notify(self, notifications: list[dict[str, Any]]) -> None:
            with idb.tx(subscriber=self) as t:
                t.put(notifications[0]["instance"], path="copy")
            raise RuntimeError("in a callback")

    last = Recorder("last")
    idb.subscribe(Copier("copier"), "r")
    idb.subscribe(last, "r")
    idb.subscribe(last, "copy")
    put("r", 7)
    assert idb.get("copy") == 7
    assert last.told == ["init", [("PUT", "r", 7)], [("PUT", "copy", 7)]]


def test_edges(started: Path) -> None:
    put("r.a", 1)
    put("r.b", 2)
    assert ["r.a(0)", "r(1)"] in idb.idb_edges("r", old_roots=True)
    assert ["r(0)", "r.a(0)"] not in idb.idb_edges()
    with pytest.raises(KeyError):
        idb.idb_edges("nothing")


def test_clear_begins_a_new_life(started: Path) -> None:
    put("r", 1)
    life = idb._db().state.life
    idb.clear()
    assert (idb.roots(), idb.old()) == ({}, [])
    assert idb._db().state.life != life
    put("r", 2)
    idb.reload_log()
    assert idb.roots() == {"r": 0}


def test_any_thread_may_commit(started: Path) -> None:
    def write(name: str) -> None:
        for value in range(50):
            put(f"{name}.x", value)

    threads = [threading.Thread(target=write, args=(f"r{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert idb.roots() == {f"r{n}": 49 for n in range(8)}
    idb.reload_log()
    assert idb.roots() == {f"r{n}": 49 for n in range(8)}


def test_several_databases(tmp_path: Path) -> None:
    with idb.Database.open(tmp_path, "a") as one, idb.Database.open(tmp_path, "b") as two:
        with one.tx() as t:
            t.put(1, path="r")
        assert (one.roots(), two.roots()) == ({"r": 0}, {})
        assert not idb.is_started()
