"""Reading mapping files: YAML in, a `Mapping` or an error that says where and what out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

from tega import strictjson, strictyaml
from tega.errors import Malformed
from tega.sentinel import columns
from tega.sentinel.columns import Misfit
from tega.sentinel.mapping import (
    Column,
    Constant,
    Field,
    Mapping,
    Origin,
    Part,
    Table,
    Whole,
    digest,
)
from tega.sentinel.patterns import KeyPattern, PathPattern, Pattern

T = TypeVar("T")

_NAME = re.compile(r"[^\W\d][\w$-]{0,62}")

#: Characters of all columns of a primary key, most: what MariaDB can index.
_MAX_KEY = 768


def load(text: str, name: str) -> Mapping:
    """Read a mapping file.

    :param text: what the file holds
    :param name: the file, for errors
    :raises Malformed: naming the file, the place in it, and what would be right
    """
    return make(parse(text, name), name)


def parse(text: str, name: str) -> Any:
    """The YAML of a mapping file, not checked yet.

    :raises Malformed: naming the file and the line
    """
    try:
        return strictyaml.loads(text)
    except Malformed as error:
        raise Malformed(f"mapping {name}: {error.message}") from None


def make(given: Any, name: str) -> Mapping:
    """The mapping of what a file holds: as `load`."""
    try:
        return _mapping(given)
    except Malformed as error:
        raise Malformed(f"mapping {name}: {error.message}") from None
    except RecursionError:
        raise Malformed(f"mapping {name}: an alias in it stands for itself") from None


def _at(place: str, read: Callable[[], T]) -> T:
    """Read a part, naming it in what is wrong with it."""
    try:
        return read()
    except Malformed as error:
        separator = "" if error.message.startswith(("[", ".")) else ": "
        raise Malformed(f"{place}{separator}{error.message}") from None


def _object(
    given: Any, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, Any]:
    known = [*required, *optional]
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise Malformed(f"it must hold 'name: value' lines of {', '.join(known)}")
    for name in given:
        if name not in known:
            raise Malformed(f"{name[:64]!r} is not known here; there are {', '.join(known)}")
    for name in required:
        if name not in given:
            raise Malformed(f"{name} is missing")
    return given


def _mapping(given: Any) -> Mapping:
    tables = _object(given, ("tables",))["tables"]
    if not isinstance(tables, dict) or not tables:
        raise Malformed("tables: it must name tables, each with what makes it")
    made = [_at(f"tables.{name}", partial(_table, name, tables[name])) for name in tables]
    kinds = {isinstance(pattern, PathPattern) for table in made for pattern in table.patterns}
    if len(kinds) > 1:
        raise Malformed("some tables have keys of etcd, others paths of tega: make it two files")
    # How often passes are made changes no row.
    rows = {name: {k: v for k, v in tables[name].items() if k != "interval"} for name in tables}
    return Mapping(made, kinds.pop(), digest(strictjson.dumps(_plain(rows))))


def _plain(given: Any) -> Any:
    """What YAML gave, as JSON can hold it."""
    if isinstance(given, dict):
        return {str(key): _plain(value) for key, value in given.items()}
    if isinstance(given, list):
        return [_plain(value) for value in given]
    return given if isinstance(given, (str, int, float, type(None))) else str(given)


def _table(name: Any, given: Any) -> Table:
    schema, _, table = str(name).rpartition(".")
    for part in (schema, table) if schema else (table,):
        if not _NAME.fullmatch(part):
            raise Malformed("a table is named TABLE or SCHEMA.TABLE, of letters, digits and '_'")
    entry = _object(given, ("primary_key", "columns"), ("keys", "paths", "interval", "delete"))
    if ("keys" in entry) == ("paths" in entry):
        raise Malformed("give either keys, for patterns of etcd, or paths, for those of tega")
    kind: type[KeyPattern] | type[PathPattern] = KeyPattern if "keys" in entry else PathPattern
    source = "keys" if "keys" in entry else "paths"
    patterns: list[Pattern] = [
        _at(source, partial(kind, text)) for text in _texts(source, entry[source])
    ]
    parts = {part for pattern in patterns for part in pattern.names}
    primary_key = _texts("primary_key", entry["primary_key"])
    given_columns = entry["columns"]
    if not isinstance(given_columns, dict):
        raise Malformed("columns: it must name columns, each with its type")
    made = [
        _at(f"columns.{name}", partial(_column, name, given_columns[name], primary_key, parts))
        for name in given_columns
    ]
    _check_primary_key(primary_key, made)
    mark = _at("delete", lambda: _mark(entry.get("delete", "remove"), given_columns))
    interval = _at("interval", lambda: _interval(entry.get("interval")))
    return Table(schema or None, table, patterns, made, primary_key, interval, mark)


def _texts(name: str, given: Any) -> list[str]:
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise Malformed(f"{name}: it must be a text, or a list of texts")
    if len(set(texts)) < len(texts):
        raise Malformed(f"{name}: one stands there twice")
    return texts


def _check_primary_key(primary_key: list[str], made: list[Column]) -> None:
    by_name = {column.name: column for column in made}
    size = 0
    for name in primary_key:
        if name not in by_name:
            raise Malformed(f"primary_key: there is no column {name}; there are "
                            + ", ".join(by_name))
        kind = by_name[name].type
        if kind.kind not in ("string", "integer"):
            raise Malformed(f"primary_key: {name} is of type {kind}; right is string(N) or integer")
        size += kind.size
    if size > _MAX_KEY:
        raise Malformed(f"primary_key: it has up to {size} characters, at most {_MAX_KEY} work")


def _mark(given: Any, columns: dict[Any, Any]) -> str | None:
    if given == "remove":
        return None
    entry = _object(given, ("mark",)) if isinstance(given, dict) else None
    if entry is None or not isinstance(entry["mark"], str) or not _NAME.fullmatch(entry["mark"]):
        raise Malformed("right is remove, or {mark: COLUMN} for a boolean column to set instead")
    if entry["mark"] in columns:
        raise Malformed(f"{entry['mark']} is one of the columns: the mark is a column of its own")
    mark: str = entry["mark"]
    return mark


def _interval(given: Any) -> float | None:
    if given is None:
        return None
    if type(given) not in (int, float) or not 0 < given <= 1e9:
        raise Malformed("it is a number of seconds over 0")
    return float(given)


def _column(name: Any, given: Any, primary_key: list[str], parts: set[str]) -> Column:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed("a column is named of letters, digits and '_'")
    entry = {"type": given} if isinstance(given, str) else given
    entry = _object(entry, ("type",), ("from", "required", "empty_is_null"))
    kind = _at("type", lambda: columns.parse(entry["type"]))
    flags = {}
    for flag in ("required", "empty_is_null"):
        flags[flag] = entry.get(flag, False)
        if type(flags[flag]) is not bool:
            raise Malformed(f"{flag} is true or false")
    origins = entry.get("from", {"field": name})
    origins = origins if isinstance(origins, list) else [origins]
    if not origins:
        raise Malformed("from: the list names nothing")
    made = tuple([_at("from", partial(_origin, origin, kind, parts)) for origin in origins])
    required = flags["required"] or name in primary_key
    return Column(name, kind, made, required, flags["empty_is_null"])


def _origin(given: Any, kind: columns.Type, parts: set[str]) -> Origin:
    if isinstance(given, str):
        given = {"field": given}
    entry = _object(given, (), ("field", "key", "constant", "whole", "map"))
    kinds = entry.keys() - {"map"}
    if len(kinds) != 1:
        raise Malformed("name one of field, key, constant and whole")
    choices = _at("map", lambda: _choices(entry["map"], kind)) if "map" in entry else None
    if choices is not None and kinds & {"constant", "whole"}:
        raise Malformed("map goes with field or key")
    if "field" in entry:
        field = entry["field"]
        names = field if isinstance(field, list) else str(field).split(".")
        if not all(isinstance(name, str) and name for name in names):
            raise Malformed("field is a name, names with dots between them, or a list of names")
        return Field(tuple(names), choices)
    if "key" in entry:
        if entry["key"] not in parts:
            raise Malformed(f"key: no pattern has a part {entry['key']!r}; there are "
                            + (", ".join(sorted(parts)) or "none"))
        return Part(entry["key"], choices)
    if "constant" in entry:
        _check(entry["constant"], kind)
        return Constant(entry["constant"])
    if entry["whole"] is not True:
        raise Malformed("whole is true")
    return Whole()


def _choices(given: Any, kind: columns.Type) -> dict[str, Any]:
    if not isinstance(given, dict) or not given:
        raise Malformed("it must hold 'from: to' lines")
    for value in given.values():
        _check(value, kind)
    return {
        name if isinstance(name, str) else strictjson.dumps(name).decode(): value
        for name, value in given.items()
    }


def _check(value: Any, kind: columns.Type) -> None:
    try:
        kind.read(value)
    except Misfit as error:
        raise Malformed(f"the value {error}, as the column's type is {kind}") from None
