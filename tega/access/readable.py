"""Trees cut down to what may be read, as JSON text, piece by piece.

As in `tega.store.encode` each piece is of bounded work, and may be empty. What one rule decides
for as a whole is written as if there were no rules.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Final, TypeAlias

from tega.access.rules import READ, Place
from tega.store import encode
from tega.store.children import in_order
from tega.store.node import Content, MaybeContent, Node, base_of, is_ephemeral, version_of
from tega.strictjson import dumps

#: Whether something is so, after some empty pieces.
Looking: TypeAlias = Generator[bytes, None, bool]

#: Children that are looked at in one piece.
_PIECE: Final = 100


def look(content: MaybeContent, place: Place) -> Looking:
    """Whether anything in a tree may be read."""
    if place.may(READ):
        return True
    if type(content) is not Node or not place.somewhere(READ):
        return False
    children = content.children
    keys: Iterable[str] = children
    if place.listed is not None and not place.child_of_no_name().may(READ):
        keys = [key for key in place.listed if key in children]
    for number, key in enumerate(keys):
        if number % _PIECE == 0:
            yield b""
        child, below = children[key], place.child(key)
        if below.may(READ) or (type(child) is Node and (yield from look(child, below))):
            return True
    return False


def plain(content: Content, place: Place) -> Iterator[bytes]:
    """The value of a tree in which something may be read."""
    if place.same_below or type(content) is not Node:
        yield from encode.plain(content)
        return
    yield from _object(content, {}, place, lambda key, child, below: plain(child, below))


def internal(
    content: Content,
    version: int,
    oid: str,
    parent: str | None,
    place: Place,
    ephemeral: bool = False,
) -> Iterator[bytes]:
    """The same with the attributes of each node, as `encode.internal` has them."""
    if place.same_below or type(content) is not Node:
        yield from encode.internal(content, version, oid, parent, ephemeral)
        return
    version = version_of(content, version)
    ephemeral = ephemeral or is_ephemeral(content)
    base = base_of(content, version)
    attributes = {"_ephemeral": ephemeral, "_oid": oid, "_parent": parent, "_version": version}
    yield from _object(content, attributes, place, lambda key, child, below: (
        internal(child, base, key, oid, below, ephemeral)
    ))


def _object(
    node: Node,
    attributes: dict[str, Any],
    place: Place,
    each: Callable[[str, Content, Place], Iterator[bytes]],
) -> Iterator[bytes]:
    """One JSON object: the attributes, then what may be read of the children in order of key."""
    opening = b"{" + dumps(attributes)[1:-1]
    for key in in_order(node.children):
        if key is None:
            yield b""
            continue
        child, below = node.children[key], place.child(key)
        if not (below.may(READ) or (yield from look(child, below))):
            yield b""
            continue
        yield encode.joint(opening) + dumps(key) + b":"
        opening = b""
        yield from each(key, child, below)
    yield opening + b"}"
