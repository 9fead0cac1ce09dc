"""Which changes reach which subscription: against the definition, in plain dicts.

The definition is worked out here in the most naive way: a change and a subscription are compared
key by key, and what a subscription covers is looked up in the whole tree before and after.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import plain
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import Path, Plain, Refusal, Version

from tega.database import Database, new_life
from tega.errors import TegaError
from tega.log.memory import MemoryLog
from tega.notices import Notice
from tega.paths import parse, wire
from tega.store import node
from tega.store.commit import Rollback, Transaction, make_delete, make_put
from tega.watcher import Watcher

KEYS = ["a", "b", "ab", "10.0.0.0/24", "two words"]
PATTERNS = [
    "a", "b", ".*", ".", "a|b", "[ab]+", "(a)(b)?", "a$", "^b", "10[.]0", "x*", "ab?", "aa*",
    "two words", "z", "a.", "(?:ab|10).*",
]  # fmt: skip


class Subscription(NamedTuple):
    levels: tuple[str, ...]
    regex: bool

    def reaches(self, path: Path) -> bool:
        """Whether its first levels are those of a path, as far as both go."""
        return all(
            re.match(level, key) is not None if self.regex else level == key
            for level, key in zip(self.levels, path, strict=False)
        )

    @property
    def text(self) -> str:
        return "\\.".join(self.levels) if self.regex else wire(self.levels)


# -- the definition -------------------------------------------------------------------------------


def covered(subscription: Subscription, tree: dict[str, Any]) -> dict[Path, Any]:
    """The parts of a tree that a subscription is on."""
    found: dict[Path, Any] = {(): tree}
    for _ in subscription.levels:
        found = {
            (*path, key): child
            for path, value in found.items()
            if isinstance(value, dict)
            for key, child in value.items()
        }
    return {path: value for path, value in found.items() if subscription.reaches(path)}


def seen(
    subscription: Subscription, change: dict[str, Any], path: Path, before: Any, after: Any
) -> dict[Path, dict[str, Any]]:
    """What of a change a subscription gets, by path.

    :param before: the root's tree, as ``{root: value}``
    """
    if not subscription.reaches(path):
        return {}
    if len(path) >= len(subscription.levels):
        return {path: change}
    there, gone = covered(subscription, after), covered(subscription, before)
    cuts = {}
    for part in {*there, *gone}:
        if part[: len(path)] == path:
            ope, instance = ("PUT", there[part]) if part in there else ("DELETE", gone[part])
            cuts[part] = {**change, "ope": ope, "path": wire(part), "instance": instance}
    return cuts


def expected_of(
    subscriptions: Sequence[Subscription],
    operations: Sequence[plain.Operation],
    drafts: dict[str, Version],
    tega_id: str,
    seq: int,
    versions: dict[str, int],
) -> list[list[str]]:
    """The changes of a NOTIFY as texts; those of one change, whose order is free, in a list."""
    found = []
    for operation in operations:
        root = operation.path[0]
        before = deepcopy(drafts[root].tree)
        version = versions[root]
        change: dict[str, Any] = {"path": wire(operation.path), "tega_id": tega_id, "seq": seq}
        change["version"] = version
        if isinstance(operation, plain.Put):
            drafts[root].put(operation.path, operation.value, version)
            change |= {"ope": "PUT", "instance": operation.value}
        else:
            change |= {"ope": "DELETE", "instance": drafts[root].value_at(operation.path)}
            change["instance"] = deepcopy(change["instance"])
            drafts[root].delete(operation.path, version)
        cuts: dict[Path, dict[str, Any]] = {}
        for subscription in subscriptions:
            cuts |= seen(subscription, change, operation.path, before, drafts[root].tree)
        if cuts:
            found.append(sorted(as_text(cut) for cut in cuts.values()))
    return found


def rollback_of(
    subscriptions: Sequence[Subscription], root: str, before: Any, after: Any, change: Any
) -> list[list[str]]:
    """The same for a rollback, which a subscription gets where what it covers has changed."""
    for subscription in subscriptions:
        if not subscription.reaches((root,)):
            continue
        if plain.text(_parts(subscription, before)) != plain.text(_parts(subscription, after)):
            return [[as_text(change)]]
    return []


def _parts(subscription: Subscription, tree: dict[str, Any]) -> dict[str, Any]:
    return {wire(path): value for path, value in covered(subscription, tree).items()}


# -- what really comes ----------------------------------------------------------------------------


class Ear(Watcher):
    """Keeps what it hears: as Python users get it, and as it goes over the wire."""

    def __init__(self, tega_id: str) -> None:
        super().__init__(tega_id)
        self.heard: list[list[dict[str, Any]]] = []
        self.wired: list[list[dict[str, Any]]] = []

    def notify(self, notice: Notice) -> None:
        self.heard.append(notice.as_data())
        self.wired.append(json.loads(b"".join(notice.chunks())))


def as_text(change: dict[str, Any]) -> str:
    """A change to be compared: a path can be written in several ways, a list as a tuple."""
    return plain.text({**change, "path": list(parse(change["path"]))})


def grouped(changes: list[dict[str, Any]], like: list[list[str]]) -> list[list[str]]:
    """Changes as texts, in groups of the sizes of others."""
    texts = [as_text(change) for change in changes]
    assert len(texts) == sum(map(len, like)), (texts, like)
    return [sorted(texts.pop(0) for _ in group) for group in like]


# -- at random ------------------------------------------------------------------------------------

# Few and short, so that they meet.
keys = st.sampled_from([*KEYS, "a", "b", "a", "b"])
paths = st.lists(keys, min_size=1, max_size=3).map(tuple)
values = st.recursive(
    st.sampled_from([0, 1, True, 1.0, None, "x", [1, {"free.key": None}], {}]),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
subscriptions = st.builds(Subscription, paths, st.just(False)) | st.builds(
    Subscription,
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3).map(tuple),
    st.just(True),
)
operations = st.builds(plain.Put, paths, values) | st.builds(plain.Delete, paths)
watchers = st.lists(st.lists(subscriptions, min_size=1, max_size=3), min_size=1, max_size=4)
requests = st.lists(operations, min_size=1, max_size=4) | st.tuples(
    keys, st.integers(-3, -1)
)


def made(request: Any, who: str) -> Transaction | Rollback:
    """The request to a database that says the same as one to the model."""
    if isinstance(request, tuple):
        return Rollback(*request, who)
    changes = [
        make_put(one.path, one.value) if isinstance(one, plain.Put) else make_delete(one.path)
        for one in request
    ]
    return Transaction(tuple(changes), who)


def commit_both(db: Database, model: Plain, request: Any, who: str) -> plain.Result | None:
    """Let a database and the model do the same; None where both refuse it."""
    try:
        done = model.rollback(*request) if isinstance(request, tuple) else model.commit(request)
    except Refusal:
        with pytest.raises(TegaError):
            db.commit(made(request, who))
        return None
    result = db.commit(made(request, who))
    assert (result.seq, dict(result.versions)) == (done.seq, done.versions)
    return done


def newest(model: Plain) -> dict[str, Version]:
    return {root: deepcopy(past[-1]) for root, past in model.past.items()}


def check_against_the_definition(
    listening: Sequence[Sequence[Subscription]], asked: Sequence[Any]
) -> None:
    watched, alone = [
        Database(MemoryLog(lambda: "life"), "srv", clock=lambda: "2026-11-21T01:34:05.123456Z")
        for _ in range(2)
    ]
    model = Plain(10)
    ears = [Ear(f"ear{number}") for number in range(len(listening))]
    for ear, own in zip(ears, listening, strict=True):
        for one in own:
            watched.hub.subscribe(ear, one.text, regex=one.regex)
    for number, request in enumerate(asked):
        # Every other change is made by somebody who listens too.
        who = "writer" if number % 2 else "ear0"
        before = newest(model)
        lengths = [len(ear.heard) for ear in ears]
        done = commit_both(watched, model, request, who)
        if done is not None:
            alone.commit(made(request, who))
        for ear, own, length in zip(ears, listening, lengths, strict=True):
            expected = []
            if done is not None and ear.tega_id != who:
                expected = expected_by(own, request, before, model, done, who)
            new = ear.heard[length:]
            assert len(new) == (1 if expected else 0), "one NOTIFY a transaction, none for nothing"
            assert grouped(new[0] if new else [], expected) == expected
            wired = ear.wired[length:]
            assert grouped(wired[0] if wired else [], expected) == expected
    for db in (watched, alone):
        db.check()
    assert texts(watched) == texts(alone), "nobody who listens alters what is logged"
    for ear, own in zip(ears, listening, strict=True):
        late = Ear(ear.tega_id)
        for one in own:
            watched.hub.subscribe(late, one.text, regex=one.regex, since=0)
        missed = [notice for _, notice in watched.hub.missed(late, 0) if notice is not None]
        assert [notice.as_data() for notice in missed] == ear.heard, "who resumes gets the same"


def expected_by(
    own: Sequence[Subscription],
    request: Any,
    before: dict[str, Version],
    model: Plain,
    done: plain.Result,
    who: str,
) -> list[list[str]]:
    if not isinstance(request, tuple):
        drafts = {one.path[0]: Version() for one in request} | deepcopy(before)
        return expected_of(own, request, drafts, who, done.seq, done.versions)
    root, backto = request
    change = {
        "ope": "ROLLBACK", "path": wire((root,)), "tega_id": who, "seq": done.seq,
        "version": done.versions[root], "instance": None, "backto": backto,
    }  # fmt: skip
    return rollback_of(own, root, before[root].tree, model.past[root][-1].tree, change)


def texts(db: Database) -> list[str]:
    """All that is logged, commit by commit."""
    found = {
        logged.seq: repr(logged) for name in db.state.roots for logged in db.commits_after(name, -1)
    }
    return [found[seq] for seq in sorted(found)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(listening=watchers, asked=st.lists(requests, min_size=1, max_size=8))
def test_the_definition(listening: list[list[Subscription]], asked: list[Any]) -> None:
    check_against_the_definition(listening, asked)


@pytest.mark.long
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(listening=watchers, asked=st.lists(requests, min_size=1, max_size=15))
def test_the_definition_at_length(
    listening: list[list[Subscription]], asked: list[Any]
) -> None:
    check_against_the_definition(listening, asked)


# -- the table ------------------------------------------------------------------------------------

A = {"b": {"c": 1, "d": {"e": 2}}, "x": 0}
PUT, DELETE = "PUT", "DELETE"

#: What stood there, the change, the subscriptions of one session, and what it gets.
TABLE: list[tuple[str, Any, plain.Operation, list[str], list[tuple[str, str, Any]]]] = [
    ("at it", {}, plain.Put(("a", "b"), 1), ["a.b"], [(PUT, "a.b", 1)]),
    ("at it, deleted", A, plain.Delete(("a", "x")), ["a.x"], [(DELETE, "a.x", 0)]),
    ("below it", A, plain.Put(("a", "b", "c"), 5), ["a.b"], [(PUT, "a.b.c", 5)]),
    ("below it, deleted", A, plain.Delete(("a", "b", "c")), ["a"], [(DELETE, "a.b.c", 1)]),
    ("above it", {}, plain.Put(("a",), A), ["a.b.d"], [(PUT, "a.b.d", {"e": 2})]),
    ("above it, an equal value", A, plain.Put(("a",), A), ["a.x"], [(PUT, "a.x", 0)]),
    ("above it, gone", A, plain.Put(("a",), {"y": 1}), ["a.b.c"], [(DELETE, "a.b.c", 1)]),
    ("above it, a leaf now", A, plain.Put(("a",), 7), ["a.b.d"], [(DELETE, "a.b.d", {"e": 2})]),
    ("above it, deleted", A, plain.Delete(("a",)), ["a.b.d"], [(DELETE, "a.b.d", {"e": 2})]),
    ("above it, never there", A, plain.Put(("a",), {"x": 1}), ["a.q.c"], []),
    ("above it, deleted, never there", A, plain.Delete(("a", "b")), ["a.b.q"], []),
    ("an empty container", {}, plain.Put(("a",), {"b": {}}), ["a.b"], [(PUT, "a.b", {})]),
    ("beside it", A, plain.Put(("a", "x"), 1), ["a.b"], []),
    ("a longer key", {}, plain.Put(("a", "bb"), 1), ["a.b"], []),
    ("another root", A, plain.Put(("ab",), 1), ["a"], []),
    ("pruned with the last child", {"b": {"c": 1}}, plain.Delete(("a", "b", "c")), ["a.b"],
     [(DELETE, "a.b.c", 1)]),
    ("a pattern on one level", A, plain.Put(("a", "b", "c"), 5), [".*"], [(PUT, "a.b.c", 5)]),
    ("a pattern on several children", {}, plain.Put(("a",), A), [r"a\..*"],
     [(PUT, "a.b", A["b"]), (PUT, "a.x", 0)]),
    ("some there, some gone", A, plain.Put(("a",), {"b": 1, "y": 2}), [r"a\..*"],
     [(PUT, "a.b", 1), (DELETE, "a.x", 0), (PUT, "a.y", 2)]),
    ("a pattern from the start of the key", {}, plain.Put(("a", "xb"), 1), [r"a\.b"], []),
    ("a pattern not to its end", {}, plain.Put(("a", "bx"), 1), [r"a\.b"], [(PUT, "a.bx", 1)]),
    ("a pattern of more levels", A, plain.Delete(("a", "b")), [r".*\..*\..*\.e"],
     [(DELETE, "a.b.d.e", 2)]),
    ("a dot in a key", {}, plain.Put(("a", "10.0.0.0/24"), 1), ['a."10.0.0.0/24"'],
     [(PUT, 'a."10.0.0.0/24"', 1)]),
    ("a dot in a key and a pattern", {}, plain.Put(("a",), {"10.0.0.0/24": 1, "10": 2}),
     [r"a\.10[.]"], [(PUT, 'a."10.0.0.0/24"', 1)]),
    ("the same cut twice", A, plain.Put(("a", "b"), 1), ["a", "a.b", r"a\.b", ".*"],
     [(PUT, "a.b", 1)]),
    ("distinct cuts", {}, plain.Put(("a",), A), ["a", "a.b", "a.b.c", r"a\.b"],
     [(PUT, "a", A), (PUT, "a.b", A["b"]), (PUT, "a.b.c", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "change", "texts", "expected"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_the_table(
    before: Any, change: plain.Operation, texts: list[str], expected: list[tuple[str, str, Any]]
) -> None:
    with Database(MemoryLog(new_life), "srv") as db:
        if before:
            db.commit(made([plain.Put(("a",), before)], "writer"))
        ear = Ear("ear")
        for text in texts:
            db.hub.subscribe(ear, text, regex="\\" in text or "*" in text)
        db.commit(made([change], "writer"))
        found = [
            (one["ope"], one["path"], one["instance"]) for notice in ear.heard for one in notice
        ]
        assert sorted(map(plain.text, found)) == sorted(map(plain.text, expected))


def test_a_transaction_is_one_notice_with_its_changes_in_order() -> None:
    with Database(MemoryLog(new_life), "srv") as db:
        ear = Ear("ear")
        for text in ("a.b", "c"):
            db.hub.subscribe(ear, text)
        changes = [
            plain.Put(("c",), 1), plain.Put(("a",), {"b": 1}), plain.Put(("q",), 1),
            plain.Put(("a", "b"), 2), plain.Delete(("a",)), plain.Put(("c", ), 3),
        ]  # fmt: skip
        db.commit(made(changes, "writer"))
        [notice] = ear.heard
        assert [(one["ope"], one["path"], one["instance"]) for one in notice] == [
            (PUT, "c", 1), (PUT, "a.b", 1), (PUT, "a.b", 2), (DELETE, "a.b", 2), (PUT, "c", 3),
        ]  # fmt: skip


def test_a_cut_neither_alters_the_record_nor_what_another_one_sees() -> None:
    """In 2017 a subscription on `a.b` cut the record of `put a` in the log itself."""
    log = MemoryLog(new_life)
    with Database(log, "srv") as db:
        ears = {text: Ear(text) for text in ("a.b", "a", "a.b.d.e")}
        for text, ear in ears.items():
            db.hub.subscribe(ear, text)
        db.commit(made([plain.Put(("a",), A)], "writer"))
        [notice] = ears["a.b"].heard
        notice[0]["instance"]["c"] = "altered by who got it"
        assert ears["a"].heard[0][0]["instance"] == A
        assert ears["a.b.d.e"].heard[0][0]["instance"] == 2
        [logged] = db.commits_after("a", -1)
        assert [(one.path, one.instance) for one in logged.records] == [("a", A)]
    with Database(log, "srv") as db:
        assert json.loads(plain.text(node.thaw(db.find(("a",)).content))) == A
