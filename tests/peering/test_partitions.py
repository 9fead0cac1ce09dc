"""Partitions between server processes: what goes on meanwhile, and how they find together again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from forwarder import Forwarder
from namespaces import Namespace
from realservers import (
    BOUND,
    PING_TIMEOUT,
    RealServer,
    Writer,
    check_written,
    follows,
    go_on,
    logs_agree,
    running,
    says,
    until,
)


class Parted(NamedTuple):
    """A global server and two local ones, of which a can be parted from g."""

    g: RealServer
    a: RealServer
    b: RealServer
    part: Callable[[], None]
    heal: Callable[[], None]

    @property
    def all(self) -> tuple[RealServer, RealServer, RealServer]:
        return self.g, self.a, self.b


@contextmanager
def started(directory: Path, how: str) -> Iterator[Parted]:
    """Servers that can be parted.

    :param how: a forwarder's ``pause`` or ``cut``, or the ``link`` of a network namespace
    """
    roots: tuple[tuple[str, ...], tuple[str, ...]] = (("config-a", "shared"), ("op-a",))
    with ExitStack() as stack:
        if how == "link":
            space = stack.enter_context(Namespace())
            g = RealServer(directory / "g", "g", host=space.here)
            g.start()
            a = RealServer(
                directory / "a", "a", g.address, *roots, host=space.watched, within=space.within
            )

            def part() -> None:
                space.set_link("down")

            def heal() -> None:
                space.set_link("up")

        else:
            g = RealServer(directory / "g", "g")
            g.start()
            network = stack.enter_context(Forwarder(g.address))
            a = RealServer(directory / "a", "a", ("127.0.0.1", network.port), *roots)
            part = network.pause if how == "pause" else network.cut
            heal = network.heal
        b = RealServer(directory / "b", "b", g.address, ("shared",), ("op-b",))
        with running(g, a, b):
            until(a.is_up)
            until(b.is_up)
            yield Parted(g, a, b, part, heal)


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", ["pause", "cut", "link"])
def test_both_sides_go_on_and_find_together_again(
    tmp_path: Path, how: str, seconds: float
) -> None:
    with started(tmp_path, how) as servers:
        g, a, b = servers.all
        pause = 0.0 if seconds < 10 else 0.05
        writers = [
            Writer(server, root, f"{root}-{server.tega_id}", pause)
            for root, those in (("shared", (g, a, b)), ("config-a", (g, a)), ("op-a", (g, a)))
            for server in those
        ]
        go_on(writers, 20)
        servers.part()
        says(a, "is away", PING_TIMEOUT + 2)
        until(lambda: g.peer("a") is None, PING_TIMEOUT + 2)
        begun = time.monotonic()
        for server, root, leader in ((a, "shared", "g"), (a, "config-a", "g"), (g, "op-a", "a")):
            status, body = server.ask("PUT", f"/{root}/never/", 1)
            assert (status, body["error"]["code"]) == (503, "leader_away")
            assert body["error"]["leader"] == leader
            assert f"leader {leader} is" in body["error"]["message"]
        # Each side goes on with what it leads.
        led_here = {"shared-g", "shared-b", "config-a-g", "op-a-a"}
        go_on([one for one in writers if one.label in led_here], 10)
        says(a, "shared is stale", PING_TIMEOUT + 2)
        says(g, "op-a is stale", PING_TIMEOUT + 2)
        # A partition is nothing but time that passes.
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        servers.heal()
        # Longer ones have longer pauses between the tries.
        until(a.is_up, BOUND if seconds < 10 else 60)
        for one in writers:
            one.finish()
            assert {refusal["code"] for refusal in one.refusals} <= {"leader_away"}
            # What was on its way when the link went down, or came after that.
            assert bool(one.unknown or one.refusals) is (one.label not in led_here)
        for root, first, *others in (("shared", g, a, b), ("config-a", g, a), ("op-a", a, g)):
            follows(root, first, *others)
            check_written(first, root, [one for one in writers if one.root == root])
        until(lambda: {server.health()["status"] for server in servers.all} == {"ok"})
        for server in reversed(servers.all):
            server.end()
        logs_agree("shared", *servers.all)
        logs_agree("config-a", g, a)
        logs_agree("op-a", a, g)
        assert not list(tmp_path.glob("*/log/aside/*"))


def test_a_short_pause_is_waited_out(tmp_path: Path) -> None:
    """Nobody hangs up; writes that were on their way are answered late, and once."""
    with started(tmp_path, "pause") as servers:
        g, a, _b = servers.all
        writers = [Writer(a, "shared", "a"), Writer(g, "op-a", "g")]
        go_on(writers, 20)
        servers.part()
        # Less than the ping timeout.
        time.sleep(PING_TIMEOUT / 3)
        servers.heal()
        go_on(writers, 20)
        for one in writers:
            one.finish()
            assert not one.refusals
            assert not one.unknown
            check_written({"shared": g, "op-a": a}[one.root], one.root, [one])
        assert a.said.count("connected to g") == 1


@pytest.mark.parametrize("how", ["pause", "cut"])
def test_a_connection_that_comes_and_goes(tmp_path: Path, how: str) -> None:
    with started(tmp_path, how) as servers:
        g, a, b = servers.all
        writers = [Writer(server, "shared", server.tega_id) for server in servers.all]
        writers += [Writer(server, "op-a", f"op-{server.tega_id}") for server in (g, a)]
        for number in range(4):
            go_on(writers, 3)
            servers.part()
            time.sleep(0.5 * (number % 4))
            servers.heal()
        until(a.is_up)
        for one in writers:
            one.finish()
        follows("shared", g, a, b)
        follows("op-a", a, g)
        check_written(g, "shared", writers[:3])
        check_written(a, "op-a", writers[3:])
        for server in reversed(servers.all):
            server.end()
        logs_agree("shared", *servers.all)
        logs_agree("op-a", a, g)
