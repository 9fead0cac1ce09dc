"""What the tests mirror: a mapping, values for it, and what its rows must be.

The rows are computed here from what the source holds, by the words of the specification and with no
code of the product.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

Row = dict[str, Any]

#: The keys are ``/things/SITE/ID``, and ``things.SITE.ID`` in tega.
_MAPPING = """
tables:
  thing:
    {source}
    primary_key: name
    columns:
      name: string(64)
      site: {{type: string(64), from: {{key: site}}}}
      kind: {{type: string(40), empty_is_null: true}}
      number: integer
      ratio: number
      up: boolean
      seen: datetime(0)
      note: text
"""
MAPPING = _MAPPING.format(source="keys: '/things/{site}/{id}'")
TEGA_MAPPING = _MAPPING.format(source="paths: things.{site}.{id}")

PREFIX = "/things/"


def thing(name: str, number: int = 0, **more: Any) -> str:
    """A value, as JSON, that makes a row."""
    return json.dumps({"name": name, "number": number, **more})


class Bad(Exception):
    """A value that makes no row."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Bad("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise Bad(f"{name} is no JSON")


def row(site: str, value: bytes) -> Row:
    """The row of a value.

    :raises Bad: if there is none
    """
    try:
        found = json.loads(
            value.decode(), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise Bad("no JSON") from None
    if not isinstance(found, dict):
        raise Bad("no object")
    for name, kinds in (
        ("name", str), ("kind", str), ("number", int), ("ratio", (int, float)), ("up", bool),
        ("seen", str), ("note", str),
    ):  # fmt: skip
        given = found.setdefault(name, None)
        wrong = isinstance(given, bool) and kinds is not bool
        if given is not None and (wrong or not isinstance(given, kinds)):
            raise Bad(f"{name} has the wrong type")
        if isinstance(given, str) and ("\0" in given or not _is_unicode(given)):
            raise Bad(f"{name} is no text")
    if not isinstance(found["name"], str) or len(found["name"]) > 64 or len(site) > 64:
        raise Bad("no name, or a long one")
    if len(found["kind"] or "") > 40:
        raise Bad("kind is too long")
    if found["number"] is not None and not -(2**63) <= found["number"] < 2**63:
        raise Bad("number does not fit")
    if found["ratio"] is not None and abs(found["ratio"]) == float("inf"):
        raise Bad("ratio does not fit")
    seen = found["seen"]
    if seen is not None:
        try:
            seen = str(datetime.strptime(seen, "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError:
            raise Bad("seen is no time") from None
    return {
        "name": found["name"], "site": site, "kind": found["kind"] or None,
        "number": found["number"], "ratio": found["ratio"], "up": found["up"], "seen": seen,
        "note": found["note"],
    }  # fmt: skip


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def rows(held: Mapping[str, tuple[bytes, int]]) -> tuple[dict[str, Row], set[str]]:
    """What the table must be, and which keys are rejected.

    :param held: what the source holds: by key the value and the revision of its last change
    :returns: the rows by name, and keys
    """
    made: dict[str, tuple[int, Row]] = {}
    rejected = set()
    for key, (value, revision) in held.items():
        parts = key.split("/")
        try:
            if len(parts) != 4 or not parts[2] or not parts[3]:
                raise Bad("another key")
            one = row(parts[2], value)
        except Bad:
            rejected.add(key)
            continue
        # The newest revision wins.
        if one["name"] not in made or made[one["name"]][0] < revision:
            made[one["name"]] = revision, one
    return {name: one for name, (_, one) in made.items()}, rejected


def plain(row: Row) -> Row:
    """A row of a database, as the rows above are, whatever the database makes of its types."""
    seen = row["seen"]
    if seen is not None:
        seen = str(seen).partition(".")[0].partition("+")[0]
    up = row["up"]
    return {**row, "seen": seen, "up": None if up is None else bool(up)}
