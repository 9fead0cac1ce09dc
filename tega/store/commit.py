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
from tega.store.history import Lead, Result, Root
from tega.store.node import ABSENT, Content, MaybeContent
from tega.store.overlay import Laid
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
    owned: bool = False,
) -> Put:
    """A checked `Put` of a JSON value.

    :param path: as `tega.paths` gives it: of checked keys
    :param owned: whether `tega.strictjson.loads` gave the value, and nobody will change it: dicts
        of it are kept then. By default nothing of it is
    :param tega_id: who puts, where that is not who commits
    :param ephemeral: whether the node is to go with the session of who puts
    :raises Malformed: for a depth, value, version or tega id that the data model does not allow
    """
    if not 0 < len(path) <= max_depth:
        _check_depth(path, max_depth)
    if tega_id is not None:
        check_tega_id(tega_id)
    if expected is not None and expected < MUST_NOT_EXIST:
        raise Malformed(f"version {expected}: a put takes one from 0 up, or -1 for 'not there'")
    room = max_depth - len(path)
    content = node.adopt(value, room) if owned else node.freeze(value, room)
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


class Follow(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Let another server lead a root; None: lead it here, from the version that it has."""

    root: str
    lead: Lead | None
    tega_id: str
    txid: None = None


class Replicated(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A commit of a leader, as far as it concerns the roots that are followed here.

    :ivar leader: the tega id of the server that leads them
    :ivar seq: its number there
    :ivar whole: whether the ephemeral changes are among `changes`; without them, it comes from
        history, and ephemeral nodes follow as an `Overlay`
    :ivar changes: what to put or, with None, delete, in order
    """

    leader: str
    seq: int
    time: str
    tega_id: str
    txid: str | None
    versions: dict[str, int]
    chains: dict[str, str]
    changes: tuple[Operation, ...]
    touched: tuple[Path, ...] = ()
    rolled_back: tuple[str, int] | None = None
    whole: bool = True


class Adoption(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A root as its leader has it, history included, in the place of what is here.

    :ivar content: the root; None where the leader has none of that name
    """

    root: str
    lead: Lead
    content: Root | None
    tega_id: str
    txid: None = None


class Hide(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Leave out the ephemeral nodes of a root: its leader is away, and nobody can tell of them."""

    root: str
    tega_id: str = ""
    txid: None = None


class Overlay(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The ephemeral nodes that a leader has in a root, in the place of those that are here.

    :ivar version: of the root, that they belong to
    """

    root: str
    version: int
    nodes: tuple[Laid, ...]
    tega_id: str
    txid: None = None


#: What this server decides by itself, of the roots that it leads.
Own: TypeAlias = Transaction | Rollback | Lapse

#: What comes of another server's leading a root.
Peers: TypeAlias = Follow | Replicated | Adoption | Hide | Overlay

Request: TypeAlias = Own | Peers


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
    :ivar follows: the roots of which it changes who leads, or what is known of that; None for
        "this server"
    :ivar adopted: the roots that it takes over whole, with their history; None for "no such root"
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
    follows: tuple[tuple[str, Lead | None], ...] = ()
    adopted: tuple[tuple[str, Root | None], ...] = ()

    def result(self) -> Result:
        """What the client is told."""
        return Result(self.seq, immutables.Map(self.versions))
