"""The format of 2017, which is read and never written.

Lines are Python literals of dicts between ``?`` and ``@TIMESTAMP``; in older logs a transaction
ends in ``:!``, and ``?`` may be missing. Beside them there are rollbacks, ``-N TEGA_ID ROOT``, and
lines with ``*``, which say nothing about the data.

A literal is looked through token by token before Python parses it, so that nothing but a plain
value gets that far; and nothing in a log is ever executed. See doc/tega-db-format.md for the rules.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import immutables

from tega.errors import Corrupt, LeafInTheWay, Malformed, NotFound
from tega.log import segments
from tega.log.base import Settings
from tega.log.record import Data
from tega.paths import Path as NodePath
from tega.paths import check_key, dotted, parse
from tega.store import node
from tega.store.children import children_of
from tega.store.commit import Delete, make_put
from tega.store.history import Root, State
from tega.store.node import ABSENT, Content, Leaf, MaybeContent, Node
from tega.store.staging import Draft

log = logging.getLogger(__name__)

#: The list of old roots was that long, whatever ``maxlen`` said.
_OLD_ROOTS: Final = 10

#: Most bytes in a line. Parsing takes a hundred times as much memory.
_LONGEST: Final = 64 << 20

#: Levels of a line beside those of the data: the record, and a leaf with its attributes.
_WRAPPING: Final = 2

_ATTRIBUTES: Final = {"_value", "_version", "_oid", "_parent", "_ephemeral"}

_TOKEN = re.compile(
    r"[ \t]*(?:"
    r"(?P<open>[\[({])|(?P<close>[\])}])|(?P<between>[,:])"
    r"|(?P<value>-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|True|False|None"
    r"|'[^'\\]*(?:\\.[^'\\]*)*'"
    r'|"[^"\\]*(?:\\.[^"\\]*)*")'
    r")"
)
_ROLLBACK = re.compile(rb"-(\d{1,9}) (\S+) (\S.*)")
_OF_TODAY = re.compile(rb"\n@\d{4}-\d\d-\d\dT[^\n]*\} [0-9a-f]{8}\n")


class Place(NamedTuple):
    """Where a line is."""

    path: Path
    line: int
    offset: int

    def __str__(self) -> str:
        return f"{self.path}: line {self.line}"


class BadLine(Exception):
    """A line that cannot be read."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


#: Takes what was read otherwise than it stands there: the place, and what became of it.
Warn: TypeAlias = Callable[[Place, str], None]


def _log_warning(place: Place, text: str) -> None:
    log.warning("%s: %s", place, text)


class Record(NamedTuple):
    """A line with a dict."""

    place: Place
    ope: str
    path: NodePath
    tega_id: str
    instance: Any


class Rollback(NamedTuple):
    """A line that takes a root back by `back` old roots."""

    place: Place
    back: int
    tega_id: str
    root: str


class Transaction(NamedTuple):
    """What was committed at once: records, or one rollback.

    :ivar time: as it stands in the log; empty where there is none
    """

    records: tuple[Record, ...]
    time: str
    rollback: Rollback | None = None


class Step(NamedTuple):
    """A transaction, the segment that holds it, and the state after it."""

    path: Path
    transaction: Transaction
    state: State


def is_legacy(data: Data) -> bool:
    """Whether a segment is surely of 2017: it begins so, and no commit in it ends as today's do."""
    return segments.is_legacy(data) and _OF_TODAY.search(data) is None


def load(paths: Sequence[Path], life: str, settings: Settings) -> State:
    """The state that all segments add up to, as the first one of a new life.

    :param paths: all segments, oldest first
    :raises Corrupt: for the first line that cannot be read
    """
    state = State(life)
    try:
        for step in history(paths, life, settings):
            state = step.state
    except BadLine as bad:
        raise corrupt(bad) from None
    roots = {name: _trimmed(root, settings.maxlen) for name, root in state.roots.items()}
    return State(life, state.seq, immutables.Map(roots))


def history(
    paths: Sequence[Path], life: str, settings: Settings, warn: Warn = _log_warning
) -> Iterator[Step]:
    """Every transaction with the state after it, the last ten old roots kept.

    :raises BadLine: for the first line that cannot be read
    """
    state = State(life)
    for path in paths:
        for transaction in transactions(path, segments.data_of(path), settings.max_depth, warn):
            state = _applied(state, transaction, settings.max_depth, warn)
            yield Step(path, transaction, state)


# -- lines to transactions --------------------------------------------------------------------


def transactions(path: Path, data: Data, max_depth: int, warn: Warn) -> Iterator[Transaction]:
    """The transactions of a segment.

    One that has no end, since the server stopped while it wrote, is not joined to the next one, as
    2017's server did: it is left out, with a warning.

    :raises BadLine: for the first line that cannot be read
    """
    if _OF_TODAY.search(data) is not None:
        raise BadLine(Place(path, 1, 0), "this begins as a log of 2017, but holds commits of today")
    opened: Place | None = None
    records: list[Record] = []
    marked = False
    for place, line, whole in _lines(path, data):
        try:
            if line == b"?":
                _drop(opened, records, warn)
                opened, records, marked = place, [], True
            elif line[:1] == b"{":
                if opened is None and marked:
                    raise BadLine(place, "a record outside of a transaction")
                opened = opened or place
                records.append(_record(place, line.removesuffix(b":!"), max_depth))
                if line.endswith(b":!"):
                    yield Transaction(tuple(records), "")
                    opened, records = None, []
            elif line[:1] == b"@" or line.endswith(b":!"):
                if records:
                    yield Transaction(tuple(records), line[1:].decode(errors="replace"))
                opened, records = None, []
            elif line[:1] == b"-":
                # Rollbacks stand alone: records before it are of a transaction without an end.
                rollback = _rollback(place, line, whole)
                if records:
                    _drop(opened, records, warn)
                opened, records = None, []
                yield Transaction((), "", rollback)
            elif line and line[:1] != b"*":
                raise BadLine(place, f"neither a record nor a marker: {line[:40]!r}")
        except BadLine:
            if whole:
                raise
            warn(place, "a line cut short, left out")
    _drop(opened, records, warn)


def _lines(path: Path, data: Data) -> Iterator[tuple[Place, bytes, bool]]:
    """Each line, without spaces around it, and whether its newline is there."""
    number, start, size = 1, 0, len(data)
    while start < size:
        found = data.find(b"\n", start)
        end = found if found >= 0 else size
        yield Place(path, number, start), data[start:end].strip(), found >= 0
        number, start = number + 1, end + 1


def _drop(opened: Place | None, records: list[Record], warn: Warn) -> None:
    if opened is not None:
        warn(opened, f"a transaction without an end, {len(records)} records, left out")


def _rollback(place: Place, line: bytes, whole: bool) -> Rollback:
    found = _ROLLBACK.fullmatch(line)
    if found is None or not whole:
        raise BadLine(place, "a rollback is '-N TEGA_ID ROOT'")
    try:
        (root,) = parse(found[3].decode())
    except ValueError:
        raise BadLine(place, "a rollback is '-N TEGA_ID ROOT', ROOT the name of one") from None
    return Rollback(place, int(found[1]), found[2].decode(errors="replace"), root)


def _record(place: Place, line: bytes, max_depth: int) -> Record:
    try:
        value = literal(line, max_depth + _WRAPPING)
        if type(value) is not dict:
            raise Malformed("a record is a dict")
        ope, path, tega_id = value.get("ope"), value.get("path"), value.get("tega_id")
        if ope not in ("PUT", "DELETE", "SS"):
            raise Malformed(f"'ope' is PUT, DELETE or SS, not {ope!r}")
        if type(path) is not str or type(tega_id) not in (str, type(None)):
            raise Malformed("'path' and 'tega_id' are strings")
        if ope != "DELETE" and "instance" not in value:
            raise Malformed("'instance' is missing")
        who = node.freeze(tega_id or "")
        return Record(place, ope, parse(path), who, value.get("instance"))
    except Malformed as error:
        raise BadLine(place, error.message) from None


def literal(text: bytes, max_depth: int) -> Any:
    """The value of a Python literal: dict, list, tuple, set, string, number, True, False, None.

    :raises Malformed: for anything else, and where it nests too deep or is too long
    """
    if len(text) > _LONGEST:
        raise Malformed(f"a line of {len(text)} bytes: at most {_LONGEST} are read")
    try:
        source = text.decode()
        _guard(source, max_depth)
        return ast.literal_eval(source)
    except Malformed:
        raise
    # What is left after the guard: bytes that are no text, commas amiss, a list as a dict's key.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Malformed(f"not a Python literal: {error}") from None


def _guard(source: str, max_depth: int) -> None:
    """Let through only what tokens of literals make up: no operators, calls, subscripts or names.

    Python's parser may fall over its own stack where operators or brackets come by the thousand.
    """
    depth = position = 0
    complete = False
    while position < len(source):
        token = _TOKEN.match(source, position)
        if token is None or (complete and token.lastgroup in ("open", "value")):
            raise Malformed(f"not a plain Python literal at character {position}")
        depth += {"open": 1, "close": -1}.get(token.lastgroup or "", 0)
        if depth > max_depth:
            raise Malformed("nested too deep: over the depth limit, a setting")
        complete = token.lastgroup in ("close", "value")
        position = token.end()


def corrupt(bad: BadLine) -> Corrupt:
    """The error for a line that cannot be read: file, line, byte offset, and what to do."""
    place = bad.place
    return Corrupt(
        f"{place}, byte offset {place.offset}: {bad.reason}. Nothing was changed. This is read as "
        "a log of 2017: mend that line by hand, and keep a copy",
        file=str(place.path),
        line=place.line,
        offset=place.offset,
    )


# -- transactions to states -------------------------------------------------------------------


def _applied(state: State, transaction: Transaction, max_depth: int, warn: Warn) -> State:
    seq = state.seq + 1
    if transaction.rollback is not None:
        state = _rolled_back(state, transaction.rollback)
    for snapshot, records in groupby(transaction.records, lambda record: record.ope == "SS"):
        if snapshot:
            for record in records:
                state = _with_snapshot(state, record, max_depth, warn)
        else:
            state = _with_changes(state, list(records), transaction.time, max_depth, warn)
    return State(state.life, seq, state.roots)


def _rolled_back(state: State, rollback: Rollback) -> State:
    """The last `back` old roots are popped: the earliest of them is current, what was is gone."""
    root = state.roots.get(rollback.root)
    there = 0 if root is None else len(root.old)
    if root is None or not 0 < rollback.back <= there:
        raise BadLine(
            rollback.place,
            f"a rollback by {rollback.back} where {rollback.root} has {there} old roots",
        )
    version = root.version - rollback.back
    old = {number: root.old[number] for number in range(root.first, version)}
    chain = _chain(state, root, f"-{rollback.back}")
    return _with_root(
        state, Root(root.name, version, root.old[version], chain, immutables.Map(old))
    )


def _with_snapshot(state: State, record: Record, max_depth: int, warn: Warn) -> State:
    place, name, instance = record.place, record.path[0], record.instance
    if len(record.path) != 1:
        raise BadLine(place, "a snapshot is of a whole root")
    root = state.roots.get(name)
    following = 0 if root is None else root.version + 1
    version = _version_in(instance, following)
    ephemeral: list[NodePath] = []
    try:
        content = _content(instance, version, (name,), max_depth, ephemeral)
    except Malformed as error:
        raise BadLine(place, error.message) from None
    if ephemeral:
        warn(place, f"ephemeral nodes left out: {', '.join(map(dotted, ephemeral))}")
    chain = _chain(state, root, repr(instance))
    if root is None or not following - 1 <= version <= following:
        # Other numbers than those counted here: the snapshot's hold, older roots have none.
        return _with_root(state, Root(name, version, content, chain))
    if version == following:
        return _with_root(state, root.next(content, chain, _OLD_ROOTS))
    return _with_root(state, Root(name, version, content, chain, root.old))


def _content(
    value: Any, version: int, path: NodePath, max_depth: int, ephemeral: list[NodePath]
) -> MaybeContent:
    """What a node in internal form holds; `ABSENT` where nothing in it lasts.

    :param version: the node's own; a child that has no other carries none
    :param ephemeral: takes the paths of what is left out
    """
    if type(value) is not dict:
        return node.freeze(value, max_depth - len(path))
    if value.get("_ephemeral"):
        ephemeral.append(path)
        return ABSENT
    if "_value" in value:
        return node.freeze(value["_value"], max_depth - len(path))
    children: dict[str, Content] = {}
    left_out = False
    for key, child in value.items():
        if key in _ATTRIBUTES:
            continue
        if type(key) is not str:
            raise Malformed(f"key {key!r} is {type(key).__name__}: keys are strings")
        check_key(key)
        if len(path) >= max_depth:
            raise Malformed("nested too deep: over the depth limit, a setting")
        own = min(_version_in(child, version), version)
        content = _content(child, own, (*path, key), max_depth, ephemeral)
        if content is ABSENT:
            left_out = True
        else:
            children[key] = content if own == version else _versioned(content, own)
    if left_out and not children:
        return ABSENT
    return Node(children_of(children))


def _version_in(value: Any, otherwise: int) -> int:
    version = value.get("_version") if type(value) is dict else None
    # A put at /a/_version could overwrite it with anything.
    return version if type(version) is int and version >= 0 else otherwise


def _versioned(content: Content, version: int) -> Content:
    if type(content) is Node:
        return Node(content.children, version)
    return Leaf(content, version)


def _with_changes(
    state: State, records: list[Record], time: str, max_depth: int, warn: Warn
) -> State:
    draft = Draft(state, records[0].tega_id)
    for record in records:
        try:
            if record.ope == "PUT":
                _put(draft, record, max_depth, warn)
            else:
                _delete(draft, record, warn)
        except Malformed as error:
            raise BadLine(record.place, error.message) from None
    state, _ = draft.commit(time, _OLD_ROOTS, None)
    return state


def _put(draft: Draft, record: Record, max_depth: int, warn: Warn) -> None:
    put = make_put(record.path, record.instance, max_depth=max_depth)
    try:
        draft.apply(put)
    except LeafInTheWay as error:
        # It was acknowledged, so it took place: the leaf gave way.
        warn(record.place, f"{dotted(record.path)} replaces the leaf {error.details['path']}")
        draft.apply(Delete(parse(error.details["path"])))
        draft.apply(put)


def _delete(draft: Draft, record: Record, warn: Warn) -> None:
    try:
        draft.apply(Delete(record.path, None, record.tega_id))
    except NotFound:
        warn(record.place, f"nothing at {dotted(record.path)} to delete")
        name = record.path[0]
        if name in draft.state.roots or name in draft.contents:
            # Rollbacks count it.
            draft.touch((name,))


def _chain(state: State, root: Root | None, made: str) -> str:
    before = state.life if root is None else root.chain
    return blake2b(f"{before} {made}".encode(errors="replace"), digest_size=8).hexdigest()


def _with_root(state: State, root: Root) -> State:
    return State(state.life, state.seq, state.roots.set(root.name, root))


def _trimmed(root: Root, maxlen: int) -> Root:
    first = max(root.first, root.version - maxlen)
    old = {number: root.old[number] for number in range(first, root.version)}
    return Root(root.name, root.version, root.content, root.chain, immutables.Map(old))
