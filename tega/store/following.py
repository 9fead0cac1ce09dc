"""Roots that another server leads: what comes from there, staged against a state.

A follower makes the very commits of its leader once more, with the leader's versions, time and
author, and a sequence number of its own. The chain of hashes shows that the histories are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import immutables
from msgspec.structs import replace

from tega.errors import Diverged, NotFound, TegaError
from tega.paths import Path, dotted
from tega.store import encode
from tega.store.commit import (
    Adoption,
    Change,
    Commit,
    Follow,
    Hide,
    Overlay,
    Peers,
    Put,
    Replicated,
)
from tega.store.ephemeral import lasting, tops
from tega.store.history import Lead, Root, State
from tega.store.node import ABSENT, Content, MaybeContent, lookup, mark_of
from tega.store.overlay import laid_on
from tega.store.staging import Draft, followed, record_of


def stage(state: State, request: Peers, time: str, maxlen: int) -> tuple[State, Commit | None]:
    """Apply what another server sends, or what is decided about following it.

    :param time: the commit's time, where it has none of its own
    :param maxlen: old versions to keep of each root
    :returns: the state after it, and the commit; None where log and watchers have nothing of it
    :raises Diverged: where it does not follow the state
    """
    if isinstance(request, Replicated):
        return _replicate(state, request, maxlen)
    if isinstance(request, Adoption):
        return _adopt(state, request, time)
    if isinstance(request, Overlay):
        return _overlay(state, request, time)
    if isinstance(request, Hide):
        return _hide(state, request.root), None
    return _follow(state, request, time)


def _replicate(state: State, request: Replicated, maxlen: int) -> tuple[State, Commit]:
    follows = {}
    for name in request.versions:
        lead = state.following.get(name)
        if lead is None or lead.leader != request.leader:
            raise Diverged(f"{request.leader} does not lead {dotted((name,))}", root=name)
        follows[name] = Lead(lead.leader, lead.life, request.seq)
    draft = Draft(state, request.tega_id)
    try:
        for operation in request.changes:
            if request.whole and request.rolled_back is None:
                draft.apply(operation)
            else:
                content = operation.content if isinstance(operation, Put) else ABSENT
                draft.put_back(operation.path, content, operation.tega_id or request.tega_id)
        for path in request.touched:
            draft.touch(path)
        for name in request.versions.keys() - draft.contents.keys():
            draft.touch((name,))
    except TegaError as error:
        raise Diverged(f"commit {request.seq} of {request.leader} has no place: {error}") from error
    if draft.versions != request.versions:
        raise Diverged(
            f"commit {request.seq} of {request.leader} makes the versions {request.versions}, here "
            f"it makes {draft.versions}"
        )
    after, commit = draft.commit(
        request.time, maxlen, request.txid, request.rolled_back, request.touched, follows
    )
    if dict(commit.chains) != request.chains:
        raise Diverged(f"commit {request.seq} of {request.leader} is not the one made here: chains")
    return after, commit


def _adopt(state: State, request: Adoption, time: str) -> tuple[State, Commit]:
    name, root = request.root, request.content
    before = state.roots.get(name)
    # What watchers know of, hidden or not.
    gone: MaybeContent = state.hidden.get(name, ABSENT if before is None else before.content)
    content: MaybeContent = ABSENT if root is None else root.content
    version = 0 if root is None else root.version
    changes: tuple[Change, ...] = ()
    if content is not ABSENT:
        # Its text is made where somebody wants it: the root may be large.
        made = Change("PUT", (name,), request.tega_id, content, version, b"", gone)
        changes = (made,)
    elif gone is not ABSENT:
        changes = (Change("DELETE", (name,), request.tega_id, gone, version, b"", gone),)
    commit = Commit(
        state.seq + 1,
        time,
        request.tega_id,
        changes,
        () if root is None else ((name, root.version),),
        () if root is None else ((name, root.chain),),
        follows=((name, request.lead),),
        adopted=((name, root),),
    )
    return adopted(state, commit.seq, name, root, request.lead), commit


def adopted(state: State, seq: int, name: str, root: Root | None, lead: Lead) -> State:
    """The state with a root as its leader has it."""
    before = state.following.get(name)
    ids = state.ids
    if before is None or before.life != lead.life or root is None:
        # What those transactions did is not in the history of this root.
        ids = ids.without(name)
    roots = state.roots
    if root is not None:
        roots = roots.set(name, root)
    elif name in roots:
        roots = roots.delete(name)
    return replace(
        state,
        seq=seq,
        roots=roots,
        ids=ids,
        ephemerals=_index_without(state, name),
        following=state.following.set(name, lead),
        hidden=_without(state.hidden, name),
    )


def _overlay(state: State, request: Overlay, time: str) -> tuple[State, Commit | None]:
    name = request.root
    if name not in state.following:
        raise Diverged(f"{dotted((name,))} is led here", root=name)
    root = state.roots.get(name)
    if (root.version if root is not None else -1) != request.version:
        raise Diverged(f"ephemeral nodes of version {request.version} of {dotted((name,))}")
    if root is None:
        return state, None
    return _shown(state, root, laid_on(root.content, request.nodes), request.tega_id, time)


def _shown(
    state: State, root: Root, content: MaybeContent, tega_id: str, time: str
) -> tuple[State, Commit | None]:
    """The state with other ephemeral nodes in a root, and the commit that tells of them."""
    name = root.name
    hidden = state.hidden.get(name)
    known = root.content if hidden is None else hidden
    changes = tuple(_differences(known, content, root, again=hidden is not None))
    ephemerals = _index_without(state, name)
    for path, owner in tops(content, (name,)):
        owned = ephemerals.get(owner, immutables.Map())
        ephemerals = ephemerals.set(owner, owned.set(path, True))
    after = replace(
        state,
        seq=state.seq + bool(changes),
        roots=state.roots.set(name, replace(root, content=content)),
        ephemerals=ephemerals,
        hidden=_without(state.hidden, name),
    )
    return after, Commit(after.seq, time, tega_id, changes, (), ()) if changes else None


def _differences(
    known: MaybeContent, content: MaybeContent, root: Root, again: bool
) -> Iterator[Change]:
    """What tells watchers who know the ephemeral nodes of one tree of those of another.

    :param again: also of those that are the same: somebody may have looked while they were hidden
    """
    before, after = _nodes(known, root), _nodes(content, root)
    for path, (owner, gone) in before.items():
        other = path in after and after[path][0] != owner
        # Of what was put there to last they have been told.
        if other or lookup(content, root.version, path) is None:
            yield _change("DELETE", path, owner, gone, root, gone)
    for path, (owner, new) in after.items():
        had = before.get(path)
        if had is None or had[0] != owner:
            yield _change("PUT", path, owner, new, root, ABSENT)
        elif again or encode.text(had[1]) != encode.text(new):
            yield _change("PUT", path, owner, new, root, had[1])


def _nodes(content: MaybeContent, root: Root) -> dict[Path, tuple[str, Content]]:
    found = {}
    for path, owner in tops(content, (root.name,)):
        there = lookup(content, root.version, path)
        assert there is not None
        found[path] = owner, there.content
    return found


def _change(
    ope: Literal["PUT", "DELETE"],
    path: Path,
    owner: str,
    content: Content,
    root: Root,
    gone: MaybeContent,
) -> Change:
    record = record_of(ope, path, owner, encode.text(content), root.version)
    return Change(ope, path, owner, content, root.version, record, gone, ephemeral=True)


def _hide(state: State, name: str) -> State:
    root = state.roots.get(name)
    if root is None or mark_of(root.content) is None or name not in state.following:
        return state
    return replace(
        state,
        roots=state.roots.set(name, replace(root, content=lasting(root.content))),
        ephemerals=_index_without(state, name),
        # Where they were hidden before, some came since, and went: watchers know those of then too.
        hidden=state.hidden.set(name, root.content),
    )


def _follow(state: State, request: Follow, time: str) -> tuple[State, Commit]:
    name = request.root
    root = state.roots.get(name)
    told: Commit | None = None
    if request.lead is None:
        if name not in state.following:
            raise NotFound(f"{dotted((name,))} is led here already", path=name)
        if root is not None:
            # Its ephemeral nodes are of sessions that the leader answered for.
            state, told = _shown(state, root, lasting(root.content), request.tega_id, time)
    if told is None:
        state = replace(state, seq=state.seq + 1)
        told = Commit(state.seq, time, request.tega_id, (), (), ())
    commit = replace(told, follows=((name, request.lead),))
    return replace(state, following=followed(state.following, commit.follows)), commit


def _index_without(
    state: State, name: str
) -> immutables.Map[str, immutables.Map[Path, bool]]:
    """Who has which ephemeral nodes, without those of one root."""
    index = state.ephemerals
    for owner, paths in state.ephemerals.items():
        left = immutables.Map({path: True for path in paths if path[0] != name})
        if len(left) != len(paths):
            index = index.set(owner, left) if left else index.delete(owner)
    return index


def _without(map_: immutables.Map[str, Any], key: str) -> immutables.Map[str, Any]:
    return map_.delete(key) if key in map_ else map_
