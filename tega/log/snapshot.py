"""Snapshots: a whole state as the first commit of a segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from zlib import crc32

import immutables

from tega.errors import Malformed
from tega.log.record import BadRecord, Extras, Logged, trailer
from tega.paths import parse, wire
from tega.store.encode import packed_since, unpacked
from tega.store.ephemeral import lasting
from tega.store.history import Ids, Result, Root, State
from tega.store.node import ABSENT, Content, MaybeContent
from tega.strictjson import dumps

#: Bytes that are gathered before they are written.
_CHUNK = 1 << 16


def write(state: State, tega_id: str, time: str, out: Callable[[bytes], None]) -> Iterator[None]:
    """Write a state; every step is a bounded piece of work.

    :param out: takes the text, piece after piece
    """
    crc = 0
    waiting = [b"? %d\n" % state.seq]
    size = count = 0
    for piece in _records(state, tega_id):
        waiting.append(piece)
        size += len(piece)
        count += piece == b"\n"
        if size >= _CHUNK:
            text = b"".join(waiting)
            crc = crc32(text, crc)
            out(text)
            waiting, size = [], 0
        yield
    ids = [(txid, result.seq, dict(result.versions)) for txid, result in state.ids.oldest_first()]
    extras = Extras(state.seq, state.life, tega_id, snapshot=True, ids=ids)
    text = b"".join(waiting) + trailer(time, count, extras)
    out(b"%b%08x\n" % (text, crc32(text, crc)))


def _records(state: State, tega_id: str) -> Iterator[bytes]:
    """A line for each readable version: the oldest whole, each later one as what it changed.

    All of that is of the lasting tree.
    """
    for name in sorted(state.roots):
        root = state.roots[name]
        before: MaybeContent = ABSENT
        seen: dict[int, Content] = {}
        for version in range(root.first, root.version + 1):
            content = lasting(root.at(version), seen)
            yield b'{"ope":"SS","path":%b,"tega_id":%b,"version":%d' % (
                dumps(wire((name,))),
                dumps(tega_id),
                version,
            )
            if version == root.version:
                yield b',"chain":%b' % dumps(root.chain)
            if content is ABSENT:
                yield b',"deleted":true}'
            else:
                yield b',"instance":'
                yield from packed_since(before, content)
                yield b"}"
            yield b"\n"
            before = content


def read(logged: Logged, maxlen: int) -> State:
    """The state that a snapshot holds.

    :param maxlen: old versions to keep of each root
    :raises BadRecord: where it is no snapshot, or does not fit together
    """
    if not logged.extras.snapshot:
        raise BadRecord(logged.start, logged.start, "a segment starts with a snapshot")
    roots: immutables.Map[str, Root] = immutables.Map()
    try:
        for record in logged.records:
            name = parse(record.path)[0]
            root = roots.get(name)
            before = ABSENT if root is None else root.content
            content = ABSENT if record.deleted else unpacked(record.instance, before)
            if root is None:
                root = Root(name, record.version, content, record.chain)
            else:
                root = root.next(content, record.chain, maxlen)
            if root.version != record.version:
                raise Malformed(f"version {record.version} of {name} after {root.version - 1}")
            roots = roots.set(name, root)
    except (Malformed, KeyError) as error:
        raise BadRecord(logged.start, logged.start, f"bad snapshot: {error}") from None
    ids = Ids()
    for txid, seq, versions in logged.extras.ids:
        ids = ids.add(txid, Result(seq, immutables.Map(versions)))
    return State(logged.extras.life, logged.seq, roots, ids)
