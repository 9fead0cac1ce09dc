"""A global server with many local ones, and what going through a local one costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

from tegabench import httpwire
from tegabench.bench import Bench
from tegabench.fleet import PROCESSES, ROOT, Fleet
from tegabench.process import python
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import CONNECTIONS
from tegabench.systems.tega import Tega
from tegabench.table import whole
from tegabench.workloads.rates import run, warmed

#: Puts of which is looked how soon they are everywhere, in one run.
_PUTS = 20

#: Local servers that come and go before the first look at the memory.
_FIRST = 20


class Local(Tega):
    """A local server process: what is asked of it goes to the global one.

    :ivar upstream: the address of the global server
    """

    name = "tega-local"
    title = "tega, through a local server"
    upstream: httpwire.Address

    def command(self) -> list[str]:
        host, port = self.upstream
        return python(
            *("-m", "tega.server", "-d", str(self.directory / "data"), "-t", "local"),
            *("-p", str(self.address[1]), "-a", self.address[0], "-H", host, "-P", str(port)),
            *("-C", "bench"),
        )

    def ready(self) -> bool:
        (up,) = httpwire.call_json(self.address, "GET", "/_health")["peers"]
        return bool(up["state"] == "connected" and up["roots"]["bench"]["caught_up"])


def peers(bench: Bench) -> Iterator[Workload]:
    """A change that many local servers follow, their weight, a restart, and forwarded puts."""
    count = bench.sizes.locals
    plain, server = bench.start(Tega), bench.start(Tega)
    if plain is None or server is None:
        return
    server.put(f"/{ROOT}/", {f"k{key}": key for key in range(16)})
    many = f"{whole(count)} local servers"
    memory = f"memory of the global server, {many} connected"
    yield _row(memory, "bytes each", partial(_memory, server, count), once=True)
    with Fleet(server.address, count) as fleet:
        for title, unit, measure in (
            (f"durable put on the global server, until half of {many} have it", "ms", _half),
            (f"durable put on the global server, until all {many} have it", "ms", _all),
            ("processor time of the global server for each that has a put", "us", _work),
        ):
            yield _row(title, unit, partial(measure, server, fleet))
        yield Workload(
            f"put p50 (REST) beside {many} that follow something else",
            "ms",
            [
                Contestant("tega, no local servers", "limit", partial(_puts, bench, plain)),
                Contestant("tega", "tega", partial(_puts, bench, server)),
            ],
            "no local servers",
            higher_is_better=False,
        )
        again = f"kill and start of the global server, until {many} have converged"
        # Again soon after that, and they would wait longer before they try.
        yield _row(again, "s", partial(_restart, server, fleet), once=True)
    bench.note(
        f"the local servers are in {PROCESSES} processes that share the core of the client, and "
        "have memory for a disk; each follows one root, and leads one of its own with one leaf"
    )
    plain.stop()
    server.stop()
    yield from _forwarded(bench)


def _row(title: str, unit: str, measure: Callable[[], Sample], once: bool = False) -> Workload:
    only_tega = [Contestant("tega", "tega", measure)]
    return Workload(title, unit, only_tega, higher_is_better=False, once=once)


def _memory(server: Tega, count: int) -> Sample:
    with Fleet(server.address, min(count, _FIRST), first=2 * count):
        pass
    before = server.process.memory()
    with Fleet(server.address, count) as fleet:
        fleet.applied(_put(server))
        return Sample((server.process.memory() - before) / count)


def _put(server: Tega) -> int:
    """Change what all follow: the version that this makes."""
    value = time.perf_counter_ns()
    made = httpwire.call_json(server.address, "PUT", f"/{ROOT}/changed/", value)
    version: int = made["versions"][ROOT]
    return version


def _spread(server: Tega, fleet: Fleet) -> Iterator[list[float]]:
    """Puts, and after how many seconds each local server has it; the quickest first."""
    for _ in range(_PUTS):
        begun = time.perf_counter()
        yield [when - begun for when in fleet.applied(_put(server))]


def _half(server: Tega, fleet: Fleet) -> Sample:
    times = [statistics.median(found) for found in _spread(server, fleet)]
    return Sample(1000 * statistics.median(times))


def _all(server: Tega, fleet: Fleet) -> Sample:
    return Sample(1000 * statistics.median([found[-1] for found in _spread(server, fleet)]))


def _work(server: Tega, fleet: Fleet) -> Sample:
    """With what they answer, and what the put itself takes."""
    before = server.process.cpu_seconds()
    had = sum(len(found) for found in _spread(server, fleet))
    return Sample(1e6 * (server.process.cpu_seconds() - before) / had)


def _puts(bench: Bench, server: Tega) -> Sample:
    timing, share, checked = run(bench, server, "put", 1)
    return Sample.of(timing, timing.percentile(0.5) * 1000, share, checked)


def _restart(server: Tega, fleet: Fleet) -> Sample:
    begun = time.perf_counter()
    server.kill()
    server.start()
    fleet.applied(_put(server))
    return Sample(fleet.converge() - begun)


def _forwarded(bench: Bench) -> Iterator[Workload]:
    """Puts on a local server beside the same ones on a global server."""
    direct, above, local = bench.start(Tega), bench.start(Tega), bench.make(Local)
    if direct is None or above is None or local is None:
        return
    local.upstream = above.address
    if not bench.launch(local):
        return
    for in_flight in (1, CONNECTIONS):
        yield Workload(
            f"REST durable put through a local server, {in_flight} in flight",
            "op/s",
            [
                Contestant("tega, direct", "limit", warmed(bench, direct, "put", in_flight)),
                Contestant("tega", "tega", warmed(bench, local, "put", in_flight)),
            ],
            "the same put on the global server",
        )
