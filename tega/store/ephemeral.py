"""Ephemeral nodes: what may be done around them, and what the tree is without them.

The **lasting** tree has no ephemeral nodes, and no containers that are there only for such: those
are *implicit*. It alone is in the log and in snapshots, so every operation here changes it exactly
as its replay does, which knows of nothing else: what is implicit or not is decided by that.

Every container on the way to an ephemeral node has a mark, so a tree without one at its top is
lasting throughout, and is left to the quicker `node.put` and `node.delete`. The functions here take
the same arguments, and any tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import immutables

from tega.errors import EphemeralConflict
from tega.paths import Path, dotted
from tega.store.children import (
    NONE,
    Children,
    changed_children,
    with_child,
    without_child,
)
from tega.store.node import (
    ABSENT,
    UNSET,
    Content,
    Leaf,
    Mark,
    MaybeContent,
    Node,
    base_of,
    leaf_in_the_way,
    mark_of,
    nothing_to_delete,
    version_of,
)

#: A container on the way to a path, the key that leads on from it, and the base of its children.
_Step = tuple[Node, str, int]


class _Way(NamedTuple):
    """The way from a root to a path, as far as it goes.

    :ivar found: what stands at the path
    :ivar base: the version that it inherits
    :ivar leaf: the path of a leaf that ends the way early; empty for none
    :ivar top: the path of the ephemeral node at or above; empty for none
    :ivar owner: of that one
    """

    steps: list[_Step]
    found: MaybeContent
    base: int
    leaf: Path
    top: Path
    owner: str


def _way(content: MaybeContent, current: int, path: Path) -> _Way:
    steps: list[_Step] = []
    leaf: Path = ()
    top: Path = ()
    owner = ""
    for depth in range(1, len(path) + 1):
        mark = mark_of(content)
        if mark is not None and mark.owner is not None:
            top, owner = path[:depth], mark.owner
        if depth == len(path) or content is ABSENT:
            break
        if type(content) is not Node:
            content, leaf = ABSENT, path[:depth]
            break
        current = base_of(content, version_of(content, current))
        steps.append((content, path[depth], current))
        content = content.children.get(path[depth], ABSENT)
    return _Way(steps, content, current, leaf, top, owner)


class Placed(NamedTuple):
    """What a PUT made.

    :ivar content: of the root
    :ivar replaced: what stood at the path
    :ivar top: the path of the ephemeral node that stands there or above; empty for none
    """

    content: Content
    replaced: MaybeContent
    top: Path


def put(
    content: MaybeContent, current: int, path: Path, new: Content, version: int, owner: str | None
) -> Placed:
    """Put fresh content at a path.

    :param owner: the tega id that an ephemeral node goes with; None for one that lasts
    :raises EphemeralConflict: where an ephemeral and a lasting node, or the ephemeral nodes of two
        tega ids, would stand at the same place or one below the other
    :raises LeafInTheWay: where a leaf stands where the path needs a container
    """
    way = _way(content, current, path)
    if way.top:
        if owner != way.owner:
            raise _conflict(path, way.top, way.owner)
    elif owner is not None and way.found is not ABSENT:
        raise EphemeralConflict(
            f"what stands at {dotted(path)} was not put as ephemeral and cannot be made so: "
            "delete it first",
            path=dotted(path),
        )
    else:
        _refuse_others(way.found, path, None)
    if way.leaf:
        raise leaf_in_the_way(way.leaf)
    steps, base = way.steps, way.base
    inside = 0 < len(way.top) < len(path)
    for key in path[len(steps) + 1 :]:
        implicit = Mark(implicit=True) if owner is not None and not inside else None
        steps.append((Node(NONE, mark=implicit), key, version))
        base = version
    top = way.top
    if owner is not None and not inside:
        new, top = _owned(new, owner), path
    # The root inherits its version: it has one in every transaction.
    if steps and base != version:
        new = _settled(new, version)
    return Placed(_rebuilt(steps, new, version, owner is None), way.found, top)


class Removed(NamedTuple):
    """What a DELETE made.

    :ivar content: of the root
    :ivar found: what stood at the path
    :ivar ephemeral: whether the lasting tree had nothing of it
    :ivar tops: the paths of the ephemeral nodes that went
    """

    content: MaybeContent
    found: Content
    ephemeral: bool
    tops: list[Path]


def delete(content: MaybeContent, current: int, path: Path, version: int, tega_id: str) -> Removed:
    """Remove what stands at a path, and then the parents that this empties.

    A parent that lasts stays empty where an ephemeral node goes: it was put so. It turns implicit
    where what goes lasts, and only ephemeral nodes remain.

    :param tega_id: who deletes: its own ephemeral nodes go along, and those of others are in the
        way
    :raises NotFound: where nothing stands there
    :raises EphemeralConflict: naming an ephemeral node of somebody else
    """
    steps, found, _, _, top, owner = _way(content, current, path)
    if found is ABSENT:
        raise nothing_to_delete(path)
    if top:
        if owner != tega_id:
            raise _conflict(path, top, owner)
        whole = all(len(node.children) == 1 for node, _, _ in steps[len(top) - 1 :])
        tops = [top] if whole else []
        ephemeral = True
    else:
        tops = _refuse_others(found, path, tega_id)
        mark = mark_of(found)
        ephemeral = mark is not None and not mark.lasts
    return Removed(_rebuilt(steps, ABSENT, version, not ephemeral), found, ephemeral, tops)


def restore(
    content: MaybeContent, current: int, path: Path, new: MaybeContent, version: int
) -> tuple[MaybeContent, MaybeContent]:
    """Put fresh content in the lasting tree, or remove with `ABSENT` what that has at a path.

    Ephemeral nodes below stay. So a rollback, and what another server did, meet them.

    :returns: the root's content, and what stood at `path`
    :raises NotFound: where there is nothing to remove
    :raises EphemeralConflict, LeafInTheWay: where what is put meets what stands there
    """
    way = _way(content, current, path)
    if new is ABSENT and lasting(way.found) is ABSENT:
        raise nothing_to_delete(path)
    if way.top:
        raise _conflict(path, way.top, way.owner)
    if way.leaf:
        raise leaf_in_the_way(way.leaf)
    steps, base = way.steps, way.base
    for key in path[len(steps) + 1 :]:
        steps.append((Node(NONE), key, version))
        base = version
    merged = _merged(new, way.found, way.base, version, path)
    if merged is not ABSENT and steps and base != version:
        merged = _settled(merged, version)
    return _rebuilt(steps, merged, version, lasting=True), way.found


def _merged(
    new: MaybeContent, found: MaybeContent, base: int, version: int, path: Path
) -> MaybeContent:
    """Fresh content with the ephemeral nodes of what it replaces."""
    if found is ABSENT or (mark := mark_of(found)) is None:
        return new
    if mark.owner is not None and new is not ABSENT:
        raise _conflict(path, path, mark.owner)
    if new is ABSENT and not mark.lasts:
        return _settled(found, base)
    if type(new) is not Node and new is not ABSENT:
        _refuse_others(found, path, None)
    children: Children = NONE if new is ABSENT else new.children
    base = base_of(found, version_of(found, base))
    below: immutables.Map[str, bool] = immutables.Map()
    for key in mark.below:
        there = found.children[key]
        child: Content = _merged(children.get(key, ABSENT), there, base, version, (*path, key))
        children = with_child(children, key, child)
        below = below.set(key, not child.mark.lasts)
    made = Mark(None, new is ABSENT, below, sum(below.values()))
    return Node(children, version, UNSET, made)


def _owned(new: Content, owner: str) -> Content:
    """Fresh content as an ephemeral node."""
    if type(new) is Node:
        return Node(new.children, mark=Mark(owner))
    return Leaf(new, UNSET, Mark(owner))


def _settled(content: Content, version: int) -> Content:
    """Content with a version of its own: the given one, where it had none."""
    if type(content) is Node:
        if content.version == UNSET:
            return Node(content.children, version, content.base, content.mark)
    elif type(content) is not Leaf:
        return Leaf(content, version)
    elif content.version == UNSET:
        return Leaf(content.value, version, content.mark)
    return content


def _rebuilt(steps: list[_Step], child: MaybeContent, version: int, lasting: bool) -> MaybeContent:
    """The root's content with `child` at the end of the way; `ABSENT` removes what was there.

    :param lasting: whether it is the lasting tree that changes there
    """
    for node, key, base in reversed(steps):
        if child is ABSENT:
            children = without_child(node.children, key)
            # Where an ephemeral node goes, only a container without a mark stands inside one.
            if not children and (lasting or node.mark is None or not node.mark.lasts):
                continue
        else:
            children = with_child(node.children, key, child)
        mark = marked_with(node.mark, key, child)
        if lasting and mark is not None:
            implicit = mark.transient == len(children)
            mark = Mark(None, implicit, mark.below, mark.transient)
        child = Node(children, version, base, mark)
    return child


def marked_with(mark: Mark | None, key: str, child: MaybeContent) -> Mark | None:
    """The mark of a container with another child, or none, under a key."""
    changed = mark_of(child)
    if mark is None:
        if changed is None:
            return None
        mark = Mark()
    if mark.owner is not None:
        return mark
    below, transient = mark.below, mark.transient - mark.below.get(key, False)
    if changed is not None:
        below, transient = below.set(key, not changed.lasts), transient + (not changed.lasts)
    elif key in below:
        below = below.delete(key)
    return Mark(None, mark.implicit, below, transient) if below else None


# -- reading --------------------------------------------------------------------------------------


def tops(content: MaybeContent, path: Path) -> Iterator[tuple[Path, str]]:
    """The ephemeral nodes at or below `path`, where `content` stands: paths and owners."""
    if content is ABSENT or (mark := mark_of(content)) is None:
        return
    if mark.owner is not None:
        yield path, mark.owner
        return
    for key in mark.below:
        yield from tops(content.children[key], (*path, key))


def lasting(content: MaybeContent, seen: dict[int, Content] | None = None) -> MaybeContent:
    """What the lasting tree has of content: that very content where nothing in it is ephemeral.

    :param seen: what came out before, by identity of content that is still held: so trees that
        share nodes go on sharing them
    """
    if content is ABSENT or (mark := mark_of(content)) is None:
        return content
    if not mark.lasts:
        return ABSENT
    if seen is None:
        seen = {}
    known = seen.get(id(content))
    if known is None:
        children = content.children
        gone = [key for key, transient in mark.below.items() if transient]
        put = {
            key: lasting(children[key], seen)
            for key, transient in mark.below.items()
            if not transient
        }
        known = Node(changed_children(children, put, gone), content.version, content.base)
        seen[id(content)] = known
    return known


def lasting_parent(content: MaybeContent, path: Path) -> Path:
    """The path of the lowest lasting container above `path`; empty for none."""
    depth = 0
    for key in path[1:]:
        mark = mark_of(content)
        if type(content) is not Node or (mark is not None and not mark.lasts):
            break
        content = content.children.get(key, ABSENT)
        depth += 1
    return path[:depth]


def _refuse_others(content: MaybeContent, path: Path, tega_id: str | None) -> list[Path]:
    """The paths of the ephemeral nodes at or below `path`, which all have to be of this tega id."""
    found = []
    for top, owner in tops(content, path):
        if owner != tega_id:
            raise _conflict(path, top, owner)
        found.append(top)
    return found


def _conflict(path: Path, top: Path, owner: str) -> EphemeralConflict:
    return EphemeralConflict(
        f"{dotted(path)} cannot be changed: at {dotted(top)} is an ephemeral node of {owner}, "
        "which goes when its session ends",
        path=dotted(path),
        ephemeral=dotted(top),
        tega_id=owner,
    )
