"""JSON in and out, strictly: what the standard leaves open, tega refuses.

Refused are ``NaN`` and infinities, numbers that overflow to infinity, duplicate keys, lone
surrogates and bytes that are not UTF-8. Integers keep every digit. Output has sorted keys, so that
the same document always prints the same.
"""

from __future__ import annotations

import json
import re
from typing import Any

import immutables
import msgspec

from tega.errors import Malformed


def loads(text: bytes) -> Any:
    """Read one JSON document in UTF-8.

    :returns: dict, list, str, int, float, bool or None, owned by the caller
    :raises Malformed: saying what is wrong, with the byte offset where one is known
    """
    try:
        value = _decode(text)
        if b"{" in text and not _surely_unique(text, value):
            json.loads(text, object_pairs_hook=_unique)
    except msgspec.ValidationError as error:
        raise Malformed(f"bad JSON: {error}: tega takes finite floats and integers of up to 4300"
                        " digits") from None
    except msgspec.DecodeError as error:
        raise Malformed(f"bad JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"bad JSON: not UTF-8 ({error.reason})") from None
    except RecursionError:
        raise Malformed("bad JSON: nested too deep") from None
    return value


def dumps(value: Any) -> bytes:
    """Write a JSON document in UTF-8 with sorted keys and no spaces.

    ``immutables.Map`` counts as an object, a tuple as an array.
    """
    return _encode(value)


def _surely_unique(text: bytes, value: Any) -> bool:
    """Whether it is plain to see that no key was given twice.

    What a compact writer has made reads back to the very same text. In any other, each key brings
    one colon, so as many colons as keys leave no room for a duplicate. Where none is set off from
    its key's quote, colons inside strings (MAC and IPv6 addresses) need not count.
    """
    if _encode_as_is(value) == text:
        return True
    keys = _count_keys(value)
    return text.count(b":") == keys or (
        text.count(b'":') == keys and _SET_OFF.search(text) is None
    )


def _count_keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(
            [_count_keys(child) for child in value.values() if type(child) in (dict, list)]
        )
    if type(value) is list:
        return sum([_count_keys(child) for child in value if type(child) in (dict, list)])
    return 0


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise Malformed(f"duplicate key {key[:64]!r} in one object: give it once", key=key[:64])
        seen.add(key)


#: A colon that does not follow its key's quote at once.
_SET_OFF = re.compile(rb'"[ \t\r\n]+:')


def _hook(value: Any) -> Any:
    if isinstance(value, immutables.Map):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_decode = msgspec.json.Decoder().decode
_encode_as_is = msgspec.json.Encoder().encode
_encode = msgspec.json.Encoder(enc_hook=_hook, order="deterministic").encode
