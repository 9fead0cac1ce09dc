"""Functions that stand in the tree: what a leaf such as ``%OWNER.NAME`` says."""

from __future__ import annotations

import re
from typing import NamedTuple

# The last dot before a "(" divides owner and name, so that a name has none and an owner may.
_FUNCTION = re.compile(
    r"%(?P<owner>[A-Za-z0-9.-][A-Za-z0-9._-]*)\.(?P<name>[^.()]+)(?P<args>\(.*\))?"
)


class Function(NamedTuple):
    """A function leaf.

    :ivar owner: the tega id that registered it
    :ivar name: as the owner calls it
    :ivar arguments: the text of its bound arguments, parentheses included; empty without any
    """

    owner: str
    name: str
    arguments: str


def parse_function(leaf: str) -> Function | None:
    """What a string says as a function leaf; None for every other string."""
    found = _FUNCTION.fullmatch(leaf)
    if found is None:
        return None
    return Function(found["owner"], found["name"], found["args"] or "")
