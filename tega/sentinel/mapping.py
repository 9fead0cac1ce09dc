"""Which row a key gives. Pure: `load` makes a `Mapping` of the text of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from tega import strictjson
from tega.errors import Malformed
from tega.sentinel.columns import Misfit, Type, shown
from tega.sentinel.patterns import Pattern

#: Bytes of a digest, in hexadecimal digits twice as many.
_DIGEST: Final = 20

#: Length of a digest as text.
DIGEST: Final = 2 * _DIGEST


def digest(data: bytes) -> str:
    """A name of fixed length for some bytes, the same at all times."""
    return blake2b(data, digest_size=_DIGEST).hexdigest()


class Field(NamedTuple):
    """Gives what stands at some place of the JSON value."""

    path: tuple[str, ...]
    choices: dict[str, Any] | None = None


class Part(NamedTuple):
    """Gives a part of the key."""

    name: str
    choices: dict[str, Any] | None = None


class Constant(NamedTuple):
    """Gives always the same."""

    value: Any


class Whole(NamedTuple):
    """Gives the whole JSON value."""


Origin = Field | Part | Constant | Whole

#: A part of a key is text; this is one that an integer column takes.
_INTEGER = re.compile(r"-?[0-9]{1,19}")

#: There is nothing at that place.
_ABSENT: Final = object()


class Column(NamedTuple):
    """A column.

    :ivar origins: where its value comes from: the first that gives something
    :ivar required: whether a value without it is refused
    :ivar empty_is_null: whether an empty string becomes NULL
    """

    name: str
    type: Type
    origins: tuple[Origin, ...]
    required: bool
    empty_is_null: bool


class Row(NamedTuple):
    """A row.

    :ivar table: the table that it is of
    :ivar id: digest of table and primary key
    :ivar values: one for each column
    """

    table: Table
    id: str
    values: tuple[Any, ...]


class Table:
    """A table, and the keys that its rows come from.

    :ivar schema: the database or schema that it is in; None: that of the connection
    :ivar interval: seconds between full passes; None: as the settings say
    :ivar mark: the boolean column that is set instead of removing a row; None: rows are removed
    """

    def __init__(
        self,
        schema: str | None,
        name: str,
        patterns: Sequence[Pattern],
        columns: Sequence[Column],
        primary_key: Sequence[str],
        interval: float | None = None,
        mark: str | None = None,
    ) -> None:
        self.schema = schema
        self.name = name
        self.patterns = tuple(patterns)
        self.columns = tuple(columns)
        self.primary_key = tuple(primary_key)
        self.interval = interval
        self.mark = mark
        self._key_places = [
            [column.name for column in columns].index(name) for name in primary_key
        ]

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"

    def id_of(self, values: Sequence[Any]) -> str:
        """The id of the row with these values."""
        key = [values[place] for place in self._key_places]
        return digest(strictjson.dumps([self.title, *key]))

    def key_of(self, values: Sequence[Any]) -> dict[str, Any]:
        """The primary key of the row with these values, column by column."""
        return {self.columns[place].name: values[place] for place in self._key_places}

    def match(self, key: str) -> dict[str, str] | None:
        """The parts of a key by name; None: no key of this table."""
        for pattern in self.patterns:
            parts = pattern.match(key)
            if parts is not None:
                return parts
        return None

    def row(self, parts: dict[str, str], document: Any) -> Row:
        """The row of a key.

        :param parts: of the key
        :param document: its JSON value
        :raises Misfit: saying which column cannot be had, and why
        """
        values = tuple([_value(column, parts, document) for column in self.columns])
        return Row(self, self.id_of(values), values)


def _value(column: Column, parts: dict[str, str], document: Any) -> Any:
    given = _ABSENT
    for origin in column.origins:
        given = _given(origin, column.type, parts, document)
        if given is not _ABSENT and given is not None:
            break
    if given is _ABSENT or (given == "" and column.empty_is_null):
        given = None
    if given is None and column.required:
        raise Misfit(f"{column.name} is missing: {_described(column.origins)}")
    try:
        return column.type.read(given)
    except Misfit as error:
        raise Misfit(f"{column.name} {error}") from None


def _given(origin: Origin, kind: Type, parts: dict[str, str], document: Any) -> Any:
    if isinstance(origin, Constant):
        return origin.value
    if isinstance(origin, Whole):
        return document
    found: Any
    if isinstance(origin, Part):
        found = parts.get(origin.name, _ABSENT)
    else:
        found = document
        for name in origin.path:
            found = found.get(name, _ABSENT) if type(found) is dict else _ABSENT
    if origin.choices is not None and found is not _ABSENT:
        text = found if type(found) is str else strictjson.dumps(found).decode()
        return origin.choices.get(text, _ABSENT)
    if isinstance(origin, Part) and kind.kind == "integer" and _INTEGER.fullmatch(str(found)):
        return int(found)
    return found


def _described(origins: tuple[Origin, ...]) -> str:
    described = []
    for origin in origins:
        if isinstance(origin, Field):
            described.append(f"field {'.'.join(origin.path)} of the value")
        elif isinstance(origin, Part):
            described.append(f"part {origin.name} of the key")
    return "it comes from " + ", or ".join(described) if described else "the value is null"


class Scope(NamedTuple):
    """A prefix of keys that full passes go over at one time, with all tables of such keys."""

    prefix: bytes
    tables: tuple[Table, ...]

    @property
    def id(self) -> str:
        """A name of fixed length."""
        return digest(self.prefix)

    def interval(self, otherwise: float) -> float:
        """Seconds between its full passes."""
        return min([table.interval or otherwise for table in self.tables])


class Mapping:
    """Tables, and the keys that their rows come from.

    :ivar tables: in order; a key is of the first whose patterns it matches
    :ivar tega: whether the keys are paths of tega, or keys of etcd
    :ivar digest: the same for the same mapping
    """

    def __init__(self, tables: Sequence[Table], tega: bool, digest: str) -> None:
        self.tables = tuple(tables)
        self.tega = tega
        self.digest = digest
        self.scopes = _scopes(self.tables, tega)

    def scope_of(self, key: bytes) -> Scope | None:
        """The scope that a key is of; None: no table's business."""
        for scope in self.scopes:
            if within(key, scope.prefix, self.tega):
                return scope
        return None

    def row(self, scope: Scope, key: bytes, value: bytes) -> Row:
        """The row that a key of a scope gives.

        :raises Misfit: saying why it gives none
        """
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise Misfit("the key is not UTF-8") from None
        for table in scope.tables:
            parts = table.match(text)
            if parts is not None:
                try:
                    document = strictjson.loads(value)
                except Malformed as error:
                    raise Misfit(error.message) from None
                return table.row(parts, document)
        patterns = [pattern.text for table in scope.tables for pattern in table.patterns]
        raise Misfit(f"the key {shown(text)} is like none of {', '.join(patterns)}")


def within(key: bytes, prefix: bytes, tega: bool) -> bool:
    """Whether a key is under a prefix: of tega at it or below it."""
    if not key.startswith(prefix):
        return False
    return not tega or len(key) == len(prefix) or key[len(prefix) : len(prefix) + 1] == b"."


def _scopes(tables: tuple[Table, ...], tega: bool) -> tuple[Scope, ...]:
    """The prefixes that hold all keys of the tables, none under another."""
    prefixes = {pattern.prefix for table in tables for pattern in table.patterns}
    tops = [
        prefix
        for prefix in sorted(prefixes)
        if not any(other != prefix and within(prefix, other, tega) for other in prefixes)
    ]
    return tuple(
        Scope(
            top,
            tuple([
                table for table in tables
                if any(within(pattern.prefix, top, tega) for pattern in table.patterns)
            ]),
        )
        for top in tops
    )  # fmt: skip
