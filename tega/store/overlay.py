"""The ephemeral nodes of a root apart from its lasting tree: taken off it, and laid on it again.

A follower has the lasting tree of its leader from the log, and the ephemeral nodes from whoever is
there now. Versions are not changed by either: the lasting containers above an ephemeral node have
theirs from the commit that made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tega.errors import Diverged
from tega.paths import Path, dotted
from tega.store.children import with_child
from tega.store.ephemeral import lasting, marked_with
from tega.store.node import (
    ABSENT,
    Content,
    Leaf,
    Mark,
    MaybeContent,
    Node,
    base_of,
    mark_of,
    version_of,
)


class Laid(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A node that the lasting tree does not have.

    :ivar owner: the tega id that an ephemeral node goes with; None for an implicit container
    :ivar content: with the versions of what stands below; of an implicit container nothing
    """

    path: Path
    owner: str | None
    version: int
    content: Content = None


def taken_off(content: MaybeContent, version: int, path: Path) -> Iterator[Laid]:
    """The ephemeral nodes of a tree and the implicit containers above them, parents first.

    :param version: of the root
    """
    if content is ABSENT or (mark := mark_of(content)) is None:
        return
    version = version_of(content, version)
    if mark.owner is not None:
        yield Laid(path, mark.owner, version, _unmarked(content))
        return
    if mark.implicit:
        yield Laid(path, None, version)
    base = base_of(content, version)
    for key in sorted(mark.below):
        yield from taken_off(content.children[key], base, (*path, key))


def laid_on(content: MaybeContent, nodes: Iterable[Laid]) -> MaybeContent:
    """The lasting tree of `content` with these nodes.

    :raises Diverged: where one has no place there
    """
    content = lasting(content)
    for one in nodes:
        content = _with(content, one, 1)
    return content


def _with(content: MaybeContent, one: Laid, depth: int) -> Content:
    if depth == len(one.path):
        if content is not ABSENT:
            raise Diverged(f"an ephemeral node of {one.owner} stands on {dotted(one.path)}")
        return _marked(one)
    if type(content) is not Node:
        raise Diverged(f"an ephemeral node at {dotted(one.path)} has no container to stand in")
    key = one.path[depth]
    child = _with(content.children.get(key, ABSENT), one, depth + 1)
    mark = marked_with(content.mark, key, child)
    return Node(with_child(content.children, key, child), content.version, content.base, mark)


def _marked(one: Laid) -> Content:
    mark = Mark(implicit=True) if one.owner is None else Mark(one.owner)
    if one.owner is None:
        return Node({}, one.version, mark=mark)
    if type(one.content) is Node:
        return Node(one.content.children, one.version, one.content.base, mark)
    return Leaf(one.content, one.version, mark)


def _unmarked(content: Content) -> Content:
    if type(content) is Node:
        return Node(content.children, content.version, content.base)
    return content.value if type(content) is Leaf else content
