"""The five promises to a watcher: ordered, unique, atomic, reliable, resumable.

What a subscription was told is written down as a history, and compared with the truth: the commit
log. Each promise is a function over the two. The histories come from servers, with clients that are
slow, drop out and resume, and with restarts; and, by the thousand, from feeds in this process.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from service import Service, check
from wsclient import Ended, Message, WSClient, delete, put

from tega.access.rates import Rates
from tega.access.who import UNLIMITED
from tega.database import Database, new_life
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.log.record import Logged
from tega.paths import parse
from tega.protocol import Since
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.subscriber import SCOPE
from tega.web import feed as feeds
from tega.web import outbox as outboxes
from tega.web import turns as turning
from tega.web.feed import Feed
from tega.web.limits import Limits
from tega.web.outbox import Outbox, Outboxes

LIMITS = Limits(100, 1024, 1_000, Rates(0.0, 1.0))

# -- histories ------------------------------------------------------------------------------------

#: Nothing lasting is put here: the log says only that something happened.
FLEETING = "fleeting"


class Start(NamedTuple):
    """Subscribed; what comes after `seq` is due."""

    seq: int


class Told(NamedTuple):
    """The changes of one NOTIFY."""

    seq: int
    changes: list[dict[str, Any]]


class Gone(NamedTuple):
    """Changes up to `seq` are no longer known; what stands there instead."""

    seq: int
    standing: list[dict[str, Any]]


class Resumed(NamedTuple):
    """Connected anew, from `seq` on."""

    seq: int


class Behind(NamedTuple):
    """Told that it is slow, and has been told up to `seq`."""

    seq: int


Event: TypeAlias = Start | Told | Gone | Resumed | Behind
History: TypeAlias = list[Event]


class Truth:
    """What a subscription to a root, or to all of them, should have been told.

    :param logged: the whole commit log
    :param root: None for all
    :param me: the tega id of the session, which is not told of its own changes
    """

    def __init__(self, logged: list[Logged], root: str | None, me: str) -> None:
        self.logged = {one.seq: one for one in logged}
        self.root = root
        self.me = me

    def covers(self, path: str) -> bool:
        return self.root in (None, parse(path)[0])

    def changes(self, seq: int) -> list[tuple[str, str, str]]:
        """The lasting changes of a commit: operation, path, instance as text."""
        one = self.logged[seq]
        found = [(r.ope, r.path, as_text(r.instance)) for r in one.records if self.covers(r.path)]
        if one.rolled_back is not None and found:
            return [("ROLLBACK", one.rolled_back[0], "null")]
        return found

    def due(self, after: int, until: int) -> list[int]:
        """The commits that it is to be told of."""
        return [
            seq
            for seq in range(after + 1, until + 1)
            if self.logged[seq].extras.tega_id != self.me
            and (self.changes(seq) or (FLEETING in self.logged[seq].extras.versions
                                       and self.covers(FLEETING)))
        ]  # fmt: skip

    def standing(self, seq: int) -> dict[str, Any]:
        """The lasting trees after a commit."""
        trees: dict[str, Any] = {}
        for number in range(1, seq + 1):
            for one in self.logged[number].records:
                path = parse(one.path)
                if one.ope == "PUT":
                    replace(trees, path, one.instance)
                else:
                    remove(trees, path)
        return {root: tree for root, tree in trees.items() if self.covers(root)}


def as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def replace(trees: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        trees = trees.setdefault(key, {})
    trees[path[-1]] = json.loads(json.dumps(value))


def remove(trees: dict[str, Any], path: tuple[str, ...]) -> None:
    if len(path) > 1:
        below = trees[path[0]]
        remove(below, path[1:])
        if below:
            return
    del trees[path[0]]


def lasting(changes: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (one["ope"], one["path"], as_text(one["instance"]))
        for one in changes
        if parse(one["path"])[0] != FLEETING
    ]


# -- the promises ---------------------------------------------------------------------------------


def ordered(history: History, truth: Truth, until: int) -> None:
    """Commits are told in the order in which they were made, and so are their changes."""
    last = 0
    for event in history:
        if isinstance(event, Told):
            assert event.seq >= last, f"{event.seq} after {last}"
            assert [one["seq"] for one in event.changes] == [event.seq] * len(event.changes)
        if isinstance(event, Told | Gone):
            last = event.seq


def unique(history: History, truth: Truth, until: int) -> None:
    """No commit is told twice, nor one that a standing tree has shown already."""
    seen: set[int] = set()
    shown = 0
    for event in history:
        if isinstance(event, Gone):
            shown = event.seq
        elif isinstance(event, Told):
            assert event.seq not in seen, f"{event.seq} twice"
            assert event.seq > shown, f"{event.seq} was in what stood there at {shown}"
            seen.add(event.seq)


def atomic(history: History, truth: Truth, until: int) -> None:
    """What is told of a commit is the whole of it, and nothing that was not committed."""
    for event in history:
        if isinstance(event, Told):
            assert event.seq in truth.logged, f"{event.seq} was never made"
            assert truth.logged[event.seq].extras.tega_id != truth.me, "its own change"
            assert lasting(event.changes) == truth.changes(event.seq), f"torn at {event.seq}"


def reliable(history: History, truth: Truth, until: int) -> None:
    """From the subscription on every commit is told, or is in what is told to stand there."""
    start = next(event.seq for event in history if isinstance(event, Start))
    seen = {event.seq for event in history if isinstance(event, Told)}
    shown = max([event.seq for event in history if isinstance(event, Gone)], default=0)
    lost = [seq for seq in truth.due(start, until) if seq not in seen and seq > shown]
    assert not lost, f"lost: {lost}"


def resumable(history: History, truth: Truth, until: int) -> None:
    """Who resumes goes on with the next commit; or is told that it is gone, and what stands."""
    since: int | None = None
    for event in history:
        if isinstance(event, Gone):
            there = [one for one in event.standing if one["ope"] == "PUT"]
            standing = {one["path"]: one["instance"] for one in there}
            standing.pop(FLEETING, None)
            assert as_text(standing) == as_text(truth.standing(event.seq)), f"at {event.seq}"
        if isinstance(event, Told) and since is not None:
            assert event.seq == truth.due(since, until)[0], f"{event.seq} after {since}"
        if isinstance(event, Told | Gone):
            since = None
        elif isinstance(event, Resumed):
            since = event.seq


PROMISES: list[Callable[[History, Truth, int], None]] = [
    ordered, unique, atomic, reliable, resumable
]  # fmt: skip


def keep_all_promises(history: History, truth: Truth, until: int) -> None:
    for promise in PROMISES:
        promise(history, truth, until)


def log_of(db: Database) -> list[Logged]:
    """All commits, in order."""
    found = {one.seq: one for name in db.state.roots for one in db.commits_after(name, -1)}
    assert sorted(found) == list(range(1, db.state.seq + 1)), "the log is whole"
    return [found[seq] for seq in sorted(found)]


# -- each promise is seen to be broken ------------------------------------------------------------


def made(*ops: dict[str, Any], who: str = "writer") -> Transaction:
    return Transaction(
        tuple(
            make_delete(parse(op["path"])) if op["ope"] == "DELETE"
            else make_put(parse(op["path"]), op["instance"], ephemeral=op.get("ephemeral", False))
            for op in ops
        ),
        who,
    )  # fmt: skip


@pytest.fixture(scope="module")
def story() -> tuple[History, Truth]:
    """Six commits, and a history in which all is well."""
    with Database(MemoryLog(new_life), "srv") as db:
        db.commit(made(put("a", 1)))
        db.commit(made(put("a", {"x": 1}), put("b", 2)))
        db.commit(made(put("own", 1), who="me"))
        db.commit(made(put("a.y", 3), delete("a.x")))
        db.commit(Rollback("a", -1, "writer"))
        db.commit(made(put("c", 6)))
        logged = log_of(db)
    truth = Truth(logged, None, "me")

    def told(seq: int) -> Told:
        return Told(seq, [
            {"ope": ope, "path": path, "instance": json.loads(instance), "seq": seq}
            for ope, path, instance in truth.changes(seq)
        ])  # fmt: skip

    standing = [
        {"ope": "PUT", "path": root, "instance": tree} for root, tree in truth.standing(4).items()
    ]
    history = [Start(1), told(2), Resumed(2), Gone(4, standing), told(5), Resumed(5), told(6)]
    return history, truth


BREAKS: dict[str, tuple[Callable[..., None], Callable[[History], Any]]] = {
    "two swapped": (ordered, lambda h: h.insert(6, h.pop(4))),
    "one again": (unique, lambda h: h.append(h[-1])),
    "one that stood there": (unique, lambda h: h.insert(4, h[1])),
    "a change missing": (atomic, lambda h: h[1].changes.pop()),
    "its changes swapped": (atomic, lambda h: h[1].changes.reverse()),
    "another value": (atomic, lambda h: h[1].changes[0].update(instance=True)),
    "one of its own": (atomic, lambda h: h.insert(2, Told(3, []))),
    "one never made": (atomic, lambda h: h.append(Told(7, []))),
    "the last one missing": (reliable, lambda h: h.pop()),
    "one in the middle missing": (reliable, lambda h: h.pop(4)),
    "the first one missing": (reliable, lambda h: (h.pop(1), h.pop(2))),
    "the next one missing": (resumable, lambda h: h.__setitem__(5, Resumed(4))),
    "less standing": (resumable, lambda h: h[3].standing.pop()),
    "something else standing": (resumable, lambda h: h[3].standing[0].update(instance=1)),
}


def copied(history: History) -> History:
    return [type(event)(*json.loads(json.dumps(list(event)))) for event in history]


def test_a_history_in_which_all_is_well(story: tuple[History, Truth]) -> None:
    history, truth = story
    keep_all_promises(copied(history), truth, 6)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_found(story: tuple[History, Truth], name: str) -> None:
    promise, break_it = BREAKS[name]
    history = copied(story[0])
    break_it(history)
    with pytest.raises(AssertionError):
        promise(history, story[1], 6)


# -- in this process, by the thousand -------------------------------------------------------------


class Wire:
    """What a feed writes to. Its client has what it took; the rest is lost when it hangs up."""

    def __init__(self) -> None:
        self.sent, self.taken, self.is_closed = b"", 0, False
        self.outbox: Outbox

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.sent += data

    @property
    def unsent(self) -> int:
        # The kernel takes a little by itself.
        return 0 if self.is_closed else max(len(self.sent) - self.taken - 200, 0)

    def take(self, count: int) -> None:
        before = self.unsent
        self.taken = min(self.taken + count, len(self.sent))
        if before and not self.unsent:
            self.outbox.taken()

    def pause(self) -> None:
        raise AssertionError("nothing comes")

    def resume(self) -> None:
        raise AssertionError("nothing comes")

    def closed(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True
        self.outbox.taken()

    def messages(self) -> Iterator[Message]:
        """The whole ones that have been taken."""
        data, at, text = self.sent[: self.taken], 0, b""
        while at + 2 <= len(data):
            size, start = data[at + 1], at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start], "big")
            if start + size > len(data):
                return
            text += data[start : start + size]
            if data[at] & 0x80:
                first, _, body = text.decode().partition("\n")
                yield Message(first.split(" "), json.loads(body))
                text = b""
            at = start + size


class Listener:
    """A client in this process: a subscription to each of some roots, each with its history."""

    def __init__(self, db: Database, name: str) -> None:
        self.db, self.name = db, name
        self.histories: dict[str, History] = {}
        self.left: list[str] = []
        self.seen = 0
        self.wire: Wire | None = None

    def connect(self, count: int = 9) -> None:
        """Connect, and resume so many of the subscriptions now."""
        self.wire, self.seen = Wire(), 0
        outbox = Outbox(self.wire, Outboxes(), lambda: self.feed.drained())
        self.wire.outbox = outbox
        self.feed = Feed(self.db, outbox, LIMITS, UNLIMITED)
        self.feed.tega_id = self.name
        self.left = list(self.histories)
        self.resume(count)

    def resume(self, count: int = 9) -> None:
        """Resume what was not resumed yet."""
        resumed, self.left = self.left[:count], self.left[count:]
        for root in resumed:
            history = self.histories[root]
            last = max([event.seq for event in history if not isinstance(event, Behind)])
            history.append(Resumed(last))
            since = Since(last, self.db.state.life)
            self.feed.subscribe(root, SCOPE.LOCAL, False, since)

    def subscribe(self, root: str) -> None:
        self.feed.subscribe(root, SCOPE.LOCAL, False, None)
        self.histories[root] = [Start(self.db.state.seq)]

    def hang_up(self) -> None:
        self.db.hub.unsubscribe_all(self.feed)
        self.feed.over = True
        assert self.wire is not None
        self.wire.close()
        self.wire = None

    def take(self, count: int) -> None:
        assert self.wire is not None
        self.wire.take(count)
        found = list(self.wire.messages())
        for number in range(self.seen, len(found)):
            self.note(found[number], found[number - 1] if number else None)
        self.seen = len(found)

    def note(self, message: Message, before: Message | None) -> None:
        if message.words == ["ERROR", "behind"]:
            for history in self.histories.values():
                history.append(Behind(message.body["seq"]))
        elif message.words == ["NOTIFY"] and before and before.words == ["ERROR", "gone"]:
            self.histories[before.body["path"]].append(Gone(before.body["seq"], message.body))
        elif message.words == ["NOTIFY"]:
            [seq] = {one["seq"] for one in message.body}
            for root, history in self.histories.items():
                own = [one for one in message.body if parse(one["path"])[0] == root]
                if own:
                    history.append(Told(seq, own))


ROOTS = ["a", "b", FLEETING]
names = st.sampled_from(["c0", "c1", "c2"])


class Watchers(RuleBasedStateMachine):
    """Writers, a disk that may be slow, and clients that take what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(feeds, "_KEPT", 1_000)
        for module in (feeds, outboxes):
            self.patch.setattr(module, "FRAGMENT", 300)
        self.patch.setattr(turning, "CHUNK", 300)
        self.late: list[Callable[[], None]] = []
        self.fleeting = 0

    @initialize(keep=st.sampled_from([1000, 20, 3, 0]))
    def start(self, keep: int) -> None:
        self.db = Database(MemoryLog(new_life), "srv", resume=keep)
        self.db.hub.run = self.late.append
        self.clients = {name: Listener(self.db, name) for name in ("c0", "c1", "c2")}
        for name, root in (("c0", "a"), ("c0", "b"), ("c1", "b"), ("c1", FLEETING)):
            self.subscribe(name, root)

    def do(self, work: Callable[[], object], turns: int = 3) -> None:
        """Do something on the loop, and let it turn."""

        async def run() -> None:
            work()
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(run())

    @rule(
        changes=st.lists(
            st.tuples(st.sampled_from(["a", "b", "a.x", "b.x", "a.y"]), st.integers(-1, 9)),
            min_size=1, max_size=2,
        ),
        size=st.sampled_from([1, 1, 1, 30, 200]),
        count=st.integers(1, 6),
        who=st.sampled_from(["writer", "c0"]),
    )  # fmt: skip
    def write(self, changes: list[tuple[str, int]], size: int, count: int, who: str) -> None:
        """Commits that share a sync; some are refused."""
        ops = [
            delete(path) if value < 0 else put(path, [value] * size) for path, value in changes
        ]
        for _ in range(count):
            self.db.submit(made(*ops, who=who))
        self.do(self.db.flush)

    @rule(root=st.sampled_from(["a", "b"]), backto=st.integers(-3, -1))
    def roll_back(self, root: str, backto: int) -> None:
        self.db.submit(Rollback(root, backto, "writer"))
        self.do(self.db.flush)

    @rule(count=st.integers(1, 3))
    def visit(self, count: int) -> None:
        """A session puts ephemeral nodes, which go with it."""
        self.fleeting += 1
        name = f"visitor{self.fleeting}"
        self.db.join(name)
        ops = [put(f"{FLEETING}.{name}.{n}", n, True) for n in range(count)]
        self.db.submit(made(*ops, who=name))
        self.do(self.db.flush)
        self.db.leave(name)
        self.do(self.db.flush)

    @precondition(lambda self: self.late)
    @rule()
    def deliver(self) -> None:
        """What another thread has published comes to the loop."""
        works = self.late[:]
        self.late.clear()
        self.do(lambda: [work() for work in works])

    @rule(name=names, root=st.sampled_from(ROOTS))
    def subscribe(self, name: str, root: str) -> None:
        client = self.clients[name]
        if client.wire is None:
            self.do(client.connect)
        if root not in client.histories:
            self.do(lambda: client.subscribe(root))

    @rule(name=names, count=st.sampled_from([10, 100, 1_000, 1 << 20]))
    def take(self, name: str, count: int) -> None:
        client = self.clients[name]
        if client.wire is not None:
            self.do(lambda: client.take(count))

    @rule(name=names, again=st.booleans(), count=st.sampled_from([9, 1, 0]))
    def hang_up(self, name: str, again: bool, count: int) -> None:
        client = self.clients[name]
        if client.wire is not None:
            self.do(client.hang_up)
        if again:
            self.do(lambda: client.connect(count))

    @rule(name=names)
    def resume(self, name: str) -> None:
        """Resume one more subscription, while others are live or catching up."""
        client = self.clients[name]
        if client.wire is not None:
            self.do(lambda: client.resume(1))

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        for client in self.clients.values():
            self.do(client.connect if client.wire is None else client.resume)
        had = -1
        while self.late or had != (had := sum(c.seen for c in self.clients.values())):
            self.deliver()
            for client in self.clients.values():
                for _ in range(30):
                    self.do(lambda client=client: client.take(1 << 20))  # type: ignore[misc]
        self.patch.undo()
        logged = log_of(self.db)
        for client in self.clients.values():
            assert client.feed.live
            for root, history in client.histories.items():
                keep_all_promises(history, Truth(logged, root, client.name), self.db.state.seq)
        self.db.check()
        self.db.close()
        self.loop.close()


Watchers.TestCase.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip

TestWatchers = Watchers.TestCase


@pytest.mark.long
def test_watchers_at_length() -> None:
    run_state_machine_as_test(
        Watchers, settings=settings(max_examples=5_000, stateful_step_count=60, deadline=None)
    )


# -- servers --------------------------------------------------------------------------------------


class Site:
    """A server that may be restarted, and what works on it meanwhile.

    :ivar is_up: cleared while it is being started anew
    :ivar failures: what went wrong in threads
    """

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory, self.flags = directory, flags
        self.is_up, self.is_over = threading.Event(), threading.Event()
        self.failures: list[BaseException] = []
        self.writers: list[threading.Thread] = []
        self.start()

    def start(self) -> None:
        self.service = Service(
            self.directory, "-t", "srv", "-L", "WARNING", "--snapshot-size", "0", "--keep", "1000",
            *self.flags,
        )  # fmt: skip
        self.is_up.set()

    def restart(self, number: int) -> None:
        self.is_up.clear()
        self.service.process.send_signal(number)
        self.service.process.communicate(timeout=30)
        self.start()

    def connected(self, work: Callable[[WSClient], None], name: str, window: int | None) -> None:
        """Do something with a connection, however that ends."""
        self.is_up.wait()
        try:
            with WSClient(self.service.port, name, window) as client:
                work(client)
        except TimeoutError as error:
            self.failures.append(error)
        except (OSError, HTTPException, Ended):
            return
        except BaseException as error:
            self.failures.append(error)
            raise

    def write(self, work: Callable[[WSClient, random.Random], None], name: str) -> None:
        """Do something again and again, until all is over."""
        chance = random.Random(name)

        def as_long(client: WSClient) -> None:
            while not self.is_over.is_set():
                work(client, chance)

        def go_on() -> None:
            while not self.is_over.is_set():
                self.connected(as_long, name, None)

        self.writers.append(threading.Thread(target=go_on))
        self.writers[-1].start()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self.writers:
            thread.join()
        self.service.process.kill()
        self.service.process.communicate()

    def reach(self, count: int) -> None:
        """Wait for so many commits more."""
        with WSClient(self.service.port, "counter") as counter:
            start = counter.ack["seq"]
            while counter.tx()["seq"] < start + count:
                assert not self.failures

    def end(self, clients: list[Client]) -> tuple[list[Logged], int]:
        """End the writers and let the clients catch up; the log, and how far they have come."""
        self.is_over.set()
        for thread in self.writers:
            thread.join()
        with WSClient(self.service.port, "last") as last:
            until = last.tx(*[put(f"{root}.last", 1) for root in "abc"])["seq"]
        for client in clients:
            client.until = until
        for client in clients:
            client.join(60)
            assert not client.is_alive(), client.history[-3:]
        assert self.failures == []
        assert self.service.end()[0] == 0
        check(self.directory, "srv")
        with Database(FileLog(self.directory, "srv", new_life), "srv") as db:
            return log_of(db), until


class Client(threading.Thread):
    """A client that subscribes, to a root or to all, and writes down what it is told.

    :param pause: before each message, seconds
    :param stamina: it drops out, and resumes, after about so many messages; 0 for never
    """

    def __init__(
        self, site: Site, tega_id: str, root: str | None, pause: float = 0, stamina: int = 0
    ) -> None:
        super().__init__(daemon=True)
        self.site, self.tega_id, self.root = site, tega_id, root
        self.pause, self.stamina = pause, stamina
        self.history: History = []
        self.chance = random.Random(tega_id)
        self.until = 0
        self.start()

    def run(self) -> None:
        while not self.is_done and not self.site.failures:
            self.site.connected(self.listen, self.tega_id, 4096 if self.pause else None)

    @property
    def is_done(self) -> bool:
        return bool(self.until and self.history and self.seen >= self.until)

    @property
    def seen(self) -> int:
        return max([event.seq for event in self.history if not isinstance(event, Behind)])

    def listen(self, client: WSClient) -> None:
        what = ".* local True" if self.root is None else f"{self.root} local False"
        if not self.history:
            client.send(f"SUBSCRIBE {what}")
            self.history.append(Start(client.tx()["seq"]))
        else:
            self.history.append(Resumed(self.seen))
            client.send(f"SUBSCRIBE {what} {self.seen}@{client.ack['life']}")
        left = self.chance.randrange(2 * self.stamina) if self.stamina else 1 << 60
        while left and not self.is_done:
            if self.pause:
                self.site.is_over.wait(self.pause)
            if client.is_readable(0.2):
                left -= 1
                self.note(client)

    def note(self, client: WSClient) -> None:
        message = client.receive()
        if message.words == ["NOTIFY"]:
            self.history.append(Told(message.body[0]["seq"], message.body))
        elif message.words == ["ERROR", "behind"]:
            self.history.append(Behind(message.body["seq"]))
        else:
            assert message.words == ["ERROR", "gone"], message
            self.history.append(Gone(message.body["seq"], client.expect("NOTIFY")))

    def had(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.history)


def write(client: WSClient, chance: random.Random) -> None:
    """Several changes at once; some are refused, which is fine too."""
    roots = [chance.choice("abc") for _ in range(chance.randrange(1, 4))]
    value = "x" * chance.choice([1, 10, 20_000])
    ops = [put(f"{root}.{chance.choice('xyz')}", [value, chance.random()]) for root in roots]
    kind = chance.randrange(10)
    if kind == 0:
        ops.append(delete(f"{chance.choice('abc')}.{chance.choice('xyz')}"))
    elif kind == 1:
        ops = [put(roots[0], {"x": chance.random()})]
    elif kind == 2:
        client.send(f"ROLLBACK {roots[0]} -{chance.randrange(1, 4)}")
    client.tx(*ops)


def visit(client: WSClient, chance: random.Random) -> None:
    """A session with ephemeral nodes, and lasting ones beside them in the same transaction."""
    with WSClient(client.socket.getpeername()[1], f"visitor{chance.randrange(3)}") as visitor:
        path = f"{FLEETING}.{visitor.tega_id}.{chance.randrange(5)}"
        visitor.tx(put(path, 1, True), put("c.visits", chance.random()))


def by_rest(site: Site, chance: random.Random) -> None:
    ask = site.service.ask
    txid = ask("POST", "/_begin?tega_id=rest")[1]["txid"]
    for root in "ab":
        ask("PUT", f"/{root}/rest/?txid={txid}&tega_id=rest", chance.random())
    ask("POST", f"/_commit?txid={txid}&tega_id=rest")
    ask("POST", f"/_rollback?root_oid={chance.choice('abc')}&backto=-1&tega_id=rest")


def crowd(site: Site) -> list[Client]:
    """Clients of all kinds, and writers."""
    clients = [
        Client(site, "fast", None),
        Client(site, "one", "a"),
        Client(site, "slow", None, pause=0.01),
        Client(site, "dropping", None, stamina=20),
        Client(site, "dropping.c", "c", stamina=5),
        Client(site, "dropping.slow", None, pause=0.005, stamina=100),
        Client(site, "rest", None),
    ]
    site.write(write, "writer")
    site.write(write, "writer2")
    site.write(visit, "host")
    site.write(lambda _, chance: by_rest(site, chance), "by_rest")
    return clients


@pytest.mark.parametrize("resume", [4096, 50])
def test_a_server_keeps_its_promises(tmp_path: Path, resume: int) -> None:
    with Site(tmp_path, "--resume", str(resume)) as site:
        clients = crowd(site)
        for _ in range(3):
            site.reach(400)
            clients.append(Client(site, f"late{len(clients)}", "b", stamina=50))
            assert site.service.ask("POST", "/_ss")[0] == 200
        logged, until = site.end(clients)
    for client in clients:
        keep_all_promises(client.history, Truth(logged, client.root, client.tega_id), until)
    by_name = {client.tega_id: client for client in clients}
    assert by_name["slow"].had(Behind)
    assert by_name["dropping"].had(Resumed)
    assert not by_name["fast"].had(Gone)
    if resume == 50:
        assert by_name["slow"].had(Gone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_promises_outlast_a_restart(tmp_path: Path, number: int) -> None:
    with Site(tmp_path) as site:
        clients = crowd(site)
        for _ in range(3):
            site.reach(150)
            site.restart(number)
        site.reach(50)
        logged, until = site.end(clients)
    for client in clients:
        keep_all_promises(client.history, Truth(logged, client.root, client.tega_id), until)
        assert client.had(Gone)
        assert client.had(Told)
