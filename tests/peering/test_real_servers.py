"""A global server and two local ones as processes: together, and when they are killed."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from forwarder import Forwarder
from realservers import (
    PING_TIMEOUT,
    RealServer,
    Three,
    Writer,
    check_written,
    everywhere,
    follows,
    go_on,
    logs_agree,
    running,
    says,
    until,
)

from tega.driver import Driver

#: Kills while clients write, of each server.
ROUNDS = [2, pytest.param(40, marks=pytest.mark.long)]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    made = Three(tmp_path)
    with running(*made.all):
        made.settle()
        yield made


# -- together ---------------------------------------------------------------------------------


def test_what_is_put_on_either_side_is_read_on_the_other(three: Three) -> None:
    g, a, b = three.all
    g.put("/config-a/x/", {"y": [1, None, "\u00fc"]})
    a.put("/op-a/load/", 0.5)
    for root, leader, follower in (("config-a", g, a), ("op-a", a, g)):
        follows(root, leader, follower)
    assert a.get("/config-a/x/y/") == [1, None, "\u00fc"]
    assert g.get("/op-a/") == {"load": 0.5}
    assert b.get("/config-a/") is None
    assert until(lambda: g.get("/_applied?root_oid=config-a") == {"g": 0, "a": 0})
    assert until(lambda: a.get("/_applied?root_oid=op-a") == {"g": 0, "a": 0})


def test_who_writes_on_a_follower_reads_it_there_and_everywhere(three: Three) -> None:
    g, a, b = three.all
    for number in range(50):
        writer, reader = random.choice([(a, g), (b, g), (g, a)])
        made = writer.put("/shared/x/", number)
        assert made["versions"] == {"shared": number}
        assert made["seq"] <= writer.health()["seq"]
        assert writer.get("/shared/x/") == number
        everywhere("/shared/x/", number, reader)
    assert g.put("/op-b/x/", 1)["versions"] == {"op-b": 0}
    assert g.get("/op-b/x/") == b.get("/op-b/x/") == 1
    status, body = b.ask("POST", "/_rollback?root_oid=shared&backto=-3")
    assert (status, b.get("/shared/x/")) == (200, 46), body
    three.b.ask("DELETE", "/shared/x/")
    follows("shared", g, a, b)
    assert g.get("/shared/") is None


def test_a_collision_is_judged_by_the_leader(three: Three) -> None:
    g, a, b = three.all
    assert a.ask("PUT", "/shared/x/?version=-1", 1)[0] == 200
    for server in three.all:
        status, body = server.ask("PUT", "/shared/x/?version=-1", 2)
        assert (status, body["error"]["code"]) == (409, "collision")
        assert "shared.x" in body["error"]["message"]
    # Of those that write to the same version, one gets through.
    for version in range(20):
        found: list[int] = []

        def write(server: RealServer, version: int = version, found: list[int] = found) -> None:
            found.append(server.ask("PUT", f"/shared/x/?version={version}", server.tega_id)[0])

        threads = [threading.Thread(target=write, args=(server,)) for server in three.all]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200, 409, 409]
    follows("shared", g, a, b)
    assert g.get("/_roots")["shared"] == 20


def test_a_transaction_arrives_as_one(three: Three) -> None:
    g, a, _ = three.all
    _, body = a.ask("POST", "/_begin")
    txid = body["txid"]
    a.ask("PUT", f"/config-a/x/?txid={txid}", 1)
    a.ask("PUT", f"/shared/x/?txid={txid}", 1)
    assert a.ask("POST", f"/_commit?txid={txid}")[0] == 200
    again = a.ask("POST", f"/_commit?txid={txid}")
    assert again[1]["versions"] == {"config-a": 0, "shared": 0}
    follows("config-a", g, a)
    _, body = a.ask("POST", "/_begin")
    txid = body["txid"]
    a.ask("PUT", f"/config-a/x/?txid={txid}", 2)
    a.ask("PUT", f"/op-a/x/?txid={txid}", 2)
    status, body = a.ask("POST", f"/_commit?txid={txid}")
    assert (status, body["error"]["code"]) == (409, "led_elsewhere")
    assert body["error"]["leaders"] == {"config-a": "g", "op-a": "a"}
    assert a.get("/config-a/x/") == 1


def test_health_tells_of_an_away_peer_and_of_staleness(three: Three) -> None:
    g, a, _b = three.all
    three.first_puts()
    assert {server.health()["status"] for server in three.all} == {"ok"}
    assert {one["tega_id"] for one in g.health()["peers"]} == {"a", "b"}
    b_at_g = g.peer("b")
    assert b_at_g is not None
    assert b_at_g["roots"]["op-b"] == {"caught_up": True, "lag": 0, "leads": "b"}
    three.b.kill()
    until(lambda: g.peer("b") is None)
    says(g, "op-b is stale", PING_TIMEOUT + 2)
    assert g.health()["status"] == "degraded"
    g.kill()
    says(a, f"127.0.0.1:{g.port} is away")
    says(a, "config-a is stale", PING_TIMEOUT + 2)
    status, body = a.ask("PUT", "/config-a/x/", 1)
    assert (status, body["error"]["code"]) == (503, "leader_away")
    assert body["error"]["leader"] == "g"
    assert a.put("/op-a/x/", 1)
    g.start()
    three.b.start()
    three.agree()
    until(lambda: {server.health()["status"] for server in three.all} == {"ok"})
    assert a.put("/config-a/x/", 1)


# -- killed in the middle of a commit -----------------------------------------------------------


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("victims", ["g", "a", "ag"])
def test_killed_while_clients_write_on_both_sides(
    three: Three, victims: str, rounds: int
) -> None:
    g, a, b = three.all
    by_id = {server.tega_id: server for server in three.all}
    leaders = {"shared": g, "op-a": a, "config-a": g}
    writers = [
        Writer(server, root, f"{root}-{server.tega_id}-{number}", 0.005)
        for root, servers in (("shared", (g, a, b)), ("op-a", (a, g)), ("config-a", (a, g)))
        for server in servers
        for number in range(2)
    ]
    for number in range(rounds):
        for victim in victims:
            live = [w for w in writers if w.server.alive and leaders[w.root].alive]
            go_on(live, 3)
            by_id[victim].kill()
        for victim in victims:
            by_id[victim].start()
        if number == rounds - 1:
            three.settle()
    for one in writers:
        one.finish()
    three.agree()
    # It was in the middle of something.
    assert sum(one.unknown for one in writers) > 0
    for root, leader in leaders.items():
        check_written(leader, root, [one for one in writers if one.root == root])
    for server in reversed(three.all):
        server.end()
    for root, *servers in (("shared", g, a, b), ("op-a", a, g), ("config-a", g, a)):
        logs_agree(root, *servers)


# -- killed in the middle of a catch-up ---------------------------------------------------------


def many_leaves(server: RealServer, root: str) -> None:
    """100 000 leaves, which go over as a whole root."""
    for number in range(100):
        server.put(f"/{root}/c{number}/", {f"leaf{n:04d}": 1000 * number + n for n in range(1000)})


def many_commits(server: RealServer, root: str) -> None:
    """5000 commits, which go over one by one."""

    def write(first: int) -> None:
        for number in range(first, 5000, 4):
            server.put(f"/{root}/k{number % 97}/", f"{number:0200d}")

    threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("load", "victim"),
    [
        (many_leaves, "leader"),
        (many_leaves, "follower"),
        (many_commits, "both"),
        pytest.param(many_leaves, "both", marks=pytest.mark.long),
        pytest.param(many_commits, "leader", marks=pytest.mark.long),
        pytest.param(many_commits, "follower", marks=pytest.mark.long),
    ],
)
def test_killed_in_the_middle_of_a_catch_up(
    tmp_path: Path, load: Callable[[RealServer, str], None], victim: str
) -> None:
    g = RealServer(tmp_path / "g", "g")
    g.start()
    with Forwarder(g.address) as network, running(g):
        up = ("127.0.0.1", network.port)
        a = RealServer(tmp_path / "a", "a", up, ("config",), ("op",))
        with running(a):
            until(a.is_up)
            g.put("/config/first/", 1)
            a.put("/op/first/", 1)
            follows("config", g, a)
            a.kill()
            load(g, "config")
            for half in (400_000, 800_000):
                network.slow(2e6)
                before = network.passed
                a.start()
                until(partial(network.has_passed, before + half))
                assert not a.is_up()
                if victim != "follower":
                    g.kill()
                if victim != "leader":
                    a.kill()
                if victim != "follower":
                    g.start()
                if victim == "leader":
                    # What it has half of is of no use to anybody until the rest is there.
                    assert a.get("/config/first/") == 1
                    a.kill()
            network.slow(None)
            a.start()
            follows("config", g, a)
            until(a.is_up)
            assert a.put("/config/last/", 1)["versions"]["config"] == g.get("/_roots")["config"]
            g.put("/op/last/", 1)
            follows("op", a, g)
            a.end()
        g.end()
        for root in ("config", "op"):
            logs_agree(root, g, a)
        assert not list(tmp_path.glob("*/log/aside/*"))


# -- names ----------------------------------------------------------------------------------------


def test_two_servers_with_one_tega_id(three: Three, tmp_path: Path) -> None:
    """The newer is refused while the older one answers, and both say so."""
    three.first_puts()
    clone = RealServer(tmp_path / "clone", "a", three.g.address, ("config-a",), ("op-a",))
    with running(clone):
        says(clone, "two servers have the tega id a")
        until(lambda: "two servers have the tega id a" in three.a.said)
        assert three.a.is_up()
        assert three.a.put("/config-a/x/", 1)
        follows("config-a", three.g, three.a)
        assert clone.get("/config-a/") is None


# -- drivers --------------------------------------------------------------------------------------


def test_a_session_of_the_synchronous_driver(three: Three) -> None:
    """`Driver` reads and writes on a local server as on any other."""
    with Driver(*three.a.address) as driver:
        driver.put({"x": 1}, path="config-a.n")
        driver.begin()
        driver.put(2, path="shared.x")
        driver.put(3, path="config-a.n.x")
        driver.commit()
        assert driver.get("config-a", python_dict=True) == {"n": {"x": 3}}
        assert json.loads(json.dumps(driver.get("shared.x", python_dict=True))) == 2
    follows("config-a", three.g, three.a)
