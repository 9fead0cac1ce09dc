"""Whole roots in the log: the lines of a snapshot, and of a root that was taken over from a leader.

A line for each readable version: the oldest whole, each later one as what it changed. All of that
is of the lasting tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tega.errors import Malformed
from tega.paths import parse, wire
from tega.store.encode import packed_since, unpacked
from tega.store.ephemeral import lasting
from tega.store.history import Root
from tega.store.node import ABSENT, Content, MaybeContent
from tega.strictjson import dumps


class Record(msgspec.Struct):
    """One record as it stands in a line."""

    ope: str
    path: str
    tega_id: str
    version: int
    instance: Any = None
    chain: str = ""
    deleted: bool = False


def lines(root: Root, tega_id: str) -> Iterator[bytes]:
    """The text of a root, in pieces of bounded work; a line ends with a piece of its own."""
    before: MaybeContent = ABSENT
    seen: dict[int, Content] = {}
    for version in range(root.first, root.version + 1):
        content = lasting(root.at(version), seen)
        yield b'{"ope":"SS","path":%b,"tega_id":%b,"version":%d' % (
            dumps(wire((root.name,))),
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


def read(records: Iterable[Record], maxlen: int) -> dict[str, Root]:
    """The roots that such lines hold.

    :param maxlen: old versions to keep of each root
    :raises Malformed, KeyError: where they do not fit together
    """
    roots: dict[str, Root] = {}
    for record in records:
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
        roots[name] = root
    return roots
