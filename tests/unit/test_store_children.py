"""Children small and large behave alike, and those that are there never change."""

from __future__ import annotations

import immutables
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.store.children import (
    NONE,
    SMALL,
    changed_children,
    children_of,
    with_child,
    without_child,
)
from tega.store.node import freeze, put, thaw

KEYS = st.sampled_from([f"k{number}" for number in range(SMALL + 8)])
CONTENTS = st.dictionaries(KEYS, st.integers(), max_size=SMALL + 8)


def test_small_ones_are_dicts_and_large_ones_maps() -> None:
    small = {f"k{number}": number for number in range(SMALL)}
    assert children_of(small) is small
    large = with_child(small, "more", 1)
    assert isinstance(large, immutables.Map)
    assert isinstance(children_of({**small, "more": 1}), immutables.Map)
    assert isinstance(without_child(large, "more"), immutables.Map)
    assert isinstance(changed_children(small, {"more": 1, "most": 2}, ["k0"]), immutables.Map)


@given(CONTENTS, KEYS, st.integers())
def test_one_more_and_one_less(contents: dict[str, int], key: str, child: int) -> None:
    before = children_of(dict(contents))
    more = with_child(before, key, child)
    assert dict(more) == {**contents, key: child}
    less = without_child(more, key)
    assert dict(less) == {k: v for k, v in contents.items() if k != key}
    assert dict(before) == contents
    assert dict(more) == {**contents, key: child}


@given(CONTENTS, CONTENTS, st.data())
def test_many_at_once(contents: dict[str, int], more: dict[str, int], data: st.DataObject) -> None:
    gone = data.draw(st.lists(st.sampled_from(sorted(contents)), unique=True)) if contents else []
    before = children_of(dict(contents))
    after = changed_children(before, more, gone)
    assert dict(after) == {**{k: v for k, v in contents.items() if k not in gone}, **more}
    assert dict(before) == contents


def test_to_remove_what_is_not_there_is_an_error() -> None:
    large = children_of({f"k{number}": number for number in range(SMALL + 1)})
    for children in (NONE, large):
        with pytest.raises(KeyError):
            changed_children(children, {}, ["absent"])


def test_a_frozen_value_is_not_the_callers() -> None:
    given_value = {"a": {"b": 1}, "c": 2}
    content = freeze(given_value)
    given_value["a"]["b"] = given_value["c"] = 9  # type: ignore[index]
    assert thaw(content) == {"a": {"b": 1}, "c": 2}
    put(content, 0, ("r", "a", "b"), 7, 1)
    assert thaw(content) == {"a": {"b": 1}, "c": 2}
    shown = thaw(content)
    shown["a"]["b"] = 9
    assert thaw(content) == {"a": {"b": 1}, "c": 2}
