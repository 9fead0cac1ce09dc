"""What sessions and subscriptions cost those that have nothing to do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from tegabench import values
from tegabench.bench import Bench
from tegabench.client import Subscriber, drive
from tegabench.crowd import Crowd
from tegabench.process import BenchError
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.bare_ws import Echo, Idle
from tegabench.systems.base import Server
from tegabench.systems.tega import Tega
from tegabench.systems.tega_ws import Session, TegaWs
from tegabench.table import whole
from tegabench.workloads.rates import run

#: Subscriptions of one session, at most.
_OF_ONE = 1000

#: Sessions at least, over which subscriptions are spread.
_SPREAD = 10

#: Sessions that come and go before the first look at the memory.
_FIRST = 100

_ALIKE = "patterns that begin alike"

#: For each kind: the n-th subscription, whether it is a pattern, and the URL of what it covers.
#: All numbers have one length, for a pattern need not match to the end of a key.
_KINDS: Mapping[str, tuple[str, bool, str]] = {
    "paths": ("bench.n%05d.k", False, "/bench/n%05d/k/"),
    "patterns": (r"bench\.n%05d\.k(\d+)", True, "/bench/n%05d/k7/"),
    _ALIKE: (r"bench\.x(\d+)_%05d\.y", True, "/bench/x7_%05d/y/"),
}


def subscriptions(bench: Bench) -> Iterator[Workload]:
    """The median time of a durable put beside subscriptions to other paths."""
    plain = bench.start(Tega)
    if plain is None:
        return
    count = bench.sizes.subscriptions
    with ExitStack() as crowds:
        for kind in _KINDS:
            server = bench.start(Tega)
            if server is None:
                continue
            try:
                crowd = crowds.enter_context(_bystanders(server, kind, count))
            except Exception as error:  # the other kinds can still be measured
                bench.fail(f"tega, {count} subscriptions to {kind}", error)
                continue
            ways: dict[str, Callable[[Bench, Tega], Sample]] = {
                "REST": _puts,
                "WebSocket TX": _transactions,
            }
            if kind == _ALIKE:
                # Nothing that a server remembers about a key is of use here.
                ways["WebSocket TX, always a new key"] = _new_keys
            for way, puts in ways.items():
                yield Workload(
                    f"put p50 ({way}) beside {whole(count)} subscriptions: {kind}",
                    "ms",
                    [
                        Contestant("tega, no subscriptions", "limit", partial(puts, bench, plain)),
                        Contestant("tega", "tega", _untold(crowd, partial(puts, bench, server))),
                    ],
                    "no subscriptions",
                    higher_is_better=False,
                )


@contextmanager
def _bystanders(server: Tega, kind: str, count: int) -> Iterator[Crowd]:
    """Sessions with so many subscriptions together, each told of one change before it begins."""
    text, pattern, url = _KINDS[kind]
    each = min(_OF_ONE, -(-count // _SPREAD))
    firsts = range(0, count, each)

    def session(first: int) -> Session:
        paths = [(text % n, pattern) for n in range(first, min(first + each, count))]
        return Session(server.address, f"bystander-{first}", paths)

    with Crowd([session(first) for first in firsts], sample=0) as crowd:
        for first in firsts:
            server.put(url % first, 1)
        crowd.tally(each=1)
        yield crowd


def _puts(bench: Bench, server: Tega) -> Sample:
    timing, share, checked = run(bench, server, "put", 1)
    return Sample.of(timing, timing.percentile(0.5) * 1000, share, checked)


def _transactions(bench: Bench, server: Tega) -> Sample:
    return _puts(bench, TegaWs.beside(server))


def _new_keys(bench: Bench, server: Tega) -> Sample:
    over = TegaWs.beside(server)
    generation = bench.generation()
    conversation = over.newcomer(generation)
    cpu = server.process.cpu_seconds()
    timing = drive([conversation], bench.sizes.seconds)
    share = (server.process.cpu_seconds() - cpu) / timing.seconds
    written = {values.tag(generation, 0, serial) for serial in range(conversation.done)}
    if not written <= over.newcomers():
        raise BenchError("an acknowledged write is lost")
    return Sample.of(timing, timing.percentile(0.5) * 1000, share, len(written))


def _untold(crowd: Crowd, measure: Callable[[], Sample]) -> Callable[[], Sample]:
    """Looks afterwards that nobody was told of anything, and that all sessions are still there."""

    def measured() -> Sample:
        sample = measure()
        crowd.tally(each=1)
        return sample

    return measured


def sessions(bench: Bench) -> Iterator[Workload]:
    """What an idle session with one subscription takes of the server's memory."""
    count = bench.sizes.sessions

    def told(server: Server, number: int) -> Subscriber:
        return Session(server.address, f"idle-{number}", [(f"bench.n{number}", False)])

    def idle(server: Server, number: int) -> Subscriber:
        return Idle(server.address)

    yield Workload(
        f"memory, {whole(count)} idle sessions",
        "bytes a session",
        [_idle(bench, Echo, idle), _idle(bench, TegaWs, told)],
        "a bare Tornado WebSocket",
        higher_is_better=False,
    )


def _idle(
    bench: Bench, cls: type[Server], make: Callable[[Server, int], Subscriber]
) -> Contestant:
    count = bench.sizes.sessions

    def measure() -> Sample:
        server = bench.make(cls)
        if server is None:
            raise BenchError("it is not installed")
        server.start()
        try:
            with Crowd([make(server, count + number) for number in range(_FIRST)]):
                pass
            before = server.process.memory()
            with Crowd([make(server, number) for number in range(count)], sample=0):
                return Sample((server.process.memory() - before) / count)
        finally:
            server.stop()

    return Contestant(cls.title, cls.role, measure)
