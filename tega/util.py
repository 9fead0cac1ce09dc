"""Helpers around documents and paths, under the names that users import."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tega import paths
from tega.errors import Malformed
from tega.leaf import key_text, plain
from tega.tree import Cont, Node, from_internal, make_node

# A path as far as the first parenthesis outside quotes, and what stands in the parentheses.
_CALL = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^"(])*)(?:\((.*)\))?', re.DOTALL)

_JSON_NAMES = {"true": True, "false": False, "null": None}


def path2qname(path: str) -> list[str]:
    """The keys of a dotted path.

    >>> path2qname('routes."10.0.0.0/24".metric')
    ['routes', '10.0.0.0/24', 'metric']
    """
    return list(paths.parse(path))


def qname2path(qname: Sequence[str]) -> str:
    """The dotted path of a list of keys.

    >>> qname2path(["routes", "10.0.0.0/24", "metric"])
    'routes."10.0.0.0/24".metric'
    """
    return paths.dotted(qname)


def url2path(url: str) -> str:
    """The dotted path of the path part of a URL; empty for ``/``.

    >>> url2path("/routes/10.0.0.0%2F24/metric/")
    'routes."10.0.0.0/24".metric'
    """
    return paths.dotted(paths.from_url(url))


def path2url(path: str) -> str:
    """The path part of a URL for a dotted path.

    >>> path2url("a.b.c")
    '/a/b/c/'
    """
    return paths.to_url(paths.parse(path))


def instance2url(instance: Node) -> str:
    """The path part of the URL of a container or leaf, from the place that it knows."""
    return paths.to_url(instance.qname_())


def dict2cont(value: Mapping[Any, Any]) -> Cont:
    """A copy of a mapping as a container, the root of a tree that has no name yet."""
    cont = Cont()
    cont.update(value)
    return cont


def subtree(path: str, value: Any) -> Any:
    """A value as a container or leaf that stands at a dotted path.

    >>> subtree("a.b.c", 1).qname_()
    ['a', 'b', 'c']

    :returns: the node at the path; None for None, which has no place
    :raises Malformed: for a path that cannot be one, or a value that cannot be stored
    """
    *above, last = paths.parse(path)
    parent = _containers(above)
    if parent is None:
        return make_node(value, last)
    parent[last] = value
    return parent[last]


def deserialize(instance: Mapping[str, Any], path: str | None = None) -> Any:
    """A container or leaf, with versions, from the internal form.

    :param instance: as ``serialize_(internal=True)`` and ``GET`` with ``internal=True`` give it
    :param path: where it stands, dotted; without it only its own name and its parent's are known
    :returns: the node; None for null
    :raises Malformed: for anything else than the internal form
    """
    if not isinstance(instance, Mapping):
        raise Malformed(f"not the internal form of a node: a {type(instance).__name__}")
    names: Sequence[Any] = [instance.get("_parent"), instance.get("_oid")]
    if path is not None:
        names = paths.parse(path)
    *above, last = names
    return from_internal(instance, last, _containers([key for key in above if key is not None]))


def _containers(names: Sequence[str]) -> Cont | None:
    """Containers below each other, made as reading makes them: the last one."""
    if not names:
        return None
    first, *rest = names
    cont = Cont(first)
    for name in rest:
        cont = cont[name]
    return cont


def edges(cont: Node | None) -> list[list[str]]:
    """The edges of a tree for drawing: from each parent to each child, and back.

    A node is named ``PATH(VERSION)``; null has the version of its container. A leaf has no edges.
    """
    found: list[list[str]] = []
    for parent in cont.walk_() if isinstance(cont, Cont) else ():
        if isinstance(parent, Cont):
            qname = parent.qname_()
            upper = _end(qname, parent._version)
            for name in sorted(parent):
                child = parent[name]
                lower = _end([*qname, name], (parent if child is None else child)._version)
                found += [[upper, lower], [lower, upper]]
    return found


def _end(qname: Sequence[str], version: int) -> str:
    return f"{paths.dotted(qname)}({version})"


def nested_regex_path(pattern: str) -> str:
    r"""A pattern that matches a regex path, split at ``\.``, and every path above it.

    >>> print(nested_regex_path(r"a\.b\.c"))
    a(\.b(\.c)?)?
    """
    first, *rest = paths.split_pattern(pattern)
    below = ""
    for level in reversed(rest):
        below = rf"(\.{level}{below})?"
    return first + below


def func_args_kwargs(call: str) -> tuple[str, list[Any] | None, dict[str, Any] | None]:
    """Read a call as it is typed: a path, and arguments that are literals.

    >>> func_args_kwargs("r.f(1, 'x', id=3)")
    ('r.f', [1, 'x'], {'id': 3})
    >>> func_args_kwargs("r.f")
    ('r.f', None, None)

    Literals are those of Python, and ``true``, ``false`` and ``null``; a tuple becomes a list.
    Nothing is evaluated. A key that holds a parenthesis must be quoted.

    :returns: path, positional arguments, keyword arguments; without parentheses None for both,
        so that a bare path and a call without arguments can be told apart
    :raises Malformed: for a path that cannot be one, and for what is no literal
    """
    match = _CALL.fullmatch(call.strip())
    if match is None:
        raise Malformed(f"malformed call {call[:120]!r}: give PATH(ARGUMENT, NAME=VALUE)")
    path, arguments = match[1].rstrip(), match[2]
    paths.parse(path)
    if arguments is None:
        return path, None, None
    node = _parse_call(arguments)
    args = [plain(_literal(arg)) for arg in node.args]
    kwargs: dict[str, Any] = {}
    for word in node.keywords:
        if word.arg is None or word.arg in kwargs:
            raise Malformed(f"malformed arguments {arguments[:120]!r}: '**', or a name twice")
        kwargs[word.arg] = plain(_literal(word.value))
    return path, args, kwargs


def _parse_call(arguments: str) -> ast.Call:
    try:
        node = ast.parse(f"call({arguments})", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Malformed(f"malformed arguments {arguments[:120]!r}: {error}") from None
    # "1)(2" parses too, but as something else than one call of one name.
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise Malformed(f"malformed arguments {arguments[:120]!r}: unbalanced parentheses")
    return node


def _literal(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            names = [key_text(_literal(key)) for key in keys]
            if len(set(names)) != len(names):
                raise Malformed("duplicate key in one object: give it once")
            return dict(zip(names, map(_literal, values), strict=True))
    raise Malformed(
        f"{type(node).__name__} is not a literal: give a number, string, list, object or null"
    )
