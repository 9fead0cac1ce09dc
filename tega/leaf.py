"""Nodes, which know their place in a tree, and the leaves among them: checked values, functions.

A node's ``_parent`` says where it stands, or stood: a copy, and a node that was taken out or
replaced, keep it, but the parent holds them no longer.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tega import paths, strictjson
from tega.errors import Malformed

N = TypeVar("N", bound="Node")

#: A node as :func:`grow` makes it: type, key, version, whether marked ephemeral, content.
Seed = tuple[type["Node"], Any, int, bool, Any]

#: The first integer with more digits than Python and JSON readers take.
_HUGE = 10**4300


class Node(ABC):
    """What containers and leaves have in common: a place in a tree.

    ``_oid``: the key it stands under, at a root the root's name (None where it has none yet) ·
    ``_parent``: the container above, None at a root · ``_version``: of its last change ·
    ``_ephemeral``: whether it was marked so itself. All of them are in ``__dict__`` too.
    """

    _oid: Any  # str, but None only at a root, which types cannot say
    _parent: Branch | None
    _version: int
    _ephemeral: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            raise AttributeError(
                f"cannot set {name!r}: {self._label()} is of type {type(self).__name__}; "
                "only a container has children, and no name of theirs starts with '_'"
            )
        self._check_writable()
        self.__dict__[name] = value

    def qname_(self) -> list[str]:
        """The keys from the root to this node; a root without a name adds none."""
        return [node._oid for node in self._lineage() if node._oid is not None][::-1]

    def root_(self) -> Node:
        """The topmost node above this one, or itself."""
        *_, root = self._lineage()
        return root

    def _label(self) -> str:
        """The dotted path, for messages."""
        return paths.dotted(self.qname_()) or "a root without a name"

    def serialize_(self, internal: bool = False, serialize_ephemeral: bool = True) -> Any:
        """The content as plain Python, the caller's own: dict, list, str, int, float, bool.

        :param internal: show versions and the other attributes
        :param serialize_ephemeral: False leaves out what is ephemeral, and is None where this
            node itself is
        """
        if not serialize_ephemeral and self.is_ephemeral_():
            return None
        return self._form(internal, serialize_ephemeral)

    def dumps_(self, internal: bool = False) -> str:
        """The content as JSON text, with sorted keys and no spaces."""
        return strictjson.dumps(self.serialize_(internal)).decode()

    def ephemeral_(self: N) -> N:
        """Mark this node, and with it everything below, as ephemeral.

        :returns: the node itself, so that it can be put at once
        """
        self._ephemeral = True
        return self

    def is_ephemeral_(self) -> bool:
        """Whether this node, or one above it, is marked as ephemeral."""
        return any(node._ephemeral for node in self._lineage())

    def copy_(self: N, freeze: bool = False) -> N:
        """A copy with the same place, version and mark, which the parent does not hold.

        A container's copy shares the children, which go on standing in the original; with
        ``freeze`` it shares nothing, and is frozen. No other copy is.
        """
        return self.deepcopy_()

    def deepcopy_(self: N) -> N:
        """As :meth:`copy_`, but a container's children are copied too."""
        copy: N = grow(self._seed(), self._parent)
        return copy

    def change_(self, new_parent: Branch | None) -> None:
        """Move this node below another container, under its own key; below None it is a root.

        :raises Malformed: for a parent that stands at or below this node
        :raises AttributeError: where either side is frozen
        """
        self._check_writable()
        if new_parent is not None:
            new_parent._check_writable()
            if self._oid is None or self._stands_above(new_parent):
                raise Malformed(f"{self._label()} cannot move below {new_parent._label()}")
        if self._parent is not None:
            self._parent._release(self)
        self.__dict__["_parent"] = new_parent
        if new_parent is not None:
            new_parent._keep(self._oid, self)

    def delete_(self) -> None:
        """Take this node out of its tree, and then every parent that this leaves empty.

        Nothing happens to a root or a copy: nobody holds it.
        """
        self._check_writable()
        if self._parent is not None and self._parent._release(self):
            self._parent._prune()

    def _lineage(self) -> Iterator[Node]:
        """This node, its parent, and so on to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node._parent

    def _stands_above(self, other: Node) -> bool:
        return any(node is self for node in other._lineage())

    def _attributes(self) -> dict[str, Any]:
        return {
            "_version": self._version,
            "_oid": self._oid,
            "_parent": None if self._parent is None else self._parent._oid,
            "_ephemeral": self._ephemeral,
        }

    @abstractmethod
    def _check_writable(self) -> None:
        """Raise AttributeError where this node stands in a frozen tree."""

    @abstractmethod
    def _form(self, internal: bool, serialize_ephemeral: bool) -> Any:
        """What :meth:`serialize_` gives, without asking what stands above."""

    def _seed(self) -> Seed:
        return type(self), self._oid, self._version, self._ephemeral, self._content()

    @abstractmethod
    def _content(self) -> Any:
        """A copy of the content, nodes as seeds."""

    @classmethod
    @abstractmethod
    def _grown(cls, content: Any, oid: Any, parent: Branch | None, version: int) -> Node:
        """A node with what :meth:`_content` gave; the parent does not hold it."""

    def __copy__(self: N) -> N:
        return self.copy_()

    def __deepcopy__(self: N, memo: object) -> N:
        return self.deepcopy_()

    def __reduce__(self) -> tuple[Any, ...]:
        _, *above = self._lineage()
        seeds: list[Seed] = [(type(n), n._oid, n._version, n._ephemeral, {}) for n in above]
        return _replant, ([*seeds[::-1], self._seed()],)


class Branch(Node):
    """A node that may stand above another: what nodes ask of a container."""

    @abstractmethod
    def _holds(self, child: Node) -> bool:
        """Whether the child stands here, rather than stood here or is a copy."""

    @abstractmethod
    def _keep(self, name: str, child: Node | None) -> None:
        """Hold the child, which points here already."""

    @abstractmethod
    def _release(self, child: Node) -> bool:
        """Hold the child no longer; gives whether it stood here."""

    @abstractmethod
    def _prune(self) -> None:
        """If empty, be there no longer, and so all parents that this leaves empty."""


def grow(seed: Seed, parent: Branch | None) -> Any:
    """Make a node of its seed; the parent does not hold it."""
    kind, oid, version, ephemeral, content = seed
    node = kind._grown(content, oid, parent, version)
    node.__dict__["_ephemeral"] = ephemeral
    return node


def _replant(lineage: list[Seed]) -> Any:
    """Unpickle: the last one, below parents that know their names and hold nothing."""
    node = None
    for seed in lineage:
        node = grow(seed, node)
    return node


def key_text(name: object) -> str:
    """The text of a key: integers are written in decimal.

    :raises Malformed: naming the type of anything but a string or an integer
    """
    if isinstance(name, str):
        return _text(name)
    if isinstance(name, int) and not isinstance(name, (bool, Bool)):
        return str(_integer(name))
    raise Malformed(f"a key is a string or an integer, not a {type(name).__name__}")


def plain(value: Any) -> Any:
    """A copy of JSON data in plain Python types, checked: what stands in a leaf.

    Arrays become lists, keys of objects strings; what else they are is free.

    :raises Malformed: naming the type that is not JSON, or for a number or text that is not
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Bool):
        return bool(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Malformed(f"{value} is not a finite number, and so not JSON")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        copy = {key_text(name): plain(item) for name, item in value.items()}
        if len(copy) != len(value):
            raise Malformed("duplicate key: an integer and a string with the same text")
        return copy
    raise Malformed(
        f"a value of type {type(value).__name__} cannot be stored: "
        "give a dict, list, str, int, float, bool, None or Func"
    )


def _text(value: str) -> str:
    # Not str(value): an enumeration may print as something else.
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Malformed("the text holds a lone surrogate, which is not Unicode") from None
    return text


def _integer(value: int) -> int:
    if not -_HUGE < value < _HUGE:
        raise Malformed("the integer has more than 4300 digits")
    return int(value)


class Leaf(Node):
    """A value that knows its place; it compares, hashes and prints as the plain value."""

    _type: Any

    def __new__(
        cls, value: Any, _oid: str | None = None, _parent: Branch | None = None, _version: int = 0
    ) -> Leaf:
        return super().__new__(cls, value)  # type: ignore[call-arg]

    def __init__(
        self, value: Any, _oid: str | None = None, _parent: Branch | None = None, _version: int = 0
    ) -> None:
        self.__dict__.update(_oid=_oid, _parent=_parent, _version=_version, _ephemeral=False)

    def _check_writable(self) -> None:
        if self._parent is not None and self._parent._holds(self):
            self._parent._check_writable()

    def _form(self, internal: bool, serialize_ephemeral: bool) -> Any:
        value = self._content()
        return {"_value": value, **self._attributes()} if internal else value

    def _content(self) -> Any:
        return self._type(self)

    @classmethod
    def _grown(cls, content: Any, oid: Any, parent: Branch | None, version: int) -> Node:
        return cls(content, oid, parent, version)


class Bool(Leaf, int):
    """A boolean leaf; ``bool`` itself cannot be subclassed."""

    _type = bool

    def __repr__(self) -> str:
        return repr(bool(self))

    __str__ = __repr__


class Int(Leaf, int):
    """An integer leaf, of any size."""

    _type = int


class Float(Leaf, float):
    """A floating-point leaf."""

    _type = float


class Str(Leaf, str):
    """A string leaf."""

    _type = str


class Tuple(Leaf, tuple[Any, ...]):
    """A list leaf; it equals a list of the same items, as well as a tuple."""

    def _content(self) -> list[Any]:
        items: list[Any] = plain(tuple(self))
        return items

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class Func:
    """A function offered under a tega id; put into a tree, it can be called by path.

    ``str()`` gives what is stored: ``%OWNER.NAME``, or ``%OWNER.NAME(1,"x",a=2)`` where arguments
    are bound. A ``Func`` equals the function that it wraps.

    :param owner_id: the tega id that runs it
    :param func: any callable, a coroutine function too
    :param args: positional arguments to bind, JSON data
    :param kwargs: keyword arguments to bind, JSON data
    :raises Malformed: for a wrong tega id, no callable, or an argument that is not JSON
    """

    def __init__(
        self, owner_id: str, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        if not callable(func):
            raise Malformed(f"a Func wraps a callable, not a {type(func).__name__}")
        self.owner_id = paths.check_tega_id(owner_id)
        self.func = func
        #: Whether it is a coroutine function: to find out takes a while.
        self.is_coroutine = inspect.iscoroutinefunction(func)
        self.args: list[Any] = plain(args)
        self.kwargs: dict[str, Any] = plain(kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function: with its bound arguments if it has any, else with these.

        :raises Malformed: where arguments are bound and others are given
        """
        if not self.args and not self.kwargs:
            return self.func(*args, **kwargs)
        if args or kwargs:
            raise Malformed(f"{self} has its arguments bound: call it without any")
        return self.func(*self.args, **self.kwargs)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RPC):
            other = other.func
        if isinstance(other, Func):
            return vars(self) == vars(other)
        return bool(self.func == other)

    def __hash__(self) -> int:
        return hash(self.func)

    def __str__(self) -> str:
        # A partial or another callable object has no name of its own.
        name = getattr(self.func, "__name__", type(self.func).__name__)
        bound = [strictjson.dumps(value).decode() for value in self.args]
        bound += [f"{key}={strictjson.dumps(value).decode()}" for key, value in self.kwargs.items()]
        return f"%{self.owner_id}.{name}" + (f"({','.join(bound)})" if bound else "")

    def __repr__(self) -> str:
        return f"Func({self})"


class RPC(Leaf):
    """A function leaf: call it, or ask whose it is.

    ``func`` is the :class:`Func` in it.
    """

    func: Func

    def __new__(cls, value: Func, *place: Any, **named: Any) -> RPC:
        self = object.__new__(cls)
        self.__dict__["func"] = value
        return self

    @property
    def owner_id(self) -> str:
        """The tega id that runs the function."""
        return self.func.owner_id

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, as :class:`Func` does."""
        return self.func(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return self.func == other

    def __hash__(self) -> int:
        return hash(self.func)

    def __str__(self) -> str:
        return str(self.func)

    def __repr__(self) -> str:
        return f"RPC({self})"

    def _form(self, internal: bool, serialize_ephemeral: bool) -> Any:
        return {"_value": str(self), **self._attributes()} if internal else str(self)

    def _content(self) -> Func:
        return self.func
