"""How answers and refusals look."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from tega.cli import yamltext
from tega.cli.commands import NO_DATA, Answer, CommitRefused
from tega.driver.errors import DriverError


class Format(Enum):
    """How a one-shot command prints data."""

    YAML = "yaml"
    JSON = "json"
    RAW = "raw"


def conversation(answer: Answer) -> str:
    """An answer as the prompt shows it: data with an empty line after it, or a line of words."""
    if answer.said:
        return answer.said + "\n"
    return "" if answer.data is NO_DATA else yamltext.dumps(answer.data) + "\n\n"


def output(data: Any, form: Format, terminal: bool) -> str:
    """Data as a one-shot command prints it, with a newline at the end.

    :param terminal: it goes to a terminal, which might obey what stands in a raw string
    """
    if form is Format.YAML:
        return yamltext.dumps(data) + "\n"
    if form is Format.RAW and isinstance(data, str):
        return (yamltext.printable(data) if terminal else data) + "\n"
    return _json(data) + "\n"


def refusal(error: Exception) -> str:
    """What went wrong, for people, without a newline at the end.

    The status and its phrase stand on the first line, the reason on the next.
    """
    lines = []
    if isinstance(error, DriverError):
        if error.status is not None:
            lines.append(f"{error.status} {error.reason}".rstrip())
        if error.message:
            lines.append(error.message)
    else:
        lines.append(str(error))
    if isinstance(error, CommitRefused):
        lines.append(f"id: {error.txid} {error.fate}")
    return yamltext.printable("\n".join(lines))


def _json(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False)
    if text.isprintable():
        return text
    # What is not printable stands in strings, where JSON lets it be escaped.
    return "".join([c if c.isprintable() else json.dumps(c)[1:-1] for c in text])
