"""Trees as JSON text, piece by piece.

A tree may be far larger than what one turn of an event loop should chew on, so each encoder is a
generator of pieces of bounded work; joined they are one JSON document with sorted keys. A piece may
be empty: it only says "here is a good place to pause".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tega.errors import Malformed
from tega.store.children import Children, changed_children, children_of, in_order
from tega.store.node import (
    ABSENT,
    UNSET,
    Content,
    Leaf,
    MaybeContent,
    Node,
    base_of,
    freeze,
    is_ephemeral,
    thaw,
    version_of,
)
from tega.strictjson import dumps

#: Most leaves in one piece.
PIECE: Final = 1_000

#: Depth was checked when content came in; the limit then may have been another one.
_ANY_DEPTH: Final = 1 << 30


def plain(content: Content) -> Iterator[bytes]:
    """The value of a tree."""
    if type(content) is not Node:
        yield dumps(content.value if type(content) is Leaf else content)
        return
    yield from _object(content.children, {}, _plain_leaf, plain)


def text(content: Content) -> bytes:
    """The value of a tree, in one piece: for content that came in one."""
    return dumps(thaw(content))


def text_within(limit: int, content: Content) -> bytes | None:
    """The value of a tree, in one piece; None where that has more than `limit` bytes."""
    pieces = []
    size = 0
    for piece in plain(content):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return None
    return b"".join(pieces)


def _plain_leaf(child: Content) -> Any:
    return child.value if type(child) is Leaf else child


def internal(
    content: Content, version: int, oid: str, parent: str | None, ephemeral: bool = False
) -> Iterator[bytes]:
    """A tree with the attributes of each node.

    A leaf is ``{"_ephemeral", "_oid", "_parent", "_value", "_version"}``; a container has the same
    without ``_value``, beside its children in that form.

    :param ephemeral: whether it stands below an ephemeral node
    """
    version = version_of(content, version)
    ephemeral = ephemeral or is_ephemeral(content)
    attributes = {"_ephemeral": ephemeral, "_oid": oid, "_parent": parent, "_version": version}
    if type(content) is not Node:
        yield dumps({**attributes, "_value": _plain_leaf(content)})
        return
    base = base_of(content, version)
    yield from _object(content.children, attributes, None, None, lambda key, child: (
        internal(child, base, key, oid, ephemeral)
    ))


def packed(content: Content) -> Iterator[bytes]:
    """A lasting tree as a snapshot holds it: exact, and no larger than it must be.

    A container is an object with ``_version`` and ``_base`` where set; a leaf is its plain value,
    or ``{"_value", "_version"}`` where it has a version of its own.
    """
    if type(content) is not Node:
        yield dumps(_packed_leaf(content))
        return
    yield from _object(content.children, _marks(content), _packed_leaf, packed)


def packed_since(old: MaybeContent, new: Content) -> Iterator[bytes]:
    """What `new` has beyond `old`: children that are the very same are left out.

    A container changed in place has ``"_changed": true``, and ``_gone`` names the children that it
    has no more; all else is as in `packed`.
    """
    if type(old) is not Node or type(new) is not Node:
        yield from packed(new)
        return
    before = old.children
    marks: dict[str, Any] = {**_marks(new), "_changed": True}
    gone = sorted([key for key in before if key not in new.children])
    if gone:
        marks["_gone"] = gone
    changed = {k: child for k, child in new.children.items() if before.get(k, ABSENT) is not child}
    yield from _object(changed, marks, None, None, lambda key, child: (
        packed_since(before.get(key, ABSENT), child)
    ))


def _marks(node: Node) -> dict[str, Any]:
    marks: dict[str, Any] = {}
    if node.base != UNSET:
        marks["_base"] = node.base
    if node.version != UNSET:
        marks["_version"] = node.version
    return marks


def _packed_leaf(child: Content) -> Any:
    if type(child) is Leaf:
        return {"_value": child.value, "_version": child.version}
    return child


def unpacked(value: Any, old: MaybeContent = ABSENT) -> Content:
    """Undo `packed`, or `packed_since` the same `old`.

    :raises Malformed: for what no encoder here has written
    """
    if type(value) is not dict:
        return freeze(value, _ANY_DEPTH)
    if "_value" in value:
        return Leaf(freeze(value["_value"], _ANY_DEPTH), value["_version"])
    version, base = value.pop("_version", UNSET), value.pop("_base", UNSET)
    if not value.pop("_changed", False):
        return Node(children_of({k: unpacked(v) for k, v in value.items()}), version, base)
    if type(old) is not Node:
        raise Malformed("a changed container where there was none")
    gone = value.pop("_gone", ())
    put = {key: unpacked(child, old.children.get(key, ABSENT)) for key, child in value.items()}
    return Node(changed_children(old.children, put, gone), version, base)


def _object(
    children: Children,
    attributes: dict[str, Any],
    leaf: Callable[[Content], Any] | None,
    container: Callable[[Content], Iterator[bytes]] | None,
    each: Callable[[str, Content], Iterator[bytes]] | None = None,
) -> Iterator[bytes]:
    """One JSON object: the attributes, then the children in order of key.

    Leaves go through `leaf`, many at a time, and containers through `container`; or every child
    goes through `each`.
    """
    opening = b"{" + dumps(attributes)[1:-1]
    batch: dict[str, Any] = {}
    for key in in_order(children):
        if key is None:
            yield b""
            continue
        child = children[key]
        if leaf is not None and type(child) is not Node:
            batch[key] = leaf(child)
            if len(batch) >= PIECE:
                yield joint(opening) + dumps(batch)[1:-1]
                opening, batch = b"", {}
            continue
        if batch:
            yield joint(opening) + dumps(batch)[1:-1]
            opening, batch = b"", {}
        yield joint(opening) + dumps(key) + b":"
        opening = b""
        if each is not None:
            yield from each(key, child)
        elif container is not None:
            yield from container(child)
    if batch:
        yield joint(opening) + dumps(batch)[1:-1]
        opening = b""
    yield opening + b"}"


def joint(opening: bytes) -> bytes:
    """What stands before the next member: the opening if nothing was written yet, or a comma."""
    if not opening:
        return b","
    return opening if opening == b"{" else opening + b","
