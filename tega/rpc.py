"""Functions that stand in the tree: what a leaf such as ``%OWNER.NAME`` says, and who runs it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from tega import strictjson
from tega.errors import CallFailed, Malformed, NoSuchFunction, NotFound, OwnerGone
from tega.leaf import Func, plain
from tega.paths import Path, dotted
from tega.store.history import State
from tega.store.node import Leaf
from tega.util import func_args_kwargs

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


def function_at(state: State, path: Path) -> tuple[str, Function]:
    """The function leaf at a path: its text, and what it says.

    :raises NoSuchFunction: where there is none
    """
    try:
        content = state.find(path).content
    except NotFound:
        content = None
    value = content.value if type(content) is Leaf else content
    function = parse_function(value) if type(value) is str else None
    if function is None:
        raise NoSuchFunction(f"no function at {dotted(path)}", path=dotted(path))
    return value, function


def owner_gone(path: Path, function: Function) -> OwnerGone:
    """The owner of a function is not here."""
    return OwnerGone(
        f"the owner of the function at {dotted(path)}, {function.owner!r}, is not here",
        path=dotted(path),
        owner=function.owner,
    )


class Functions:
    """The functions that this process runs: each by the place it was put at, and by its name.

    May be used from any thread: each step on a dict is atomic.
    """

    def __init__(self) -> None:
        self._by_place: dict[Path, Func] = {}
        self._by_leaf: dict[str, Func] = {}

    def __bool__(self) -> bool:
        return bool(self._by_leaf)

    def add(self, path: Path, func: Func) -> None:
        """A function is put at a path."""
        self._by_place[path] = func
        self._by_leaf[str(func)] = func

    def find(self, path: Path, leaf: str) -> Func | None:
        """The function that a leaf at a path names, if it is one of this process."""
        func = self._by_place.get(path)
        # Something else may have been put there since.
        return func if func is not None and str(func) == leaf else self._by_leaf.get(leaf)

    def drop(self, owner: str) -> None:
        """A tega id has gone, and its functions with it."""
        for path, func in list(self._by_place.items()):
            if func.owner_id == owner:
                del self._by_place[path]
        for leaf, func in list(self._by_leaf.items()):
            if func.owner_id == owner:
                del self._by_leaf[leaf]


class Arguments(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a function is called with."""

    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return bool(self.args) or bool(self.kwargs)


def read_arguments(body: bytes) -> Arguments:
    """The body of a call, ``{"args": [...], "kwargs": {...}}``, both optional; it may be empty.

    :raises Malformed: for anything else
    """
    if not body:
        return Arguments()
    try:
        return msgspec.convert(strictjson.loads(body), Arguments)
    except msgspec.ValidationError as error:
        raise Malformed(
            f'malformed arguments: {error}: send {{"args": [...], "kwargs": {{...}}}}'
        ) from None


def bound_arguments(function: Function) -> Arguments:
    """The arguments that stand in a function leaf.

    :raises Malformed: where they cannot be read
    """
    _, args, kwargs = func_args_kwargs("f" + function.arguments)
    return Arguments(args, kwargs)


def result_text(value: Any, what: str) -> bytes:
    """The result of a function as JSON.

    :raises CallFailed: where it cannot be JSON
    """
    try:
        return strictjson.dumps(plain(value))
    except (Malformed, RecursionError) as error:
        raise CallFailed(f"{what} returned what is not JSON: {error}") from None


def raised(error: BaseException, what: str) -> CallFailed:
    """What the caller of a function is told that has raised."""
    return CallFailed(f"{what} raised {type(error).__name__}: {error}")
