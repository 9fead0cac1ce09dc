"""Reads of what a leader has now, through each driver, while the network holds its news back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forwarder import Forwarder
from programs import Program, Refused
from realservers import RealServer, running, until

from tega.driver import CRUDException, Driver

#: What somebody reads: a path or, to be matched, a pattern; and whether as the leader has it now.
Read = Callable[[str, bool, bool], Any]


class Far(NamedTuple):
    """A server with what it follows behind a network."""

    leader: RealServer
    follower: RealServer
    network: Forwarder


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    g = RealServer(tmp_path / "g", "g")
    g.start()
    with Forwarder(g.address) as network:
        a = RealServer(
            tmp_path / "a", "a", ("127.0.0.1", network.port), ("config", "other"), ("op",)
        )
        with running(g, a):
            until(a.is_up)
            yield Far(g, a, network)


@pytest.fixture(params=["Driver", "AsyncDriver", "go"])
def read(far: Far, request: pytest.FixtureRequest) -> Iterator[Read]:
    if request.param == "Driver":
        driver = Driver(*far.follower.address)

        def by_driver(path: str, regex: bool, consistent: bool) -> Any:
            try:
                return driver.get(
                    path, python_dict=True, regex_flag=regex, consistent=consistent
                )
            except CRUDException as error:
                raise Refused(error.status, error.code, str(error)) from None

        yield by_driver
        return
    with Program("go" if request.param == "go" else "python") as program:
        host, port = far.follower.address
        program.do("open", client="c", address=f"{host}:{port}")

        def by_program(path: str, regex: bool, consistent: bool) -> Any:
            verb = "match" if regex else "get"
            return program.do(verb, client="c", path=path, consistent=consistent)

        yield by_program


def test_a_consistent_read_waits_for_what_the_leader_has(far: Far, read: Read) -> None:
    far.leader.put("/config/x/", 1)
    until(lambda: far.follower.get("/config/x/") == 1)
    far.network.pause()
    far.leader.put("/config/x/", 2)
    assert read("config.x", False, False) == 1, "what has come here"
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(read, "config.x", False, True)
        with pytest.raises(NotYet):
            asked.result(0.3)
        far.network.heal()
        assert asked.result(30) == 2


def test_so_does_one_of_a_pattern(far: Far, read: Read) -> None:
    far.leader.put("/config/x/", 1)
    far.leader.put("/other/x/", 1)
    until(lambda: far.follower.get("/other/x/") == 1)
    far.network.pause()
    far.leader.put("/config/x/", 2)
    far.leader.put("/other/x/", 3)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(read, r".*\.x", True, True)
        with pytest.raises(NotYet):
            asked.result(0.3)
        far.network.heal()
        found = {path: one["instance"] for path, one in asked.result(30).items()}
    assert found == {"config.x": 2, "other.x": 3}


def test_a_root_that_is_led_here_is_read_at_once(far: Far, read: Read) -> None:
    far.follower.put("/op/x/", 1)
    far.network.pause()
    assert read("op.x", False, True) == 1


def test_without_the_leader_only_a_plain_read_is_answered(far: Far, read: Read) -> None:
    far.leader.put("/config/x/", 1)
    until(lambda: far.follower.get("/config/x/") == 1)
    far.network.cut()
    until(lambda: not far.follower.is_up())
    with pytest.raises(Refused) as caught:
        read("config.x", False, True)
    assert (caught.value.code, caught.value.status) == ("leader_away", 503)
    assert read("config.x", False, False) == 1


def test_a_transaction_that_changes_something_reads_what_is_here(far: Far) -> None:
    with Program("go") as go:
        host, port = far.follower.address
        go.do("open", client="c", address=f"{host}:{port}")
        ops = [
            {"do": "put", "path": "op.x", "value": 1},
            {"do": "get", "path": "op.x", "consistent": True},
        ]
        with pytest.raises(Refused, match="read in a TX of its own") as caught:
            go.do("tx", client="c", txid="t-1", ops=ops)
        assert caught.value.code == "malformed"
        assert far.follower.get("/op/x/") is None
