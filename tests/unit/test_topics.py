"""The trie of subscriptions: what it finds, what it costs, and that nothing is left in it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega.errors import Malformed
from tega.paths import Path
from tega.store.node import ABSENT, freeze
from tega.topics import Topic, Topics, below

KEYS = ["a", "b", "ab", "abc", "", "é", "10.0.0.0/24", "a b", "A", "a\n"]
PATTERNS = [
    "a", "ab?", "ab*", "a{0}b", "ab{2}", "a|b", "(a)", "(?i)A", "(?i)ab", "a(?i)B", ".*", ".", "",
    "^a", "a$", "[.]", "10[.]0", r"\Qa|b", r"\Qab", "é?", "(?P<n>a)", "(?P<n>b)", "a+", "a??b",
    "b(?:c|d)", r"a\sb", "(a|b)(b|c)", "[^a]", "a.*c", r"\x61", "z", "zz", "a b", "a{1,2}",
]  # fmt: skip

Row = tuple[tuple[str, ...], bool, str]

rows = st.lists(
    st.tuples(
        st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(tuple),
        st.just(False),
        st.sampled_from("xyz"),
    )
    | st.tuples(
        st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3).map(tuple),
        st.just(True),
        st.sampled_from("xyz"),
    ),
    max_size=12,
)
paths = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(tuple)


def is_on(level: str, regex: bool, key: str) -> bool:
    if not regex:
        return level == key
    if level.startswith(r"\Q"):
        return key.startswith(level[2:])
    if level == "a(?i)B":
        return key[:1] == "a" and key[1:2] in ("b", "B")
    # What `$` takes a final newline for differs.
    return re.match(level.replace("$", r"\Z"), key) is not None


def reaches(row: Row, path: Path) -> bool:
    levels, regex, _ = row
    return all(is_on(level, regex, key) for level, key in zip(levels, path, strict=False))


def built(given_rows: list[Row]) -> Topics:
    topics = Topics()
    for levels, regex, who in given_rows:
        topics.add(levels, regex, who, 0)
    return topics


def who(topics: list[Topic]) -> list[str]:
    return sorted(name for topic in topics for name in topic.entries)


def expected(given_rows: list[Row], wanted: Callable[[Row], bool]) -> list[str]:
    return sorted(row[2] for row in set(given_rows) if wanted(row))


@settings(deadline=None)
@given(given_rows=rows, path=paths)
def test_what_stands_along_a_path(given_rows: list[Row], path: Path) -> None:
    topics = built(given_rows)
    for _ in range(2):
        found, there = topics.covering(path)
        assert who(found) == expected(
            given_rows, lambda row: len(row[0]) <= len(path) and reaches(row, path)
        )
        at = expected(given_rows, lambda row: len(row[0]) == len(path) and reaches(row, path))
        assert who(there) == who(topics.at(path)) == at


@settings(deadline=None)
@given(given_rows=rows, others=rows, path=paths)
def test_what_was_removed_is_found_no_more(
    given_rows: list[Row], others: list[Row], path: Path
) -> None:
    topics = built(given_rows)
    for levels, regex, name in others:
        topics.add(levels, regex, name, 0)
    topics.covering(path)
    for levels, regex, name in others:
        topics.remove(levels, regex, name)
    left = [row for row in given_rows if row not in others]
    assert who(topics.covering(path)[0]) == who(built(left).covering(path)[0])
    for levels, regex, name in [*given_rows, *others]:
        topics.remove(levels, regex, name)
    assert not topics._top.leads_on


def test_the_same_is_entered_once_with_its_newest_number() -> None:
    topics = Topics()
    topics.add(("a",), False, "x", 1)
    topics.add(("a",), False, "x", 7)
    [topic] = topics.at(("a",))
    assert topic.entries == {"x": 7}
    topics.remove(("a",), True, "x")
    topics.remove(("a", "b"), False, "x")
    topics.remove(("a",), False, "y")
    assert topics.at(("a",)) == [topic]


def test_a_refused_pattern_leaves_nothing() -> None:
    topics = Topics()
    for levels in [("a", "("), ("(?=a)",), (r"(a)\1",), ("a", "b", "a{1001}")]:
        with pytest.raises(Malformed):
            topics.add(levels, True, "x", 0)
    assert not topics._top.leads_on


def test_patterns_in_many_gates() -> None:
    """More than are tried together, some of which cannot be."""
    topics = Topics()
    levels = [f".*{n}$" for n in range(300)] + [f"(?P<n>.*{n}$)" for n in range(300)] + [r"\Qa"]
    for level in levels:
        topics.add((level,), True, level, 0)
    for number in (0, 63, 64, 299):
        key = f"key{number}"
        wanted = sorted(
            level for level in levels[:600] if key.endswith(re.sub(r"\D", "", level))
        )
        assert who(topics.at((key,))) == wanted
    for level in levels[::2]:
        topics.remove((level,), True, level)
    assert who(topics.at(("key0",))) == []
    assert who(topics.at(("key1",))) == ["(?P<n>.*1$)", ".*1$"]


TREES: list[Any] = [
    ABSENT, 1, freeze({}, 9), freeze({"a": 1, "b": {"c": 1}}, 9), freeze({"b": 5, "d": {}}, 9),
]  # fmt: skip


@pytest.mark.parametrize("new", TREES)
@pytest.mark.parametrize("old", TREES)
def test_what_two_trees_have_for_those_below(new: Any, old: Any) -> None:
    topics = built([
        (("r", "b", "c"), False, "literal"), (("r", "q"), False, "nothing there"),
        (("r", ".*"), True, "pattern"), (("r", ".*", ".*"), True, "deep"), (("r",), False, "at"),
    ])  # fmt: skip
    children = [getattr(tree, "children", {}) for tree in (new, old)]
    keys = {*children[0], *children[1]}
    expected_paths = {("pattern", ("r", key)) for key in keys}
    for tree in children:
        if "c" in getattr(tree.get("b"), "children", {}):
            expected_paths |= {("deep", ("r", "b", "c")), ("literal", ("r", "b", "c"))}
    found = [
        ((name, path), there, gone)
        for topic in topics.covering(("r",))[1]
        for one in below(topic, ("r",), new, old) if one is not None
        for reached, path, there, gone in [one]
        for name in reached.entries
    ]
    assert sorted(place for place, _, _ in found) == sorted(expected_paths)
    for (_, path), there, gone in found:
        if len(path) == 2:
            assert there is children[0].get(path[1], ABSENT)
            assert gone is children[1].get(path[1], ABSENT)


# -- what it costs --------------------------------------------------------------------------------


def calls(work: Callable[[], Any]) -> int:
    """How many functions are called, which no machine makes faster or slower."""
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def names(kind: str, count: int) -> Iterator[tuple[tuple[str, ...], bool]]:
    for number in range(count):
        yield {
            "literal": (("r", f"k{number}"), False),
            "literal in another root": ((f"r{number}",), False),
            "pattern": (("r", f"k{number}$"), True),
            "pattern in another root": ((f"r{number}$", ".*"), True),
            "pattern beginning alike": (("r", f".*x{number}$"), True),
        }[kind]


@pytest.mark.parametrize("kind", [
    "literal", "literal in another root", "pattern", "pattern in another root",
    "pattern beginning alike",
])  # fmt: skip
def test_a_change_costs_no_more_with_10_000_subscriptions_elsewhere(kind: str) -> None:
    def costs(count: int) -> tuple[int, int]:
        """Of a change at a key that is new, and of one at a key that changed before."""
        topics = built([(("r", "a"), False, "me"), (("r", "a"), True, "me")])
        for number, (levels, regex) in enumerate(names(kind, count)):
            topics.add(levels, regex, number, 0)
        for path in (("r", "a", "b"), ("r", "first", "b")):
            assert len(topics.covering(path)[0]) == (2 if path[1] == "a" else 0)
        return (
            calls(lambda: topics.covering(("r", "second", "b"))),
            calls(lambda: topics.covering(("r", "a", "b"))),
        )

    few, many = costs(100), costs(10_000)
    assert many[1] == few[1]
    if kind == "pattern beginning alike":
        assert many[0] < 10_000 / 8, "far fewer than there are patterns"
    else:
        assert many[0] <= few[0] + 8


def test_a_put_above_10_000_subscriptions_costs_what_it_has_for_them() -> None:
    tree = freeze({"k1": 1, "other": 2}, 9)

    def cost(count: int) -> int:
        topics = built([(("r", f"k{n}"), False, "x") for n in range(count)])
        [topic] = topics.covering(("r",))[1]
        assert len([one for one in below(topic, ("r",), tree, ABSENT) if one is not None]) == 1
        return calls(lambda: list(below(topic, ("r",), tree, ABSENT)))

    assert cost(100) == cost(10_000)
