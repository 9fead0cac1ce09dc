"""Round trips from one Python program to another through a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from tegabench.bench import Bench
from tegabench.ends import ENDS, SERVING, WARMING, call
from tegabench.process import Process, in_child, python
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import CONNECTIONS, Server
from tegabench.systems.nats import Nats
from tegabench.systems.tega import Tega


def rpc(bench: Bench) -> Iterator[Workload]:
    """A function of one program called by another, each with the server's own Python driver."""
    classes: list[type[Server]] = [Tega, *[cls for cls in bench.peers if cls is Nats]]
    with ExitStack() as ends:
        servers: list[Server] = []
        for cls in classes:
            reason = ENDS[cls.name].missing()
            if reason is not None:
                bench.note(f"{cls.title} left out of the calls: {reason}")
            elif (server := bench.start(cls)) is not None and _served(bench, server, ends):
                servers.append(server)
        bench.note("The program that calls and the one that is called share the client's core")
        for in_flight in (1, CONNECTIONS):
            yield Workload(
                f"RPC round trip, Python at both ends, {in_flight} in flight",
                "op/s",
                [_contestant(bench, server, in_flight) for server in servers],
                client_counts=True,
            )


def _served(bench: Bench, server: Server, ends: ExitStack) -> bool:
    """Start the program that is called; a note where that fails."""
    output = bench.place(f"{server.name}-end") / "output.txt"
    command = python("-m", "tegabench.ends", server.name, str(server.address[1]))
    try:
        process = Process(command, output, bench.cores.client)
        ends.callback(process.stop)
        process.wait_ready(lambda: SERVING in output.read_text())
    except Exception as error:  # the others can still be measured
        bench.fail(f"{server.title}, the program that is called", error)
        return False
    return True


def _contestant(bench: Bench, server: Server, in_flight: int) -> Contestant:
    def measure() -> Sample:
        name = f"calling-end-{bench.generation()}"
        cpu = server.process.cpu_seconds()
        arguments = (server.name, server.address, name, in_flight, bench.sizes.seconds)
        timing = in_child(bench.cores.client, call, *arguments)
        share = (server.process.cpu_seconds() - cpu) / (timing.seconds * (1 + WARMING))
        return Sample.of(timing, timing.rate, share)

    return Contestant(server.title, server.role, measure)
