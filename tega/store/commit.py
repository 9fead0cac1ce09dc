"""What is asked of a database, and what becomes of it: a frozen `Commit`, the one thing that is
logged, notified and sent to other servers. `tega.store.staging` makes the second of the first.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import immutables
import msgspec

from tega.errors import Malformed
from tega.paths import MAX_DEPTH, Path, check_tega_id
from tega.store import node
from tega.store.history import Result
from tega.store.node import ABSENT, Content, MaybeContent
from tega.strictjson import dumps

#: Expected version of a PUT that must find nothing there.
MUST_NOT_EXIST: Final = -1


class Put(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Replace the subtree at `path` by fresh `content`, if it has the version `expected`.

    An `ephemeral` one is owned by `tega_id`, or by that of the transaction. `text` is the content
    as JSON, where that was at hand.
    """

    path: Path
    content: Content
    expected: int | None = None
    tega_id: str | None = None
    ephemeral: bool = False
    text: bytes | None = None


class Delete(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Remove the subtree at `path`, if it has the version `expected`."""

    path: Path
    expected: int | None = None
    tega_id: str | None = None


Operation: TypeAlias = Put | Delete


def make_put(
    path: Path,
    value: Any,
    expected: int | None = None,
    tega_id: str | None = None,
    max_depth: int = MAX_DEPTH,
    ephemeral: bool = False,
) -> Put:
    """A checked `Put` of a JSON value, which is not kept.

    :param path: as `tega.paths` gives it: of checked keys
    :param tega_id: who puts, where that is not who commits
    :param ephemeral: whether the node is to go with the session of who puts
    :raises Malformed: for a depth, value, version or tega id that the data model does not allow
    """
    _check_depth(path, max_depth)
    if tega_id is not None:
        check_tega_id(tega_id)
    if expected is not None and expected < MUST_NOT_EXIST:
        raise Malformed(f"version {expected}: a put takes one from 0 up, or -1 for 'not there'")
    content = node.freeze(value, max_depth - len(path))
    return Put(path, content, expected, tega_id, ephemeral, dumps(value))


def make_delete(
    path: Path, expected: int | None = None, tega_id: str | None = None, max_depth: int = MAX_DEPTH
) -> Delete:
    """A checked `Delete`; its parameters are as for `make_put`.

    :raises Malformed: for a depth, version or tega id that the data model does not allow
    """
    _check_depth(path, max_depth)
    if tega_id is not None:
        check_tega_id(tega_id)
    if expected is not None and expected < 0:
        raise Malformed(f"version {expected}: a delete takes a version from 0 up")
    return Delete(path, expected, tega_id)


def _check_depth(path: Path, max_depth: int) -> None:
    if not path:
        raise Malformed("empty path: name a root, such as 'inventory'")
    if len(path) > max_depth:
        raise Malformed(
            f"path of {len(path)} keys: the depth limit is {max_depth}", limit=max_depth
        )


class Transaction(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Operations to be applied all or none, in order."""

    operations: tuple[Operation, ...]
    tega_id: str
    txid: str | None = None


class Rollback(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Make the content of an old version of a root its newest."""

    root: str
    backto: int
    tega_id: str
    txid: str | None = None


class Lapse(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Remove all ephemeral nodes of a tega id: its session has ended."""

    tega_id: str
    txid: None = None


Request: TypeAlias = Transaction | Rollback | Lapse


class Change(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One operation as it took place: what was put or removed, and the version it made.

    :ivar record: its JSON text, as the log and other servers have it; where a lasting DELETE took
        ephemeral nodes with it, without those
    :ivar replaced: what stood at `path` just before
    :ivar ephemeral: whether the lasting tree has nothing of it: it is not logged
    """

    ope: Literal["PUT", "DELETE"]
    path: Path
    tega_id: str
    content: Content
    version: int
    record: bytes
    replaced: MaybeContent = ABSENT
    ephemeral: bool = False


class Commit(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One transaction as it took place.

    :ivar time: UTC, ISO 8601 with microseconds and ``Z``
    :ivar rolled_back: for a rollback its root, and how many versions back it went
    :ivar chains: the hash of each root touched, by name
    :ivar touched: the lasting containers below a root that got its version because of something
        ephemeral below them: with `changes`, all that a replay of the lasting tree needs
    """

    seq: int
    time: str
    tega_id: str
    changes: tuple[Change, ...]
    versions: tuple[tuple[str, int], ...]
    chains: tuple[tuple[str, str], ...]
    txid: str | None = None
    rolled_back: tuple[str, int] | None = None
    touched: tuple[Path, ...] = ()

    def result(self) -> Result:
        """What the client is told."""
        return Result(self.seq, immutables.Map(self.versions))
