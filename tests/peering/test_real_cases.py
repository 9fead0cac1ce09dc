"""Server processes that are peers, in what seldom happens: cleared, frozen, large, oddly named."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from realservers import (
    PING_TIMEOUT,
    RealServer,
    Writer,
    check_written,
    everywhere,
    follows,
    go_on,
    logs_agree,
    running,
    until,
)


def pair(
    directory: Path, config: tuple[str, ...] = ("config",), operational: tuple[str, ...] = ("op",)
) -> tuple[RealServer, RealServer]:
    """A global server, and a local one that is not started yet."""
    g = RealServer(directory / "g", "g")
    g.start()
    return g, RealServer(directory / "a", "a", g.address, config, operational)


def both_write(g: RealServer, a: RealServer) -> list[Writer]:
    """Clients of both servers: the first two of ``config``, the others of ``op``."""
    return [
        Writer(server, root, f"{root}-{server.tega_id}", 0.005)
        for root in ("config", "op")
        for server in (g, a)
    ]


def test_a_local_server_that_is_there_first(tmp_path: Path) -> None:
    g, a = pair(tmp_path)
    g.kill()
    with running(a):
        a.put("/op/x/", 1)
        status, body = a.ask("PUT", "/config/x/", 1)
        assert (status, body["error"]["code"]) == (503, "leader_away")
        assert f"127.0.0.1:{g.port} is not connected" in body["error"]["message"]
        with running(g):
            until(a.is_up)
            follows("op", a, g)
            a.put("/config/x/", 1)
            follows("config", g, a)
            assert a.ask("POST", "/_sync") == (200, {})


def test_clear_on_either_side(tmp_path: Path) -> None:
    g, a = pair(tmp_path)
    with running(g, a):
        until(a.is_up)
        g.put("/config/x/", 1)
        a.put("/op/x/", 1)
        follows("op", a, g)
        assert a.ask("POST", "/_clear")[0] == 200
        everywhere("/config/", {"x": 1}, g, a)
        everywhere("/op/", None, g, a)
        a.put("/op/y/", 2)
        everywhere("/op/", {"y": 2}, g, a)
        assert g.ask("POST", "/_clear")[0] == 200
        everywhere("/config/", None, g, a)
        everywhere("/op/", {"y": 2}, g, a)
        until(a.is_up)
        a.put("/config/z/", 3)
        follows("config", g, a)
        follows("op", a, g)


def test_roots_with_odd_names(tmp_path: Path) -> None:
    roots = ("ä", "a b"), ("über", "q?x")
    g, a = pair(tmp_path, *roots)
    with running(g, a):
        until(a.is_up)
        for name in (*roots[0], *roots[1]):
            url = f"/{quote(name, safe='')}/"
            for server in (g, a):
                server.put(f"{url}on%20{server.tega_id}/", 1)
            everywhere(url, {"on g": 1, "on a": 1}, g, a)


def test_a_transaction_of_many_megabytes(tmp_path: Path) -> None:
    """Written on either side, and missed."""
    g, a = pair(tmp_path)
    with running(g, a):
        until(a.is_up)
        for number, server in enumerate((g, a, g)):
            if number == 2:
                a.kill()
            txid = server.ask("POST", "/_begin")[1]["txid"]
            for key in range(10):
                url = f"/config/large{key}/?txid={txid}"
                assert server.ask("PUT", url, f"{number}" * 900_000)[0] == 200
            status, body = server.ask("POST", f"/_commit?txid={txid}")
            assert (status, body.get("versions")) == (200, {"config": number})
            if number == 2:
                a.start()
            follows("config", g, a)
        assert a.is_up()


@pytest.mark.parametrize("victim", ["g", "a"])
def test_a_server_that_ends_in_order_while_clients_write(tmp_path: Path, victim: str) -> None:
    g, a = pair(tmp_path)
    with running(g, a):
        until(a.is_up)
        writers = both_write(g, a)
        go_on(writers, 5)
        {"g": g, "a": a}[victim].end()
        {"g": g, "a": a}[victim].start()
        go_on(writers, 5)
        for one in writers:
            one.finish()
        follows("config", g, a)
        follows("op", a, g)
        check_written(g, "config", writers[:2])
        check_written(a, "op", writers[2:])


@pytest.mark.parametrize("victim", ["g", "a"])
@pytest.mark.parametrize("seconds", [PING_TIMEOUT / 2, 2 * PING_TIMEOUT])
def test_a_frozen_server(tmp_path: Path, victim: str, seconds: float) -> None:
    """Such as one whose virtual machine is moved."""
    g, a = pair(tmp_path)
    with running(g, a):
        until(a.is_up)
        writers = both_write(g, a)
        go_on(writers, 5)
        frozen = {"g": g, "a": a}[victim]
        frozen.send(signal.SIGSTOP)
        time.sleep(seconds)
        frozen.send(signal.SIGCONT)
        until(a.is_up)
        go_on(writers, 5)
        for one in writers:
            one.finish()
        follows("config", g, a)
        follows("op", a, g)
        check_written(g, "config", writers[:2])
        check_written(a, "op", writers[2:])
        a.end()
        g.end()
        logs_agree("config", g, a)
        logs_agree("op", a, g)


@pytest.mark.parametrize("victim", ["g", "m", "a"])
def test_a_chain_of_servers_of_which_one_is_killed(tmp_path: Path, victim: str) -> None:
    g = RealServer(tmp_path / "g", "g")
    g.start()
    m = RealServer(tmp_path / "m", "m", g.address, ("config",), ("op", "middle"))
    m.start()
    a = RealServer(tmp_path / "a", "a", m.address, ("config", "middle"), ("op",))
    led = {"config": [g, m, a], "middle": [m, g, a], "op": [a, m, g]}
    with running(g, m, a):
        until(m.is_up)
        until(a.is_up)
        writers = [Writer(s, r, f"{r}-{s.tega_id}", 0.005) for r in led for s in (g, m, a)]
        go_on(writers, 5)
        killed = {"g": g, "m": m, "a": a}[victim]
        killed.kill()
        killed.start()
        go_on(writers, 5)
        for one in writers:
            one.finish()
        for root, (leader, *followers) in led.items():
            follows(root, leader, *followers)
            check_written(leader, root, [one for one in writers if one.root == root])
        for server in (a, m, g):
            server.end()
        for root, servers in led.items():
            logs_agree(root, *servers)
