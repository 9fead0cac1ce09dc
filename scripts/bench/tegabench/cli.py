"""The command line: what to measure, and where the report goes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tegabench import chart, machine, table
from tegabench.bench import PEERS, QUICK, Bench, Sizes
from tegabench.process import HERE, Cores, pin
from tegabench.result import Result
from tegabench.workloads import FAMILIES


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="scripts/bench/run",
        description="Measure tega beside the bare machine and the stores found on it.",
    )
    made.add_argument(
        *("--only", "-o"),
        nargs="+",
        choices=FAMILIES,
        metavar="WORKLOAD",
        help="only these: " + ", ".join(FAMILIES),
    )
    names = [cls.name for cls in PEERS]
    made.add_argument(
        *("--peers", "-p"),
        nargs="*",
        choices=names,
        metavar="PEER",
        help="only these servers beside tega, or none: " + ", ".join(names),
    )
    made.add_argument("--quick", action="store_true", help="short runs, small databases")
    made.add_argument("--runs", type=_positive, default=3, help="runs of each (default: 3)")
    made.add_argument(
        "--out", type=Path, default=HERE / "out", help="directory of the report and the data"
    )
    made.add_argument(
        "--count-syncs", action="store_true", help="count the syncs of durable puts with strace"
    )
    made.add_argument("--no-pin", action="store_true", help="leave the cores to the scheduler")
    made.add_argument("--list", action="store_true", help="list the workloads and the peers")
    return made


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError("give a number of runs from 1 to 100")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    :returns: the exit status: 1 where something that is installed could not be measured
    """
    options = parser().parse_args(arguments)
    if options.list:
        _list()
        return 0
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    cores = Cores() if options.no_pin else Cores.split()
    # Beside the report, since a temporary directory may be in memory, where syncs cost nothing.
    data = Path(tempfile.mkdtemp(prefix="data-", dir=out))
    bench = Bench(
        data,
        dataclasses.replace(QUICK if options.quick else Sizes(), runs=options.runs),
        cores,
        [cls for cls in PEERS if options.peers is None or cls.name in options.peers],
        options.count_syncs,
    )
    facts = machine.facts(data, cores)
    if os.getloadavg()[0] > 0.5:
        bench.note("the machine was busy with other work when this began: expect noise")
    started = time.monotonic()
    allowed = os.sched_getaffinity(0)
    pin(cores.client)
    try:
        results = measure(bench, options.only or list(FAMILIES))
    finally:
        pin(frozenset(allowed))
        shutil.rmtree(data, ignore_errors=True)
    columns = [cls.title for cls in PEERS]
    report = table.document(facts, results, columns, bench.notes, options.runs)
    (out / "benchmark.md").write_text(report)
    reason = chart.draw(results, out / "benchmark.png")
    bench.say(f"{time.monotonic() - started:.0f} s; {out / 'benchmark.md'}")
    bench.say(reason or str(out / "benchmark.png"))
    print(table.summary(results, columns), end="")
    return 1 if bench.failed else 0


def measure(bench: Bench, families: Sequence[str]) -> list[Result]:
    """The results of these families of workloads, in order."""
    results = []
    for number, name in enumerate(families):
        bench.say(f"[{number + 1}/{len(families)}] {name}")
        with bench.servers():
            for workload in FAMILIES[name](bench):
                bench.say(f" {workload.title}")
                results.append(bench.run(workload))
    return results


def _list() -> None:
    print("workloads")
    for name, family in FAMILIES.items():
        print(f"  {name:13} {(family.__doc__ or '').splitlines()[0]}")
    print("peers")
    for cls in PEERS:
        print(f"  {cls.name:10} {cls.title}: {cls.missing() or 'found'}")


if __name__ == "__main__":
    sys.exit(main())
