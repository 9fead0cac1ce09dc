"""Whether a put costs more beside many siblings, in a large database, with many versions kept."""

from __future__ import annotations

from collections.abc import Iterator

from tegabench.bench import Bench
from tegabench.client import drive
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import Role
from tegabench.systems.tega import Tega
from tegabench.table import whole
from tegabench.workloads.rates import run

#: Siblings beside the plain put.
_FEW = 100


def scale(bench: Bench) -> Iterator[Workload]:
    """The median time of a put in four databases."""
    plain = _database(bench)
    if plain is None:
        return
    sizes = bench.sizes
    wide = _database(bench, siblings=sizes.siblings)
    large = _database(bench, leaves=sizes.leaves)
    kept = _database(bench, maxlen=sizes.versions)
    for system, title in (
        (wide, f"beside {whole(sizes.siblings)} siblings"),
        (large, f"in a database of {whole(sizes.leaves)} leaves"),
        (kept, f"with {whole(sizes.versions)} old versions kept"),
    ):
        if system is not None:
            yield Workload(
                f"put p50 {title}",
                "ms",
                [
                    _contestant(bench, plain, "tega, plain", "limit"),
                    _contestant(bench, system, "tega", "tega"),
                ],
                f"a plain put ({_FEW} siblings, 10 versions kept)",
                higher_is_better=False,
            )


def _database(
    bench: Bench, siblings: int = _FEW, leaves: int = 0, maxlen: int = 10
) -> Tega | None:
    """A server whose documents of connection 0 have siblings, with leaves elsewhere."""

    system = bench.make(Tega)
    if system is None:
        return None
    system.maxlen = maxlen
    if bench.launch(system):
        system.widen("/bench/c0/", siblings)
        # The documents are back beside their siblings, and as many versions kept as may be.
        for conversation in system.conversations("put", 1, bench.generation()):
            conversation.limit = maxlen + 100
            drive([conversation], 60)
        system.fill(leaves)
        return system
    return None


def _contestant(bench: Bench, system: Tega, title: str, role: Role) -> Contestant:
    def measure() -> Sample:
        timing, server, checked = run(bench, system, "put", 1)
        return Sample.of(timing, timing.percentile(0.5) * 1000, server, checked)

    return Contestant(title, role, measure)
