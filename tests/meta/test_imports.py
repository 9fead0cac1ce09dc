"""The house: imports run downwards only, pure rooms stay pure, files stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEGA = ROOT / "tega"

#: The floors, lowest first; rooms on one floor may use each other as long as there is no cycle.
FLOORS = [
    {"errors", "paths", "strictjson", "strictyaml", "heap", "__init__"},
    {
        "store", "leaf", "tree", "util", "rpc", "subscriber", "topics", "notices", "protocol",
        "metrics", "access",
    },
    {"kept", "log", "runs", "watch", "watcher"},
    {"database", "pending"},
    {"callbacks", "tx", "embedded", "idb", "driver", "tls"},
    {"options", "settings", "logformat", "plugins", "web", "server", "listener", "peering"},
    {"cli", "sentinel"},
]
PURE = [
    "errors", "paths", "strictjson", "strictyaml", "store", "leaf", "tree", "util", "rpc",
    "subscriber", "topics", "notices", "protocol", "metrics",
]  # fmt: skip
IMPURE = {"tornado", "asyncio", "socket", "os", "time", "threading", "subprocess"}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(file: Path) -> str:
    inside = file.relative_to(TEGA)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def rooms_used(file: Path) -> set[str]:
    own = [name.split(".")[1] for name in imports(file) if name.startswith("tega.")]
    there = {room(other) for other in FILES}
    return {name for name in own if name in there} - {room(file)}


FILES = sorted(TEGA.rglob("*.py"))
each = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TEGA)))


def floor_of(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


@each
def test_imports_run_downwards(file: Path) -> None:
    for used in rooms_used(file):
        assert floor_of(used) <= floor_of(room(file)), f"{file.name} reaches up to {used}"


def test_there_is_no_cycle() -> None:
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
    below = {name: {used for used in imports(file) if used in names}
             for name, file in names.items()}
    while below:
        free = [name for name, used in below.items() if not used & below.keys() - {name}]
        assert free, f"a cycle among {sorted(below)}"
        for name in free:
            del below[name]


@each
def test_pure_rooms_are_pure(file: Path) -> None:
    if room(file) in PURE:
        used = {name.split(".")[0] for name in imports(file)}
        assert not used & IMPURE


@each
def test_clients_do_not_reach_into_the_database(file: Path) -> None:
    client = room(file) in ("driver", "sentinel") or (
        room(file) == "cli" and file.stem != "logtool"
    )
    if client:
        assert not rooms_used(file) & {"store", "log", "database", "embedded", "idb", "web"}


@each
def test_files_are_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 500


@each
def test_nothing_is_evaluated(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "__import__")
