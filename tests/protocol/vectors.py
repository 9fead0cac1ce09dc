"""The vectors of `tests/vectors`, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).resolve().parents[1] / "vectors"


def load(name: str) -> Any:
    """The content of a file of vectors."""
    return json.loads((DIRECTORY / name).read_text(encoding="utf-8"))


def whole(given: str | list[Any]) -> str:
    """A text that may be given in parts, some of them several times."""
    if isinstance(given, str):
        return given
    return "".join([part if isinstance(part, str) else part[0] * part[1] for part in given])


def octets(given: str | list[Any]) -> bytes:
    """Bytes in hex, which may be given in parts."""
    return bytes.fromhex(whole(given))
