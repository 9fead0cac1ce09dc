"""Trees cut down to what may be read, as JSON text, piece by piece.

As in `tega.store.encode` each piece is of bounded work, and may be empty. What one rule decides
for as a whole is written as if there were no rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from tega.access.rules import READ, Place
from tega.store import encode
from tega.store.node import Content, MaybeContent, Node, base_of, is_ephemeral, version_of


def shows(content: MaybeContent, place: Place) -> bool:
    """Whether anything in a tree may be read."""
    if place.may(READ):
        return True
    if type(content) is not Node or not place.somewhere(READ):
        return False
    children = content.children
    listed = place.listed
    if listed is not None and not place.child_of_no_name().may(READ):
        return any(key in children and shows(children[key], place.child(key)) for key in listed)
    return any(shows(child, place.child(key)) for key, child in children.items())


def plain(content: Content, place: Place) -> Iterator[bytes]:
    """The value of a tree in which something may be read."""
    if place.same_below or type(content) is not Node:
        yield from encode.plain(content)
        return
    children = content.children
    yield from encode.members(
        children, {}, _shown(content, place), lambda key, child: plain(child, place.child(key))
    )


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
    yield from encode.members(
        content.children, attributes, _shown(content, place), lambda key, child: (
            internal(child, base, key, oid, place.child(key), ephemeral)
        ),
    )


def _shown(node: Node, place: Place) -> Iterator[str]:
    return (key for key, child in node.children.items() if shows(child, place.child(key)))
