"""Watchers in one process: a hub with ears, and feeds that write to a stream which can be slow."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest
from feds import LIMITS, Fed, Pipe, on_a_loop, put, turns

from tega.database import Database, new_life
from tega.errors import Malformed, OverLimit
from tega.log.memory import MemoryLog
from tega.notices import Notice
from tega.paths import parse
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.subscriber import SCOPE
from tega.watcher import Publication, Watcher
from tega.web import feed as feeds
from tega.web.outbox import Outbox, Outboxes


def delete(path: str, who: str = "writer") -> Transaction:
    return Transaction((make_delete(parse(path)),), who)


class Ear(Watcher):
    """Writes down what it hears."""

    def __init__(self, tega_id: str = "ear") -> None:
        super().__init__(tega_id)
        self.heard: list[list[dict[str, Any]]] = []
        self.told: list[tuple[str, str, Any]] = []

    def notify(self, notice: Notice) -> None:
        self.heard.append(notice.as_data())

    def tell(self, publication: Publication) -> None:
        channel = ".".join(publication.channel)
        self.told.append((channel, publication.tega_id, publication.message))

    @property
    def seqs(self) -> list[int]:
        return [changes[0]["seq"] for changes in self.heard]


@pytest.fixture
def db() -> Iterator[Database]:
    with Database(MemoryLog(new_life), "srv", resume=100) as opened:
        yield opened
        opened.check()


# -- a hub with ears ------------------------------------------------------------------------------


def test_it_hears_from_its_subscription_on_and_until_its_end(db: Database) -> None:
    ear = Ear()
    db.commit(put("a", 1))
    db.hub.subscribe(ear, "a")
    db.commit(put("a", 2))
    db.commit(put("b", 2))
    db.hub.subscribe(ear, "b")
    db.commit(put("b", 3))
    db.hub.unsubscribe(ear, "a")
    db.commit(put("a", 4))
    db.commit(put("b", 4))
    db.hub.unsubscribe_all(ear)
    db.commit(put("b", 5))
    assert ear.seqs == [2, 4, 6]
    assert ear.subscriptions == {}
    assert db.hub.channels() == {}


def test_subscribing_again_loses_and_repeats_nothing(db: Database) -> None:
    ear = Ear()
    for _ in range(3):
        db.hub.subscribe(ear, 'a."b"')
        db.commit(put("a.b", 1))
    assert ear.seqs == [1, 2, 3]
    db.hub.unsubscribe(ear, "a.b")
    db.commit(put("a.b", 1))
    assert ear.seqs == [1, 2, 3]


def test_a_subscription_made_before_a_commit_is_published_hears_of_it(db: Database) -> None:
    ear, late = Ear(), Ear("late")
    pending = db.submit(put("a", 1))
    db.hub.subscribe(ear, "a")
    db.flush()
    db.hub.subscribe(late, "a")
    assert pending.result().seq == 1
    assert (ear.seqs, late.seqs) == ([1], [])


def test_who_made_the_change_is_not_told(db: Database) -> None:
    ears = [Ear("x"), Ear("y")]
    for ear in ears:
        db.hub.subscribe(ear, "a")
    db.commit(put("a", 1, "x"))
    db.commit(put("a", 2, "y"))
    db.commit(Rollback("a", -1, "x"))
    assert [ear.seqs for ear in ears] == [[2], [1, 3]]


def test_one_that_fails_does_not_disturb_the_others(db: Database) -> None:
    class Deaf(Ear):
        def notify(self, notice: Notice) -> None:
            raise ValueError("deaf")

        def tell(self, publication: Publication) -> None:
            raise ValueError("deaf")

    ears = [Ear("x"), Deaf("y"), Ear("z")]
    for ear in ears:
        db.hub.subscribe(ear, "a")
    db.commit(put("a", 1))
    db.commit(put("a", 2))
    assert db.hub.tell(Publication(("a",), "w", b'{"message":0}')) == 3
    assert [ear.seqs for ear in ears] == [[1, 2], [], [1, 2]]
    assert [ear.told for ear in ears] == [[("a", "w", 0)], [], [("a", "w", 0)]]


def test_one_that_commits_when_it_hears_something(db: Database) -> None:
    class Echo(Ear):
        def notify(self, notice: Notice) -> None:
            super().notify(notice)
            db.commit(put("echo", notice.seq, "echo"))

    echo, ear = Echo("echo"), Ear()
    db.hub.subscribe(echo, "a")
    db.hub.subscribe(ear, ".*", regex=True)
    for value in range(3):
        db.commit(put("a", value))
    assert echo.seqs == [1, 3, 5]
    assert ear.seqs == [1, 2, 3, 4, 5, 6]


def test_commits_of_many_threads_come_in_order_and_once(db: Database) -> None:
    ear = Ear()
    db.hub.subscribe(ear, ".*", regex=True)

    def write(name: str) -> None:
        for value in range(100):
            db.commit(put(name, value))

    writers = [threading.Thread(target=write, args=(f"r{n}",)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert ear.seqs == list(range(1, 401))


def test_what_cannot_be_subscribed_to_leaves_nothing(db: Database) -> None:
    ear = Ear()
    for text, regex in [("a..b", False), ("", False), ("", True), ("(", True), (r"a\.(?=b)", True)]:
        with pytest.raises(Malformed):
            db.hub.subscribe(ear, text, regex=regex)
    assert ear.subscriptions == {}
    assert db.hub.subscribers() == {}


def test_limits_on_subscriptions() -> None:
    with Database(MemoryLog(new_life), "srv", max_subscriptions=1_200) as db:
        ear, other = Ear(), Ear("other")
        for number in range(1_000):
            db.hub.subscribe(ear, f"p{number}", regex=True)
        with pytest.raises(OverLimit):
            db.hub.subscribe(ear, "one more", regex=True)
        for number in range(200):
            db.hub.subscribe(ear, f"p{number}")
        for text, regex in [("one", False), ("one", True)]:
            with pytest.raises(OverLimit):
                db.hub.subscribe(ear, text, regex=regex)
        db.hub.subscribe(ear, "p1")
        db.hub.subscribe(other, "one")
        db.hub.unsubscribe(ear, "p1")
        db.hub.subscribe(ear, "one")
        assert len(ear.subscriptions) == 1_200


@pytest.mark.parametrize(("regex", "separator", "most"), [(False, ".", 100), (True, r"\.", 5_000)])
def test_the_levels_of_subscriptions_are_limited_together(
    regex: bool, separator: str, most: int
) -> None:
    def deep(number: int) -> str:
        return separator.join(f"k{number}x{level}" for level in range(50))

    with Database(MemoryLog(new_life), "srv", max_subscriptions=10 if not regex else 200) as db:
        ear = Ear()
        for number in range(most // 50):
            db.hub.subscribe(ear, deep(number), regex=regex)
        with pytest.raises(OverLimit, match=f"have {most} levels together"):
            db.hub.subscribe(ear, "one", regex=regex)
        db.hub.subscribe(ear, deep(0), regex=regex)
        db.hub.unsubscribe(ear, "nothing", regex=regex)
        with pytest.raises(OverLimit):
            db.hub.subscribe(ear, "one", regex=regex)
        db.hub.unsubscribe(ear, deep(0), regex=regex)
        db.hub.subscribe(ear, "one", regex=regex)
        db.hub.unsubscribe_all(ear)
        for number in range(most // 50):
            db.hub.subscribe(ear, deep(number), regex=regex)


def test_who_subscribes_to_what(db: Database) -> None:
    x, y = Ear("x"), Ear("y")
    db.hub.subscribe(x, 'a."10.0.0.0/24"', SCOPE.GLOBAL)
    db.hub.subscribe(x, "b")
    db.hub.subscribe(y, "b")
    db.hub.subscribe(y, r"b\..*", SCOPE.GLOBAL, regex=True)
    assert db.hub.channels() == {'a."10.0.0.0/24"': ["x"], "b": ["x", "y"], r"b\..*": ["y"]}
    assert db.hub.subscribers() == {"x": ['a."10.0.0.0/24"', "b"], "y": ["b", r"b\..*"]}
    assert db.hub.global_channels() == [('a."10.0.0.0/24"', "global"), (r"b\..*", "global")]


def test_a_message_reaches_the_whole_channel_and_no_part_of_it(db: Database) -> None:
    ears = {text: Ear(text) for text in ("a", "a.b", "a.b.c", r"a\..", r"a\..\..", "c")}
    for text, ear in ears.items():
        db.hub.subscribe(ear, text, regex="\\" in text)
    db.hub.subscribe(ears["a.b"], r".\.b", regex=True)
    assert db.hub.tell(Publication(("a", "b"), "me", b'{"message":null}'), ears["c"]) == 2
    assert {text for text, ear in ears.items() if ear.told} == {"a.b", r"a\.."}
    assert ears["a.b"].told == [("a.b", "me", None)], "once, for two subscriptions"
    assert db.hub.tell(Publication(("a", "b"), "me", b'{"message":1}'), ears["a.b"]) == 1
    assert db.hub.tell(Publication(("nobody",), "me", b'{"message":1}')) == 0


WIDE = {f"k{n}": n for n in range(20)}


@pytest.mark.parametrize("pauses", [0, 1, 5, 20, 30, 1_000])
def test_subscriptions_that_change_while_it_is_found_out_who_gets_what(
    db: Database, pauses: int
) -> None:
    """Large trees are gone through in steps, between which others have their turn."""
    same, more, less, late, since = ears = [Ear(name) for name in ("s", "m", "l", "late", "since")]
    for ear in (same, more, less):
        db.hub.subscribe(ear, r"a\..*", regex=True)
    handing_out: list[Iterator[None]] = []
    db.hub.go_on = handing_out.append
    db.commit(put("a", WIDE))
    assert not any(ear.heard for ear in ears), "not before its turn"
    for _ in range(pauses):
        next(handing_out[0], None)
    is_over = bool(same.heard)
    assert is_over == (pauses >= 30)
    db.hub.subscribe(more, "b")
    db.hub.unsubscribe(less, r"a\..*", regex=True)
    db.hub.subscribe(late, "a")
    db.hub.subscribe(late, "b")
    db.hub.subscribe(since, r"a\..*", regex=True, since=0)
    db.commit(put("b", 1))
    for steps in handing_out:
        deque(steps, 0)
    assert [one["path"] for one in same.heard[0]] == sorted(f"a.{key}" for key in WIDE)
    assert same.seqs == [1]
    assert more.seqs == [1, 2]
    assert more.heard[0] == same.heard[0]
    assert late.seqs == [2]
    assert less.heard == (same.heard if is_over else [])
    assert since.heard == ([] if is_over else same.heard)
    assert db.hub.delivered == 2


@pytest.mark.parametrize("pauses", [0, 5])
def test_clearing_while_it_is_found_out_who_gets_what(db: Database, pauses: int) -> None:
    ear = Ear()
    db.hub.subscribe(ear, r"a\..*", regex=True)
    handing_out: list[Iterator[None]] = []
    db.hub.go_on = handing_out.append
    db.commit(put("a", WIDE))
    for _ in range(pauses):
        next(handing_out[0])
    db.clear()
    db.commit(put("a", {"new": 1}))
    for steps in handing_out:
        deque(steps, 0)
    assert [(one["seq"], one["path"]) for told in ear.heard for one in told] == [(1, "a.new")]


def test_what_was_missed_is_what_was_told(db: Database) -> None:
    live, late = Ear(), Ear("late")
    for ear, since in ((live, None), (late, 0)):
        db.hub.subscribe(ear, "a.b", since=since)
        db.hub.subscribe(ear, r"[bc]\..*", regex=True, since=since)
    changes = Transaction(
        (make_put(("a",), {"b": 1}), make_put(("c", "d"), 2), make_delete(("a",))), "writer"
    )
    for request in (
        put("a.b.c", 1), put("x", 1), changes, put("b", {"c": 1, "d": 2}),
        put("b.c", 3, "late"), Rollback("b", -1, "writer"), delete("c"),
    ):  # fmt: skip
        db.commit(request)
    missed = list(db.hub.missed(late, 0))
    assert [seq for seq, _ in missed] == list(range(1, 8))
    told = [notice.as_data() for _, notice in missed if notice is not None]
    assert told == [changes for changes in live.heard if changes[0]["tega_id"] != "late"]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_is_kept_is_bounded_by_number_and_bytes(db: Database, size: int) -> None:
    db.hub.subscribe(Ear(), "b")
    for _ in range(150):
        db.commit(put("a", "x" * size))
    count = 100 if size == 1 else 3
    assert db.hub.keeps(150 - count)
    assert not db.hub.keeps(150 - count - 1)
    assert not db.hub.resumes_from(151), "the future"


def test_little_is_kept_while_nobody_watches(db: Database) -> None:
    for _ in range(50):
        db.commit(put("a", "x" * 10_000))
    assert db.hub.keeps(50 - 1)
    assert not db.hub.keeps(50 - 2), "16 KiB"


def test_a_watcher_that_left_can_come_back_as_long_as_all_is_kept(db: Database) -> None:
    ear = Ear()
    db.hub.subscribe(ear, "b")
    for _ in range(50):
        db.commit(put("a", "x" * 10_000))
    db.hub.unsubscribe(ear, "b")
    for number in range(90):
        assert db.hub.resumes_from(50)
        db.commit(put("a", f"{number}" * 10_000))
    for _ in range(50):
        # 4 MiB, or 100 commits: none can come back to where it was, so what is kept dwindles.
        db.commit(put("a", "x" * 50_000))
    assert not db.hub.resumes_from(50)
    assert not db.hub.keeps(190 - 2)


def test_a_watcher_that_was_never_told_of_anything_can_come_back(db: Database) -> None:
    db.commit(put("a", 1))
    ear = Ear()
    db.hub.subscribe(ear, "b")
    db.hub.unsubscribe(ear, "b")
    for _ in range(50):
        db.commit(put("a", "x" * 10_000))
    assert db.hub.resumes_from(1)


def test_what_others_ask_for_is_kept_for_them(db: Database) -> None:
    db.hub.hold()
    asked = 0
    for number in range(50):
        db.commit(put("a", f"{number}" * 10_000))
        if number % 10 == 9:
            commits = db.hub.kept_after(asked)
            assert commits is not None
            assert [commit.seq for commit in commits] == list(range(asked + 1, number + 2))
            asked = number + 1


def test_nobody_resumes_from_before_a_restart() -> None:
    log = MemoryLog(new_life)
    with Database(log, "srv") as db:
        db.commit(put("a", 1))
        assert db.hub.resumes_from(0)
        assert db.hub.resumes_from(1)
    with Database(log, "srv") as db:
        assert not db.hub.resumes_from(1)
        db.commit(put("a", 2))
        assert not db.hub.resumes_from(1)
        assert db.hub.resumes_from(2)


# -- feeds ----------------------------------------------------------------------------------------


@on_a_loop
async def test_a_hundred_feeds_share_one_frame(db: Database) -> None:
    made = 0
    original = feeds.frame

    def counting(*args: Any) -> bytes:
        nonlocal made
        made += 1
        return original(*args)

    fed = [Fed(db, f"f{n}") for n in range(100)]
    for one in fed:
        one.subscribe("a")
        one.subscribe("b.c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "frame", counting)
        for count, request in enumerate((put("a.x", 1), put("b", {"c": 2}), delete("b.c")), 1):
            db.commit(request)
            assert made == count
        db.hub.tell(Publication(("a",), "me", b'{"message":1}'))
        assert made == 4
    await turns()
    assert {one.pipe.data for one in fed} == {fed[0].pipe.data}
    assert fed[0].told == [("NOTIFY", 1), ("NOTIFY", 2), ("NOTIFY", 3), ("MESSAGE a me", None)]


@on_a_loop
async def test_a_resumed_subscription_gets_what_it_missed_and_goes_on(db: Database) -> None:
    for value in range(10):
        db.commit(put("a", value))
    fed = Fed(db)
    fed.subscribe("a", 4, db.state.life)
    db.commit(put("a", 10))
    await turns()
    db.commit(put("a", 11))
    await turns()
    assert fed.notified() == list(range(5, 13))


@on_a_loop
async def test_resuming_from_now_gives_nothing_at_first(db: Database) -> None:
    db.commit(put("a", 1))
    fed = Fed(db)
    fed.subscribe("a", 1)
    await turns()
    assert fed.told == []
    db.commit(put("a", 2))
    await turns()
    assert fed.notified() == [2]


@pytest.mark.parametrize("case", ["too old", "the future", "another life"])
def test_gone_and_what_stands_there(db: Database, case: str) -> None:
    async def run() -> None:
        for value in range(200):
            db.commit(put("a", value))
        fed = Fed(db)
        since = {"too old": 3, "the future": 201, "another life": 199}[case]
        fed.subscribe("a", since, "other" if case == "another life" else None)
        db.commit(put("a", 200))
        await turns()
        assert fed.told == [("ERROR gone", 200), ("NOTIFY", 200), ("NOTIFY", 201)]
        standing = fed.pipe.messages()[1][1]
        assert [(one["ope"], one["path"], one["instance"]) for one in standing] == [
            ("PUT", "a", 199)
        ]

    asyncio.run(run())


@on_a_loop
async def test_a_live_subscription_is_not_told_twice_as_another_one_resumes(db: Database) -> None:
    fed = Fed(db)
    fed.subscribe("a")
    for value in range(3):
        db.commit(put("a", value))
        db.commit(put("b", value))
    fed.subscribe("b", 0)
    await turns()
    assert [seq for seq in fed.notified() if seq % 2] == [1, 3, 5]
    assert [seq for seq in fed.notified() if not seq % 2] == [2, 4, 6]


@on_a_loop
async def test_one_that_is_behind_is_not_told_of_what_came_before_it_subscribed(
    db: Database
) -> None:
    db.commit(put("a", 1))
    fed = Fed(db)
    fed.subscribe("b", 0)
    fed.subscribe("a")
    db.commit(put("a", 2))
    await turns()
    assert fed.notified() == [2]


def behind(db: Database, fed: Fed) -> Coroutine[Any, Any, None]:
    """Write to `a` until the feed, which takes nothing, falls behind."""

    async def write() -> None:
        fed.pipe.slow = True
        while fed.feed.live:
            db.commit(put("a", "x" * (LIMITS.backlog // 8)))
            await turns(2)

    return write()


@on_a_loop
async def test_a_slow_one_falls_behind_is_told_and_catches_up(db: Database) -> None:
    fed = Fed(db)
    fed.subscribe("a")
    await behind(db, fed)
    seen = db.state.seq
    for value in range(50):
        db.commit(put("a", value))
        await turns(2)
        assert fed.outbox.backlog < 2 * LIMITS.backlog
    await fed.take_all()
    db.commit(put("a", "live again"))
    await fed.take_all()
    assert fed.notified() == list(range(1, db.state.seq + 1))
    [(at, told)] = [(n, one[1]) for n, one in enumerate(fed.told) if one[0] == "ERROR behind"]
    assert told == seen - 1 == fed.told[at - 1][1]


@on_a_loop
async def test_one_too_far_behind_is_told_what_stands_there(db: Database) -> None:
    fed = Fed(db)
    fed.subscribe("a")
    await behind(db, fed)
    for value in range(400):
        db.commit(put("a", value))
    last = db.state.seq
    await fed.take_all()
    db.commit(put("a", "live again"))
    await fed.take_all()
    assert fed.told[-3:] == [("ERROR gone", last), ("NOTIFY", last), ("NOTIFY", last + 1)]


@on_a_loop
async def test_what_comes_after_a_clear_reaches_one_that_was_behind(db: Database) -> None:
    fed = Fed(db)
    fed.subscribe("a")
    await behind(db, fed)
    db.clear()
    db.commit(put("a", "after"))
    await fed.take_all()
    db.commit(put("a", "after that"))
    await fed.take_all()
    told = [one for one in fed.told if one[0] != "ERROR behind"]
    assert told[-4:] == [("ERROR gone", 0), ("NOTIFY", 0), ("NOTIFY", 1), ("NOTIFY", 2)]


@on_a_loop
async def test_a_clear_is_told_to_a_live_one(db: Database) -> None:
    fed = Fed(db)
    fed.subscribe("a")
    db.commit(put("a", 1))
    db.clear()
    db.commit(put("a", 2))
    await turns()
    assert fed.told == [("NOTIFY", 1), ("ERROR gone", 0), ("NOTIFY", 0), ("NOTIFY", 1)]
    assert fed.pipe.messages()[2][1][0] == {
        "ope": "DELETE", "path": "a", "tega_id": "srv", "seq": 0, "version": 0, "instance": None,
    }  # fmt: skip


@on_a_loop
async def test_none_is_lost_where_history_moves_on_while_one_catches_up(db: Database) -> None:
    """With a slow disk another thread publishes, and lets go of what is old."""
    for value in range(100):
        db.commit(put("a", value))
    fed = Fed(db)
    count, deliveries = 0, []
    send = fed.outbox.send

    def publishing(made: bytes) -> None:
        nonlocal count
        count += 1
        send(made)
        if count == 10:
            db.hub.run = deliveries.append
            for value in range(100):
                db.commit(put("a", value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outbox, "send", lambda _, made: publishing(made))
        fed.subscribe("a", 0)
        await turns()
        for deliver in deliveries:
            deliver()
        await turns()
    seqs = [seq for head, seq in fed.told if head in ("NOTIFY", "ERROR gone")]
    gone = [seq for head, seq in fed.told if head == "ERROR gone"]
    jumps = [(one, next_) for one, next_ in pairwise(seqs) if next_ > one + 1]
    assert all(there in gone for _, there in jumps), jumps
    assert seqs[-1] == 200


@on_a_loop
async def test_what_stands_there_already_is_not_told_again(db: Database) -> None:
    """With a slow disk a state can be read that is still to be delivered."""
    fed = Fed(db)
    fed.subscribe("a")
    await behind(db, fed)
    for value in range(150):
        db.commit(put("a", value))
    deliveries: list[Callable[[], None]] = []
    db.hub.run = deliveries.append
    db.commit(put("a", "undelivered"))
    last = db.state.seq
    await fed.take_all()
    for deliver in deliveries:
        deliver()
    await fed.take_all()
    assert fed.told[-2:] == [("ERROR gone", last), ("NOTIFY", last)]


@on_a_loop
async def test_long_messages_that_wait_count_too(db: Database) -> None:
    """Else one that never reads could make the server hold all that it is to be sent."""
    fed = Fed(db)
    fed.subscribe("a.b")
    fed.pipe.slow = True
    long = {"b": {f"leaf{n}": "x" * 100 for n in range(LIMITS.backlog // 100)}}
    for _ in range(40):
        db.commit(put("a", long))
        await turns(2)
    assert not fed.feed.live


@on_a_loop
async def test_it_is_told_once_that_messages_are_lost(db: Database) -> None:
    fed = Fed(db)
    fed.subscribe("a")
    fed.pipe.slow = True
    message = b'{"message":"%b"}' % (b"x" * (LIMITS.backlog // 4))
    for _ in range(20):
        db.hub.tell(Publication(("a",), "me", message))
        await turns(2)
    assert [head for head, _ in fed.told].count("MESSAGE a me") < 6
    fed.pipe.slow = False
    await fed.take_all()
    db.hub.tell(Publication(("a",), "me", b'{"message":"heard"}'))
    await turns()
    assert [head for head, _ in fed.told].count("ERROR behind") == 1
    assert fed.pipe.messages()[-1] == ("MESSAGE a me", {"message": "heard"})


@on_a_loop
async def test_one_that_takes_all_at_once_is_told_that_there_is_room(db: Database) -> None:
    """However much that was: a session that waits for room must not wait for ever."""
    told = []
    outbox = Outbox(Pipe(), Outboxes(), lambda: told.append(outbox.backlog))  # type: ignore
    outbox.send(b"x" * 2 * LIMITS.backlog)
    await turns()
    assert told == [0]
