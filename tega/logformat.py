"""What a server tells its operator on stderr: lines for people, or one JSON object a line.

Much of a message may come from a client: keys, tega ids, URLs. None of it can begin a line of its
own or command a terminal: what is not printable is escaped, and tracebacks are indented.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any, Final

from tega.settings import Settings

#: What every record has; the rest was given with the message, as ``extra=``.
_USUAL: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime"))


def visible(text: str) -> str:
    """A text with everything escaped that is not printable."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else json.dumps(c)[1:-1] for c in text])


class TextFormatter(logging.Formatter):
    """A line a message, for people; a traceback follows it, indented.

    :ivar tega_id: the server's, once that is known; lines leave it out
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.tega_id: str | None = None

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join([f"    {visible(line)}" for line in text.splitlines()])


class JsonFormatter(TextFormatter):
    """A JSON object a line, for programs: ``time``, ``level``, ``logger``, ``message``, ``tega_id``
    of the server, ``exception`` with a traceback, and what was given with the message."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        told: dict[str, Any] = {
            "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self.tega_id is not None:
            told["tega_id"] = self.tega_id
        told |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            told["exception"] = logging.Formatter.formatException(self, record.exc_info)
        # In ASCII: then no character means anything to a terminal.
        return json.dumps(told, default=str)


def begin_logging(settings: Settings) -> TextFormatter:
    """Print messages as the settings say.

    :returns: takes the server's tega id, once that is known
    """
    made = JsonFormatter() if settings.log_format == "json" else TextFormatter()
    handler = logging.StreamHandler()
    handler.setFormatter(made)
    logging.basicConfig(level=settings.loglevel, handlers=[handler])
    return made
