"""What servers tell each other, as the bodies of messages.

A commit goes over with the very records that the log has, so that both ends hash the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from tega import strictjson
from tega.errors import BY_CODE, Internal, Malformed, NotFound, Refused, TegaError
from tega.log.record import Logged
from tega.paths import Path, check_key, check_tega_id, dotted, parse, wire
from tega.protocol import Peer
from tega.store import encode
from tega.store.commit import (
    Change,
    Commit,
    Delete,
    Operation,
    Put,
    Replicated,
    Rollback,
    Transaction,
)
from tega.store.node import freeze
from tega.store.overlay import Laid

T = TypeVar("T")

#: The depth of what a leader has taken is not judged again: its limit may be another one.
_DEEP = 1 << 20


class Have(msgspec.Struct, frozen=True, array_like=True):
    """What a server has of a root: the life it is of, its version, and the hash of its history."""

    life: str
    version: int
    chain: str


class _Change(msgspec.Struct, omit_defaults=True):
    ope: str
    path: str
    tega_id: str
    instance: Any = None
    version: int = 0
    ephemeral: bool = False


class _Commit(msgspec.Struct, omit_defaults=True):
    seq: int
    at: int
    leader: str
    time: str
    tega_id: str
    versions: dict[str, int]
    chains: dict[str, str]
    changes: list[_Change]
    txid: str | None = None
    touched: list[str] = []
    rolled_back: tuple[str, int] | None = None
    whole: bool = False


class _Operation(msgspec.Struct):
    ope: Literal["PUT", "DELETE"]
    path: str
    version: int | None = None
    tega_id: str | None = None
    instance: Any = None
    ephemeral: bool = False


class _Request(msgspec.Struct):
    ops: list[_Operation] = []
    txid: str | None = None
    rollback: tuple[str, int] | None = None


class Offer(msgspec.Struct):
    """What a local server says in REQUEST SYNC.

    :ivar follow: what it has of the roots that it follows
    :ivar lead: the leader of each root that it wants to be followed
    :ivar sessions: of its sessions those that may have ephemeral nodes at the other end
    :ivar functions: path and owner of each function
    :ivar channels: what is subscribed to in global scope, each with whether it is a pattern
    """

    follow: dict[str, Have | None] = {}
    lead: dict[str, str] = {}
    sessions: list[str] = []
    functions: list[tuple[str, str]] = []
    channels: list[tuple[str, bool]] = []


class Taken(msgspec.Struct):
    """What the global server answers.

    :ivar above: itself, its own global server, and so on
    :ivar have: what it has of the roots that the local one leads
    :ivar refused: why it does not follow others of them
    :ivar sessions: as in `Offer`
    """

    above: list[str]
    have: dict[str, Have | None] = {}
    refused: dict[str, str] = {}
    sessions: list[str] = []


class _Functions(msgspec.Struct):
    functions: list[tuple[str, str]]


class _Ids(msgspec.Struct):
    tega_ids: list[str]


class Barrier(msgspec.Struct):
    """A question: how far is a root?"""

    barrier: str


class Overlaid(msgspec.Struct):
    """The ephemeral nodes of a root; with it the root is as it is where that comes from.

    :ivar at: the sequence number there
    :ivar version: of the root; -1 where there is none
    """

    root: str
    version: int
    at: int
    nodes: list[tuple[str, str | None, int, Any]] = []

    def laid(self) -> tuple[Laid, ...]:
        """The nodes."""
        return tuple([
            Laid(parse(path), owner, version, encode.unpacked(content))
            for path, owner, version, content in self.nodes
        ])


class Chunk(msgspec.Struct, omit_defaults=True):
    """A piece of the text of a root that is sent whole: the lines that the log would have.

    :ivar lead: who leads it, its life, and its sequence number there
    """

    root: str
    lead: tuple[str, str, int]
    text: str = ""
    last: bool = False


_commit = msgspec.json.Decoder(_Commit)
_overlaid = msgspec.json.Decoder(Overlaid)
_offer = msgspec.json.Decoder(Offer)
_taken = msgspec.json.Decoder(Taken)
_applied = msgspec.json.Decoder(dict[str, dict[str, int]])
_functions = msgspec.json.Decoder(_Functions)
_ids = msgspec.json.Decoder(_Ids)
_barrier = msgspec.json.Decoder(Barrier)
_chunk = msgspec.json.Decoder(Chunk)


def peer(kind: str, body: Any) -> Peer:
    """A message of one kind."""
    return Peer(kind, strictjson.dumps(body))


def object_in(body: bytes) -> dict[str, Any]:
    """The body of a message or request.

    :raises Malformed: where it is no object
    """
    value = strictjson.loads(body)
    if type(value) is not dict:
        raise Malformed("the body is a JSON object")
    return value


def read_offer(body: bytes) -> Offer:
    """The body of a REQUEST SYNC.

    :raises Malformed: where it is none
    """
    offer = _read(_offer, body, "REQUEST SYNC")
    for name in (*offer.follow, *offer.lead):
        check_key(name)
    for tega_id in (*offer.lead.values(), *offer.sessions):
        check_tega_id(tega_id)
    return offer


def read_taken(body: bytes) -> Taken:
    """The answer to a REQUEST SYNC.

    :raises Malformed: where it is none
    """
    taken = _read(_taken, body, "RESPONSE SYNC")
    for name in (*taken.have, *taken.refused):
        check_key(name)
    for tega_id in (*taken.above, *taken.sessions):
        check_tega_id(tega_id)
    return taken


def read_applied(body: bytes) -> dict[str, dict[str, int]]:
    """How far servers are: versions by root and tega id.

    :raises Malformed: where it is nothing of the kind
    """
    return _read(_applied, body, "PEER applied")


def read_functions(body: bytes) -> dict[Path, str]:
    """The functions that a server offers: path and owner.

    :raises Malformed: where that is no list of them
    """
    return functions_in(_read(_functions, body, "PEER functions").functions)


def functions_in(given: list[tuple[str, str]]) -> dict[Path, str]:
    """Functions, as they are sent."""
    return {parse(path): check_tega_id(owner) for path, owner in given}


def read_ids(body: bytes) -> list[str]:
    """Tega ids.

    :raises Malformed: where it is nothing of the kind
    """
    return [check_tega_id(one) for one in _read(_ids, body, "PEER").tega_ids]


def _read(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"{what}: {error}") from None


# -- commits --------------------------------------------------------------------------------------


def commit_of(commit: Commit, names: set[str], leader: str, seq: int, whole: bool) -> Peer:
    """A commit, cut down to some roots.

    :param seq: its number at the leader
    :param whole: with its ephemeral changes
    """
    changes = [
        _written(change)
        for change in commit.changes
        if change.path[0] in names and (whole or not change.ephemeral)
    ]
    head = {
        "seq": seq,
        "at": commit.seq,
        "leader": leader,
        "time": commit.time,
        "tega_id": commit.tega_id,
        "versions": {name: v for name, v in commit.versions if name in names},
        "chains": {name: chain for name, chain in commit.chains if name in names},
        "touched": [wire(path) for path in commit.touched if path[0] in names],
        "txid": commit.txid,
        "rolled_back": commit.rolled_back,
        "whole": whole,
    }
    return _with_changes(head, changes)


def _written(change: Change) -> bytes:
    if change.ope == "DELETE":
        # What was removed is there too.
        return strictjson.dumps(
            {"ope": "DELETE", "path": wire(change.path), "tega_id": change.tega_id}
        )
    return change.record[:-1] + b',"ephemeral":true}' if change.ephemeral else change.record


def logged_of(logged: Logged, names: set[str], leader: str) -> Peer:
    """The same for a commit of the log, which has no ephemeral changes."""
    extras = logged.extras
    changes = []
    for record in logged.records:
        if parse(record.path)[0] in names:
            change = {
                "ope": record.ope, "path": record.path, "tega_id": record.tega_id,
                "version": record.version,
            }  # fmt: skip
            if record.ope == "PUT":
                change["instance"] = record.instance
            changes.append(strictjson.dumps(change))
    head = {
        "seq": logged.seq,
        "at": logged.seq,
        "leader": leader,
        "time": logged.time,
        "tega_id": extras.tega_id,
        "versions": {name: v for name, v in extras.versions.items() if name in names},
        "chains": {name: chain for name, chain in extras.chain.items() if name in names},
        "touched": [path for path in extras.touched if parse(path)[0] in names],
        "txid": extras.txid,
        "rolled_back": logged.rolled_back,
        "whole": False,
    }
    return _with_changes(head, changes)


def _with_changes(head: Mapping[str, Any], changes: list[bytes]) -> Peer:
    opening = strictjson.dumps(head)[:-1]
    return Peer("commit", b'%b,"changes":[%b]}' % (opening, b",".join(changes)))


def read_commit(body: bytes) -> tuple[Replicated, int]:
    """A commit that another server sends, and its number there.

    :raises Malformed: where it is none
    """
    given = _read(_commit, body, "PEER commit")
    changes: list[Operation] = []
    for one in given.changes:
        path = parse(one.path)
        if one.ope == "PUT":
            content = freeze(one.instance, _DEEP)
            text = strictjson.dumps(one.instance)
            changes.append(Put(path, content, None, one.tega_id, one.ephemeral, text))
        else:
            changes.append(Delete(path, None, one.tega_id))
    request = Replicated(
        given.leader, given.seq, given.time, given.tega_id, given.txid, given.versions,
        given.chains, tuple(changes), tuple([parse(path) for path in given.touched]),
        given.rolled_back, given.whole,
    )  # fmt: skip
    return request, given.at


# -- roots ----------------------------------------------------------------------------------------


def overlay_of(root: str, version: int, at: int, nodes: Iterable[Laid]) -> Peer:
    """The ephemeral nodes of a root."""
    found = [
        b"[%b,%b,%d,%b]" % (
            strictjson.dumps(wire(one.path)),
            strictjson.dumps(one.owner),
            one.version,
            b"null" if one.owner is None else b"".join(encode.packed(one.content)),
        )
        for one in nodes
    ]  # fmt: skip
    return Peer(
        "overlay",
        b'{"at":%d,"nodes":[%b],"root":%b,"version":%d}'
        % (at, b",".join(found), strictjson.dumps(root), version),
    )


def read_overlay(body: bytes) -> Overlaid:
    """The ephemeral nodes that another server has.

    :raises Malformed: where it is nothing of the kind
    """
    return _read(_overlaid, body, "PEER overlay")


def chunk_of(chunk: Chunk) -> Peer:
    """A piece of a root."""
    return Peer("root", strictjson.dumps(chunk))


def read_chunk(body: bytes) -> Chunk:
    """A piece of a root.

    :raises Malformed: where it is none
    """
    chunk = _read(_chunk, body, "PEER root")
    check_tega_id(chunk.lead[0])
    return chunk


# -- requests -------------------------------------------------------------------------------------


def request_body(request: Transaction | Rollback) -> bytes:
    """What another server is to commit, as the body of a REQUEST TX."""
    if isinstance(request, Rollback):
        return strictjson.dumps({"rollback": [request.root, request.backto], "txid": request.txid})
    operations = []
    for one in request.operations:
        made = {"path": wire(one.path), "version": one.expected, "tega_id": one.tega_id}
        if isinstance(one, Put):
            text = one.text if one.text is not None else encode.text(one.content)
            made |= {"ope": "PUT", "ephemeral": one.ephemeral}
            operations.append(strictjson.dumps(made)[:-1] + b',"instance":%b}' % text)
        else:
            operations.append(strictjson.dumps({**made, "ope": "DELETE"}))
    return b'{"ops":[%b],"txid":%b}' % (b",".join(operations), strictjson.dumps(request.txid))


def read_request(body: bytes, tega_id: str) -> Transaction | Rollback:
    """What another server wants to be committed.

    :raises Malformed: where it is nothing of the kind
    """
    try:
        given = msgspec.convert(object_in(body), _Request)
    except msgspec.ValidationError as error:
        raise Malformed(f"a request of another server: {error}") from None
    if given.rollback is not None:
        return Rollback(*given.rollback, tega_id, given.txid)
    operations: list[Operation] = []
    for one in given.ops:
        path: Path = parse(one.path)
        owner = one.tega_id and check_tega_id(one.tega_id)
        if one.ope == "PUT":
            content = freeze(one.instance, _DEEP)
            text = strictjson.dumps(one.instance)
            operations.append(Put(path, content, one.version, owner, one.ephemeral, text))
        else:
            operations.append(Delete(path, one.version, owner))
    return Transaction(tuple(operations), tega_id, given.txid)


def barrier_in(body: bytes) -> str | None:
    """The root that a request asks about; None where it is to be committed."""
    try:
        return _barrier.decode(body).barrier
    except (msgspec.DecodeError, RecursionError):
        return None


def error_in(body: bytes, where: str) -> TegaError:
    """The error that another server answered with.

    :param where: who that is
    """
    given = object_in(body)
    kind = BY_CODE.get(str(given.pop("code", "")), Internal)
    message = str(given.pop("message", f"{where} refused it"))
    if not issubclass(kind, Refused | Malformed | NotFound):
        # It is about that server, not about this one.
        message = f"{where} says: {message}"
    error = kind(message)
    error.details.update(given)
    return error


def touches(request: Transaction | Rollback) -> dict[str, None]:
    """The roots that a request changes, in order."""
    if isinstance(request, Rollback):
        return {request.root: None}
    return dict.fromkeys([one.path[0] for one in request.operations])


def describe(names: Iterable[str]) -> str:
    """Roots, for messages."""
    return ", ".join(dotted((name,)) for name in names)
