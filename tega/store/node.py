"""Immutable trees with a version for every node.

A **container** is a `Node` over `Children`, so that changing one child copies only the path to it.
A **leaf** is a plain frozen value: None, bool, int, float, str, or a tuple (a JSON array, inside
which objects are `immutables.Map`).

Versions are kept where they differ. A container has its own `version`, and a `base`: the version
of each child that carries none. Fresh content carries no version at all (`UNSET` in both), and
takes that of the place where it is put; so a subtree put at once costs no more than its values, and
can be built before its version is known. A leaf changed alone becomes a `Leaf` with a version of
its own.

What is ephemeral, or holds what is, has a `Mark`. Only `tega.store.ephemeral` changes a tree that
has one; all the rest here is for trees without.

Functions take the content of a whole root, the root's version, and a full path whose first key is
the root's name.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import immutables
import msgspec

from tega.errors import LeafInTheWay, Malformed, NotFound
from tega.paths import MAX_DEPTH, Path, check_keys, dotted
from tega.store.children import (
    Children,
    changed_children,
    children_of,
    with_child,
    without_child,
)
from tega.strictjson import dumps

#: A version that is not kept here, but taken from what is above.
UNSET: Final = -1

#: Python's own limit for printing and reading integers is 4300 digits.
_MAX_BITS: Final = 14_000

#: An integer that is surely not too long.
_SMALL: Final = 1 << 64


class _Absent(enum.Enum):
    ABSENT = "absent"


#: No content: a path that leads nowhere, a root that was deleted.
ABSENT: Final = _Absent.ABSENT


EMPTY: Final[immutables.Map[str, Any]] = immutables.Map()


# gc=False: trees cannot hold cycles, and a million nodes should not slow the collector.
class Mark(msgspec.Struct, frozen=True, gc=False, eq=False):
    """How a node differs from what the tree without ephemeral nodes, the lasting one, has there.

    :ivar owner: of an ephemeral node: the tega id with whose session it goes. Nothing below it has
        a mark
    :ivar implicit: whether this container is there only for ephemeral nodes below
    :ivar below: the children that have a mark; True for those that the lasting tree does not have
    :ivar transient: how many the lasting tree does not have
    """

    owner: str | None = None
    implicit: bool = False
    below: immutables.Map[str, bool] = EMPTY
    transient: int = 0

    @property
    def lasts(self) -> bool:
        """Whether the lasting tree has the node."""
        return self.owner is None and not self.implicit


class Node(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A container."""

    children: Children
    version: int = UNSET
    base: int = UNSET
    mark: Mark | None = None


class Leaf(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A leaf whose version is not the base of its container, or which is ephemeral itself."""

    value: Any
    version: int
    mark: Mark | None = None


#: A container, a leaf with a version or mark of its own, or a leaf's plain value.
Content: TypeAlias = Any
MaybeContent: TypeAlias = Content | Literal[_Absent.ABSENT]


class Found(NamedTuple):
    """What stands at a path; `ephemeral` where it is so itself, or stands below what is."""

    content: Content
    version: int
    ephemeral: bool = False


def freeze(value: Any, room: int = MAX_DEPTH) -> Content:
    """Make fresh content of a JSON value.

    :param value: dict, list or tuple, str, int, float, bool, None; not kept, not changed
    :param room: how many more levels of nesting there may be
    :raises Malformed: for a bad key, a non-finite number, nesting beyond `room`, another type
    """
    kind = type(value)
    if kind is dict:
        if value and room < 1:
            raise _too_deep()
        check_keys(value)
        children = value.copy()
        for key, child in value.items():
            # Most leaves are plain texts and small numbers: they need no call of their own.
            leaf = type(child)
            if leaf is str:
                if child.isascii():
                    continue
            elif leaf is bool or (leaf is int and -_SMALL < child < _SMALL):
                continue
            children[key] = freeze(child, room - 1)
        return Node(children_of(children))
    if kind is int:
        if value.bit_length() > _MAX_BITS:
            raise Malformed("integer too long: the limit is 4200 digits")
        return value
    if kind is str:
        return _checked_text(value)
    if kind is float:
        if not math.isfinite(value):
            raise Malformed(f"{value} is not a finite number: JSON has no such value")
        return value
    if value is None or kind is bool:
        return value
    if kind is list or kind is tuple:
        return _freeze_opaque(value, room)
    raise Malformed(
        f"a {kind.__name__} cannot be stored: use dict, list, str, int, float, bool or None"
    )


def adopt(value: Any, room: int = MAX_DEPTH) -> Content:
    """As `freeze`, of a value that `tega.strictjson.loads` gave: its dicts may go into the content.

    Such a value has whole texts and finite numbers, so there is less to look at.

    :raises Malformed: for a bad key, an integer too long, nesting beyond `room`
    """
    if type(value) is not dict:
        return freeze(value, room)
    if value and room < 1:
        raise _too_deep()
    check_keys(value)
    children = value
    for key, child in value.items():
        kind = type(child)
        if kind is str or kind is bool or (kind is int and -_SMALL < child < _SMALL):
            continue
        if children is value:
            children = value.copy()
        children[key] = adopt(child, room - 1)
    return Node(children_of(children))


def _freeze_opaque(value: Any, room: int) -> Any:
    """What stands inside a list: any JSON, its keys free."""
    kind = type(value)
    if kind is list or kind is tuple:
        if value and room < 1:
            raise _too_deep()
        return tuple([_freeze_opaque(item, room - 1) for item in value])
    if kind is dict:
        if value and room < 1:
            raise _too_deep()
        frozen = {}
        for key, child in value.items():
            if type(key) is not str:
                raise Malformed(f"key {key!r} is {type(key).__name__}: keys are strings")
            frozen[_checked_text(key)] = _freeze_opaque(child, room - 1)
        return immutables.Map(frozen)
    return freeze(value, room)


def _checked_text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Malformed(f"string {value[:32]!r} holds a lone surrogate, not Unicode") from None
    return value


def _too_deep() -> Malformed:
    return Malformed("nested too deep: path and value together go over the depth limit")


def thaw(content: Content) -> Any:
    """The JSON value of content: fresh dicts; a list comes as a tuple."""
    kind = type(content)
    if kind is Node:
        return {
            key: thaw(child) if type(child) in _COMPOUND else child
            for key, child in content.children.items()
        }
    value = content.value if kind is Leaf else content
    return _thaw_opaque(value) if type(value) is tuple else value


#: What is more than the plain value of a leaf.
_COMPOUND: Final = frozenset((Node, Leaf, tuple))


def _thaw_opaque(value: Any) -> Any:
    if type(value) is tuple:
        return tuple([_thaw_opaque(item) for item in value])
    if type(value) is immutables.Map:
        return {key: _thaw_opaque(child) for key, child in value.items()}
    return value


def stripped(content: Content) -> Content:
    """The same content without versions and marks, to be put elsewhere."""
    kind = type(content)
    if kind is Leaf:
        return content.value
    if kind is Node:
        children = {key: stripped(child) for key, child in content.children.items()}
        return Node(children_of(children))
    return content


def version_of(content: Content, inherited: int) -> int:
    """The version of content that stands where `inherited` is the base."""
    kind = type(content)
    if (kind is Node or kind is Leaf) and content.version != UNSET:
        return int(content.version)
    return inherited


def base_of(node: Node, own: int) -> int:
    """The version of the children of `node` that carry none; `own` is the node's version."""
    return node.base if node.base != UNSET else own


def mark_of(content: MaybeContent) -> Mark | None:
    """The mark of content; None for nearly all."""
    if type(content) is Node or type(content) is Leaf:
        return content.mark
    return None


def is_ephemeral(content: Content) -> bool:
    """Whether content is an ephemeral node; what stands below one does not tell."""
    mark = mark_of(content)
    return mark is not None and mark.owner is not None


def lookup(content: MaybeContent, version: int, path: Path) -> Found | None:
    """Find what stands at `path`; None where nothing does."""
    if content is ABSENT:
        return None
    root = content
    for key in path[1:]:
        if type(content) is not Node:
            return None
        base = base_of(content, version_of(content, version))
        child = content.children.get(key, ABSENT)
        if child is ABSENT:
            return None
        content, version = child, base
    version = version_of(content, version)
    if mark_of(root) is None:
        return Found(content, version)
    return Found(content, version, _leads_to_ephemeral(root, path))


def _leads_to_ephemeral(content: Content, path: Path) -> bool:
    for key in path[1:]:
        if is_ephemeral(content):
            return True
        content = content.children[key]
    return is_ephemeral(content)


def put(
    content: MaybeContent, current: int, path: Path, new: Content, version: int
) -> tuple[Content, MaybeContent]:
    """Put fresh content `new` at `path`, all that changes having `version`.

    :param current: the version that `content` has now
    :returns: the root's content, and what stood at `path`
    :raises LeafInTheWay: where a leaf stands where the path needs a container
    """
    if len(path) == 1:
        return new, content
    if content is ABSENT:
        return _nested(path[1:], new), ABSENT
    above = []
    for depth, key in enumerate(path[1:], 1):
        if type(content) is not Node:
            raise leaf_in_the_way(path[:depth])
        # As `base_of` and `version_of` have it: this is the way of every put.
        if content.base != UNSET:
            current = content.base
        elif content.version != UNSET:
            current = content.version
        children = content.children
        above.append((children, key, current))
        content = children.get(key, ABSENT)
        if content is ABSENT:
            new = _nested(path[depth + 1 :], new)
            break
    return _rebuilt(above, _placed(new, current, version), version), content


def put_together(
    content: MaybeContent, current: int, parent: Path, given: Iterable[tuple[str, Content]],
    version: int,
) -> tuple[Content, list[MaybeContent]] | None:
    """As `put`, one after the other, of several into one container, which is copied but once.

    :param parent: the path of the container
    :param given: keys in it, each with what to put there
    :returns: None where there is no container yet
    """
    above = []
    for key in parent[1:]:
        if type(content) is not Node:
            return None
        current = base_of(content, version_of(content, current))
        above.append((content.children, key, current))
        content = content.children.get(key, ABSENT)
    if not isinstance(content, Node):
        return None
    current = base_of(content, version_of(content, current))
    children = content.children
    placed: dict[str, Content] = {}
    replaced = []
    for key, new in given:
        replaced.append(placed[key] if key in placed else children.get(key, ABSENT))
        placed[key] = _placed(new, current, version)
    made = Node(changed_children(children, placed, ()), version, current)
    return _rebuilt(above, made, version), replaced


def leaf_in_the_way(path: Path) -> LeafInTheWay:
    """What to raise where a leaf stands at `path`, and a container is needed."""
    return LeafInTheWay(
        f"a leaf stands at {dotted(path)}, so nothing can be put below it: delete it first",
        path=dotted(path),
    )


def delete(
    content: MaybeContent, current: int, path: Path, version: int
) -> tuple[MaybeContent, Content]:
    """Remove what stands at `path`, and then the parents that this empties.

    :returns: the root's content, and what stood at `path`
    :raises NotFound: where nothing stands there
    """
    above = []
    for key in path[1:]:
        if type(content) is not Node:
            content = ABSENT
            break
        current = base_of(content, version_of(content, current))
        above.append((content.children, key, current))
        content = content.children.get(key, ABSENT)
    if content is ABSENT:
        raise nothing_to_delete(path)
    while above:
        children, key, base = above.pop()
        children = without_child(children, key)
        if children:
            return _rebuilt(above, Node(children, version, base), version), content
    return ABSENT, content


def nothing_to_delete(path: Path) -> NotFound:
    """What to raise where a delete finds nothing."""
    return NotFound(f"nothing at {dotted(path)} to delete", path=dotted(path))


def touched(content: MaybeContent, current: int, path: Path, version: int) -> MaybeContent:
    """The same content, each container from the root to `path` having `version`.

    :raises NotFound: where there is no container below the root
    """
    above = []
    for key in path[1:]:
        if type(content) is not Node:
            break
        current = base_of(content, version_of(content, current))
        above.append((content, key, current))
        content = content.children.get(key, ABSENT)
    if type(content) is Node and len(above) == len(path) - 1:
        base = base_of(content, version_of(content, current))
        content = Node(content.children, version, base, content.mark)
    elif len(path) > 1:
        raise NotFound(f"no container at {dotted(path)}", path=dotted(path))
    for node, key, base in reversed(above):
        content = Node(with_child(node.children, key, content), version, base, node.mark)
    return content


def _nested(keys: Path, new: Content) -> Content:
    for key in reversed(keys):
        new = Node({key: new})
    return new


def _placed(new: Content, base: int, version: int) -> Content:
    if base == version:
        return new
    if type(new) is Node:
        return Node(new.children, version)
    return Leaf(new, version)


def _rebuilt(
    above: list[tuple[Children, str, int]], child: Content, version: int
) -> Content:
    for children, key, base in reversed(above):
        child = Node(with_child(children, key, child), version, base)
    return child


def walk(content: Content, version: int, path: Path) -> Iterator[tuple[Path, Content, int]]:
    """Every node from `content` down, parents first, in order of key: path, content, version."""
    version = version_of(content, version)
    yield path, content, version
    if type(content) is Node:
        base = base_of(content, version)
        for key in sorted(content.children):
            yield from walk(content.children[key], base, (*path, key))


def diff(old: MaybeContent, new: MaybeContent, path: Path) -> Iterator[tuple[Path, MaybeContent]]:
    """The fewest changes of content that make `new` of `old`: a path and what to put there.

    `ABSENT` says delete. Puts come before deletes, so that pruning never takes a parent that stays.
    What is put is fresh content. Shared nodes are not entered.
    """
    if old is new:
        return
    if new is ABSENT:
        yield path, ABSENT
    elif type(old) is Node and type(new) is Node and (new.children or not old.children):
        # In order of key, for these changes are logged: the same commit has one text.
        for key in sorted(new.children):
            yield from diff(old.children.get(key, ABSENT), new.children[key], (*path, key))
        for key in sorted(old.children):
            if key not in new.children:
                yield (*path, key), ABSENT
    elif old is ABSENT or not _same_leaf(old, new):
        yield path, stripped(new)


def _same_leaf(old: Content, new: Content) -> bool:
    if type(old) is Node or type(new) is Node:
        return False
    # As text: for Python 1, 1.0 and True are equal, for users they are not.
    return dumps(stripped(old)) == dumps(stripped(new))
