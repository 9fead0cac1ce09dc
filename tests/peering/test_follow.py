"""Followers and leaders on a network without faults: each thing for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from faults import Network
from servers import PATIENCE, Server
from virtual import Simulation, run

from tega import strictjson
from tega.errors import LeaderAway, LedElsewhere, NoSession, OutcomeUnknown, TegaError
from tega.paths import parse
from tega.store import encode, node
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.store.history import Result
from tega.subscriber import SCOPE
from tega.watcher import Publication, Watcher


class World:
    """A global server g, and two local ones."""

    def __init__(self, simulation: Simulation) -> None:
        self.network = Network(
            simulation.loop, simulation.random, simulation.trace, latency=(0.001, 0.05)
        )
        self.loop = simulation.loop
        make = lambda *args, **more: Server(simulation, self.network, *args, **more)  # noqa: E731
        self.g = make("g")
        self.a = make("a", "g", ("config-a", "shared"), ("op-a",))
        self.b = make("b", "g", ("config-b", "shared"), ("op-b",))
        self.all = [self.g, self.a, self.b]
        for server in self.all:
            server.start()

    async def settle(self, seconds: float = 3.0) -> None:
        await asyncio.sleep(seconds)

    def put(self, server: Server, path: str, value: Any, **more: Any) -> Any:
        return self.tx(server, make_put(parse(path), value, **more))

    async def tx(self, server: Server, *operations: Any, txid: str | None = None) -> Result:
        result = await server.commit(Transaction(operations, "writer", txid))
        assert isinstance(result, Result)
        return result

    def check(self) -> None:
        for server in self.all:
            if server.alive:
                server.database.check()


def tree(server: Server, name: str) -> Any:
    """A root with all versions, or None."""
    root = server.database.state.roots.get(name)
    if root is None:
        return None
    text = b"".join(encode.internal(root.content, root.version, name, None))
    return root.version, root.chain, strictjson.loads(text)


def value(server: Server, path: str) -> Any:
    return node.thaw(server.database.find(parse(path)).content)


def same(name: str, *servers: Server) -> bool:
    first = tree(servers[0], name)
    return all(tree(server, name) == first for server in servers)


Work = Callable[[World], Coroutine[Any, Any, None]]


def world(work: Work) -> None:
    async def scenario(simulation: Simulation) -> None:
        made = World(simulation)
        await made.settle()
        await work(made)
        await made.settle()
        made.check()

    run(scenario, 1)


def test_config_flows_down_and_operational_data_up() -> None:
    async def work(w: World) -> None:
        await w.put(w.g, "config-a.x", {"y": 1})
        await w.put(w.a, "op-a.load", 0.5)
        await w.settle()
        assert tree(w.a, "config-a") is not None
        assert same("config-a", w.g, w.a)
        assert same("op-a", w.g, w.a)
        assert tree(w.b, "config-a") is None
        assert tree(w.g, "op-b") is None
        assert w.g.peers.applied("config-a") == {"g": 0, "a": 0}
        assert w.a.peers.applied("config-a") == {"g": 0, "a": 0}
        assert w.g.peers.applied("op-a") == {"g": 0, "a": 0}
        assert w.a.peers.applied("op-a") == {"g": 0, "a": 0}

    world(work)


def test_what_was_there_before_comes_with_its_history() -> None:
    async def work(w: World) -> None:
        w.a.crash()
        for number in range(60):
            await w.put(w.g, f"config-a.k{number % 7}", number)
        w.a.start()
        await w.settle()
        assert same("config-a", w.g, w.a)
        there, here = (s.database.state.roots["config-a"] for s in (w.g, w.a))
        assert here.old_versions() == there.old_versions() == [55, 56, 57, 58]

    world(work)


@pytest.mark.parametrize("commits", [5, 30, 100])
def test_what_was_missed_is_caught_up_by_commits_alone(commits: int) -> None:
    async def work(w: World) -> None:
        await w.put(w.g, "config-a.x", 0)
        await w.settle()
        w.a.crash()
        for number in range(commits):
            await w.put(w.g, f"config-a.k{number % 7}", number)
            await w.put(w.g, f"other.k{number % 7}", number)
        lines = len(w.network.trace.lines)  # type: ignore[attr-defined]
        w.a.start()
        await w.settle()
        assert same("config-a", w.g, w.a)
        told = w.network.trace.lines[lines:]  # type: ignore[attr-defined]
        assert sum("PEER commit" in line and "g>a" in line for line in told) == commits
        assert not any("PEER root" in line and "g>a" in line for line in told if "shared" in line)
        assert not w.a.aside

    world(work)


def test_a_write_on_a_follower_is_judged_by_its_leader() -> None:
    async def work(w: World) -> None:
        assert dict((await w.put(w.a, "config-a.x", 1)).versions) == {"config-a": 0}
        # Who wrote here reads it here.
        assert value(w.a, "config-a.x") == 1
        assert value(w.g, "config-a.x") == 1
        result = await w.put(w.g, "op-a.x", 2, expected=-1)
        assert w.g.database.state.seq == result.seq
        assert value(w.a, "op-a.x") == 2
        for server in (w.a, w.g):
            with pytest.raises(TegaError, match=r"collision at config-a\.x"):
                await w.put(server, "config-a.x", 3, expected=7)
        result = await server_rollback(w.a, "config-a")
        assert same("config-a", w.g, w.a)

    async def server_rollback(server: Server, name: str) -> Any:
        return await server.commit(Rollback(name, 0, "writer"))

    world(work)


def test_one_transaction_has_one_leader() -> None:
    async def work(w: World) -> None:
        both = make_put(parse("config-a.x"), 1), make_put(parse("shared.x"), 1)
        assert dict((await w.tx(w.a, *both)).versions) == {"config-a": 0, "shared": 0}
        (seq,) = {c.seq for c in w.a.database.hub.kept() if dict(c.versions) == {"config-a": 0,
                                                                                  "shared": 0}}
        assert seq > 0
        mixed = make_put(parse("config-a.x"), 1), make_put(parse("op-a.x"), 1)
        with pytest.raises(LedElsewhere) as refused:
            await w.tx(w.a, *mixed)
        assert refused.value.details["leaders"] == {"config-a": "g", "op-a": "a"}

    world(work)


def test_a_retry_with_the_same_id_changes_nothing() -> None:
    async def work(w: World) -> None:
        first = await w.tx(w.a, make_put(parse("config-a.x"), 1), txid="t1")
        for server in (w.a, w.g):
            again = await w.tx(server, make_put(parse("config-a.x"), 1), txid="t1")
            assert again.versions == first.versions
        assert w.g.database.state.roots["config-a"].version == 0

    world(work)


def test_an_away_leader_is_named() -> None:
    async def work(w: World) -> None:
        await w.put(w.a, "config-a.x", 1)
        await w.put(w.a, "op-a.x", 1)
        w.g.crash()
        await w.settle(2 * PATIENCE)
        with pytest.raises(LeaderAway, match="g is not connected") as refused:
            await w.put(w.a, "config-a.x", 2)
        assert refused.value.details["leader"] == "g"
        assert value(w.a, "config-a.x") == 1
        await w.put(w.a, "op-a.x", 2)
        w.g.start()
        with pytest.raises(LeaderAway, match="its leader a is not connected"):
            await w.put(w.g, "op-a.x", 3)
        await w.settle(PATIENCE)
        await w.put(w.g, "op-a.x", 4)
        assert same("op-a", w.g, w.a)
        assert same("config-a", w.g, w.a)

    world(work)


def test_ephemeral_nodes_are_seen_everywhere_and_go_everywhere() -> None:
    async def work(w: World) -> None:
        w.a.join("me")
        await w.tx(w.a, make_put(parse("op-a.me"), 1, None, "me", ephemeral=True))
        await w.tx(w.a, make_put(parse("shared.me.x"), {"n": 1}, None, "me", ephemeral=True))
        await w.put(w.g, "shared.other", 2)
        await w.settle()
        assert same("shared", w.g, w.a, w.b)
        assert same("op-a", w.g, w.a)
        assert w.b.database.find(parse("shared.me")).ephemeral is False
        assert w.b.database.find(parse("shared.me.x")).ephemeral is True
        with pytest.raises(NoSession):
            await w.tx(w.b, make_put(parse("shared.you"), 1, None, "you", ephemeral=True))
        w.a.leave("me")
        await w.settle()
        assert same("shared", w.g, w.a, w.b)
        for server in w.all:
            assert not server.database.state.ephemerals
        assert w.b.database.find(parse("shared")).content.children.keys() == {"other"}

    world(work)


def test_ephemeral_nodes_go_when_their_server_does_not_come_back() -> None:
    async def work(w: World) -> None:
        w.a.join("me")
        await w.tx(w.a, make_put(parse("shared.me"), 1, None, "me", ephemeral=True))
        await w.tx(w.a, make_put(parse("op-a.me"), 1, None, "me", ephemeral=True))
        await w.put(w.a, "op-a.x", 1)
        await w.settle()
        w.network.crash("a", told=True)
        w.a.crash()
        await w.settle(PATIENCE / 2)
        assert w.b.database.find(parse("shared.me")).content.value == 1
        assert w.g.database.find(parse("op-a.me"))
        version = w.g.database.state.roots["op-a"].version
        await w.settle(PATIENCE)
        assert not w.g.database.state.ephemerals
        assert same("shared", w.g, w.b)
        assert list(w.g.peers.stale) == ["op-a"]
        assert w.g.database.state.roots["op-a"].version == version
        w.a.start()
        await w.settle(2 * PATIENCE)
        assert w.g.peers.stale == {}
        assert same("op-a", w.a, w.g)

    world(work)


def test_the_ephemeral_nodes_of_a_live_session_outlast_a_restart_of_the_leader() -> None:
    async def work(w: World) -> None:
        w.a.join("me")
        await w.tx(w.a, make_put(parse("shared.me.x"), {"n": 1}, None, "me", ephemeral=True))
        await w.put(w.g, "shared.other", 2)
        await w.settle()
        w.g.crash()
        await w.settle(PATIENCE / 2)
        w.g.start()
        await w.settle(2 * PATIENCE)
        assert same("shared", w.g, w.a, w.b)
        assert w.b.database.find(parse("shared.me.x")).ephemeral
        assert value(w.g, "shared.me.x") == {"n": 1}
        w.a.leave("me")
        await w.settle()
        assert same("shared", w.g, w.a, w.b)
        for server in w.all:
            assert not server.database.state.ephemerals

    world(work)


class Ear(Watcher):
    def __init__(self, tega_id: str) -> None:
        super().__init__(tega_id)
        self.told: list[Any] = []

    def notify(self, notice: Any) -> None:
        """Not of interest here."""

    def tell(self, publication: Publication) -> None:
        self.told.append((publication.tega_id, publication.message))

    def cleared(self) -> None:
        """Not of interest here."""


def test_a_message_reaches_every_subscriber_of_global_scope_once() -> None:
    async def work(w: World) -> None:
        ears = {}
        for server in w.all:
            for scope in SCOPE:
                ears[server.name, scope] = ear = Ear(f"{server.name}-{scope.value}")
                server.database.hub.subscribe(ear, "news", scope)
            ears[server.name, "pattern"] = ear = Ear(f"{server.name}-pattern")
            server.database.hub.subscribe(ear, "n.*s", SCOPE.GLOBAL, True)
        await w.settle()
        for server in w.all:
            message = Publication(("news",), server.name, b'{"message":"hello"}')
            server.database.hub.tell(message)
            await w.settle()
            for (name, scope), ear in ears.items():
                expected = [(server.name, "hello")]
                if scope is SCOPE.LOCAL and name != server.name:
                    expected = []
                assert ear.told == expected, (server.name, name, scope)
                ear.told = []
        w.a.database.hub.unsubscribe_all(ears["a", SCOPE.GLOBAL])
        await w.settle()
        assert w.g.database.hub.channels()["news"] == ["b", "g-global", "g-local"]
        w.network.cut("a", "g")
        await w.settle()
        w.g.database.hub.tell(Publication(("news",), "g", b'{"message":2}'))
        await w.settle()
        assert ears["a", "pattern"].told == [("g", 2)]

    world(work)


def test_functions_are_called_from_anywhere() -> None:
    async def work(w: World) -> None:
        w.a.join("f")
        path = parse("inventory.ne1.f")
        await w.tx(w.a, make_put(path, "%f.f", None, "f", ephemeral=True))
        w.a.functions[path] = "f"
        await w.settle()
        for number, server in enumerate(w.all):
            assert strictjson.loads(await server.call(path, number)) == ["a", number]
        assert w.a.ran == [0, 1, 2]
        with pytest.raises(TegaError, match="no function at"):
            await w.b.call(parse("inventory.nothing"), 4)
        w.a.leave("f")
        del w.a.functions[path]
        await w.settle()
        with pytest.raises(TegaError, match="no function at"):
            await w.b.call(path, 5)

    world(work)


@pytest.mark.parametrize("anew", [False, True])
def test_what_comes_while_servers_still_greet_each_other_is_known_above(anew: bool) -> None:
    """Between what a local server says of itself first, and the answer to that."""

    async def work(w: World) -> None:
        path = parse("inventory.ne1.f")
        gone, ear, above = Ear("gone"), Ear("me"), Ear("above")
        w.a.database.hub.subscribe(gone, "old", SCOPE.GLOBAL)
        w.g.database.hub.subscribe(above, "from-a", SCOPE.GLOBAL)
        await w.settle()
        link = w.a.peers.up
        assert link is not None
        if anew:
            link.again("for this test")
        else:
            w.network.cut("a", "g")
        while w.a.peers.up is None or w.a.peers.up.synced:  # noqa: ASYNC110
            await asyncio.sleep(0.0001)
        w.a.join("f")
        w.a.functions[path] = "f"
        w.a.database.hub.subscribe(ear, "news", SCOPE.GLOBAL)
        w.a.database.hub.unsubscribe_all(gone)
        w.a.database.hub.tell(Publication(("from-a",), "a", b'{"message":1}'))
        put = asyncio.ensure_future(
            w.tx(w.a, make_put(path, "%f.f", None, "f", ephemeral=True))
        )
        await asyncio.sleep(0)
        assert not w.a.peers.up.synced
        await put
        await w.settle()
        assert strictjson.loads(await w.b.call(path, 1)) == ["a", 1]
        assert w.g.database.hub.channels().keys() == {"news", "from-a"}
        assert above.told == [("a", 1)]

    world(work)


def test_clear_empties_what_is_led_and_what_is_followed_comes_back() -> None:
    async def work(w: World) -> None:
        await w.put(w.g, "config-a.x", 1)
        await w.put(w.a, "op-a.x", 1)
        await w.settle()
        w.a.clear()
        await w.settle(10)
        assert same("config-a", w.g, w.a)
        assert tree(w.a, "config-a") is not None
        assert tree(w.a, "op-a") is None
        assert tree(w.g, "op-a") is None
        await w.put(w.a, "op-a.y", 2)
        w.g.clear()
        await w.settle(10)
        assert tree(w.g, "config-a") is None
        assert tree(w.a, "config-a") is None
        assert same("op-a", w.g, w.a)
        assert tree(w.g, "op-a") is not None
        await w.put(w.a, "config-a.z", 3)
        assert same("config-a", w.g, w.a)

    world(work)


def test_an_ordinary_root_of_that_name_is_set_aside() -> None:
    async def work(w: World) -> None:
        w.a.crash()
        w.g.crash()
        w.g.start()
        await w.put(w.g, "new", {"mine": 1})
        w.a.operational = ("op-a", "new")
        w.a.start()
        await w.put(w.a, "new.yours", 2)
        await w.settle(2 * PATIENCE)
        assert w.g.aside == [("new", 0)]
        assert same("new", w.g, w.a)
        assert w.g.database.state.following["new"].leader == "a"

    world(work)


def test_a_second_claimant_is_refused() -> None:
    async def work(w: World) -> None:
        await w.put(w.a, "op-a.x", 1)
        w.b.crash()
        w.b.operational = ("op-b", "op-a")
        w.b.start()
        await w.settle(2 * PATIENCE)
        assert w.b.peers.claims.refused == {
            "op-a": "a leads it: release it at g first if that server is gone for good"
        }
        assert same("op-a", w.g, w.a)
        w.a.crash()
        await w.settle(2 * PATIENCE)
        await w.g.peers.release("op-a")
        await w.put(w.g, "op-a.y", 2)
        w.b.peers.up.sync()
        await w.settle()
        assert w.g.database.state.following["op-a"].leader == "b"
        assert tree(w.g, "op-a") == tree(w.b, "op-a")

    world(work)


def test_a_consistent_read_waits_for_the_leader() -> None:
    async def work(w: World) -> None:
        await w.put(w.g, "config-a.x", 1)
        await w.settle()
        w.network.slow("g", "a", 100)
        await w.put(w.g, "config-a.x", {"long": "x" * 500})
        assert value(w.a, "config-a.x") == 1
        before = w.loop.time()
        await w.a.peers.barrier("config-a")
        assert w.loop.time() - before > 3
        assert w.a.database.find(parse("config-a.x.long"))
        await w.a.peers.barrier("op-a")
        w.g.crash()
        await w.settle(PATIENCE)
        with pytest.raises(LeaderAway):
            await w.a.peers.barrier("config-a")

    world(work)


def test_a_chain_of_servers() -> None:
    async def scenario(simulation: Simulation) -> None:
        network = Network(
            simulation.loop, simulation.random, simulation.trace, latency=(0.001, 0.05)
        )
        g = Server(simulation, network, "g")
        m = Server(simulation, network, "m", "g", ("config",), ("op",))
        a = Server(simulation, network, "a", "m", ("config",), ("op",))
        for server in (g, m, a):
            server.start()
        await asyncio.sleep(10)
        put = lambda path, value: Transaction(  # noqa: E731
            (make_put(parse(path), value),), "writer", None
        )
        await a.commit(put("config.x", 1))
        await g.commit(put("op.x", 2))
        await asyncio.sleep(3)
        for server in (g, m, a):
            assert value(server, "config.x") == 1
            assert value(server, "op.x") == 2
        assert same("config", g, m, a)
        assert same("op", g, m, a)
        assert g.peers.applied("config") == {"g": 0, "m": 0, "a": 0}
        a.join("me")
        ephemeral = make_put(parse("config.me"), 1, None, "me", ephemeral=True)
        await a.commit(Transaction((ephemeral,), "me"))
        await asyncio.sleep(3)
        assert same("config", g, m, a)
        await g.commit(put("config.x", 3))
        await a.peers.barrier("config")
        assert value(a, "config.x") == 3
        a.leave("me")
        await asyncio.sleep(3)
        assert same("config", g, m, a)
        assert not g.database.state.ephemerals
        await a.commit(Transaction((make_delete(parse("config.x")),), "writer"))
        await asyncio.sleep(3)
        assert same("config", g, m, a)

    run(scenario, 1)


def test_servers_in_a_circle_say_so() -> None:
    async def scenario(simulation: Simulation) -> None:
        network = Network(
            simulation.loop, simulation.random, simulation.trace, latency=(0.001, 0.05)
        )
        names = ["x", "y", "z"]
        ring = [
            Server(simulation, network, name, names[number - 1], ("round",))
            for number, name in enumerate(names)
        ]
        for server in ring:
            server.start()
            await asyncio.sleep(2)
        await asyncio.sleep(20)
        reasons = [server.dialer.reason or "" for server in ring if server.dialer is not None]
        assert any("a circle" in reason for reason in reasons), reasons
        for server in ring:
            # Whatever the answer is, there is one.
            with pytest.raises((LeaderAway, OutcomeUnknown)):
                await server.commit(
                    Transaction((make_put(parse("round.x"), 1),), "writer", None)
                )
        publication = Publication(("news",), "x", b'{"message":1}')
        ring[0].process.run(ring[0].database.hub.tell, publication)
        delivered = network.delivered
        await asyncio.sleep(10)
        assert network.delivered < delivered + 20

    run(scenario, 1)


def test_what_was_followed_before_a_restart_is_stale_if_nobody_comes() -> None:
    async def work(w: World) -> None:
        await w.put(w.a, "op-a.x", 1)
        await w.settle()
        w.a.crash()
        w.g.crash()
        w.g.start()
        await w.settle(PATIENCE / 2)
        assert not w.g.peers.stale
        await w.settle(PATIENCE)
        assert "op-a" in w.g.peers.stale
        w.a.start()
        await w.settle(2 * PATIENCE)
        assert not w.g.peers.stale

    world(work)
