"""Values as text: YAML with the JSON schema, read strictly and printed one leaf container a line.

Only ``true``, ``false``, ``null``, ``~`` and JSON numbers are not strings: ``no``, ``010``,
``12:34:56`` and ``2026-11-21`` are, because network data must survive. Keys are always strings.
Duplicate keys, tags, anchors, aliases and a value left out are refused, with line and column.

Printed, a container of leaves (a list is a leaf) stands in flow style on one line, a container of
containers in block style. Lines are never wrapped. What would not read back the same is quoted, and
what a terminal might obey is escaped, so that ``loads(dumps(value)) == value`` for every value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from yaml import events
from yaml.error import MarkedYAMLError
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner
from yaml.tokens import FlowMappingEndToken, FlowSequenceEndToken, ScalarToken

from tega import strictjson
from tega.errors import Malformed

#: Containers and lists within each other that a value may have. The server's own limit is lower.
MAX_NESTING = 200

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None}


# ---- reading -------------------------------------------------------------------------------------


def loads(text: str) -> Any:
    """Read one value.

    :returns: dict, list, str, int, float, bool or None, owned by the caller
    :raises Malformed: saying what is wrong, where, and what would be right
    """
    try:
        value = strictjson.loads(text.encode())
    except (Malformed, UnicodeEncodeError):
        # Most of what is typed is no JSON; and where bad JSON is meant, the YAML parser tells the
        # line and the column.
        return _read(text)
    if _nesting(value) > MAX_NESTING:
        raise Malformed(f"bad value: nested deeper than {MAX_NESTING} levels")
    return value


def resolve(plain: str) -> Any:
    """The value of an unquoted scalar: a word, a number, or else the text itself.

    :raises Malformed: for a number too large to hold
    """
    if plain in _WORDS:
        return _WORDS[plain]
    number = _NUMBER.fullmatch(plain)
    if not number:
        return plain
    if number[1] is None and number[2] is None:
        try:
            return int(plain)
        except ValueError:
            raise Malformed(f"an integer of {len(plain)} digits is too long: quote it") from None
    value = float(plain)
    if math.isinf(value):
        raise Malformed(f"the number {plain[:40]} is too large: quote it to keep it as text")
    return value


class _Events(Reader, Scanner, Parser):
    """PyYAML's parser, up to the events, with the rules of YAML 1.2 for plain flow scalars.

    PyYAML ends a plain scalar in ``{}`` and ``[]`` at a ``?`` and lets none start with a colon;
    URLs and addresses such as ``::1`` need both.
    """

    _BLANK = "\0 \t\r\n"
    _FLOW = ",[]{}"
    _BLOCK_RUN = re.compile(r"(?!#)(?:[^\0 \t\r\n:]|:(?![\0 \t\r\n]))+")
    _FLOW_RUN = re.compile(r"(?!#)(?:[^\0 \t\r\n:,\[\]{}]|:(?![\0 \t\r\n,\[\]{}]))+")

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)

    def _blank_follows(self) -> bool:
        return self.peek(1) in (self._BLANK + self._FLOW if self.flow_level else self._BLANK)

    def check_key(self) -> bool:
        return self._blank_follows()

    def check_value(self) -> bool:
        if self._blank_follows():
            return True
        # JSON writes {"a":1}: right behind a quoted key a colon needs no blank.
        last = self.tokens[-1] if self.flow_level and self.tokens else None
        return (
            isinstance(last, (FlowMappingEndToken, FlowSequenceEndToken))
            or (isinstance(last, ScalarToken) and not last.plain)
        ) and last.end_mark.index == self.index

    def check_plain(self) -> bool:
        first = self.peek()
        if first in "-?:":
            return not self._blank_follows()
        return first not in "\0 \t\r\n,[]{}#&*!|>'\"%@`"

    def scan_plain(self) -> ScalarToken:
        run = self._FLOW_RUN if self.flow_level else self._BLOCK_RUN
        indent = self.indent + 1
        start = end = self.get_mark()
        chunks: list[str] = []
        spaces: list[str] | None = []
        while found := run.match(self.buffer, self.pointer):
            self.allow_simple_key = False
            chunks += [*(spaces or ()), found[0]]
            self.forward(len(found[0]))
            end = self.get_mark()
            spaces = self.scan_plain_spaces(indent, start)
            if not spaces or (not self.flow_level and self.column < indent):
                break
        return ScalarToken("".join(chunks), True, start, end)


class _Open:
    """A container or list that is being read."""

    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        self.value = value
        self.key: str | None = None


def _read(text: str) -> Any:
    _check_characters(text)
    parser = _Events(text)
    try:
        return _build(parser, text)
    except MarkedYAMLError as error:
        problem = str(error.problem).replace("cannot start any token", "must be quoted")
        _refuse(problem, error.problem_mark or parser.get_mark(), error)
    except (ValueError, OverflowError) as error:
        if isinstance(error, Malformed):
            raise
        # An escape beyond Unicode, "\Uffffffff", comes out of PyYAML as chr() raised it.
        _refuse("an escape that is no Unicode character", parser.get_mark(), error)


def _build(parser: _Events, text: str) -> Any:
    """Put the parser's events together, without recursion."""
    result: list[Any] = []
    stack = [_Open(result)]
    documents = 0
    while True:
        event = parser.get_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, events.StreamEndEvent):
            break
        if isinstance(event, events.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _refuse("a second document: give one value", mark)
        if not isinstance(event, events.NodeEvent):
            if isinstance(event, events.CollectionEndEvent):
                stack.pop()
            continue
        _check_plain_yaml(event)
        if isinstance(event, events.ScalarEvent):
            _add(stack[-1], _scalar(event, stack[-1]), mark)
            continue
        child: dict[str, Any] | list[Any] = (
            {} if isinstance(event, events.MappingStartEvent) else []
        )
        _add(stack[-1], child, mark)
        stack.append(_Open(child))
        if len(stack) > MAX_NESTING + 1:
            _refuse(f"nested deeper than {MAX_NESTING} levels", mark)
    if not result:
        raise Malformed("no value: type one as YAML or JSON (null is written null)")
    return result[0]


def _check_plain_yaml(event: events.NodeEvent) -> None:
    if isinstance(event, events.AliasEvent):
        _refuse(f"alias '*{event.anchor}': quote the text if it is meant so", event.start_mark)
    if event.anchor is not None:
        _refuse(f"anchor '&{event.anchor}': quote the text if it is meant so", event.start_mark)
    if getattr(event, "tag", None) is not None:
        _refuse("a tag ('!...'): quote the text if it is meant so", event.start_mark)


def _scalar(event: events.ScalarEvent, parent: _Open) -> Any:
    text = event.value
    is_key = isinstance(parent.value, dict) and parent.key is None
    if event.implicit[0]:
        if not text:
            _refuse(_missing(parent), event.start_mark)
        if is_key:
            return text
        try:
            return resolve(text)
        except Malformed as error:
            _refuse(error.message, event.start_mark)
    if text.isascii():
        return text
    try:  # JSON writes a character beyond U+FFFF as two escapes, which PyYAML leaves apart.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        _refuse("half a surrogate pair, which is no Unicode character", event.start_mark)


def _missing(parent: _Open) -> str:
    if isinstance(parent.value, list):
        what = "a value"
    elif parent.key is None:
        what = "a key"
    else:
        what = f"a value after {parent.key[:64]!r}"
        if ":" in parent.key:
            return f"{what} is missing: a blank must follow the colon behind a key"
    return f"{what} is missing: null is written null, empty text ''"


def _add(parent: _Open, value: Any, mark: Any) -> None:
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.key is not None:
        parent.value[parent.key] = value
        parent.key = None
    elif not isinstance(value, str):
        _refuse("a key that is a list or a container: a key is text", mark)
    elif value in parent.value:
        _refuse(f"duplicate key {value[:64]!r}: give it once", mark)
    else:
        parent.key = value


def _check_characters(text: str) -> None:
    """Refuse what PyYAML refuses without a line, or reads as a line break by the rules of 1.1."""
    found = Reader.NON_PRINTABLE.search(text) or re.search("[\x85\u2028\u2029]", text)
    if found:
        before = text[: found.start()]
        line = before.count("\n")
        column = len(before) - before.rfind("\n") - 1
        code = ord(found[0])
        problem = f"the character U+{code:04X} as it is: write it as an escape in double quotes"
        if 0xDC80 <= code <= 0xDCFF:  # A byte that could not be decoded comes in as one of these.
            problem = f"the byte 0x{code - 0xDC00:02X}, which is not UTF-8"
        raise _malformed(problem, line, column)


def _refuse(problem: str, mark: Any, cause: Exception | None = None) -> NoReturn:
    """Refuse what stands at a mark of PyYAML's."""
    raise _malformed(problem, mark.line, mark.column) from cause


def _malformed(problem: str, line: int, column: int) -> Malformed:
    return Malformed(f"bad value at line {line + 1}, column {column + 1}: {problem}")


def _nesting(value: Any) -> int:
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


# ---- printing ------------------------------------------------------------------------------------

# What cannot stand unquoted: what begins something else, a colon that would end a key, a comment,
# blanks at the end. In flow style, commas and brackets end a scalar too.
_BEGINS = re.compile(r"[ ?:,\[\]{}#&*!|>'\"%@`]|-(?:[ ,\[\]{}]|\Z)|---|\.\.\.")
_BLOCK_ENDS = re.compile(r":(?: |\Z)| #| \Z")
_FLOW_ENDS = re.compile(r"[,\[\]{}]|:\Z|: | #| \Z")

_TOO_DEEP = "the value is nested too deep to print"

# YAML reads a key without the mark "?" only up to 1024 characters.
_MAX_KEY = 1000


def dumps(value: Any) -> str:
    """Print one value, without a newline at the end.

    :param value: dict, list or tuple, str, int, float, bool or None, in any depth
    :raises Malformed: where the nesting is too deep to print
    """
    return dumps_members(value) if _is_block(value) else dumps_line(value)


def dumps_members(container: dict[str, Any]) -> str:
    """Print a container of any kind with each of its members, whose names are short, on a line."""
    try:
        return "\n".join(_block(container, ""))
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None


def dumps_line(value: Any) -> str:
    """Print one value of any kind on one line."""
    try:
        return _inline(value, _BLOCK_ENDS)
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None


def printable(text: str) -> str:
    r"""Text as a terminal may have it: newlines kept, what else is not printable escaped.

    >>> printable("\x1b[2J")
    '\\u001b[2J'
    """
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() or c == "\n" else _escape(c) for c in text])


def _is_block(value: Any) -> bool:
    """Whether it is a container of containers, and no key in it is too long for block style."""
    return (
        isinstance(value, dict)
        and any(isinstance(child, dict) for child in value.values())
        and not any(_is_long(key, _BLOCK_ENDS) for key in value)
    )


def _block(container: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, child in container.items():
        name = indent + _text(key, _BLOCK_ENDS) + ":"
        if _is_block(child):
            lines.append(name)
            lines += _block(child, indent + "  ")
        else:
            lines.append(f"{name} {_inline(child, _BLOCK_ENDS)}")
    return lines


def _inline(value: Any, ends: re.Pattern[str]) -> str:
    if isinstance(value, str):
        return _text(value, ends)
    if isinstance(value, dict):
        pairs = [f"{_flow_key(key)}: {_inline(child, _FLOW_ENDS)}" for key, child in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join([_inline(item, _FLOW_ENDS) for item in value]) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _flow_key(key: str) -> str:
    return ("? " if _is_long(key, _FLOW_ENDS) else "") + _text(key, _FLOW_ENDS)


def _is_long(key: str, ends: re.Pattern[str]) -> bool:
    # An escaped character takes ten at most.
    return len(key) > _MAX_KEY // 10 and len(_text(key, ends)) > _MAX_KEY


def _text(text: str, ends: re.Pattern[str]) -> str:
    if not text.isprintable():
        shown = "".join([_escape(c) if c in '"\\' or not c.isprintable() else c for c in text])
        return f'"{shown}"'
    if (
        not text
        or text in _WORDS
        or _NUMBER.fullmatch(text)
        or _BEGINS.match(text)
        or ends.search(text)
    ):
        return "'" + text.replace("'", "''") + "'"
    return text


def _escape(character: str) -> str:
    """An escape that both YAML and, up to U+FFFF, JSON read back."""
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else json.dumps(character)[1:-1]
