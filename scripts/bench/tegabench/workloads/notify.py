"""How quickly a hundred subscribers are told of what is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from tegabench import values
from tegabench.bench import Bench
from tegabench.client import Conversation, drive
from tegabench.crowd import SAMPLE, Crowd, Tally
from tegabench.process import BenchError
from tegabench.result import Contestant, Limit, Sample, Workload, in_series, only
from tegabench.systems.bare_ws import Fan
from tegabench.systems.base import CONNECTIONS, Announcer, System
from tegabench.systems.tega_ws import TegaWs
from tegabench.workloads.rates import SYNC, check, sync_floor


def notify(bench: Bench) -> Iterator[Workload]:
    """Durable writes, each told to every subscriber, on a connection of its own."""
    rivals = [cls for cls in bench.peers if issubclass(cls, Announcer)]
    classes: list[type[Announcer]] = [Fan, TegaWs, *rivals]
    servers = [server for cls in classes if (server := bench.start(cls)) is not None]
    bench.note(
        "Every subscriber, each on a connection of its own, must get every notification; of "
        f"{SAMPLE} it is read that each write is there, once, and in order"
    )
    for server in servers:
        if server.role == "peer" and not server.tells_durable:
            bench.note(f"{server.title} tells its subscribers without storing anything")
        if server.event_only:
            bench.note(f"{server.title} tells its subscribers the path only, not the value")
    title = f"notification of a durable put, {bench.sizes.subscribers} subscribers"
    for in_flight in (1, CONNECTIONS):
        contestants = [_contestant(bench, server, in_flight) for server in servers]
        limit: Limit = only
        limit_title = Fan.title
        if in_flight == 1:
            contestants.append(Contestant(SYNC, "limit", partial(_sync, bench)))
            limit, limit_title = _in_turn, f"{Fan.title} and one fdatasync in series"
        yield Workload(
            f"{title}, {in_flight} in flight", "deliveries/s", contestants, limit_title, limit
        )


def _in_turn(rates: Mapping[str, float]) -> float:
    return in_series(*rates.values())


def _sync(bench: Bench) -> Sample:
    """Syncs, each of them as many deliveries as there are subscribers."""
    sample = sync_floor(bench)
    return dataclasses.replace(sample, value=sample.value * bench.sizes.subscribers)


def _contestant(bench: Bench, server: Announcer, in_flight: int) -> Contestant:
    warm = False

    def measure() -> Sample:
        nonlocal warm
        if not warm:
            _run(bench, server, in_flight)
            warm = True
        return _run(bench, server, in_flight)

    return Contestant(server.title, server.role, measure)


def _run(bench: Bench, server: Announcer, in_flight: int) -> Sample:
    """Write for a while, and wait until every subscriber has been told of every write."""
    generation = bench.generation()
    subscribers = bench.sizes.subscribers
    writers = server.announcements(in_flight, generation)
    store = server if isinstance(server, System) and server.tells_durable else None
    before = store.revision() if store else None
    with Crowd([server.subscriber(number) for number in range(subscribers)]) as crowd:
        cpu = server.process.cpu_seconds()
        timing = drive(writers, bench.sizes.seconds)
        tally = crowd.tally(timing.operations)
        seconds = tally.last - timing.began
        share = (server.process.cpu_seconds() - cpu) / seconds
    judge(server, tally, writers, generation)
    return Sample(
        timing.operations * subscribers / seconds,
        # The writer and the subscribers, which have one core together.
        (timing.client_cpu * timing.seconds + tally.cpu) / seconds,
        share,
        checked=check(store, "put", writers, generation, before) if store else 0,
    )


def judge(
    server: Announcer, tally: Tally, writers: Sequence[Conversation], generation: int
) -> None:
    """Look at what a few subscribers got: every write of each writer, once, in order.

    :raises BenchError: where that is not so
    """
    for stream in tally.streams:
        if not server.event_only:
            told: list[list[int]] = [[] for _ in writers]
            for made, connection, serial in values.TAGS.findall(stream):
                if int(made) == generation:
                    told[int(connection)].append(int(serial))
            if told != [list(range(writer.done)) for writer in writers]:
                raise BenchError(f"{server.title}: a subscriber missed a write or got it twice")
        if server.order is not None:
            numbers = [int(number) for number in server.order.findall(stream)]
            if numbers != sorted(set(numbers)):
                raise BenchError(f"{server.title}: a subscriber was told out of order")
