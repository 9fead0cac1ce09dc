"""Bodies of messages: batches of operations in, results out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from operator import methodcaller
from typing import Any, Final, NamedTuple

from tega import strictjson
from tega.access.who import Who
from tega.errors import Forbidden, Malformed, NotFound, Unauthorized
from tega.paths import Path, check_txid, parse
from tega.store import match
from tega.store.commit import Operation, Transaction, make_delete, make_put
from tega.store.history import State
from tega.web import sight

_PUT_KEYS: Final = frozenset(("ope", "path", "instance", "version", "ephemeral", "tega_id"))
_DELETE_KEYS: Final = frozenset(("ope", "path", "version", "instance", "tega_id"))
_GET_KEYS: Final = frozenset(("ope", "path", "version", "internal", "regex_flag", "consistent"))
#: What a change that somebody was notified of carries beside, and may hand on.
_NOTED: Final = frozenset(("seq",))


class Read(NamedTuple):
    """A GET in a batch.

    :ivar pattern: the compiled regex path, where it is one
    :ivar consistent: whether it wants what the leaders of followed roots have now
    """

    path: Path
    version: int | None
    internal: bool
    pattern: tuple[Any, ...] | None
    consistent: bool = False


def read(
    body: bytes, tega_id: str, max_depth: int, who: Who
) -> tuple[Transaction, list[Read]]:
    """The body of a REQUEST TX.

    :returns: what is to be committed, and what is to be read
    :raises Malformed: naming the operation that is wrong
    :raises Forbidden, Unauthorized: where `who` may not change something
    """
    given = strictjson.loads(body)
    if type(given) is not dict or type(given.get("ops")) is not list:
        raise Malformed('the body of a TX is {"ops": [...], "txid"?: text}')
    unknown = given.keys() - {"ops", "txid"}
    if unknown:
        raise Malformed(f"a TX with {sorted(unknown)[0][:64]!r}: it takes ops and txid")
    txid = given.get("txid")
    if txid is not None:
        if type(txid) is not str:
            raise Malformed("txid is a text")
        txid = who.key(check_txid(txid))
    operations: list[Operation] = []
    reads: list[Read] = []
    for number, one in enumerate(given["ops"]):
        try:
            if type(one) is dict and one.get("ope") == "GET":
                reads.append(_read(one))
            else:
                operations.append(_operation(one, _NOTHING, max_depth))
        except Malformed as error:
            error.message = f"operation {number}: {error.message}"
            raise
    if operations and any(one.consistent for one in reads):
        number = next(i for i, one in enumerate(given["ops"]) if one.get("consistent") is True)
        raise Malformed(
            f"operation {number}: consistent: a TX that changes something reads what stands here "
            "before it; read in a TX of its own"
        )
    _check_changes(who, body, given["ops"], operations)
    return Transaction(tuple(operations), tega_id, txid), reads


def read_changes(body: bytes, tega_id: str, max_depth: int, who: Who) -> Transaction:
    """The body of a client's NOTIFY: changes to be made as one transaction.

    :raises Malformed: naming the change that is wrong
    :raises Forbidden, Unauthorized: where `who` may not make one
    """
    given = strictjson.loads(body)
    if type(given) is not list:
        raise Malformed("the body of a NOTIFY is a list of changes")
    operations = []
    for number, one in enumerate(given):
        try:
            operations.append(_operation(one, _NOTED, max_depth))
        except Malformed as error:
            error.message = f"change {number}: {error.message}"
            raise
    _check_changes(who, body, given, operations)
    return Transaction(tuple(operations), tega_id)


def _check_changes(who: Who, body: bytes, given: list[Any], operations: list[Operation]) -> None:
    if who.rights is not None:
        for operation in operations:
            who.check_write(operation.path)
    who.check_functions(body, map(_instance, given))


_NOTHING: Final[frozenset[str]] = frozenset()

_instance = methodcaller("get", "instance")


def _operation(one: Any, also: frozenset[str], max_depth: int) -> Operation:
    if type(one) is not dict:
        raise Malformed("an operation is an object")
    ope, path = one.get("ope"), one.get("path")
    if type(path) is not str:
        raise Malformed("path is missing, or no text")
    if len(one) == 3 and ope == "PUT" and "instance" in one:
        # What comes most says nothing more.
        return make_put(parse(path), one["instance"], None, None, max_depth, owned=True)
    version = one.get("version")
    if also:
        # The version that a change made elsewhere says nothing of what is expected here.
        version = None
    elif version is not None and type(version) is not int:
        raise Malformed(f"version {str(version)[:32]!r} is not an integer")
    if ope == "PUT":
        _check_keys(one, _PUT_KEYS | also)
        if "instance" not in one:
            raise Malformed(f"a PUT of {path[:64]} without an instance")
        ephemeral = one.get("ephemeral", False)
        if type(ephemeral) is not bool:
            raise Malformed("ephemeral is true or false")
        return make_put(
            parse(path), one["instance"], version, None, max_depth, ephemeral, owned=True
        )
    if ope == "DELETE":
        _check_keys(one, _DELETE_KEYS | also)
        return make_delete(parse(path), version, None, max_depth)
    raise Malformed(f"ope {str(ope)[:32]!r}: it is PUT, DELETE" + ("" if also else " or GET"))


def _check_keys(one: dict[str, Any], known: frozenset[str]) -> None:
    if not known.issuperset(one):
        unknown = sorted(one.keys() - known)[0]
        raise Malformed(f"unknown key {unknown[:64]!r}: known here are {', '.join(sorted(known))}")


def _read(one: dict[str, Any]) -> Read:
    _check_keys(one, _GET_KEYS)
    path, version = one.get("path"), one.get("version")
    if type(path) is not str:
        raise Malformed("path is missing, or no text")
    if version is not None and type(version) is not int:
        raise Malformed(f"version {str(version)[:32]!r} is not an integer")
    internal, regex = one.get("internal", False), one.get("regex_flag", False)
    consistent = one.get("consistent", False)
    if not (type(internal) is type(regex) is type(consistent) is bool):
        raise Malformed("internal, regex_flag and consistent are true or false")
    if not regex:
        return Read(parse(path), version, internal, None, consistent)
    if version is not None:
        raise Malformed("version: a regex path spans roots, which each count their own")
    return Read((), None, internal, match.compile_pattern(path), consistent)


def to_ask_for(state: State, reads: Iterable[Read], who: Who) -> list[str]:
    """The followed roots whose leaders have to be asked how far they are, in order."""
    wanted = [one for one in reads if one.consistent]
    if not wanted:
        return []
    every = any(one.pattern is not None for one in wanted)
    return sight.followed(state, who, None if every else {one.path[0] for one in wanted})


def text(seq: int, versions: Collection[tuple[str, int]]) -> bytes:
    """What a TX without reads is answered."""
    if len(versions) == 1:
        ((name, version),) = versions
        made = b"{%b:%d}" % (strictjson.dumps(name), version)
    else:
        made = strictjson.dumps(dict(versions))
    return b'{"results":[],"seq":%d,"versions":%b}' % (seq, made)


def answer(
    seq: int,
    versions: Collection[tuple[str, int]],
    before: State,
    reads: list[Read],
    who: Who,
) -> Iterator[bytes]:
    """What a TX with reads is answered, in pieces of bounded work.

    :param before: the state that the transaction was judged by, which is what its reads see
    :param who: whoever reads
    """
    opening = b'{"results":['
    for one in reads:
        yield opening
        opening = b","
        yield from _result(before, one, who)
    yield b'],"seq":%d,"versions":%b}' % (seq, strictjson.dumps(dict(versions)))


def _result(state: State, one: Read, who: Who) -> Iterator[bytes]:
    if one.pattern is not None:
        yield b'{"instance":'
        yield from sight.matching(state, who, one.pattern, one.internal)
        yield b"}"
        return
    try:
        seen = yield from sight.find(state, who, one.path, one.version)
    except (NotFound, Forbidden, Unauthorized) as error:
        yield strictjson.dumps(error.body())
        return
    yield b'{"instance":'
    yield from seen.body(one.internal)
    yield b',"version":%d}' % seen.version
