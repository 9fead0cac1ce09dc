"""What a leaf costs in memory, and what a kept version adds."""

from __future__ import annotations

import gc
import importlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tegabench import values
from tegabench.bench import Bench
from tegabench.process import BenchError, in_child, resident
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import Fillable, Role
from tegabench.systems.tega import Tega
from tegabench.table import whole

#: Loaded before the first look, so that modules and pools are there.
_FIRST = 2000

#: Leaves among which versions are made, at most: what a version adds does not depend on it.
_AMONG = 100_000


def memory(bench: Bench) -> Iterator[Workload]:
    """Resident bytes for each small leaf, and for each kept version."""
    leaves = bench.sizes.leaves
    contestants = [
        _in_child(bench, "nested dict", "limit", nested_dict, leaves),
        _in_child(bench, "nested dict, shared keys", "peer", shared_keys, leaves),
    ]
    embedded = find_spec("tega") is not None and find_spec("tega.idb") is not None
    if embedded:
        contestants.insert(1, _in_child(bench, "tega.idb", "tega", tega_leaves, leaves))
    else:
        bench.note("tega.idb left out: it cannot be imported")
    for cls in bench.fillable():
        if cls is not Tega and (system := bench.make(cls)):
            contestants.append(_server(bench, system, leaves))
    yield Workload(
        f"memory, {whole(leaves)} small leaves",
        "bytes a leaf",
        contestants,
        "nested dict",
        higher_is_better=False,
        once=True,
    )
    if embedded:
        among = min(leaves, _AMONG)
        made = partial(tega_versions, among)
        yield Workload(
            f"memory, every kept version of one put among {whole(among)} leaves",
            "bytes a version",
            [_in_child(bench, "tega.idb", "tega", made, 3 * bench.sizes.versions)],
            higher_is_better=False,
            once=True,
        )


def _in_child(
    bench: Bench, title: str, role: Role, function: Callable[[int, Path], float], count: int
) -> Contestant:
    def measure() -> Sample:
        return Sample(in_child(bench.cores.server, function, count, bench.place("memory")))

    return Contestant(title, role, measure)


def _server(bench: Bench, system: Fillable, leaves: int) -> Contestant:
    def measure() -> Sample:
        system.start()
        try:
            before = system.process.memory()
            system.fill(leaves)
            return Sample((system.process.memory() - before) / leaves)
        finally:
            system.stop()

    return Contestant(system.title, system.role, measure)


def _resident() -> int:
    gc.collect()
    return resident(os.getpid())


def _growth(leaves: int, load: Callable[[int, dict[str, int]], None]) -> float:
    """Resident bytes that each leaf adds after the first few."""
    before = 0
    for number, body in values.batches(_FIRST + leaves):
        if number == _FIRST // 1000:
            before = _resident()
        load(number, json.loads(body))
    return (_resident() - before) / leaves


def nested_dict(leaves: int, place: Path) -> float:
    """Bytes a leaf of plain dicts, as they come from JSON."""
    tree: dict[str, dict[str, int]] = {}

    def load(number: int, batch: dict[str, int]) -> None:
        tree[f"c{number}"] = batch

    return _growth(leaves, load)


def shared_keys(leaves: int, place: Path) -> float:
    """The same where equal keys are one string."""
    tree: dict[str, dict[str, int]] = {}
    names: dict[str, str] = {}

    def load(number: int, batch: dict[str, int]) -> None:
        tree[f"c{number}"] = {names.setdefault(key, key): v for key, v in batch.items()}

    return _growth(leaves, load)


def tega_leaves(leaves: int, place: Path) -> float:
    """Bytes a leaf in an embedded tega, loaded as transactions of 1000 leaves."""
    idb: Any = importlib.import_module("tega.idb")
    idb.start(str(place), "bench")

    def load(number: int, batch: dict[str, int]) -> None:
        with idb.tx() as transaction:
            transaction.put(batch, path=f"bench.c{number}")

    grown = _growth(leaves, load)
    held = idb.get("bench.c1")
    if held["leaf0999"] != 1000 + 1999:
        raise BenchError("tega.idb lost an acknowledged write")
    idb.stop()
    return grown


def tega_versions(leaves: int, versions: int, place: Path) -> float:
    """Bytes that a kept version of one put adds."""
    idb: Any = importlib.import_module("tega.idb")
    idb.start(str(place), "bench", maxlen=2 * versions)
    for number, body in values.batches(leaves):
        with idb.tx() as transaction:
            transaction.put(json.loads(body), path=f"bench.c{number}")

    def path(n: int) -> str:
        return f"bench.c{n % (leaves // 1000)}.leaf{n % 1000:04d}"

    def change(first: int) -> None:
        for n in range(first, first + versions):
            with idb.tx() as transaction:
                transaction.put(-n, path=path(n))

    # The first ones fill what the allocator has left over from the load.
    change(0)
    before = _resident()
    change(versions)
    after = _resident()
    # So many versions back, the last of the first changes is the newest.
    last = versions - 1
    if idb.get(path(last), version=-versions) != -last:
        raise BenchError("tega.idb gives another old version than the one that was asked for")
    idb.stop()
    return (after - before) / versions
