"""What a local server may do here: it is judged for all that comes over its connection."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from tega import strictjson
from tega.access.rules import CALL, PUBLISH
from tega.access.who import Who
from tega.errors import TegaError
from tega.paths import Path
from tega.store.commit import Put, Rollback, Transaction
from tega.store.node import thaw
from tega.watcher import Publication

log = logging.getLogger(__name__)


class Peer(Protocol):
    """The other end."""

    peer: str
    who: Who


def check_request(who: Who, request: Transaction | Rollback) -> None:
    """Refuse what a peer may not have done, or may not have done for somebody.

    :raises Forbidden: naming it
    """
    who.speaks_for(request.tega_id)
    if isinstance(request, Rollback):
        who.check_write((request.root,))
        return
    for operation in request.operations:
        who.check_write(operation.path)
        if operation.tega_id is not None:
            who.speaks_for(operation.tega_id)
        if isinstance(operation, Put) and not who.unbound:
            value = thaw(operation.content)
            who.check_functions(strictjson.dumps(value), (value,), through_peer=True)


def check_call(who: Who, path: Path, caller: str) -> None:
    """Refuse a call that a peer may not make, or not for its caller.

    :raises Forbidden: naming it
    """
    who.check(CALL, path)
    who.speaks_for(caller)


def may_lead(
    who: Who, wanted: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str | None]]:
    """Those of the roots that a peer wants to lead which it may, and why it may not the others."""
    may = {name: leader for name, leader in wanted.items() if who.leads(name)}
    return may, dict.fromkeys(wanted.keys() - may.keys(), f"{who.name} may not write all of it")


def spoken_for(link: Peer, tega_ids: Iterable[str]) -> list[str]:
    """Those sessions that a peer may speak for."""
    found = []
    for tega_id in tega_ids:
        try:
            found.append(link.who.speaks_for(tega_id))
        except TegaError as error:
            log.warning("a session at %s cannot have nodes here: %s", link.peer, error)
    return found


def passes(link: Peer, publication: Publication) -> bool:
    """Whether a message of a peer goes any further."""
    try:
        link.who.check(PUBLISH, publication.channel)
        link.who.speaks_for(publication.tega_id)
    except TegaError as error:
        log.warning("a message of %s goes no further: %s", link.peer, error)
        return False
    return True
