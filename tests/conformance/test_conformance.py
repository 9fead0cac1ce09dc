"""Sessions: the same through the program of each language, and between any two of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import PROGRAMS, Program, Refused
from service import Service, check

#: Who does it, and who is there beside it.
PAIRS = [(one, other) for one in PROGRAMS for other in PROGRAMS]


class Served:
    """A server that can be killed and started again, always on the same port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.service = Service(directory, "-t", "one")
        self.address = f"127.0.0.1:{self.service.port}"

    def kill(self) -> None:
        self.service.end(signal.SIGKILL)

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        self.service = Service(self._directory, "-t", "one", "-p", port)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    assert made.service.end()[0] == 0
    check(tmp_path, "one")


@pytest.fixture(params=PAIRS, ids="-".join)
def two(request: pytest.FixtureRequest, served: Served) -> Iterator[tuple[Program, Program]]:
    """Two programs, each with a client `c`: of the tega ids `first` and `second`."""
    for language in request.param:
        PROGRAMS[language]()
    with Program(request.param[0]) as first, Program(request.param[1]) as second:
        first.do("open", client="c", address=served.address, tega_id="first")
        second.do("open", client="c", address=served.address, tega_id="second")
        yield first, second


def refused(program: Program, code: str, do: str, **members: Any) -> str:
    """An order is refused with this code."""
    with pytest.raises(Refused) as caught:
        program.do(do, **members)
    assert caught.value.code == code
    return str(caught.value)


def change(
    program: Program, stream: str, ope: str, path: str, instance: Any, by: str = "second"
) -> dict[str, Any]:
    """The next change of a stream is this one."""
    got: dict[str, Any] = program.do("next", stream=stream)
    shown = {name: got[name] for name in ("ope", "path", "instance", "tega_id", "resync")}
    wanted = {"ope": ope, "path": path, "instance": instance, "tega_id": by, "resync": False}
    assert shown == wanted
    return got


def test_changes_are_heard_and_cut(two: tuple[Program, Program]) -> None:
    hears, makes = two
    hears.do("subscribe", client="c", stream="s", path="r.a")
    hears.do("subscribe", client="c", stream="x", path=r"r\.(b|c)", regex=True)
    hears.do("put", client="c", path="r.own", value=1)
    makes.do("put", client="c", path="r", value={"a": {"x": 2**70}, "b": 2, "c": [1, None], "d": 4})
    change(hears, "s", "PUT", "r.a", {"x": 2**70})
    change(hears, "x", "PUT", "r.b", 2)
    change(hears, "x", "PUT", "r.c", [1, None])
    makes.do("put", client="c", path="r.a.y", value=-0.5)
    change(hears, "s", "PUT", "r.a.y", -0.5)
    makes.do("delete", client="c", path="r.b")
    change(hears, "x", "DELETE", "r.b", 2)
    makes.do("rollback", client="c", root="r", backto=-1)
    change(hears, "s", "ROLLBACK", "r", None)
    change(hears, "x", "ROLLBACK", "r", None)
    hears.do("stop", stream="x")
    done = makes.do(
        "tx", client="c", txid="t",
        ops=[
            {"do": "put", "path": 'r.a."10.0.0.0/8"', "value": "é 日本 \"\\\n"},
            {"do": "get", "path": "nothing"},
            {"do": "get", "path": "r.b"},
            {"do": "delete", "path": "r.a.x"},
            {"do": "put", "path": "r.b", "value": 3},
        ],
    )  # fmt: skip
    assert done["found"] == [{"code": "not_found"}, 2]
    first = change(hears, "s", "PUT", 'r.a."10.0.0.0/8"', "é 日本 \"\\\n")
    second = change(hears, "s", "DELETE", "r.a.x", 2**70)
    assert first["seq"] == second["seq"] == done["seq"]
    assert first["version"] == done["versions"]["r"]


def test_who_was_away_resumes(two: tuple[Program, Program]) -> None:
    hears, makes = two
    before = makes.do("put", client="c", path="r.a", value=0)
    makes.do("put", client="c", path="r.a", value=1)
    makes.do("put", client="c", path="other", value=1)
    makes.do("put", client="c", path="r.a", value=2)
    place = str(before["seq"])
    hears.do("subscribe", client="c", stream="s", path="r.a", **{"from": place})
    change(hears, "s", "PUT", "r.a", 1)
    change(hears, "s", "PUT", "r.a", 2)
    hears.do("subscribe", client="c", stream="u", path="r.a", **{"from": "3@another-life"})
    got = hears.do("next", stream="u")
    assert (got["ope"], got["instance"], got["resync"]) == ("PUT", 2, True)


def test_messages_reach_the_others(two: tuple[Program, Program]) -> None:
    hears, says = two
    hears.do("listen", client="c", stream="m", path="alarms.ne1")
    hears.do("listen", client="c", stream="p", path=r"alarms\..*", regex=True, scope="global")
    for value in (None, 0, "", {"a": [2**64]}):
        says.do("publish", client="c", path="alarms.ne1", value=value)
        for stream in ("m", "p"):
            got = hears.do("next", stream=stream)
            assert got == {"channel": "alarms.ne1", "tega_id": "second", "message": value}
    says.do("publish", client="c", path="alarms", value="nobody hears this")
    says.do("publish", client="c", path='alarms."ne 2"', value=1)
    assert hears.do("next", stream="p")["channel"] == 'alarms."ne 2"'


def test_functions_are_called(two: tuple[Program, Program]) -> None:
    caller, owner = two
    for function in ("echo", "add", "null", "fail"):
        owner.do("serve", client="c", path=f"f.{function}", function=function)
    given = [1, -0.5, None, "x", {"a": [2**70]}]
    assert caller.do("call", client="c", path="f.echo", args=given, kwargs={"k": [1]}) == {
        "args": given, "kwargs": {"k": [1]},
    }  # fmt: skip
    assert caller.do("call", client="c", path="f.echo", args=[]) == {"args": [], "kwargs": {}}
    assert caller.do("call", client="c", path="f.add", args=[2, -2]) == 0
    assert caller.do("call", client="c", path="f.null", args=[]) is None
    said = refused(caller, "call_failed", "call", client="c", path="f.fail", args=[])
    assert "it cannot be done" in said
    refused(caller, "call_failed", "call", client="c", path="f.add", args=[1])
    refused(caller, "no_such_function", "call", client="c", path="f.none", args=[])
    owner.do("unserve", client="c", path="f.null")
    refused(caller, "no_such_function", "call", client="c", path="f.null", args=[])
    # Of oneself.
    assert owner.do("call", client="c", path="f.add", args=[1, 2**62]) == 2**62 + 1


def test_ephemeral_nodes_go_with_their_session(two: tuple[Program, Program]) -> None:
    sees, puts = two
    sees.do("subscribe", client="c", stream="s", path="here")
    puts.do("put", client="c", path="here.second", value={"up": True}, ephemeral=True)
    change(sees, "s", "PUT", "here.second", {"up": True})
    refused(sees, "ephemeral_conflict", "put", client="c", path="here.second.up", value=1)
    puts.do("close", client="c")
    change(sees, "s", "DELETE", "here.second", {"up": True})
    refused(sees, "not_found", "get", client="c", path="here")


def test_a_tega_id_is_taken_over(two: tuple[Program, Program], served: Served) -> None:
    old, new = two
    old.do("put", client="c", path="here.first", value=1, ephemeral=True)
    new.do("open", client="again", address=served.address, tega_id="first")
    assert new.do("get", client="again", path="here.first") == 1
    refused(old, "taken_over", "get", client="c", path="here.first")
    refused(new, "refused", "open", client="x", address=served.address, tega_id="one")


def test_a_server_that_is_killed_in_the_middle(
    two: tuple[Program, Program], served: Served
) -> None:
    one, other = two
    one.do("put", client="c", path="here.first", value=1, ephemeral=True)
    other.do("serve", client="c", path="f.add", function="add")
    one.do("subscribe", client="c", stream="s", path="r")
    for number in range(5):
        other.do("put", client="c", path="r.x", value=number)
        change(one, "s", "PUT", "r.x", number)
    one.tell("put", client="c", path="mine.a", value=1, version=-1)
    served.kill()
    # They are sent, or sent again, once it is back; and done once.
    one.tell("put", client="c", path="mine.b", value=1, version=-1)
    other.tell("put", client="c", path="r.x", value=5)
    served.start()
    for program in (one, one, other):
        program.answer()
    assert one.do("roots", client="c") == {"f": 1, "here": 1, "mine": 1, "r": 5}
    # It does not know what was before its start, and tells how all stands then.
    got = one.do("next", stream="s")
    if got["resync"] and got["instance"] == {"x": 4}:
        got = one.do("next", stream="s")
    assert got["instance"] == ({"x": 5} if got["resync"] else 5)
    assert one.do("call", client="c", path="f.add", args=[1, 1]) == 2
    assert other.do("get", client="c", path="here.first") == 1
    other.do("close", client="c")
