"""Documents: GET, PUT and DELETE of ``/KEY/KEY/...``."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

from tega import strictjson
from tega.errors import Malformed
from tega.paths import Path, from_url, to_url, unescape
from tega.store import match
from tega.store.commit import Operation, Transaction, make_delete, make_put
from tega.store.history import State
from tega.web import sight
from tega.web.context import Context, client_id, client_key
from tega.web.http import Call, Response
from tega.web.later import Answer
from tega.web.turns import Work


def get(context: Context, call: Call) -> Answer:
    """A subtree, the whole database, or every match of a regex path."""
    client_id(call)
    version = call.integer("version")
    internal = call.flag("internal")
    txid = call.optional("txid")
    if txid is not None:
        context.transactions.use(txid, call.who)
    if call.flag("consistent"):
        return _get_consistent(context, call, version, internal)
    return _get(context, call, version, internal)


async def _get_consistent(
    context: Context, call: Call, version: int | None, internal: bool
) -> Answer:
    """The same, with what the leaders have now."""
    names = None if call.flag("regex_flag") else from_url(call.path)[:1] or None
    for name in sight.followed(context.database.state, call.who, names):
        await context.peers.barrier(name)
    return _get(context, call, version, internal)


def _get(context: Context, call: Call, version: int | None, internal: bool) -> Work[Response]:
    state = context.database.state
    stale = yield from sight.known(state, call.who, tuple(context.peers.stale))
    if call.flag("regex_flag"):
        return _get_matching(state, call, version, internal, _staleness(stale))
    path = from_url(call.path)
    if not path:
        if version is not None:
            raise Malformed("version: every root counts its own; ask for one root's")
        headers = {"Etag": f'"{state.seq}"', **_staleness(stale)}
        return Response(sight.all_roots(state, call.who, internal), headers=headers)
    seen = yield from sight.find(state, call.who, path, version)
    headers = {"Etag": f'"{seen.version}"', **_staleness(path[:1] if path[0] in stale else ())}
    return Response(seen.body(internal), headers=headers)


def _staleness(names: Iterable[str]) -> dict[str, str]:
    """The header that names roots whose leaders are away, as the paths of URLs."""
    return {"Tega-Stale": ", ".join(to_url((name,)) for name in names)} if names else {}


def put(context: Context, call: Call) -> Answer:
    """Replace a subtree, at once or in an open transaction."""
    tega_id = client_id(call)
    ephemeral = call.flag("ephemeral")
    if not call.body:
        raise Malformed("no body: send the value as JSON (null is a value too)")
    path = _document_path(call)
    call.who.check_write(path)
    version = call.integer("version")

    def read() -> Operation:
        value = strictjson.loads(call.body)
        call.who.check_functions(call.body, (value,))
        return make_put(
            path, value, version, tega_id, context.database.max_depth, ephemeral, owned=True
        )

    reading = context.bodies.later(call.body, read)
    if reading is None:
        return _change(context, call, read(), tega_id)
    return _change_later(context, call, reading, tega_id)


async def _change_later(
    context: Context, call: Call, reading: Awaitable[Operation], tega_id: str
) -> Answer:
    return _change(context, call, await reading, tega_id)


def delete(context: Context, call: Call) -> Answer:
    """Remove a subtree, at once or in an open transaction."""
    tega_id = client_id(call)
    path = _document_path(call)
    call.who.check_write(path)
    operation = make_delete(path, call.integer("version"), tega_id, context.database.max_depth)
    return _change(context, call, operation, tega_id)


def _document_path(call: Call) -> Path:
    path = from_url(call.path)
    if not path:
        raise Malformed("the whole database cannot be put or deleted: name a root, /inventory/")
    return path


def _change(context: Context, call: Call, operation: Operation, tega_id: str) -> Answer:
    txid = call.optional("txid")
    if txid is not None:
        context.transactions.use(txid, call.who).operations.append(operation)
        return {"txid": txid}
    return context.committer.submit(Transaction((operation,), tega_id, client_key(call)))


def _get_matching(
    state: State, call: Call, version: int | None, internal: bool, headers: dict[str, str]
) -> Response:
    if version is not None:
        raise Malformed("version: a regex path spans roots, which each count their own")
    pattern = unescape(call.path[1:].removesuffix("/"))
    # Compiled before the first byte is sent, so that a refusal can still be one.
    compiled = match.compile_pattern(pattern)
    return Response(sight.matching(state, call.who, compiled, internal), headers=headers)
