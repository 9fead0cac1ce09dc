"""Types of columns, and how a JSON value becomes one of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

from tega import strictjson
from tega.errors import Malformed

#: Characters of a string column, most: more go into ``text``.
MAX_STRING: Final = 16_383

_TYPE = re.compile(r"([a-z]+)(?:\(([0-9]{1,5})\))?")
_DATETIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)? ?([Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)


class Misfit(Exception):
    """A value that does not fit; the message says why, for people."""


class Type(NamedTuple):
    """The type of a column.

    :ivar kind: ``string``, ``text``, ``integer``, ``number``, ``boolean``, ``datetime``, ``json``
    :ivar size: characters of a string; digits of a second of a datetime
    """

    kind: str
    size: int = 0

    def __str__(self) -> str:
        return f"{self.kind}({self.size})" if self.kind in _SIZED else self.kind

    def read(self, value: Any) -> Any:
        """A JSON value as the column holds it; None stays None.

        :raises Misfit: saying what is wrong
        """
        return None if value is None else _READERS[self.kind](value, self.size)


def parse(text: Any) -> Type:
    """Read a type as mappings write it: ``string(64)``, ``datetime(0)``, ``integer``.

    :raises Malformed: saying what would be right
    """
    found = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[1] not in _READERS:
        raise Malformed(f"type {str(text)[:64]!r} is wrong; right is one of {', '.join(_NAMES)}")
    kind, size = found[1], found[2]
    if kind == "string":
        if size is None or not 1 <= int(size) <= MAX_STRING:
            raise Malformed(
                f"type {text!r} needs its most characters, 1 to {MAX_STRING}: string(255); "
                "longer texts go into a column of type text"
            )
        return Type(kind, int(size))
    if kind == "datetime":
        digits = 6 if size is None else int(size)
        if digits > 6:
            raise Malformed(f"type {text!r}: a datetime has 0 to 6 digits after its seconds")
        return Type(kind, digits)
    if size is not None:
        raise Malformed(f"type {text!r}: only string and datetime take a size")
    return Type(kind)


def shown(value: Any) -> str:
    """A value in a message: as JSON, short, with nothing that moves a terminal's cursor."""
    text = repr(value) if isinstance(value, (bytes, datetime)) else ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _wrong(value: Any, right: str) -> Misfit:
    return Misfit(f"is {shown(value)}, but must be {right}")


def check_text(text: str) -> None:
    """Refuse what databases cannot hold.

    :raises Misfit: for NUL, and for what is no Unicode text
    """
    if "\0" in text:
        raise Misfit("holds a NUL character, which SQL text cannot")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Misfit("holds a lone surrogate, which is no Unicode text") from None


def _string(value: Any, size: int) -> str:
    if type(value) is not str:
        raise _wrong(value, "a string")
    if len(value) > size:
        raise Misfit(f"has {len(value)} characters, but at most {size} fit")
    check_text(value)
    return value


def _text(value: Any, size: int) -> str:
    if type(value) is not str:
        raise _wrong(value, "a string")
    check_text(value)
    return value


def _integer(value: Any, size: int) -> int:
    if type(value) is not int:
        raise _wrong(value, "an integer")
    if not -(1 << 63) <= value < 1 << 63:
        raise Misfit(f"is {shown(value)}, but an integer column holds 64 bits")
    return value


def _number(value: Any, size: int) -> float:
    if type(value) not in (int, float):
        raise _wrong(value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise Misfit(f"is {shown(value)}, too large for a number column") from None


def _boolean(value: Any, size: int) -> bool:
    if type(value) is not bool:
        raise _wrong(value, "true or false")
    return value


def _datetime(value: Any, size: int) -> datetime:
    right = "a date and time as ISO 8601 writes it: 2020-05-17T10:00:00Z"
    found = _DATETIME.fullmatch(value) if type(value) is str else None
    if found is None:
        raise _wrong(value, right)
    year, month, day, hour, minute, second, fraction, zone = found.groups("0")
    microsecond = int(fraction.ljust(6, "0")[:6])
    # What the column does not hold is cut off.
    microsecond -= microsecond % 10 ** (6 - size)
    try:
        read = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond
        )
        if zone not in ("0", "Z", "z"):
            read -= _offset(zone)
    except (ValueError, OverflowError):
        raise _wrong(value, right) from None
    if read.year < 1000:
        raise Misfit(f"is {shown(value)}, but databases count from the year 1000 on")
    return read


def _offset(zone: str) -> timedelta:
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    offset = timezone(timedelta(hours=hours, minutes=minutes)).utcoffset(None)
    return -offset if zone[0] == "-" else offset


def _json(value: Any, size: int) -> str:
    # NUL in a JSON text is written \u0000, which every database can hold.
    return strictjson.dumps(value).decode()


_READERS: Final[dict[str, Callable[[Any, int], Any]]] = {
    "string": _string,
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "datetime": _datetime,
    "json": _json,
}
_SIZED: Final = ("string", "datetime")
_NAMES: Final = (
    "string(N)", "text", "integer", "number", "boolean", "datetime", "datetime(0)", "json"
)
