"""How answers and refusals look."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from tega.cli import yamltext
from tega.cli.commands import NO_DATA, Answer, CommitRefused
from tega.cli.yamltext import printable
from tega.driver.errors import DriverError

#: The members of a change, in the order in which they are shown.
_CHANGE = ("ope", "path", "tega_id", "instance", "seq", "version", "backto", "resync")


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


def change_line(change: dict[str, Any], form: Format) -> str:
    """A change on one line."""
    data = ordered(change)
    return (yamltext.dumps_line(data) if form is Format.YAML else _json(data)) + "\n"


def output(data: Any, form: Format, terminal: bool) -> str:
    """Data as a one-shot command prints it, with a newline at the end.

    :param terminal: it goes to a terminal, which might obey what stands in a raw string
    """
    if form is Format.YAML:
        return yamltext.dumps(data) + "\n"
    if form is Format.RAW and isinstance(data, str):
        return (printable(data) if terminal else data) + "\n"
    return _json(data) + "\n"


def notice(changes: list[dict[str, Any]]) -> str:
    """The changes of a transaction as the prompt shows them, with an empty line after them."""
    shown = [yamltext.dumps_members(ordered(change)) for change in changes]
    items = ["- " + text.replace("\n", "\n  ") for text in shown]
    return "\n".join(["<NOTIFY>", *items, "\n"])


def message(channel: str, tega_id: str, content: Any) -> str:
    """A message as the prompt shows it, with an empty line after it."""
    data = {"channel": channel, "tega_id": tega_id, "message": content}
    return f"<MESSAGE>\n{yamltext.dumps_members(data)}\n\n"


def ordered(change: dict[str, Any]) -> dict[str, Any]:
    """A change with its members in the order in which they are shown."""
    return {name: change[name] for name in _CHANGE if name in change}


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
    return printable("\n".join(lines))


def _json(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False)
    if text.isprintable():
        return text
    # What is not printable stands in strings, where JSON lets it be escaped.
    return "".join([c if c.isprintable() else json.dumps(c)[1:-1] for c in text])
