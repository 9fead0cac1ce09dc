"""What a server tells its operator on stderr: lines for people, or one JSON object a line.

Much of a message may come from a client: keys, tega ids, URLs. None of it can begin a line of its
own or command a terminal: what is not printable is escaped, and tracebacks are indented.

Whoever should read them, a pager or a pipe, may stand still; the server does not wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import sys
import threading
from datetime import datetime, timezone
from typing import Any, Final

from tega.settings import Settings

#: What every record has; the rest was given with the message, as ``extra=``.
_USUAL: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime"))

#: Messages that may wait to be written.
_WAITING: Final = 10_000

#: At the end they have so long for that, seconds.
_FAREWELL: Final = 1.0


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


class Writer(logging.Handler):
    """Writes to a descriptor, in a thread of its own. What finds no room to wait is left out, and
    the next message says how much that was.

    :param descriptor: of a file or pipe
    :param most: messages that may wait
    """

    def __init__(self, descriptor: int, most: int = _WAITING) -> None:
        super().__init__()
        self._descriptor = descriptor
        # None: there is no more to come.
        self._waiting: queue.Queue[str | None] = queue.Queue(most)
        self._left_out = 0
        # A daemon: it may never come back from writing.
        self._thread = threading.Thread(target=self._write_all, name="tega-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if self._left_out:
                text = f"{self.format(_left_out(self._left_out))}\n{text}"
            self._waiting.put_nowait(text)
            self._left_out = 0
        except queue.Full:
            self._left_out += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, as far as that can be done in a moment."""
        super().close()
        try:
            self._waiting.put(None, timeout=_FAREWELL)
        except queue.Full:
            return
        self._thread.join(_FAREWELL)

    def _write_all(self) -> None:
        while (text := self._waiting.get()) is not None:
            left = f"{text}\n".encode("utf-8", "backslashreplace")
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [])
                except OSError:
                    # Nobody is there to be told, of this either.
                    break


def _left_out(count: int) -> logging.LogRecord:
    told = "%d messages were left out: those before were not read in time"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, (count,), None)


def begin_logging(settings: Settings) -> TextFormatter:
    """Print messages as the settings say.

    :returns: takes the server's tega id, once that is known
    """
    made = JsonFormatter() if settings.log_format == "json" else TextFormatter()
    handler = Writer(sys.stderr.fileno())
    handler.setFormatter(made)
    logging.basicConfig(level=settings.loglevel, handlers=[handler])
    return made
