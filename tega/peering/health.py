"""How it stands between this server and its peers, for ``/_health``."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tega.paths import dotted
from tega.peering.dialer import Dialer
from tega.peering.link import Link
from tega.peering.peers import Peers

#: A refused server tries again within so long, seconds.
_LATELY: Final = 60.0


def health_of(peers: Peers, dialer: Dialer | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Each peer with its state, and what is not as it should be.

    :returns: for each peer ``{"tega_id", "role", "state", ...}``; and reasons, for people
    """
    now = asyncio.get_running_loop().time()
    told = []
    reasons = []
    if dialer is not None:
        up: dict[str, Any] = {
            "address": dialer.address,
            "role": "global",
            "seconds": round(now - dialer.since, 1),
            "state": dialer.state,
            "tega_id": dialer.peer,
        }
        if peers.up is not None:
            up["roots"] = roots_over(peers, peers.up)
        else:
            up["reason"] = dialer.reason
            reasons.append(f"the global server at {dialer.address} is away: {dialer.reason}")
        told.append(up)
    told += [
        {
            "role": "local",
            "roots": roots_over(peers, link),
            "state": "connected",
            "tega_id": link.peer,
        }
        for link in peers.links()
        if not link.upward
    ]
    reasons += [
        f"{dotted((name,))} is stale for {now - since:.0f} s: its leader is away"
        for name, since in sorted(peers.stale.items())
    ]
    reasons += [
        f"{dotted((name,))} is not followed by the global server: {why}"
        for name, why in sorted(peers.claims.refused.items())
    ]
    reasons += [
        f"two servers have the tega id {tega_id}: the newer one is refused"
        for tega_id, since in sorted(peers.twins.items())
        if now - since < _LATELY
    ]
    peers.routing.offered()
    reasons += peers.routing.conflicts
    return told, reasons


def roots_over(peers: Peers, link: Link) -> dict[str, dict[str, Any]]:
    """What goes over a link: who leads each root, and how many versions the follower lags."""
    found: dict[str, dict[str, Any]] = {}
    for name in link.replica.roots:
        here = peers.version_of(name)
        found[name] = {
            "caught_up": name in link.replica.caught_up,
            "lag": max(0, link.replica.newest(name) - here),
            "leads": link.peer,
        }
    for name in link.source.roots:
        there = link.applied.get(name, {}).get(link.peer, -1)
        found[name] = {
            "caught_up": link.source.live,
            "lag": max(0, peers.version_of(name) - there),
            "leads": peers.tega_id,
        }
    return found
