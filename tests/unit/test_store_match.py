r"""Regex paths: one RE2 pattern per level, split at ``\.``."""

from __future__ import annotations

from typing import Any

import pytest

from tega.errors import Malformed
from tega.store.commit import Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.match import Match, compile_pattern, matches
from tega.store.node import thaw
from tega.store.staging import stage

TIME = "2026-11-21T01:34:05.123456Z"


def holding(roots: dict[str, Any]) -> State:
    state = State("life")
    for name, value in roots.items():
        request = Transaction((make_put((name,), value),), "me")
        state, _ = stage(state, request, TIME, 10)
    return state


def found(state: State, pattern: str) -> list[Match]:
    return [match for match in matches(state, compile_pattern(pattern)) if match is not None]


def paths(roots: dict[str, Any], pattern: str) -> list[str]:
    return [" ".join(match.path) for match in found(holding(roots), pattern)]


def test_the_example_of_the_manual() -> None:
    state = holding({"r-a": {"a": {"x": 1}}})
    [match] = found(state, r"(r)-(.*)\.(.*)")
    assert match.path == ("r-a", "a")
    assert match.groups == [["r", "a"], ["a"]]
    assert thaw(match.content) == {"x": 1}
    assert match.version == 0


def test_a_level_without_groups_adds_nothing() -> None:
    [match] = found(holding({"r": {"a": {"b": {"c": 1}}}}), r"(r)\.a\.(b)\..*")
    assert match.groups == [["r"], ["b"]]
    assert [m.groups for m in found(holding({"r": 1, "s": 2}), ".")] == [[], []]


def test_a_group_that_took_no_part_is_null() -> None:
    [match] = found(holding({"r": 1}), "(x)?(r)")
    assert match.groups == [[None, "r"]]


def test_patterns_match_from_the_start_and_not_to_the_end() -> None:
    roots = {"ne1": 1, "ne10": 2, "one1": 3}
    assert paths(roots, "ne1") == ["ne1", "ne10"]
    assert paths(roots, "ne1$") == ["ne1"]
    assert paths(roots, ".*1$") == ["ne1", "one1"]


def test_an_escaped_dot_splits_levels_and_a_class_does_not() -> None:
    roots = {"eth0.100": {"a": 1}, "eth0": {"100": 2}}
    assert paths(roots, r"eth0\.100") == ["eth0 100"]
    assert paths(roots, "eth0[.]100") == ["eth0.100"]
    assert paths(roots, r"eth0[.]100\.a") == ["eth0.100 a"]


def test_matches_come_in_order_of_path() -> None:
    roots = {"b": {"y": 1, "x": 1, "X": 1}, "a": {"z": 1}, "é": {"q": 1}}
    assert paths(roots, r".*\..*") == ["a z", "b X", "b x", "b y", "é q"]


def test_each_level_is_tried_on_the_whole_level() -> None:
    wide = {f"k{n}": {"v": n} for n in range(3_000)}
    assert len(paths({"r": wide}, r"r\.k\d+\.v")) == 3_000
    assert paths({"r": wide}, r"r\.k2999\.v") == ["r k2999 v"]


def test_long_searches_offer_pauses() -> None:
    state = holding({"r": {f"k{n}": n for n in range(3_000)}})
    assert list(matches(state, compile_pattern(r"r\.nothing"))).count(None) == 4
    state = holding({"r": {f"k{n}": {"a": n} for n in range(3_000)}})
    assert list(matches(state, compile_pattern(r"r\..*\.nothing"))).count(None) > 3_000


def test_no_match_is_an_empty_answer() -> None:
    assert paths({"r": {"a": 1}}, "x") == []
    assert paths({"r": {"a": 1}}, r"r\.b") == []
    assert paths({"r": {"a": 1}}, r"r\.a\..*") == []
    assert paths({"r": [{"a": 1}]}, r"r\..*") == []
    assert paths({}, ".*") == []


def test_deleted_roots_do_not_match() -> None:
    state, _ = stage(holding({"r": 1}), Transaction((make_delete(("r",)),), "me"), TIME, 10)
    assert found(state, ".*") == []


def test_versions_come_along() -> None:
    state = holding({"r": {"a": 1, "b": 2}})
    state, _ = stage(state, Transaction((make_put(("r", "a"), 3),), "me"), TIME, 10)
    assert [(m.path[-1], m.version) for m in found(state, r"r\..")] == [("a", 1), ("b", 0)]


@pytest.mark.parametrize(
    "pattern",
    ["(", "*", "[", "a{2,1}", "a{1001}", "\\", "(?=a)", "(?!a)", "(?<=a)", r"(a)\1", "(?>a)", "a++",
     "(?(1)a)", "(?P=n)", "\ud800"],
)  # fmt: skip
def test_what_re2_has_not_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(Malformed) as caught:
        compile_pattern(rf"r.*\.{pattern}")
    assert f"malformed pattern {pattern!r}" in str(caught.value)
    assert caught.value.details["pattern"] == pattern


def test_a_pattern_that_would_take_much_memory_is_refused() -> None:
    with pytest.raises(Malformed):
        compile_pattern("((a{100}){100}){100}")


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a+)+$b", "(a|aa)+b", "(.*)(.*)(.*)(.*)(.*)b"])
def test_catastrophic_patterns_take_linear_time(pattern: str) -> None:
    # With backtracking this would take longer than the universe has lasted.
    assert paths({"a" * 255: 1}, pattern) == []
