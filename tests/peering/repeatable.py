"""Whether a simulation is repeatable: run again, here and in another interpreter, and compared."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from virtual import Scenario, trace_of


class Unrepeatable(AssertionError):
    """The same scenario and seed did something else."""


def check_repeatable(scenario: Scenario[Any], seeds: Sequence[int]) -> None:
    """Whether all happens again as it did: in this interpreter, and in one that hashes otherwise.

    :param scenario: a function at the top of a module
    :raises Unrepeatable: naming the first line that differs
    """
    first = [trace_of(scenario, seed) for seed in seeds]
    # Other addresses than the first time, for whatever is ordered by them.
    ballast = [bytearray(number % 400) for number in range(10_000)]
    del ballast[::3]
    _compare(seeds, first, [trace_of(scenario, seed) for seed in seeds], "in this interpreter")
    hashing = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", "import repeatable; repeatable.print_traces()",
         scenario.__module__, scenario.__qualname__, *map(str, seeds)],
        env={**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    _compare(seeds, first, json.loads(done.stdout), "in another interpreter")


def print_traces() -> None:
    """In the other interpreter: the traces of the scenario and the seeds in the arguments."""
    _, module, name, *seeds = sys.argv
    scenario = getattr(importlib.import_module(module), name)
    with redirect_stdout(sys.stderr):
        traces = [trace_of(scenario, int(seed)) for seed in seeds]
    json.dump(traces, sys.stdout)


def _compare(
    seeds: Sequence[int], first: list[list[str]], second: list[list[str]], where: str
) -> None:
    for seed, was, now in zip(seeds, first, second, strict=True):
        if was != now:
            pairs = enumerate(zip(was, now))  # noqa: B905 (the shorter one may just end)
            at = next((at for at, (one, two) in pairs if one != two), min(len(was), len(now)))
            before = "\n".join(was[max(0, at - 5) : at])
            raise Unrepeatable(
                f"seed {seed}, {where}, line {at + 1}, after\n{before}\n"
                f"was: {was[at : at + 1]}\nnow: {now[at : at + 1]}"
            )
