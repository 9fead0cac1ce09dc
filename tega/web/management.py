"""Management: ``/_COMMAND``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from tega import strictjson
from tega.access.rules import CALL, READ
from tega.access.who import Who
from tega.errors import (
    Collision,
    Malformed,
    NoPeer,
    NotFound,
    Unavailable,
)
from tega.paths import dotted, parse
from tega.peering.health import health_of
from tega.store.commit import Rollback
from tega.store.edges import edges
from tega.web import sight
from tega.web.context import Context, client_id, client_key
from tega.web.http import Call, Response, error_response
from tega.web.later import Answer, Later
from tega.web.turns import Work

#: The status of a collision when a whole transaction is refused.
_NOT_ACCEPTABLE: Final = 406

#: Seconds that a sync may take.
_SYNC: Final = 30.0


def begin(context: Context, call: Call) -> Answer:
    """Open a transaction."""
    return {"txid": context.transactions.begin(client_id(call), call.who)}


def cand(context: Context, call: Call) -> Answer:
    """The roots that an open transaction touches, as its commit would leave them."""
    found = context.transactions.use(call.text("txid"), call.who)
    candidate = context.database.candidate(found.operations, found.tega_id)
    return Response(sight.candidate(candidate, call.who))


def cancel(context: Context, call: Call) -> Answer:
    """Forget an open transaction."""
    txid = call.text("txid")
    context.transactions.end(txid, None, call.who)
    return {"txid": txid}


async def commit(context: Context, call: Call) -> Answer:
    """Commit an open transaction.

    Sent again after a lost answer, it gives the first result: the transaction's own id serves where
    the client gives none.
    """
    txid, key = call.text("txid"), client_key(call)
    known = context.database.state.ids.results.get(key or txid)
    if known is not None:
        return known
    try:
        return await _commit(context, txid, key, call.who)
    except Collision as error:
        return error_response(error, _NOT_ACCEPTABLE)


def _commit(context: Context, txid: str, key: str | None, who: Who) -> Later:
    """Commit, or wait for the commit of the same transaction that is under way."""
    running = context.committing.get(txid)
    if running is None:
        # Before the transaction ends: 404 would say that it cannot have been committed.
        if context.database.refusal is not None:
            raise context.database.refusal
        request = context.transactions.end(txid, key, who)
        for operation in request.operations:
            # The rules may be others by now.
            who.check_write(operation.path)
        running = context.committer.submit(request)
        context.committing[txid] = running
        running.then(lambda _: context.committing.__delitem__(txid))
    return running


def rollback(context: Context, call: Call) -> Answer:
    """Make an old version of a root its newest."""
    backto = call.integer("backto")
    if backto is None:
        raise Malformed("missing parameter 'backto'", parameter="backto")
    root = call.text("root_oid")
    call.who.check_write((root,))
    return context.committer.submit(Rollback(root, backto, client_id(call), client_key(call)))


async def clear(context: Context, call: Call) -> Answer:
    """Forget everything; a new life begins."""
    await _in_thread(context.database.clear)
    return {"life": context.database.state.life}


async def snapshot(context: Context, call: Call) -> Answer:
    """Write a snapshot."""
    client_id(call)
    await _in_thread(context.database.snapshot, True)
    return {"seq": context.database.state.seq}


async def _in_thread(function: Any, *args: Any) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def sync(context: Context, call: Call) -> Answer:
    """Compare with the global server, and wait until both have the same."""
    dialer, peers = context.dialer, context.peers
    if dialer is None:
        raise NoPeer("no peer is configured, so there is nothing to catch up with")
    if peers.up is None:
        dialer.kick()
        raise Unavailable(
            f"the global server at {dialer.address} is not connected: {dialer.reason}"
        )
    lagging = await peers.sync(_SYNC)
    if lagging:
        raise Unavailable(
            f"not caught up within {_SYNC:g} s: "
            + ", ".join(dotted((name,)) for name in lagging),
            roots=lagging,
        )
    return {}


async def rpc(context: Context, call: Call) -> Answer:
    """Call the function at a path."""
    path = parse(call.text("path"))
    call.who.check(CALL, path)
    result = await context.calls.submit(path, call.body, client_id(call))
    return Response(b'{"result":%b}' % result)


def roots(context: Context, call: Call) -> Work[Answer]:
    """Every root and its newest version."""
    found = yield from sight.roots(context.database.state, call.who)
    return {root.name: root.version for root in found}


def old(context: Context, call: Call) -> Work[Answer]:
    """Every root's readable old versions, those of deleted roots too."""
    state = context.database.state
    names = yield from sight.known(state, call.who, sorted(state.roots))
    return [{name: state.roots[name].old_versions()} for name in names]


def channels(context: Context, call: Call) -> Answer:
    """The channels, and the tega ids that subscribe to them."""
    return context.database.hub.channels()


def subscribers(context: Context, call: Call) -> Answer:
    """The tega ids that subscribe, and to which channels."""
    return context.database.hub.subscribers()


def ids(context: Context, call: Call) -> Answer:
    """The tega ids of live sessions and plugins."""
    return context.database.live_ids()


def global_channels(context: Context, call: Call) -> Answer:
    """The channels of global scope."""
    return context.database.hub.global_channels()


def forwarders(context: Context, call: Call) -> Answer:
    """The connected peers that subscriptions are forwarded to."""
    return context.peers.forwarders()


def plugins(context: Context, call: Call) -> Answer:
    """The plugins that are loaded, and their scopes."""
    return context.plugins.scopes()


def reload(context: Context, call: Call) -> Answer:
    """Load the plugins anew, and list them."""
    context.plugins.reload()
    return context.plugins.scopes()


def edges_of(context: Context, call: Call) -> Work[Answer]:
    """Parents and children, for drawing."""
    state, name = context.database.state, call.optional("root_oid")
    if name is not None:
        yield from _check_root(context, call, name)
        if name not in state.roots:
            raise _no_root(name)
    return Response(_edges(edges(state, name, call.flag("old_roots"), call.who.reads)))


def _edges(pairs: Iterator[tuple[str, str] | None]) -> Iterator[bytes]:
    opening = b"["
    for pair in pairs:
        if pair is None:
            yield b""
            continue
        yield opening + strictjson.dumps(pair)
        opening = b","
    yield b"[]" if opening == b"[" else b"]"


def applied(context: Context, call: Call) -> Work[Answer]:
    """How far each server is that has a root: its version, by tega id."""
    name = call.text("root_oid")
    yield from _check_root(context, call, name)
    return context.peers.applied(name)


def release(context: Context, call: Call) -> Answer:
    """Give a tree led by another server back to this one."""
    return context.peers.release(call.text("root_oid"))


def _check_root(context: Context, call: Call, name: str) -> Work[None]:
    call.who.check_sight((name,), READ)
    if not (yield from sight.knows(context.database.state, call.who, name)):
        raise _no_root(name)


def _no_root(name: str) -> NotFound:
    return NotFound(f"no root {dotted((name,))}", path=dotted((name,)))


def ready(context: Context, call: Call) -> Answer:
    """Whether to send clients here: 200, or 503 with the reason.

    A server that listens has read its log and loaded its plugins. A global server that is away does
    not matter: reads, and writes of what is led here, go on.
    """
    if context.sessions.ending:
        raise Unavailable("the server ends: it finishes what it has begun")
    if context.database.refusal is not None:
        raise context.database.refusal
    return {"status": "ready", "tega_id": context.database.tega_id}


def health(context: Context, call: Call) -> Answer:
    """Whether the database takes commits, and why it does not.

    Who may not look at the server's state gets the status, and nothing more.
    """
    database = context.database
    state, refusal = database.state, database.refusal
    body: dict[str, Any] = {"status": "ok" if refusal is None else "read_only"}
    if call.who.monitor:
        body |= {
            "tega_id": database.tega_id,
            "life": state.life,
            "seq": state.seq,
            "roots": state.live_count,
        }
    if refusal is not None:
        if call.who.monitor:
            body["reason"] = refusal.message
        return Response(strictjson.dumps(body), refusal.status)
    peers, reasons = health_of(context.peers, context.dialer)
    if database.full:
        reasons = [*reasons, "there was no room on the disk for the last commit"]
    if reasons:
        body["status"] = "degraded"
    if call.who.monitor:
        if peers:
            body["peers"] = peers
        if reasons:
            body["reason"] = "; ".join(reasons)
    return body
