"""What the workloads write: documents of one size, never the same twice.

A document is about 200 bytes of JSON, an interface of a router. It carries a *tag*, which is
different in every write of a run: a store that is given the value that it has may not write it
at all, and the tag is how a write is recognised afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_BEFORE = (
    b'{"address":"10.20.30.40/24","admin":true,"description":"uplink to the core, second floor, '
    b'rack 12","mtu":9000,"peer":{"name":"ne2","port":"ge-0/0/1"},"speed":10000,"tag":"'
)
_AFTER = b'"}'

#: Bytes of a tag, so that every document has the same length.
TAG = 22

#: Finds the tags in what was received: generation, connection and serial.
TAGS = re.compile(rb"(\d{6})-(\d{4})-(\d{10})")

#: Bytes of a document.
SIZE = len(_BEFORE) + TAG + len(_AFTER)


def tag(generation: int, connection: int, serial: int) -> bytes:
    """What tells one write from every other of the run.

    :param generation: which measurement, counted over the whole run
    :param connection: which connection of that measurement
    :param serial: which write of that connection
    """
    return b"%06d-%04d-%010d" % (generation, connection, serial)


def document(tag: bytes) -> bytes:
    """The JSON document with that tag."""
    return _BEFORE + tag + _AFTER


def tag_of(document: bytes | str) -> bytes:
    """The tag that a stored document carries, however the store laid the JSON out."""
    return str(json.loads(document)["tag"]).encode()


def batches(leaves: int, batch: int = 1000) -> Iterator[tuple[int, bytes]]:
    """Small leaves in JSON objects of ``batch`` each, for loading: numbered from 0.

    The values differ, and so do the key strings once parsed: nothing is shared that a
    real load would not share.
    """
    for number in range(leaves // batch):
        first = number * batch
        yield number, json.dumps({f"leaf{i:04d}": 1000 + first + i for i in range(batch)}).encode()
