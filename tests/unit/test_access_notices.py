"""Notices for those who may read some of a commit, beside a cut of what all others are told."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_access_readable import KEYS, NOTHING, cut, reads, rights_of, rule_lists

from tega.database import Database, new_life
from tega.errors import NotFound, Refused
from tega.log.memory import MemoryLog
from tega.notices import Notice, standing
from tega.paths import dotted, parse
from tega.store.commit import Request, Rollback, Transaction, make_delete, make_put
from tega.store.node import ABSENT, MaybeContent, thaw
from tega.watcher import Watcher

Rules = list[tuple[str, str]]

keys = st.sampled_from(KEYS)
#: Of each leaf it can be told from its value where it stands: a text for each path.
shapes = st.recursive(
    st.just(0), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
places = st.lists(keys, min_size=1, max_size=3).map(tuple)
changes = st.tuples(st.sampled_from(("PUT", "PUT", "DELETE")), places, shapes)
steps = st.lists(st.lists(changes, min_size=1, max_size=3) | st.integers(1, 2), max_size=8)
subscriptions = st.lists(
    places.map(dotted) | st.sampled_from(("a\\..*", ".*\\.b", ".*", "a.*\\.a\\..*")),
    min_size=1, max_size=3,
)  # fmt: skip


class Ear(Watcher):
    """Keeps the text of what it is told."""

    def __init__(self, name: str, rules: Rules | None) -> None:
        super().__init__(name)
        self.rights = None if rules is None else rights_of(rules)
        self.notices: list[Notice] = []
        self.told: list[bytes] = []

    def notify(self, notice: Notice) -> None:
        # One of which that took a while to find out may come to nothing: it is not sent then.
        if text := b"".join(notice.chunks()):
            self.notices.append(notice)
            self.told.append(text)

    def cleared(self) -> None:
        raise AssertionError("nobody clears anything here")


def marked(shape: Any, path: tuple[str, ...]) -> Any:
    """A value whose leaves say where they stand."""
    if type(shape) is dict:
        return {key: marked(below, (*path, key)) for key, below in shape.items()}
    return "<" + "/".join(path) + ">"


def hidden_leaves(rules: Rules, text: str) -> list[str]:
    """The marks in a text of leaves that may not be read."""
    found = [part.partition(">")[0] for part in text.split("<")[1:]]
    return [mark for mark in found if not reads(rules, tuple(mark.split("/")))]


def open_database() -> Database:
    return Database(MemoryLog(new_life), "srv")


def play(db: Database, step: Any) -> None:
    """Make the changes of a step, or none of them where one cannot be made."""
    request: Request = Rollback("a", -step, "me") if isinstance(step, int) else Transaction(
        tuple(
            make_put(path, marked(shape, path)) if ope == "PUT" else make_delete(path)
            for ope, path, shape in step
        ),
        "me",
    )
    with contextlib.suppress(NotFound, Refused):
        db.commit(request)


def pruned(tree: Any) -> Any:
    """A tree without empty containers: whether one stands there is no matter here."""
    if type(tree) is not dict:
        return tree
    below = {key: pruned(child) for key, child in tree.items()}
    return {key: child for key, child in below.items() if child != {}}


def expected_of(told: dict[str, Any], rules: Rules, replaced: MaybeContent) -> Any:
    """The definition: what somebody is told who may read only some of a change; None: nothing.

    :param replaced: what stood there just before
    """
    path = parse(told["path"])
    if told["ope"] == "ROLLBACK":
        return told if rights_of(rules).at(path).somewhere("r") else None
    seen = cut(told["instance"], rules, path)
    if seen is not NOTHING:
        return {**told, "instance": seen}
    before = NOTHING if replaced is ABSENT else cut(thaw(replaced), rules, path)
    if told["ope"] == "PUT" and before is not NOTHING:
        return {**told, "ope": "DELETE", "instance": before}
    return None


@example(
    [
        [("PUT", ("a",), 0)],
        [
            ("PUT", ("a",), {"a": 0, "b": 0, "ab": 0}),
            ("PUT", ("a",), {"a": 0, "b": 0, "ab": {"a": 0, "b": 0, "ab": 0}}),
            ("PUT", ("a",), 0),
        ],
    ],
    [("a.a.a", "r")],
    ["a", "a\\..*", "a.*\\.a\\..*"],
)
@settings(deadline=None, max_examples=150)
@given(steps, rule_lists, subscriptions)
def test_a_notice_is_what_others_get_cut_down_to_what_may_be_read(
    played: list[Any], rules: Rules, wanted: list[str]
) -> None:
    with open_database() as db:
        all_of_it, some = Ear("all", None), Ear("some", rules)
        for ear in (all_of_it, some):
            for text in wanted:
                db.hub.subscribe(ear, text, regex="*" in text)
        for step in played:
            play(db, step)
        expected = []
        for notice, text in zip(all_of_it.notices, all_of_it.told, strict=True):
            pieces = zip(json.loads(text), notice.pieces, strict=True)
            seen = [expected_of(one, rules, piece.replaced) for one, piece in pieces]
            expected.append([one for one in seen if one is not None])
        assert [json.loads(text) for text in some.told] == [seen for seen in expected if seen]
        for text in some.told:
            assert not hidden_leaves(rules, text.decode())
        # Whoever was away is told the same afterwards.
        late = Ear("late", rules)
        late.live = False
        for pattern in wanted:
            db.hub.subscribe(late, pattern, regex="*" in pattern, since=0)
        missed = [notice for _, notice in db.hub.missed(late, 0) if notice is not None]
        texts = [b"".join(one.chunks()) for one in missed]
        assert [text for text in texts if text] == some.told


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(changes, min_size=1, max_size=3), max_size=8), rule_lists)
def test_who_follows_along_has_what_may_be_read(played: list[Any], rules: Rules) -> None:
    with open_database() as db:
        some = Ear("some", rules)
        db.hub.subscribe(some, ".*", regex=True)
        for step in played:
            play(db, step)
        tree: dict[str, Any] = {}
        for one in [one for text in some.told for one in json.loads(text)]:
            path, here = parse(one["path"]), tree
            for key in path[:-1]:
                # A hidden leaf may have stood here.
                here = here.setdefault(key, {})
            here.pop(path[-1], None)
            if one["ope"] == "PUT":
                here[path[-1]] = one["instance"]
        whole = {root.name: thaw(root.content) for root in db.state.live_roots()}
        kept = {key: cut(value, rules, (key,)) for key, value in whole.items()}
        expected = {key: value for key, value in kept.items() if value is not NOTHING}
        assert pruned(tree) == pruned(expected)


@settings(deadline=None)
@given(steps, rule_lists, subscriptions)
def test_what_stands_there_shows_nothing_hidden(
    played: list[Any], rules: Rules, wanted: list[str]
) -> None:
    with open_database() as db:
        for step in played:
            play(db, step)
        for text in wanted:
            levels = tuple(text.split("\\.")) if "*" in text else parse(text)
            whole = b"".join(standing(db.state, levels, "*" in text, "srv"))
            some = b"".join(standing(db.state, levels, "*" in text, "srv", rights_of(rules)))
            assert not hidden_leaves(rules, some.decode())
            expected = []
            for one in json.loads(whole):
                seen = expected_of(one, rules, ABSENT) if one["ope"] == "PUT" else one
                if seen is None and "*" not in text:
                    seen = {**one, "ope": "DELETE", "instance": None, "version": 0}
                if seen is not None and rights_of(rules).at(parse(one["path"])).somewhere("r"):
                    expected.append(seen)
            assert json.loads(some) == expected


def test_each_set_of_rules_has_one_notice_and_so_one_text() -> None:
    """Not one for each of a thousand watchers."""
    sets = [[("a.secret", ""), ("*", "r")], [("a.open", "r")], [("a.*.x", "r")]]
    shared = [rights_of(rules) for rules in sets]
    with open_database() as db:
        got: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}

        class One(Watcher):
            def __init__(self, number: int) -> None:
                super().__init__(f"w{number}")
                self.kind = number % 3
                self.rights = shared[self.kind]

            def notify(self, notice: Notice) -> None:
                if notice.frame is None:
                    made.append(self.kind)
                    notice.frame = b"".join(notice.chunks())
                got[self.kind].add(id(notice))

        watchers = [One(number) for number in range(1000)]
        for watcher in watchers:
            db.hub.subscribe(watcher, "a")
        for value in ("one", "two"):
            made: list[int] = []
            for seen in got.values():
                seen.clear()
            tree = {"secret": value, "open": value, "b": {"x": value}}
            db.commit(Transaction((make_put(("a",), tree),), "me"))
            assert sorted(made) == [0, 1, 2]
            assert [len(seen) for seen in got.values()] == [1, 1, 1]


def test_two_who_may_read_all_of_a_change_get_the_text_of_the_record() -> None:
    with open_database() as db:
        whole, some = Ear("whole", None), Ear("some", [("a.secret", ""), ("*", "r")])
        for ear in (whole, some):
            db.hub.subscribe(ear, "a")
        play(db, [("PUT", ("a", "b"), 0)])
        assert some.notices == whole.notices
        assert some.notices[0] is whole.notices[0]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        # What is hidden comes, stays or goes without a word of it.
        ({"secret": 1}, {"secret": 2}, None),
        ({"p": 1, "secret": 1}, {"p": 1}, ("PUT", {"p": 1})),
        ({"p": 1}, {"secret": 1}, ("DELETE", {"p": 1})),
        ({"p": 1}, 5, ("DELETE", {"p": 1})),
        (5, {"p": 1}, ("PUT", {"p": 1})),
        (5, 6, None),
        ({"secret": 1}, None, None),
    ],
)
def test_a_put_of_what_is_partly_hidden(
    before: Any, after: Any, told: tuple[str, Any] | None
) -> None:
    with open_database() as db:
        some = Ear("some", [("a.b.p", "r")])
        db.commit(Transaction((make_put(("a", "b"), before),), "me"))
        db.hub.subscribe(some, "a")
        db.commit(Transaction((make_put(("a", "b"), after),), "me"))
        found = [(one["ope"], one["instance"]) for text in some.told for one in json.loads(text)]
        assert found == ([] if told is None else [told])
