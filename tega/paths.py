"""Paths, keys and patterns: the only place that splits or quotes them.

A path is a tuple of keys. It is written in two ways: dotted, ``routes."10.0.0.0/24".metric``, where
a key that holds a dot, a space, a quote or a control character is a JSON string; and as a URL,
``/routes/10.0.0.0%2F24/metric/``, one percent-encoded key per segment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from tega.errors import Malformed

#: A path: keys from the root down; the root's own name is the first.
Path = tuple[str, ...]

#: Most bytes of UTF-8 in one key.
MAX_KEY = 255

#: Most keys in a path, the root's included, and the deepest nesting of a value.
MAX_DEPTH = 64

#: Most characters of a client's transaction id.
MAX_TXID = 255

#: Paths of which both forms are remembered, most, and the most characters or keys of one: agents
#: write to the same few places over and over.
_REMEMBERED: Final = 4096
_SHORT: Final = 200
_SHALLOW: Final = 8

#: Most keys of an object that are remembered together.
_FEW: Final = 16

_TEGA_ID = re.compile(r"[A-Za-z0-9.-][A-Za-z0-9._-]*")

# Longer or other text is no name of a host.
_HOST = re.compile(r"[^\s/@?#\[\]\\]{1,255}")


def check_key(key: str) -> None:
    """Refuse what cannot be a key: empty, too long, reserved, or not text.

    :raises Malformed: naming the key and the rule
    """
    if not key:
        raise Malformed("empty key: a key has at least one character")
    # Text and size first, so that the details of the rule after them can go into any error body.
    if key.isascii():
        size = len(key)
    else:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise Malformed(f"key {key!r} holds a lone surrogate: not Unicode text") from None
    if size > MAX_KEY:
        raise Malformed(
            f"key too long: {key[:32]!r}... has {size} bytes, the limit is {MAX_KEY}",
            size=size,
            limit=MAX_KEY,
        )
    if key[0] == "_":
        raise Malformed(
            f"reserved key {key!r}: names that start with '_' are tega's own; choose another",
            key=key,
        )


def check_keys(keys: Collection[Any]) -> None:
    """Refuse what cannot be the keys of one object.

    :raises Malformed: naming the first that cannot, and the rule
    """
    # Documents of one kind have the same keys over and over.
    if len(keys) <= _FEW:
        try:
            _checked(tuple(keys))
            return
        except TypeError:
            # Something that is no key, and cannot be remembered: say so below.
            pass
    _check_keys(keys)


def _check_keys(keys: Collection[Any]) -> None:
    # Most keys are short and plain, which is soon seen of all of them together.
    try:
        joined = "\n".join(keys)
    except TypeError:
        key = next(key for key in keys if not isinstance(key, str))
        raise Malformed(f"key {key!r} is {type(key).__name__}: keys are strings") from None
    if (
        joined.isascii()
        and len(joined) <= MAX_KEY
        and joined[:1] != "_"
        and "\n_" not in joined
        and "" not in keys
    ):
        return
    for key in keys:
        check_key(key)


_checked = lru_cache(_REMEMBERED // 4)(_check_keys)


def check(path: Iterable[str]) -> Path:
    """A sequence of keys as a path, each one checked.

    :raises Malformed: for a key that cannot be one, or an empty path
    """
    keys = tuple(path)
    if not keys:
        raise Malformed("empty path: name a root, such as 'inventory'")
    for key in keys:
        check_key(key)
    return keys


def parse(dotted: str) -> Path:
    """Read a dotted path.

    >>> parse('routes."10.0.0.0/24".metric')
    ('routes', '10.0.0.0/24', 'metric')

    :raises Malformed: naming the path and what is wrong with it
    """
    return _parsed(dotted) if len(dotted) <= _SHORT else _read(dotted)


def _read(dotted: str) -> Path:
    try:
        if '"' not in dotted:
            return check(dotted.split("."))
        return check([key for key, _ in _split_quoted(dotted)])
    except Malformed as error:
        shown = dotted if len(dotted) <= 120 else dotted[:120] + "..."
        error.message = f"malformed path {shown!r}: {error.message}"
        error.details.setdefault("path", shown)
        raise


_parsed = lru_cache(_REMEMBERED)(_read)


def _split_quoted(dotted: str) -> list[tuple[str, bool]]:
    """The keys, each with whether it was quoted."""
    keys = []
    position = 0
    while True:
        quoted = dotted.startswith('"', position)
        if quoted:
            try:
                key, end = json.JSONDecoder().raw_decode(dotted, position)
            except json.JSONDecodeError as error:
                raise Malformed(f"bad quoted key at character {position}: {error.msg}") from None
        else:
            end = dotted.find(".", position)
            if end < 0:
                end = len(dotted)
            key = dotted[position:end]
            if '"' in key:
                raise Malformed(f"the key at character {position} holds a quote: quote it as JSON")
        keys.append((key, quoted))
        if end == len(dotted):
            return keys
        if dotted[end] != ".":
            raise Malformed(f"a dot must follow the quoted key before character {end}")
        position = end + 1


def dotted(path: Iterable[str]) -> str:
    """Write a path with dots, quoting the keys that need it."""
    path = tuple(path)
    joined = ".".join(path)
    # Most paths need no quotes at all, which is soon seen of all keys together.
    if joined.count(".") < len(path) and joined.isascii() and _is_plain(joined.replace(".", "")):
        return joined
    return ".".join([key if _is_plain(key) else _quoted(key) for key in path])


def _is_plain(key: str) -> bool:
    return "." not in key and '"' not in key and " " not in key and key.isprintable()


def _quoted(key: str) -> str:
    shown = [
        json.dumps(c)[1:-1] if not c.isprintable() or c in '"\\' else c for c in key
    ]
    return '"' + "".join(shown) + '"'


def wire(path: Iterable[str]) -> str:
    """Write a path with dots and without any space, as log and message parameters need it."""
    path = tuple(path)
    return _written(path) if len(path) <= _SHALLOW else _write(path)


def _write(path: Path) -> str:
    return dotted(path).replace(" ", "\\u0020")


_written = lru_cache(_REMEMBERED)(_write)


def from_url(url: str) -> Path:
    """Read the path part of a URL; the empty tuple for ``/``.

    :raises Malformed: naming the URL and what is wrong with it
    """
    if url in ("", "/"):
        return ()
    inner = url[1:] if url.startswith("/") else url
    if inner.endswith("/"):
        inner = inner[:-1]
    try:
        segments = inner.split("/")
        return check(segments if "%" not in inner else map(unescape, segments))
    except Malformed as error:
        shown = url if len(url) <= 120 else url[:120] + "..."
        error.message = f"malformed URL {shown!r}: {error.message}"
        raise


def unescape(segment: str) -> str:
    """Undo percent-encoding.

    :raises Malformed: where the bytes are not UTF-8
    """
    try:
        return unquote_to_bytes(segment).decode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise Malformed(f"segment {segment[:64]!r} is not UTF-8: {error.reason}") from None


def to_url(path: Iterable[str]) -> str:
    """Write a path as a URL: ``/a/b/c/``."""
    return "/" + "".join([quote(key, safe="") + "/" for key in path])


def split_pattern(pattern: str) -> tuple[str, ...]:
    r"""Split a regex path at ``\.`` into one pattern per level."""
    if not pattern:
        raise Malformed("empty pattern: give one regular expression per level, split at '\\.'")
    return tuple(pattern.split("\\."))


def split_globs(text: str) -> tuple[str | tuple[str, ...], ...]:
    """Split a dotted path in which ``*`` stands for any text of a key, none included.

    >>> split_globs('inventory.ne*."a*b"')
    ('inventory', ('ne', ''), 'a*b')

    :returns: for each level its key, or the parts of a key between the stars
    :raises Malformed: naming the path and what is wrong with it
    """
    try:
        levels: list[str | tuple[str, ...]] = []
        for key, quoted in _split_quoted(text):
            if quoted or "*" not in key:
                check_key(key)
                levels.append(key)
            else:
                levels.append(tuple(key.split("*")))
        return tuple(levels)
    except Malformed as error:
        error.message = f"malformed path {text[:120]!r}: {error.message}"
        raise


@lru_cache(_REMEMBERED // 4)
def check_tega_id(tega_id: str) -> str:
    """Refuse what cannot be a tega id: letters, digits, ``-``, ``_`` and ``.``, not ``_`` first.

    :returns: the id
    :raises Malformed: naming it
    """
    if not _TEGA_ID.fullmatch(tega_id) or len(tega_id) > MAX_KEY:
        raise Malformed(
            f"malformed tega id {tega_id[:64]!r}: use letters, digits, '-', '_' and '.', "
            "not starting with '_'"
        )
    return tega_id


def check_host(host: str) -> str:
    """Refuse what cannot be the name or address of a host.

    :returns: the host
    :raises Malformed: naming it
    """
    try:
        known = bool(_HOST.fullmatch(host) and host.encode("idna"))
    except UnicodeError:
        known = False
    if not known:
        raise Malformed(f"{host[:64]!r} is not the name or address of a host")
    return host


def check_txid(txid: str) -> str:
    """Refuse what cannot be a client's transaction id: 1 to 255 characters of Unicode text.

    :returns: the id
    :raises Malformed: naming it
    """
    try:
        txid.encode()
    except UnicodeEncodeError:
        raise Malformed(f"transaction id {txid[:64]!r} holds a lone surrogate") from None
    if not 0 < len(txid) <= MAX_TXID:
        raise Malformed(
            f"transaction id of {len(txid)} characters, {txid[:64]!r}: use 1 to {MAX_TXID}"
        )
    return txid
