"""Gets, durable puts and transactions of ten puts: one operation in flight, and 64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from tegabench.bench import Bench
from tegabench.client import Conversation, Timing, drive
from tegabench.process import BenchError, count_syncs, in_child
from tegabench.result import Contestant, Limit, Sample, Workload, in_series
from tegabench.systems.bare import Bare
from tegabench.systems.bare_ws import Echo
from tegabench.systems.base import BATCH, CONNECTIONS, Kind, System, expected
from tegabench.systems.etcd import Etcd
from tegabench.systems.tega import Tega
from tegabench.systems.tega_ws import TegaWs
from tegabench.workloads.embedded import append_and_sync

#: One put after another on the bare disk.
SYNC = "append and fdatasync"

#: Round trips of a transaction over REST: begin, the puts, commit.
TRIPS = BATCH + 2


def gets(bench: Bench) -> Iterator[Workload]:
    """One document of 200 bytes read."""
    yield from _rates(bench, _start(bench, Bare, *bench.rivals()), Bare, "get", "REST get")


def puts(bench: Bench) -> Iterator[Workload]:
    """One document of 200 bytes written durably."""
    systems = _start(bench, Bare, *bench.rivals())
    yield from _rates(bench, systems, Bare, "put", "REST durable put")
    if bench.count_syncs:
        for system in systems:
            if not isinstance(system, Bare):
                _note_syncs(bench, system)


def transactions(bench: Bench) -> Iterator[Workload]:
    """Ten documents written durably as one transaction over REST."""
    title = f"{BATCH} puts as one transaction, {TRIPS} REST round trips (2017's way)"
    yield from _rates(bench, _start(bench, Bare, *bench.rivals()), Bare, "tx", title, TRIPS)


def ws_transactions(bench: Bench) -> Iterator[Workload]:
    """One document, and ten, written durably with one request over a WebSocket."""
    # REST and the gateway of etcd stand beside each other above.
    peers = [cls for cls in bench.rivals() if cls not in (Tega, Etcd)]
    systems = _start(bench, Echo, TegaWs, *peers)
    yield from _rates(bench, systems, Echo, "put", "WebSocket TX of one durable put")
    yield from _rates(bench, systems, Echo, "tx", f"WebSocket TX of {BATCH} durable puts")


def _start(bench: Bench, *classes: type[System]) -> list[System]:
    return [system for cls in classes if (system := bench.start(cls)) is not None]


def _rates(
    bench: Bench,
    systems: Sequence[System],
    floor: type[Bare],
    kind: Kind,
    title: str,
    trips: int = 1,
) -> Iterator[Workload]:
    """One operation in flight, and 64.

    :param floor: the system that is the limit
    :param trips: round trips of an operation
    """
    for in_flight in (1, CONNECTIONS):
        contestants = [_contestant(bench, system, kind, in_flight, trips) for system in systems]
        limit_title = floor.title if trips == 1 else f"{trips} x {floor.title}"
        limit: Limit = partial(_in_turn, floor.title, trips)
        if kind != "get" and in_flight == 1:
            contestants.append(Contestant(SYNC, "limit", partial(sync_floor, bench)))
            limit_title += " and one fdatasync in series"
        yield Workload(f"{title}, {in_flight} in flight", "op/s", contestants, limit_title, limit)


def _in_turn(floor: str, trips: int, rates: Mapping[str, float]) -> float:
    """The rate of so many round trips, and of a sync after them where one was measured."""
    sync = [rates[SYNC]] if SYNC in rates else []
    return in_series(rates[floor] / trips, *sync)


def _contestant(
    bench: Bench, system: System, kind: Kind, in_flight: int, trips: int
) -> Contestant:
    # The bare handler answers each of a transaction's round trips alike.
    asked: Kind = "put" if system.role == "limit" and trips > 1 else kind
    return Contestant(system.title, system.role, warmed(bench, system, asked, in_flight))


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
