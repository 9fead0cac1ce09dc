"""Gets, durable puts and transactions of ten puts: one client, and 64 operations in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tegabench.bench import Bench
from tegabench.client import Conversation, Timing, drive
from tegabench.process import BenchError, count_syncs, in_child
from tegabench.result import Contestant, Limit, Sample, Workload, in_series, only
from tegabench.systems.bare import Bare
from tegabench.systems.base import BATCH, CONNECTIONS, Kind, System, expected
from tegabench.workloads.embedded import append_and_sync

_HANDLER = Bare.title
_SYNC = "append and fdatasync"

#: Round trips of a transaction over REST: begin, the puts, commit.
TRIPS = BATCH + 2

_TITLES: Mapping[Kind, str] = {
    "get": "REST get",
    "put": "REST durable put",
    "tx": f"{BATCH} puts as one transaction, {TRIPS} REST round trips (2017's way)",
}


def gets(bench: Bench) -> Iterator[Workload]:
    """One document of 200 bytes read."""
    yield from _rates(bench, "get")


def puts(bench: Bench) -> Iterator[Workload]:
    """One document of 200 bytes written durably."""
    yield from _rates(bench, "put")


def transactions(bench: Bench) -> Iterator[Workload]:
    """Ten documents written durably as one transaction."""
    yield from _rates(bench, "tx")


def _rates(bench: Bench, kind: Kind) -> Iterator[Workload]:
    classes: list[type[System]] = [Bare, *bench.rivals()]
    systems = [system for cls in classes if (system := bench.start(cls)) is not None]
    for in_flight in (1, CONNECTIONS):
        contestants = [_contestant(bench, system, kind, in_flight) for system in systems]
        if kind != "get" and in_flight == 1:
            contestants.append(Contestant(_SYNC, "limit", lambda: sync_floor(bench)))
        limit, limit_title = _limit(kind, in_flight)
        title = f"{_TITLES[kind]}, {in_flight} in flight"
        yield Workload(title, "op/s", contestants, limit_title, limit)
    if kind == "put" and bench.count_syncs:
        for system in systems:
            if not isinstance(system, Bare):
                _note_syncs(bench, system)


def _limit(kind: Kind, in_flight: int) -> tuple[Limit, str]:
    trips = TRIPS if kind == "tx" else 1
    handler = _HANDLER if trips == 1 else f"{trips} x {_HANDLER}"
    if kind == "get":
        return only, handler
    if in_flight > 1:
        return lambda rates: rates[_HANDLER] / trips, handler
    return (
        lambda rates: in_series(rates[_HANDLER] / trips, rates[_SYNC]),
        f"{handler} and one fdatasync in series",
    )


def _contestant(bench: Bench, system: System, kind: Kind, in_flight: int) -> Contestant:
    # The bare handler answers each of a transaction's round trips alike.
    asked: Kind = "put" if system.role == "limit" and kind == "tx" else kind
    measure = warmed(bench, system, asked, in_flight)
    return Contestant(system.title, system.role, measure)


def warmed(bench: Bench, system: System, kind: Kind, in_flight: int) -> Callable[[], Sample]:
    """Measures a rate; before the first time it runs for a while uncounted."""
    warm = False

    def measure() -> Sample:
        nonlocal warm
        if not warm:
            run(bench, system, kind, in_flight)
            warm = True
        timing, server, checked = run(bench, system, kind, in_flight)
        return Sample.of(timing, timing.rate, server, checked)

    return measure


def run(
    bench: Bench, system: System, kind: Kind, in_flight: int, most: int = 1_000_000
) -> tuple[Timing, float, int]:
    """One run against one server, and a look at what it holds afterwards.

    :returns: the timing, the server's share of the CPU, and how many acknowledged writes were
        found
    :raises BenchError: where one is not there
    """
    generation = bench.generation()
    conversations = system.conversations(kind, in_flight, generation)
    before = None if kind == "get" else system.revision()
    cpu = system.process.cpu_seconds()
    timing = drive(conversations, bench.sizes.seconds, most)
    server = (system.process.cpu_seconds() - cpu) / timing.seconds
    checked = 0
    if kind != "get" and not isinstance(system, Bare):
        checked = check(system, kind, conversations, generation, before)
    return timing, server, checked


def check(
    system: System,
    kind: Kind,
    conversations: list[Conversation],
    generation: int,
    before: int | None,
) -> int:
    """Look up what acknowledged writes left, and that none is missing in the server's count.

    :param before: the server's count of commits before them
    :returns: the acknowledged operations
    :raises BenchError: where one is not there
    """
    done = sum(conversation.done for conversation in conversations)
    after = system.revision()
    if before is not None and after is not None and after - before != done:
        raise BenchError(f"{done} commits were acknowledged, {after - before} were counted")
    for number, conversation in enumerate(conversations):
        held = system.tags(number)
        for key, tag in expected(kind, number, generation, conversation.done).items():
            if held[key] != tag:
                raise BenchError(
                    f"an acknowledged write is lost: key {key} of connection {number} holds "
                    f"{held[key]!r}, not {tag!r}"
                )
    return done


def sync_floor(bench: Bench) -> Sample:
    """Append 200 bytes and ``fdatasync``, in turn."""
    place = bench.place("sync")
    return in_child(bench.cores.server, append_and_sync, place, bench.sizes.seconds)


def _note_syncs(bench: Bench, system: System) -> None:
    try:
        report = bench.place("strace") / "report"
        with count_syncs(system.process.pid, report) as count:
            timing, _, _ = run(bench, system, "put", 1, most=200)
    except BenchError as error:
        bench.note(f"{system.title}: syncs not counted: {error}")
        return
    bench.note(
        f"{system.title}: {count() / timing.operations:.2f} syncs an acknowledged put at one "
        f"client ({system.durable})"
    )
