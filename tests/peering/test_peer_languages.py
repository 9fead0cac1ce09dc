"""Agents in Go and in Python, each at a local server, and what they have of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from programs import PROGRAMS, Program, Refused
from realservers import Three, running, until

#: Who is at which server.
PLACES = [("a", "b"), ("b", "a"), ("a", "g"), ("g", "b")]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    PROGRAMS["go"]()
    made = Three(tmp_path_factory.mktemp("three"))
    with running(*made.all):
        made.settle()
        yield made


@pytest.mark.parametrize(("go_at", "python_at"), PLACES)
def test_go_and_python_agents_call_each_other(three: Three, go_at: str, python_at: str) -> None:
    servers = {one.tega_id: one for one in three.all}
    root = f"f-{go_at}{python_at}"

    def opened(language: str, at: str) -> Program:
        made = Program(language)
        host, port = servers[at].address
        made.do("open", client="c", address=f"{host}:{port}", tega_id=f"{language}-{root}")
        return made

    with opened("go", go_at) as go, opened("python", python_at) as python:
        for name, owner, caller in (("go", go, python), ("python", python, go)):
            path = f"{root}-{name}"
            owner.do("serve", client="c", path=f"{path}.echo", function="echo")
            owner.do("serve", client="c", path=f"{path}.fail", function="fail")
            owner.do("listen", client="c", stream="m", path=f"{path}.alarms", scope="global")

            def called(caller: Program = caller, path: str = path) -> Any:
                # What a server offers is announced to the others a moment later.
                try:
                    return caller.do("call", client="c", path=f"{path}.echo", args=[2**70, None])
                except Refused as refusal:
                    if refusal.code != "no_such_function":
                        raise
                    return None

            assert until(called) == {"args": [2**70, None], "kwargs": {}}
            with pytest.raises(Refused, match="it cannot be done") as caught:
                caller.do("call", client="c", path=f"{path}.fail", args=[])
            assert caught.value.code == "call_failed"
            caller.do("publish", client="c", path=f"{path}.alarms", value=[name])
            assert owner.do("next", stream="m")["message"] == [name]


def test_a_write_reaches_its_leader_and_who_watches_there(three: Three) -> None:
    with Program("go") as go, Program("python") as python:
        for program, server in ((go, three.a), (python, three.g)):
            host, port = server.address
            program.do("open", client="c", address=f"{host}:{port}")
        go.do("subscribe", client="c", stream="s", path="config-a")
        done = python.do("put", client="c", path="config-a.mtu", value=1500)
        assert go.do("next", stream="s")["instance"] == 1500
        # Led by the global server, and yet refused here, where the follower passes it on.
        with pytest.raises(Refused, match="expected version 9") as caught:
            go.do("put", client="c", path="config-a.mtu", value=1, version=9)
        assert caught.value.code == "collision"
        go.do(
            "put", client="c", path="config-a.mtu", value=9000, version=done["versions"]["config-a"]
        )
        assert python.do("get", client="c", path="config-a.mtu") == 9000
