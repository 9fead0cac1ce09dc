"""From the start of a process to its first right answer, after many small commits."""

from __future__ import annotations

from collections.abc import Iterator

from tegabench.bench import Bench
from tegabench.process import BenchError
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.bare import Bare, log_lines
from tegabench.systems.base import Fillable, committed
from tegabench.table import whole


def restart(bench: Bench) -> Iterator[Workload]:
    """Seconds from process start to the first right answer, after a crash."""
    count = bench.sizes.commits
    for wide in (False, True):
        contestants = [_bare(bench, count, wide)]
        for cls in bench.fillable():
            system = bench.make(cls)
            if system is not None and _loaded(bench, system, count, wide):
                contestants.append(_contestant(system, count, wide))
        where = f"to {whole(count)} leaves of one container" if wide else "to 64 leaves"
        yield Workload(
            f"restart after {whole(count)} one-leaf commits {where}",
            "s",
            contestants,
            "start of Python and the bare Tornado handler, with a plain replay",
            higher_is_better=False,
        )


def _bare(bench: Bench, count: int, wide: bool) -> Contestant:
    system = Bare(bench.place("bare"), bench.cores.server)
    system.log = system.directory / "log"
    system.log.write_bytes(log_lines(count, wide))

    def measure() -> Sample:
        try:
            return Sample(system.start())
        finally:
            system.stop()

    return Contestant("bare start and replay", "limit", measure)


def _loaded(bench: Bench, system: Fillable, count: int, wide: bool) -> bool:
    """Make the commits, then end the server as a crash would."""
    try:
        bench.say(f"  {system.title}: {whole(count)} commits")
        system.start()
        system.commits(count, wide)
        system.kill()
    except Exception as error:  # the others can still be measured
        system.stop()
        bench.fail(f"{system.title}, {count} commits", error)
        return False
    return True


def _contestant(system: Fillable, count: int, wide: bool) -> Contestant:
    expected = committed(count, wide)
    last = len(expected) - 1

    def measure() -> Sample:
        seconds = system.start(lambda: system.leaf(last) == expected[last])
        try:
            held = system.leaves(len(expected))
            if held != expected:
                raise BenchError("acknowledged writes are not there after the restart")
        finally:
            system.kill()
        return Sample(seconds, checked=count)

    return Contestant(system.title, system.role, measure)
