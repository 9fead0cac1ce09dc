"""Documents as users hold them: containers of leaves.

::

    r = Cont("r")
    r.a.b = 1                    # the same as r["a"]["b"] = 1
    r.a.b.qname_()               # ['r', 'a', 'b']

A container that was made only by reading waits in its parent's ``_pending``, and moves into
``_children`` when something is put into it. Everything else looks at ``_children`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from tega import paths
from tega.errors import LeafInTheWay, Malformed, NotFound
from tega.leaf import (
    RPC,
    Bool,
    Branch,
    Float,
    Func,
    Int,
    Leaf,
    Node,
    Str,
    Tuple,
    grow,
    key_text,
    plain,
)

__all__ = [
    "RPC",
    "Bool",
    "Cont",
    "Float",
    "Func",
    "Int",
    "Leaf",
    "Node",
    "Str",
    "Tuple",
    "from_internal",
    "make_node",
    "plain",
]

_LEAF_TYPES: Mapping[type, type[Leaf]] = {
    bool: Bool,
    int: Int,
    float: Float,
    str: Str,
    list: Tuple,
}

_ATTRIBUTES = frozenset({"_value", "_version", "_oid", "_parent", "_ephemeral"})

_MISSING: Any = object()


class Cont(Branch, MutableMapping[str, Any]):
    """A container of a tree: a mapping whose items are attributes as well.

    Reading a missing child makes it; it is not there until something is put into it. Assigning
    converts: a mapping becomes a ``Cont``, any other value a leaf. A ``Cont`` that is the root of
    its own tree, or has that very place, goes in as it is; of any other the content is copied.

    :param _oid: its key; at a root the root's name
    :param _parent: where it stands; the parent does not hold it by that alone
    :param _version: of its last change
    :raises Malformed: for a key that cannot be one, and on assigning what cannot be stored
    :raises AttributeError: on changing a frozen container, or reading what it has not
    """

    _frozen: bool
    _children: dict[str, Node | None]
    _pending: dict[str, Cont]

    def __init__(
        self, _oid: str | int | None = None, _parent: Branch | None = None, _version: int = 0
    ) -> None:
        self.__dict__.update(
            _oid=None if _oid is None else _key(_oid),
            _parent=_parent,
            _version=_version,
            _ephemeral=False,
            _frozen=False,
            _children={},
            _pending={},
        )

    def __getitem__(self, name: str | int) -> Any:
        name = key_text(name)
        if name in self._children:
            return self._children[name]
        if self._frozen:
            raise AttributeError(f"{self._label()} is frozen and has no {name!r}")
        if name not in self._pending:
            self._pending[name] = Cont(name, self)
        return self._pending[name]

    def __setitem__(self, name: str | int, value: Any) -> None:
        self._check_writable()
        try:
            name = _key(name)
            self._keep(name, make_node(value, name, self))
        except Malformed as error:
            if "path" not in error.details:
                error.details["path"] = path = paths.dotted([*self.qname_(), str(name)])
                error.message = f"{path}: {error.message}"
            raise

    def __delitem__(self, name: str | int) -> None:
        self._check_writable()
        if name not in self:
            raise NotFound(f"{self._label()} has no {name!r}")
        del self._children[key_text(name)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"a container has no attribute {name!r}")
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"{self._label()} has no {name!r}")
        del self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def __contains__(self, name: object) -> bool:
        try:
            return key_text(name) in self._children
        except Malformed:
            return False

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Cont):
            return self._children == other._children
        if isinstance(other, Mapping):
            same_keys = len(other) == len(self) and all(name in self for name in other)
            return same_keys and all(self[name] == other[name] for name in other)
        return NotImplemented

    def __repr__(self) -> str:
        return f"Cont({self.serialize_()!r})"

    # What the mixin has of the next three reads a missing child, and so would make it.

    def get(self, name: str | int, default: Any = None) -> Any:
        """The child of that name, or the default; never makes one."""
        if name not in self:
            return default
        return self._children[key_text(name)]

    def pop(self, name: str | int, default: Any = _MISSING) -> Any:
        """Take out the child of that name and return it.

        :raises NotFound: (a KeyError) where there is none, and no default
        """
        child = self.get(name, default)
        if name in self or default is _MISSING:
            del self[name]
        return child

    def setdefault(self, name: str | int, default: Any = None) -> Any:
        """The child of that name, made of the default where there is none."""
        if name not in self:
            self[name] = default
        return self[name]

    def copy_(self, freeze: bool = False) -> Cont:
        """A copy of this container; see :meth:`Node.copy_`."""
        if freeze:
            return self.deepcopy_().freeze_()
        copy = Cont(self._oid, self._parent, self._version)
        copy._ephemeral = self._ephemeral
        copy._children.update(self._children)
        return copy

    def freeze_(self) -> Cont:
        """Make this container and all below it unchangeable for good.

        :returns: the container itself
        """
        self.__dict__["_frozen"] = True
        self._own_children()
        for child in [*self._children.values(), *self._pending.values()]:
            if isinstance(child, Cont):
                child.freeze_()
        return self

    def subtree_(self, path: str) -> Any:
        """The node at a dotted path below this one: ``r.subtree_('a.b')`` is ``r.a.b``.

        :raises LeafInTheWay: naming the leaf that stands where the path goes on
        """
        node: Any = self
        walked = self.qname_()
        for name in paths.parse(path):
            if not isinstance(node, Cont):
                raise LeafInTheWay(f"{paths.dotted(walked)} is a leaf, with no {name!r} below")
            node = node[name]
            walked.append(name)
        return node

    def merge_(self, other: Mapping[Any, Any]) -> None:
        """Put the content of another document over this one.

        Containers merge; anything else takes the place of what was there.
        """
        self._check_writable()
        # Read all of it first, so that what cannot be stored leaves this document as it was.
        fresh = Cont()
        fresh.update(other)
        self._merge(fresh)

    def is_empty_(self) -> bool:
        """Whether it has no children."""
        return not self._children

    def walk_(self) -> Iterator[Node | None]:
        """This container and all nodes below: parents first, in order of key; null is None."""
        yield self
        for name in sorted(self._children):
            child = self._children[name]
            if isinstance(child, Cont):
                yield from child.walk_()
            else:
                yield child

    def _can_stand(self, parent: Branch, oid: str | None) -> bool:
        """Whether assigning takes it as it is; otherwise its content is copied."""
        if self._parent is None:
            return not self._frozen and not self._stands_above(parent)
        return self._parent is parent and self._oid == oid

    def _holds(self, child: Node) -> bool:
        return self._children.get(child._oid) is child

    def _keep(self, name: str, child: Node | None) -> None:
        if isinstance(child, Cont):
            child._own_children()
        self._children[name] = child
        self._pending.pop(name, None)
        self._appear()

    def _own_children(self) -> None:
        """Copy the children that :meth:`copy_` shared: in a tree each has one parent."""
        for name, child in self._children.items():
            if child is not None and child._parent is not self:
                self._children[name] = grow(child._seed(), self)

    def _appear(self) -> None:
        """Move from pending to there, with all parents that are pending too."""
        node = self
        while isinstance(parent := node._parent, Cont) and parent._pending.get(node._oid) is node:
            parent._children[node._oid] = parent._pending.pop(node._oid)
            node = parent

    def _prune(self) -> None:
        """Undo :meth:`_appear`: so whoever has the empty container can put something in again."""
        node = self
        while not node._children and isinstance(parent := node._parent, Cont):
            if not parent._holds(node):
                break
            del parent._children[node._oid]
            parent._pending[node._oid] = node
            node = parent

    def _release(self, child: Node) -> bool:
        if self._pending.get(child._oid) is child:
            del self._pending[child._oid]
        held = self._holds(child)
        if held:
            del self._children[child._oid]
        return held

    def _merge(self, fresh: Cont) -> None:
        for name, child in [*fresh._children.items()]:
            mine = self._children.get(name)
            if isinstance(mine, Cont) and isinstance(child, Cont):
                mine._merge(child)
            elif child is None:
                self[name] = None
            else:
                child.change_(self)

    def _check_writable(self) -> None:
        if self._frozen:
            raise AttributeError(f"{self._label()} is frozen: change a copy of it, deepcopy_()")

    def _form(self, internal: bool, serialize_ephemeral: bool) -> dict[str, Any]:
        form: dict[str, Any] = {}
        for name, child in self._children.items():
            if child is None:
                form[name] = self._null(name) if internal else None
            elif serialize_ephemeral or not child._ephemeral:
                form[name] = child._form(internal, serialize_ephemeral)
        return form | self._attributes() if internal else form

    def _null(self, name: str) -> dict[str, Any]:
        """A null's internal form; it has no version of its own."""
        return {"_value": None, **self._attributes(), "_oid": name, "_parent": self._oid}

    def _content(self) -> Any:
        return {
            name: None if child is None else child._seed()
            for name, child in self._children.items()
        }

    @classmethod
    def _grown(cls, content: Any, oid: Any, parent: Branch | None, version: int) -> Cont:
        cont = cls(oid, parent, version)
        for name, seed in content.items():
            cont._children[name] = seed and grow(seed, cont)
        return cont


def _key(name: object) -> str:
    key = key_text(name)
    paths.check_key(key)
    return key


def make_node(value: Any, oid: str | None = None, parent: Branch | None = None) -> Node | None:
    """Convert a value to a node that knows its place; the parent does not hold it yet.

    :raises Malformed: for what cannot be stored
    """
    try:
        if value is None:
            return None
        if isinstance(value, Mapping):
            return _make_cont(value, oid, parent)
        return _make_leaf(value, oid, parent)
    except RecursionError:
        # With a path, so that none of the many containers above adds its own.
        raise Malformed(f"{oid}: nested too deep, or in itself", path=oid) from None


def _make_leaf(value: Any, oid: str | None, parent: Branch | None) -> Leaf:
    if isinstance(value, (Func, RPC)):
        func = value.func if isinstance(value, RPC) else value
        return RPC(func, oid, parent)
    content = plain(value)
    return _LEAF_TYPES[type(content)](content, oid, parent)


def _make_cont(value: Mapping[Any, Any], oid: str | None, parent: Branch | None) -> Cont:
    if isinstance(value, Cont) and parent is not None and value._can_stand(parent, oid):
        value.__dict__.update(_oid=oid, _parent=parent)
        return value
    cont = Cont(oid, parent)
    for name, item in value.items():
        if name in cont:
            raise Malformed(f"duplicate key {name!r} in one object: give it once")
        cont[name] = item
    return cont


def from_internal(form: Any, oid: str | None, parent: Branch | None) -> Node | None:
    """Make a node of what ``serialize_(internal=True)`` gave; the parent does not hold it.

    :raises Malformed: for anything else
    """
    if not isinstance(form, Mapping) or "_version" not in form:
        raise Malformed("not the internal form of a node: an object with '_version' is expected")
    for name in form:
        if name.startswith("_") and name not in _ATTRIBUTES:
            raise Malformed(f"not the internal form of a node: unknown attribute {name!r}")
    children = [name for name in form if name not in _ATTRIBUTES]
    node: Node | None
    if "_value" not in form:
        node = cont = Cont(oid, parent)
        for name in children:
            cont._children[_key(name)] = from_internal(form[name], name, cont)
    elif children or isinstance(form["_value"], Mapping):
        raise Malformed("not the internal form of a node: a leaf has no children")
    else:
        node = make_node(form["_value"], oid, parent)
    if node is not None:
        node.__dict__.update(_version=form["_version"], _ephemeral=form.get("_ephemeral", False))
    return node
