"""What handlers share: the database, the way to commit, and the open transactions."""

from __future__ import annotations

import msgspec

from tega.database import Database
from tega.paths import check_tega_id, check_txid
from tega.peering.dialer import Dialer
from tega.peering.peers import Peers
from tega.plugins import Plugins
from tega.web.bodies import Bodies
from tega.web.calls import Calls
from tega.web.committer import Committer
from tega.web.http import Call
from tega.web.later import Later
from tega.web.limits import Limits
from tega.web.refusals import Refusals
from tega.web.sessions import Sessions
from tega.web.transactions import Transactions


class Context(msgspec.Struct, frozen=True, eq=False):
    """The parts of a running server that handlers work on.

    :ivar committing: the transactions whose commit is under way, by id
    """

    database: Database
    committer: Committer
    transactions: Transactions
    committing: dict[str, Later]
    sessions: Sessions
    calls: Calls
    plugins: Plugins
    peers: Peers
    limits: Limits
    refusals: Refusals
    bodies: Bodies
    dialer: Dialer | None = None


def client_id(call: Call) -> str:
    """Who asks: the tega id given, or what that one goes by.

    :raises Malformed: for what cannot be one
    :raises Forbidden, Unauthorized: for that of somebody else
    """
    given = call.optional("tega_id")
    return call.who.tega_id if given is None else call.who.goes_by(check_tega_id(given))


def client_key(call: Call) -> str | None:
    """The client's transaction id, from the header ``Idempotency-Key``.

    :raises Malformed: for one that is too long, or not printable
    """
    key = call.headers.get("Idempotency-Key")
    return None if key is None else call.who.key(check_txid(key))
