"""What is measured.

A family is a function from the :class:`~tegabench.bench.Bench` to workloads, one row of the table
each; it starts what it needs through ``bench.start``, and what it started is stopped when it
ends. To add one, write the function and name it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tegabench.bench import Bench
from tegabench.result import Workload
from tegabench.workloads import (
    drivers,
    embedded,
    memory,
    notify,
    peers,
    rates,
    restart,
    rpc,
    scale,
    sentinel,
    sessions,
    stall,
)

FAMILIES: Mapping[str, Callable[[Bench], Iterator[Workload]]] = {
    "get": rates.gets,
    "put": rates.puts,
    "tx": rates.transactions,
    "embedded": embedded.embedded,
    "memory": memory.memory,
    "restart": restart.restart,
    "scale": scale.scale,
    "stall": stall.stall,
    "ws_tx": rates.ws_transactions,
    "drivers": drivers.drivers,
    "notify": notify.notify,
    "rpc": rpc.rpc,
    "subscriptions": sessions.subscriptions,
    "sessions": sessions.sessions,
    "peers": peers.peers,
    "sentinel": sentinel.sentinel,
}
