"""The children of a container: a map from key to content that never changes once it is made.

A small one is a plain dict, which takes less memory and is copied in less time than a change of
a persistent map takes. A large one is an `immutables.Map`, of which a change copies a few nodes.
Nobody may change such a dict in place: other versions of the container hold the same one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

import immutables

#: A map from key to content: read it with `get`, `[]`, `in`, `len`, iteration and `items`.
Children: TypeAlias = dict[str, Any] | immutables.Map[str, Any]

#: Most keys of a dict.
SMALL: Final = 32

NONE: Final[Children] = {}

#: Keys that are sorted at once.
_RUN: Final = 2_000


def children_of(given: dict[str, Any]) -> Children:
    """Children from a dict that the caller gives away."""
    return given if len(given) <= SMALL else immutables.Map(given)


def with_child(children: Children, key: str, child: Any) -> Children:
    """The children with another child, or one more."""
    if isinstance(children, immutables.Map):
        return children.set(key, child)
    changed = children.copy()
    changed[key] = child
    return children_of(changed)


def without_child(children: Children, key: str) -> Children:
    """The children without the one that is there under a key."""
    if isinstance(children, immutables.Map):
        return children.delete(key)
    changed = children.copy()
    del changed[key]
    return changed


def changed_children(
    children: Children, put: dict[str, Any], gone: Iterable[str]
) -> Children:
    """The children with many others put, and those under the keys `gone` removed.

    :raises KeyError: for a key of `gone` that is not there
    """
    if isinstance(children, dict):
        changed = children.copy()
        for key in gone:
            del changed[key]
        changed.update(put)
        return children_of(changed)
    mutation = children.mutate()
    for key in gone:
        del mutation[key]
    mutation.update(put)
    return mutation.finish()


def in_order(keys: Iterable[str]) -> Iterator[str | None]:
    """Keys in order; None in between where sorting took a while."""
    source = iter(keys)
    runs: list[list[str]] = []
    while run := sorted(islice(source, _RUN)):
        if runs:
            yield None
        runs.append(run)
    yield from runs[0] if len(runs) == 1 else heapq.merge(*runs)
