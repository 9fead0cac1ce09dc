"""What the drivers for Python and Go do of the same, beside the lean client."""

from __future__ import annotations

import asyncio
import importlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tegabench import values
from tegabench.bench import Bench
from tegabench.client import Timing
from tegabench.httpwire import Address
from tegabench.process import REPOSITORY, BenchError, in_child, pin
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import CONNECTIONS, KEYS, expected
from tegabench.systems.tega import Tega
from tegabench.systems.tega_ws import TegaWs
from tegabench.workloads.rates import warmed

#: Puts for a while with so many under way: the timing, and how many each of those has done.
Driven = Callable[[int, float, int], tuple[Timing, list[int]]]

_LIMIT = "the lean client, on 8 connections"


def drivers(bench: Bench) -> Iterator[Workload]:
    """One document written durably a transaction, through the drivers for Python and Go."""
    server = bench.start(Tega)
    if server is None:
        return
    cores = bench.cores.client
    bare = warmed(bench, TegaWs.beside(server), "put", CONNECTIONS)
    by_python = partial(in_child, cores, put_by_async_driver, server.address)
    contestants = [
        Contestant(_LIMIT, "limit", bare),
        Contestant("AsyncDriver", "tega", _measured(bench, server, by_python)),
    ]
    go = shutil.which("go")
    if go is None:
        bench.note("the Go driver left out: Go is not installed")
    else:
        by_go = partial(put_by_go, cores, _built(go, bench.place("go")), server.address)
        contestants.append(Contestant("the Go driver", "peer", _measured(bench, server, by_go)))
    yield Workload(
        f"TX of one durable put through a driver, {CONNECTIONS} in flight on one connection",
        "op/s",
        contestants,
        _LIMIT,
        client_counts=True,
    )


def _built(go: str, place: Path) -> str:
    made = str(place / "bench")
    command = [go, "build", "-o", made, "./internal/bench"]
    done = subprocess.run(
        command, cwd=REPOSITORY / "driver", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr[-600:]}")
    return made


def _measured(bench: Bench, server: Tega, driven: Driven) -> Callable[[], Sample]:
    warm = False

    def run() -> Sample:
        generation = bench.generation()
        before, cpu = server.revision(), server.process.cpu_seconds()
        timing, done = driven(CONNECTIONS, bench.sizes.seconds, generation)
        share = (server.process.cpu_seconds() - cpu) / timing.seconds
        after = server.revision()
        if before is not None and after is not None and after - before != sum(done):
            raise BenchError(f"{sum(done)} were acknowledged, {after - before} were counted")
        for number, count in enumerate(done):
            held = server.tags(number)
            for key, tag in expected("put", number, generation, count).items():
                if held[key] != tag:
                    raise BenchError(f"an acknowledged write is lost: key {key} of {number}")
        return Sample.of(timing, timing.rate, share, sum(done))

    def measure() -> Sample:
        nonlocal warm
        if not warm:
            run()
            warm = True
        return run()

    return measure


def put_by_async_driver(
    address: Address, in_flight: int, seconds: float, generation: int
) -> tuple[Timing, list[int]]:
    """Put through `tega.driver.AsyncDriver`."""
    return asyncio.run(_put(address, in_flight, seconds, generation))


async def _put(
    address: Address, in_flight: int, seconds: float, generation: int
) -> tuple[Timing, list[int]]:
    clock = time.perf_counter
    template = json.loads(values.document(values.tag(0, 0, 0)))
    latencies: list[float] = []
    done = [0] * in_flight
    driver: Any = importlib.import_module("tega.driver").AsyncDriver(*address)
    async with driver:
        cpu, start = time.process_time(), clock()
        stop = start + seconds

        async def one_after_another(number: int) -> None:
            before = clock()
            while before < stop:
                serial = done[number]
                tag = values.tag(generation, number, serial).decode()
                async with driver.tx() as t:
                    t.put({**template, "tag": tag}, path=f"bench.c{number}.k{serial % KEYS}")
                done[number] += 1
                after = clock()
                latencies.append(after - before)
                before = after

        await asyncio.gather(*[one_after_another(number) for number in range(in_flight)])
        wall = clock() - start
        share = (time.process_time() - cpu) / wall
    latencies.sort()
    return Timing(len(latencies), wall, latencies, share, start), done


def put_by_go(
    cores: frozenset[int] | None,
    program: str,
    address: Address,
    in_flight: int,
    seconds: float,
    generation: int,
) -> tuple[Timing, list[int]]:
    """Put through the Go driver."""
    start = time.perf_counter()
    host, port = address
    ran = subprocess.run(
        [program, f"{host}:{port}", str(in_flight), str(seconds), str(generation)],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
        preexec_fn=partial(pin, cores),
    )  # fmt: skip
    if ran.returncode:
        raise BenchError(f"the Go end: {ran.stderr[-600:]}")
    found = json.loads(ran.stdout)
    latencies, wall = found["latencies"], found["seconds"]
    return Timing(len(latencies), wall, latencies, found["cpu"] / wall, start), found["done"]
