"""A world of servers in trouble: clients that write on all of them, and what must hold then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults import Network
from servers import PATIENCE, Server
from virtual import Simulation

from tega import strictjson
from tega.errors import LeaderAway, NotFound, OutcomeUnknown, TegaError, Unavailable
from tega.notices import Notice
from tega.paths import Path, parse
from tega.protocol import Message, Peer, Request
from tega.store import encode, node
from tega.store.commit import Commit, Rollback, Transaction, make_delete, make_put
from tega.store.ephemeral import lasting
from tega.store.node import ABSENT
from tega.subscriber import SCOPE
from tega.watcher import Publication, Watcher
from tega.web.later import Later

#: Seconds of trouble, and the most that it may take until all is well after it.
TROUBLE = 120.0
HEALING = 240.0

#: Seconds that a call may take until it has an answer or an error.
CALL = 25.0


@dataclass
class Write:
    """A client's transaction: what it was told, and how often each server's log has it."""

    txid: str
    server: str
    request: Transaction | Rollback
    told: str = "nothing"
    done: list[tuple[str, str]] = field(default_factory=list)


class Mirror(Watcher):
    """Knows the roots of a server only from what it is told."""

    def __init__(self, server: Server) -> None:
        super().__init__("mirror")
        self._database = server.database
        self.trees: dict[str, Any] = {}
        self._seq = 0

    def notify(self, notice: Notice) -> None:
        assert notice.seq > self._seq, f"number {notice.seq} after {self._seq}"
        self._seq = notice.seq
        for piece in notice.pieces:
            if piece.ope == "PUT":
                _put(self.trees, piece.path, node.thaw(piece.content))
            elif piece.ope == "DELETE":
                _delete(self.trees, piece.path)
            else:
                self.load(piece.path[0])

    def load(self, name: str) -> None:
        """Read a root, as a client does after a rollback."""
        root = self._database.state.roots.get(name)
        if root is None or root.content is ABSENT:
            self.trees.pop(name, None)
        else:
            self.trees[name] = node.thaw(root.content)

    def tell(self, publication: Publication) -> None:
        """It has not subscribed to messages of this name."""

    def cleared(self) -> None:
        self._seq = 0
        self.trees = {}


def _put(tree: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        below = tree.get(key)
        if type(below) is not dict:
            below = tree[key] = {}
        tree = below
    tree[path[-1]] = value


def _delete(tree: dict[str, Any], path: Path) -> None:
    way = []
    for key in path[:-1]:
        if type(tree.get(key)) is not dict:
            return
        way.append((tree, key))
        tree = tree[key]
    tree.pop(path[-1], None)
    for above, key in reversed(way):
        if above[key]:
            return
        del above[key]


def without_empty(value: Any) -> Any:
    """A tree without empty containers: a watcher cannot know which of them stay."""
    if type(value) is not dict:
        return value
    found = {key: without_empty(child) for key, child in value.items()}
    return {key: child for key, child in found.items() if child != {}}


class Ear(Watcher):
    """Hears messages, each at most once."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.live = False
        self.told: Counter[str] = Counter()

    def tell(self, publication: Publication) -> None:
        self.told[publication.message] += 1

    def cleared(self) -> None:
        """Nothing that it hears is stored."""


class World:
    """A global server, local ones, and clients of all of them.

    :param chain: with a local server below a local one
    """

    def __init__(self, simulation: Simulation, chain: bool) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.network = Network(
            simulation.loop, simulation.random, simulation.trace,
            latency=(0.001, 1.0), duplicable=_may_come_twice,
        )  # fmt: skip
        below = ("op-c",) if chain else ()
        self.servers = {"g": self._server("g")}
        self.servers["a"] = self._server("a", "g", ("config-a", "shared"), ("op-a",))
        self.servers["b"] = self._server("b", "g", ("config-b", "shared"), ("op-b", *below))
        self.leaders = {"config-a": "g", "config-b": "g", "shared": "g", "op-a": "a", "op-b": "b"}
        self.followers = {
            "config-a": ["a"], "config-b": ["b"], "shared": ["a", "b"],
            "op-a": ["g"], "op-b": ["g"],
        }  # fmt: skip
        self.pairs = [("a", "g"), ("b", "g")]
        if chain:
            self.servers["c"] = self._server("c", "b", ("shared",), ("op-c",))
            self.leaders["op-c"] = "c"
            self.followers["op-c"] = ["b", "g"]
            self.followers["shared"].append("c")
            self.pairs.append(("c", "b"))
        self.writes: dict[str, Write] = {}
        self.calls: dict[int, tuple[float, str]] = {}
        self.answered: set[int] = set()
        self.ears: list[Ear] = []
        self.mirrors: dict[str, Mirror] = {}
        self._count = 0
        self._down: set[str] = set()

    def _server(self, name: str, *args: Any) -> Server:
        server = Server(self.simulation, self.network, name, *args)
        server.started.append(self._begun)
        return server

    def _begun(self, server: Server) -> None:
        """A server has started: its own clients are there again."""
        self._record(server)
        self.mirrors[server.name] = mirror = Mirror(server)
        for name in self.known(server.name):
            mirror.load(name)
            server.database.hub.subscribe(mirror, name)
        for scope in SCOPE:
            ear = Ear(f"{server.name}-{scope.value}-{len(self.ears)}")
            self.ears.append(ear)
            server.database.hub.subscribe(ear, "news", scope)
        path = parse(f"inv-{server.name}.f")
        server.join(f"f-{server.name}")
        server.functions = {path: f"f-{server.name}"}
        server.committer.enter(
            Transaction((make_put(path, f"%f-{server.name}.f", ephemeral=True),),
                        f"f-{server.name}"),
            _ignore,
        )  # fmt: skip

    def _record(self, server: Server) -> None:
        """Keep books of what each leader has made durable."""
        publish = server.database.hub.publish

        def recorded(commits: Any) -> None:
            for commit in commits:
                self._book(server, commit)
            publish(commits)

        server.database.hub.publish = recorded  # type: ignore[method-assign]

    def _book(self, server: Server, commit: Commit) -> None:
        if commit.txid in self.writes and not commit.follows:
            self.writes[commit.txid].done.append((server.name, server.database.state.life))

    def known(self, name: str) -> list[str]:
        """The roots that a server leads or follows."""
        return [
            root
            for root in self.leaders
            if self.leaders[root] == name or name in self.followers[root]
        ]

    # -- what clients do ------------------------------------------------------------------------

    async def live(self) -> None:
        """Trouble for some time; then calm, until all is as it should be.

        :raises AssertionError: where that does not come
        """
        for server in self.servers.values():
            server.start()
        await asyncio.sleep(5)
        clients = [
            asyncio.get_running_loop().create_task(self._clients(name)) for name in self.servers
        ]
        others: list[Callable[[], None]] = [
            self._crash, self._crash, self._restart, self._snapshot, self._clear,
        ]  # fmt: skip
        await self.network.trouble(self.pairs, TROUBLE, pause=4.0, others=others)
        self._restart()
        # Not everything that goes wrong shall be mended by the next connection.
        await asyncio.sleep(PATIENCE)
        if self.random.random() < 0.5:
            self._clear()
        await asyncio.sleep(PATIENCE / 2)
        for client in clients:
            client.cancel()
        await asyncio.sleep(5)
        if self.random.random() < 0.3:
            # With no write after it that would show what went wrong.
            self._clear()
        await self._heal()
        self.check()

    async def _heal(self) -> None:
        until = self.simulation.loop.time() + HEALING
        # At least as long as calls, and what is ephemeral of those who have gone, may take.
        await asyncio.sleep(CALL + PATIENCE + 15)
        while wrong := self.differences():
            assert self.simulation.loop.time() < until, "\n".join(wrong)
            await asyncio.sleep(1)

    async def _clients(self, name: str) -> None:
        server = self.servers[name]
        while True:
            await asyncio.sleep(self.random.expovariate(1.5))
            if server.alive:
                action = self.random.choice(_ACTIONS)
                action(self, server)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _root(self, server: Server) -> str:
        return self.random.choice(self.known(server.name))

    def write(self, server: Server) -> None:
        """A transaction of one to three operations, now and then on roots of several leaders."""
        number = self._next()
        names = [self._root(server)]
        if self.random.random() < 0.2:
            names.append(self._root(server))
        operations = []
        for _ in range(self.random.randint(1, 3)):
            path = parse(f"{self.random.choice(names)}.k{self.random.randrange(6)}")
            if self.random.random() < 0.2:
                operations.append(make_delete(path))
                continue
            if self.random.random() < 0.3:
                path = (*path, f"x{self.random.randrange(3)}")
            expected = None
            if self.random.random() < 0.1:
                expected = self.random.randrange(-1, 20)
            operations.append(make_put(path, number, expected))
        self.submit(server, Transaction(tuple(operations), f"client-{server.name}", f"w{number}"))

    def roll_back(self, server: Server) -> None:
        """A rollback by one or two versions."""
        root = self._root(server)
        back = -self.random.randint(1, 2)
        self.submit(server, Rollback(root, back, f"client-{server.name}", f"w{self._next()}"))

    def submit(self, server: Server, request: Transaction | Rollback) -> None:
        """Write something, and try again where nobody knows what came of it."""
        assert request.txid is not None
        write = self.writes.setdefault(request.txid, Write(request.txid, server.name, request))

        def answered(answer: Later) -> None:
            try:
                answer.result()
                write.told = "done"
            except LeaderAway as error:
                self._refused(write, error)
            except (OutcomeUnknown, Unavailable):
                write.told = "unknown"
                if self.random.random() < 0.7:
                    self.simulation.loop.call_later(
                        self.random.uniform(1, 20), self._again, server, request
                    )
            except TegaError as error:
                self._refused(write, error)
            self.simulation.trace(f"{server.name} {write.txid} {write.told}")

        server.commit(request).then(answered)

    def _refused(self, write: Write, error: TegaError) -> None:
        # A second try may be refused, where the first one was not.
        write.told = "refused" if write.told == "nothing" else "unknown"

    def _again(self, server: Server, request: Transaction | Rollback) -> None:
        if server.alive:
            self.submit(server, request)

    def put_ephemeral(self, server: Server) -> None:
        """A session has a node of its own in some root."""
        if not server.sessions:
            return
        owner = self.random.choice(sorted(server.sessions))
        path = parse(f"{self._root(server)}.e.{owner}")
        operation = make_put(path, self._next(), ephemeral=True)
        self.submit(server, Transaction((operation,), owner, f"w{self._next()}"))

    def session(self, server: Server) -> None:
        """A session begins, or another one ends."""
        own = sorted(one for one in server.sessions if one.startswith("s-"))
        if own and self.random.random() < 0.5:
            server.leave(self.random.choice(own))
        else:
            server.join(f"s-{server.name}-{self._next()}")

    def call(self, server: Server) -> None:
        """A call of some server's function."""
        number = self._next()
        owner = self.random.choice(sorted(self.servers))

        def answered(answer: Later) -> None:
            self.calls.pop(number)
            try:
                assert strictjson.loads(_bytes(answer)) == [owner, number]
                self.answered.add(number)
            except TegaError as error:
                self.simulation.trace(f"call {number}: {error.code}")

        self.calls[number] = self.simulation.loop.time(), server.name
        try:
            server.call(parse(f"inv-{owner}.f"), number).then(answered)
        except (NotFound, Unavailable):
            del self.calls[number]

    def publish(self, server: Server) -> None:
        """A message to all who want news."""
        publication = Publication(
            ("news",), f"client-{server.name}",
            strictjson.dumps({"message": f"m{self._next()}"}),
        )  # fmt: skip
        server.process.run(server.database.hub.tell, publication)

    # -- more trouble ---------------------------------------------------------------------------

    def _crash(self) -> None:
        up = sorted(self.servers.keys() - self._down)
        name = self.random.choice(up) if up else ""
        if name:
            self._down.add(name)
            self.servers[name].crash()
            self.calls = {n: (t, who) for n, (t, who) in self.calls.items() if who != name}
            self.simulation.loop.call_later(self.random.expovariate(0.1), self._up, name)

    def _up(self, name: str) -> None:
        if name in self._down:
            self._down.discard(name)
            self.servers[name].start()

    def _restart(self) -> None:
        for name in sorted(self._down):
            self._up(name)

    def _snapshot(self) -> None:
        name = self.random.choice(sorted(self.servers.keys() - self._down) or [""])
        if name:
            self.simulation.trace(f"snapshot {name}")
            server = self.servers[name]
            server.process.run(server.database.snapshot)

    def _clear(self) -> None:
        name = self.random.choice(sorted(self.servers.keys() - self._down) or [""])
        if name:
            self.simulation.trace(f"clear {name}")
            self.servers[name].clear()

    # -- what must hold -------------------------------------------------------------------------

    def differences(self) -> list[str]:
        """Where a follower is not as its leader, or something ephemeral has no session."""
        found = []
        for name, leader in self.leaders.items():
            there = shown(self.servers[leader], name)
            for follower in self.followers[name]:
                here = shown(self.servers[follower], name)
                if here != there:
                    found.append(f"{name} at {leader} and {follower}:\n{there}\n{here}")
        live = {one for server in self.servers.values() for one in server.sessions}
        for server in self.servers.values():
            gone = sorted(set(server.database.state.ephemerals) - live)
            if gone:
                found.append(f"{server.name} has ephemeral nodes of {gone}, whose sessions ended")
        return found

    def check(self) -> None:
        """What must hold once all is calm.

        :raises AssertionError: naming what does not
        """
        assert not self.network.refusals, self.network.refusals
        for server in self.servers.values():
            server.database.check()
            self._check_history(server)
            self._check_mirror(server)
        for write in self.writes.values():
            times = Counter(write.done)
            assert all(count == 1 for count in times.values()), f"{write} was done twice"
            if write.told == "done" and changes_something(write.request):
                assert write.done, f"{write} was acknowledged and never done"
            if write.told == "refused":
                assert not write.done, f"{write} was refused, and done"
        ran = Counter(number for server in self.servers.values() for number in server.ran)
        assert all(count == 1 for count in ran.values()), "a call ran twice"
        assert self.answered <= ran.keys(), "a call was answered and never ran"
        late = [n for n, (since, _) in self.calls.items()
                if self.simulation.loop.time() - since > CALL]
        assert not late, f"calls {late} have no answer"
        for ear in self.ears:
            twice = [message for message, count in ear.told.items() if count > 1]
            assert not twice, f"{ear.tega_id} heard {twice} twice"

    def _check_history(self, server: Server) -> None:
        """Old versions are those of the leader, as far as both have them."""
        for name in self.known(server.name):
            here = server.database.state.roots.get(name)
            there = self.servers[self.leaders[name]].database.state.roots.get(name)
            if here is None or there is None:
                continue
            for version in set(here.old) & set(there.old):
                assert text(here.old[version]) == text(there.old[version]), (
                    f"{name} version {version} at {server.name}"
                )

    def _check_mirror(self, server: Server) -> None:
        mirror = self.mirrors[server.name]
        for name in self.known(server.name):
            root = server.database.state.roots.get(name)
            content = None
            if root is not None and root.content is not ABSENT:
                content = without_empty(node.thaw(root.content))
            known = without_empty(mirror.trees.get(name))
            assert (known or None) == (content or None), (
                f"a watcher of {name} at {server.name} knows\n{known}, there is\n{content}"
            )


def shown(server: Server, name: str) -> Any:
    """A root with all its versions and ephemeral nodes."""
    root = server.database.state.roots.get(name)
    if root is None:
        return None
    whole = None
    if root.content is not ABSENT:
        whole = b"".join(encode.internal(root.content, root.version, name, None))
    return root.version, root.chain, whole


def text(content: Any) -> bytes | None:
    """What lasts of a tree."""
    left = lasting(content)
    return None if left is ABSENT else encode.text(left)


def changes_something(request: Transaction | Rollback) -> bool:
    """Whether it makes a commit where it is not refused."""
    return isinstance(request, Rollback) or bool(request.operations)


def _may_come_twice(message: Message) -> bool:
    """As a proxy on the way may repeat what it has sent: nothing may come of it."""
    return isinstance(message, Request) or (
        isinstance(message, Peer) and message.kind in ("commit", "applied", "left", "functions")
    )


def _ignore(pending: Any) -> None:
    """Whatever comes of it."""


def _bytes(answer: Later) -> bytes:
    body = answer.result()
    assert isinstance(body, bytes)
    return body


_ACTIONS = [
    World.write, World.write, World.write, World.write, World.put_ephemeral, World.session,
    World.call, World.publish, World.roll_back,
]  # fmt: skip
