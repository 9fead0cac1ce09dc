"""Notices that come in runs are the same ones, in the same order, as those that come alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from feds import Fed, on_a_loop, put, turns
from hypothesis import given, settings
from hypothesis import strategies as st
from test_access_readable import rights_of

from tega.access.rules import Rights
from tega.database import Database, new_life
from tega.log.memory import MemoryLog
from tega.notices import Notice
from tega.paths import parse
from tega.store.commit import Request, Rollback, Transaction, make_delete
from tega.watcher import Run, Watcher
from tega.web import feed as feeds


class Ear(Watcher):
    """Writes down the texts of what it hears, one by one; the texts of runs too."""

    def __init__(self, tega_id: str, rights: Rights | None = None) -> None:
        super().__init__(tega_id)
        self.rights = rights
        self.heard: list[bytes] = []
        self.runs: list[int] = []

    def notify(self, notice: Notice) -> None:
        self.heard.append(b"".join(notice.chunks()))


class Runner(Ear):
    """The same, but takes runs."""

    takes_runs = True

    def notify_run(self, run: Run) -> None:
        self.runs.append(len(run.notices))
        super().notify_run(run)


@pytest.fixture
def db() -> Iterator[Database]:
    with Database(MemoryLog(new_life), "srv", resume=1000) as opened:
        yield opened
        opened.check()


def commit_together(db: Database, *requests: Request) -> None:
    for request in requests:
        db.submit(request)
    db.flush()


def test_a_batch_is_told_at_once(db: Database) -> None:
    ears = [Runner(f"ear{number}") for number in range(3)]
    for ear in ears:
        db.hub.subscribe(ear, "a")
    commit_together(db, *[put(f"a.x{number}", number) for number in range(10)])
    commit_together(db, put("a.y", 1))
    commit_together(db, put("b", 1), put("a.z", 1), put("b", 2), put("a.z", 2))
    assert [ear.runs for ear in ears] == [[10, 2]] * 3
    assert [len(ear.heard) for ear in ears] == [13] * 3
    assert ears[0].heard == ears[1].heard == ears[2].heard
    assert [text.count(b'"seq":13') for text in ears[0].heard] == [0] * 11 + [1, 0]


def test_an_author_in_the_middle_of_a_run_is_left_out(db: Database) -> None:
    ears = [Runner("x"), Runner("y")]
    for ear in ears:
        db.hub.subscribe(ear, "a")
    commit_together(db, *[put("a", number, "xyw"[number % 3]) for number in range(9)])
    assert [len(ear.heard) for ear in ears] == [6, 6]
    assert all(b'"tega_id":"x"' not in text for text in ears[0].heard)
    assert all(b'"tega_id":"y"' not in text for text in ears[1].heard)


def test_one_that_may_unsubscribe_as_it_is_told_is_told_at_once(db: Database) -> None:
    class Once(Ear):
        def notify(self, notice: Notice) -> None:
            super().notify(notice)
            db.hub.unsubscribe_all(self)

    once, runner = Once("once"), Runner("runner")
    db.hub.subscribe(once, "a")
    db.hub.subscribe(runner, "a")
    commit_together(db, *[put("a", number) for number in range(5)])
    assert len(once.heard) == 1
    assert len(runner.heard) == 5


def test_one_that_fails_on_a_run_does_not_disturb_the_others(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Runner):
        def notify_run(self, run: Run) -> None:
            raise ValueError("deaf")

    ears = [Runner("x"), Deaf("y"), Runner("z")]
    for ear in ears:
        db.hub.subscribe(ear, "a")
    commit_together(db, *[put("a", number) for number in range(5)])
    assert [len(ear.heard) for ear in ears] == [5, 0, 5]
    assert "y failed on a notice; the others get it" in caplog.text


KEYS = ("a", "b", "c")
paths = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(".".join)
patterns = st.lists(st.sampled_from((*KEYS, ".*")), min_size=1, max_size=3).map("\\.".join)
subscriptions = st.lists(
    st.tuples(paths, st.just(False)) | st.tuples(patterns, st.just(True)), min_size=1, max_size=2
)
values = st.integers(0, 3) | st.dictionaries(st.sampled_from(KEYS), st.integers(0, 3), max_size=3)
authors = st.sampled_from(("ear0", "ear1", "writer", "writer"))
requests: st.SearchStrategy[Request] = (
    st.builds(put, paths, values, authors)
    | st.builds(lambda at, who: Transaction((make_delete(parse(at)),), who), paths, authors)
    | st.builds(lambda root: Rollback(root, -1, "writer"), st.sampled_from(KEYS))
)
#: What some of them may read.
RIGHTS = (None, None, rights_of([("a.b", ""), ("*", "r")]), rights_of([("b", "r")]))


@settings(max_examples=300, deadline=None)
@given(
    wanted=st.lists(subscriptions, min_size=1, max_size=4),
    batches=st.lists(st.lists(requests, max_size=8), max_size=4),
    same=st.booleans(),
)
def test_runs_say_what_single_notices_say(
    wanted: list[list[tuple[str, bool]]], batches: list[list[Request]], same: bool
) -> None:
    pairs = [(Ear(f"ear{n}", RIGHTS[n]), Runner(f"ear{n}", RIGHTS[n])) for n in range(len(wanted))]
    alone, together = [
        Database(MemoryLog(lambda: "life"), "srv", clock=lambda: "t") for _ in range(2)
    ]
    for (ear, runner), own in zip(pairs, wanted, strict=True):
        for text, regex in wanted[0] if same else own:
            alone.hub.subscribe(ear, text, regex=regex)
            together.hub.subscribe(runner, text, regex=regex)
    for batch in batches:
        commit_together(alone, *batch)
        commit_together(together, *batch)
        for ear, runner in pairs:
            assert runner.heard == ear.heard


# -- feeds ----------------------------------------------------------------------------------------


@on_a_loop
async def test_a_hundred_feeds_share_what_is_joined(db: Database) -> None:
    joined = 0
    original = feeds._joined

    def counting(notices: list[Notice]) -> object:
        nonlocal joined
        joined += 1
        return original(notices)

    fed = [Fed(db, f"f{number}") for number in range(100)]
    for one in fed:
        one.subscribe("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "_joined", counting)
        commit_together(db, *[put("a", number) for number in range(50)])
    await turns()
    assert joined == 1
    assert {one.pipe.data for one in fed} == {fed[0].pipe.data}
    assert fed[0].told == [("NOTIFY", seq) for seq in range(1, 51)]
    assert db.meters.notices == 5000


@on_a_loop
async def test_a_run_with_something_long_in_it(db: Database) -> None:
    fed = [Fed(db, f"f{number}") for number in range(3)]
    for one in fed:
        one.subscribe("a")
    long = {f"k{number}": "x" * 1000 for number in range(2000)}
    commit_together(db, put("a", 1), put("a", long), put("a", 3))
    for one in fed:
        await one.take_all()
        assert one.told == [("NOTIFY", seq) for seq in (1, 2, 3)]
        assert one.pipe.messages()[1][1][0]["instance"] == long


@on_a_loop
async def test_one_that_takes_nothing_falls_behind_in_a_run_by_no_more_than_its_limit(
    db: Database
) -> None:
    slow, quick = Fed(db, "slow"), Fed(db, "quick")
    for one in (slow, quick):
        one.subscribe("a")
    slow.pipe.slow = True
    limit, value = slow.feed.limits.backlog, "x" * 1000
    for round_ in range(40):
        commit_together(db, *[put("a", f"{round_} {number} {value}") for number in range(50)])
        await turns()
    assert not slow.feed.live
    assert limit < slow.outbox.backlog < limit + 2 * (1 << 16)
    assert quick.notified() == list(range(1, 2001))
    assert slow.told[-1][0] == "ERROR behind"
    come_to = slow.told[-1][1]
    assert slow.notified() == list(range(1, come_to + 1))
