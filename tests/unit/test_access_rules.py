"""Rules on paths: which one decides where, judged beside the definition, gone through by hand."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.access.rules import OPERATIONS, Rights, Rule, read_operations, read_path
from tega.errors import Malformed
from tega.paths import Path, dotted, parse

#: Small enough to go through all paths, and every one of them is hit by some glob.
KEYS = ("a", "b", "ab")
LEVELS = ("a", "b", "ab", "*", "a*", "*b", "a*b", "**", '"*"')
DEPTH = 3

paths = st.lists(st.sampled_from(KEYS), min_size=1, max_size=DEPTH + 1).map(tuple)
written = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=DEPTH).map(".".join)
letters = st.lists(st.sampled_from(OPERATIONS), unique=True).map(
    lambda some: read_operations("".join(some))
)
rule_lists = st.lists(st.tuples(written, letters), max_size=6)


def made(*given: tuple[str, str]) -> Rights:
    """Rights by paths and letters."""
    return Rights(
        Rule(number, ("x",), on, may) for number, (on, may) in enumerate(given, 1)
    )


def level_matches(level: str, key: str) -> bool:
    """The definition: a star is any text; a key in quotes is just that key."""
    if level.startswith('"'):
        return level[1:-1] == key
    return re.fullmatch(".*".join(map(re.escape, level.split("*"))), key) is not None


def decides(given: list[tuple[str, str]], path: Path) -> tuple[int, str] | None:
    """The definition: the first rule in order that stands on the path, or on one above it."""
    for number, (on, may) in enumerate(given, 1):
        levels = on.split(".")
        if len(levels) <= len(path) and all(map(level_matches, levels, path)):
            return number, may
    return None


def at_and_below(path: Path) -> list[Path]:
    """All paths there are, over `KEYS`, and one more key that no rule names, past all rules."""
    found = [path]
    for more in range(1, DEPTH + 2 - len(path)):
        found += [(*path, *rest) for rest in product((*KEYS, "zz"), repeat=more)]
    return found


@given(rule_lists, paths)
def test_the_first_rule_that_covers_a_path_decides(
    given: list[tuple[str, str]], path: Path
) -> None:
    place, expected = made(*given).at(path), decides(given, path)
    allowed = expected[1] if expected else ""
    assert [op for op in OPERATIONS if place.may(op)] == list(allowed)
    if expected is None:
        assert place.rule is None
    else:
        assert place.rule is not None
        assert (place.rule.number, place.rule.may) == expected


@given(rule_lists, paths)
def test_everywhere_and_somewhere_never_say_too_much_or_too_little(
    given: list[tuple[str, str]], path: Path
) -> None:
    place = made(*given).at(path)
    judged = [(decides(given, one) or (0, ""))[1] for one in at_and_below(path)]
    for op in OPERATIONS:
        if place.everywhere(op):
            assert all(op in may for may in judged)
        if not place.somewhere(op):
            assert not any(op in may for may in judged)
        assert place.may(op) <= place.somewhere(op)
        assert place.everywhere(op) <= place.may(op)


@given(rule_lists, st.lists(st.sampled_from(KEYS), max_size=DEPTH).map(tuple))
def test_same_below_and_listed_hold_what_they_promise(
    given: list[tuple[str, str]], path: Path
) -> None:
    place = made(*given).at(path)
    if place.same_below:
        assert {decides(given, one) for one in at_and_below(path) if one} <= {
            decides(given, path) if path else None
        }
    if place.listed is not None:
        # Of keys beside those, nobody can tell one from another.
        others = {key for key in (*KEYS, "zz", "q.r") if key not in place.listed}
        assert len({id(place.child(key)) for key in others}) <= 1
        for key in others:
            assert place.child(key).same_below


@given(rule_lists)
def test_unlimited_is_said_only_where_all_is_allowed(given: list[tuple[str, str]]) -> None:
    if made(*given).unlimited:
        assert all(
            (decides(given, path) or (0, ""))[1] == OPERATIONS for path in at_and_below(())[1:]
        )


def test_unlimited() -> None:
    assert made(("*", "rwxsp")).unlimited
    assert made(("a.b", "rwxsp"), ("*", "rwxsp")).unlimited
    assert not made(("a.b", "rwxs"), ("*", "rwxsp")).unlimited
    assert not made(("*", "rwxs")).unlimited
    assert not made(("a", "rwxsp")).unlimited
    assert not made(("*.a", "rwxsp")).unlimited, "roots themselves are not covered"
    assert not made().unlimited


def test_listed() -> None:
    place = made(("a.x", ""), ("a.y.z", "w"), ("*", "r")).at(("a",))
    assert sorted(place.listed or ()) == ["x", "y"]
    assert made(("a.x*", ""), ("*", "r")).at(("a",)).listed is None
    # Below every key something differs, so that no list of keys would do.
    assert made(("a.*.p", ""), ("*", "r")).at(("a",)).listed is None
    assert made(("a", "r")).at(("b",)).listed == {}


def test_a_rule_behind_one_that_covers_it_is_dropped() -> None:
    rights = made(("a.*", "r"), ("a.b.c", "w"), ("a", "x"), ("a.*", "p"), ("*", "s"), ("z", "r"))
    assert [rule.number for rule in rights.rules] == [1, 3, 5]
    # Where it is not plain to see, it stays, and decides nothing all the same.
    rights = made(("a*", "r"), ("ab", "w"))
    assert len(rights.rules) == 2
    assert rights.at(("ab",)).may("r")
    assert not rights.at(("ab",)).may("w")


def test_places_are_few_whatever_the_tree() -> None:
    rights = made(("inv.*.secret", ""), ("inv.ne*", "r"), ("*", "r"))
    seen = {id(rights.at(("inv", f"n{n}", "x", "y"))) for n in range(5000)}
    assert len(seen) == 1
    assert not rights.at(("inv", "n4999", "secret")).may("r")
    assert not rights.at(("inv", "n4999", "secret", "deep")).may("r")


@pytest.mark.parametrize(
    ("on", "path", "covered"),
    [
        ("a", "a.b.c", True),
        ("a.b", "a", False),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a*", "ba", True),
        ('"a*"', "a*", True),
        ('"a*"', "ab", False),
        ('routes."10.0.0.0/24"', 'routes."10.0.0.0/24".x', True),
        ("*.x", 'a."x"', True),
        ("a.b", '"a.b"', False),
        ("a*c", '"a\\nc"', True),
        ("a.+", "a.+", True),
        ("a.[b]", "a.b", False),
        ("ü*", "über", True),
    ],
)
def test_globs(on: str, path: str, covered: bool) -> None:
    assert made((on, "r")).at(parse(path)).may("r") is covered


@pytest.mark.parametrize("on", ["", ".", "a.", "a..b", "_x", 'a"b', '"a', '"a"b', 'a."_x"'])
def test_what_is_no_path_of_a_rule(on: str) -> None:
    with pytest.raises(Malformed) as error:
        read_path(on)
    assert repr(on) in error.value.message


def test_letters() -> None:
    assert read_operations("pwr x") == "rwxp"
    assert read_operations("") == ""
    with pytest.raises(Malformed, match="'q' is nothing that a rule may allow"):
        read_operations("rq")


def test_a_rule_in_words() -> None:
    rule = Rule(3, ("alice", "bob"), dotted(("a", "b c")), "rw")
    assert str(rule) == 'rule 3: alice, bob on a."b c" may rw'
    assert str(Rule(4, ("x",), "*", "")) == "rule 4: x on * may nothing"
