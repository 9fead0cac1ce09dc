"""How long small gets wait while somebody asks for something large."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from tegabench import httpwire
from tegabench.bench import Bench
from tegabench.client import drive
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import Role
from tegabench.systems.tega import Tega
from tegabench.table import whole

#: Seconds after which a large request is given up.
_PATIENCE = 60.0


def stall(bench: Bench) -> Iterator[Workload]:
    """The worst wait of small gets beside a snapshot, and beside a get of the whole tree."""
    system = bench.start(Tega)
    if system is None:
        return
    leaves = bench.sizes.leaves
    system.fill(leaves)
    for title, request in (
        (f"a snapshot of {whole(leaves)} leaves", httpwire.request("POST", "/_ss", b"")),
        (f"a get of {whole(leaves)} leaves", httpwire.request("GET", "/big/")),
    ):
        yield Workload(
            f"worst wait of a small get beside {title}",
            "ms",
            [
                Contestant("tega, nothing beside", "limit", partial(_alone, bench, system)),
                _contestant(system, "tega", "tega", request),
            ],
            "nothing beside",
            higher_is_better=False,
        )


def _alone(bench: Bench, system: Tega) -> Sample:
    timing = drive(system.conversations("get", 1, 0), bench.sizes.seconds)
    return Sample.of(timing, timing.latencies[-1] * 1000)


def _contestant(system: Tega, title: str, role: Role, request: bytes) -> Contestant:
    def measure() -> Sample:
        with ThreadPoolExecutor(1) as pool:
            answer: Future[int] = pool.submit(fetch, system.address, request)
            timing = drive(system.conversations("get", 1, 0), _PATIENCE, until=answer.done)
            answer.result(_PATIENCE)
        return Sample.of(timing, timing.latencies[-1] * 1000)

    return Contestant(title, role, measure)


def fetch(address: httpwire.Address, request: bytes) -> int:
    """Send a request and drop its answer as it comes, so that reading costs next to nothing.

    :returns: the bytes of the answer
    :raises BadReply: for any status but 200; OSError: where the connection breaks
    """
    with socket.create_connection(address, _PATIENCE) as sock:
        sock.sendall(request)
        replies = httpwire.Drain()
        while not replies.take(sock.recv(1 << 20)):
            pass
    return replies.size
