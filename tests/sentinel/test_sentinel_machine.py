"""Changes, crashes, compactions and drift in any order: afterwards the table equals the source."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Database, SQLite
from etcdserver import Etcd
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mirrors import Mirror
from processes import until
from test_sentinel_rejects import BAD
from things import PREFIX

#: Few of them, so that they meet.
keys = st.builds(
    lambda site, one: f"{PREFIX}{site}/{one}", st.sampled_from("ab"), st.integers(0, 3)
)
names = st.sampled_from(["n0", "N0", "n1", "n1 ", "ñ", "😀'"])
numbers = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)])
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
bad = st.sampled_from(sorted({
    name for name, (value, _) in BAD.items() if len(value) < 1000
})).map(lambda name: BAD[name][0])  # fmt: skip


@st.composite
def values(draw: st.DrawFn, name: st.SearchStrategy[str] = names) -> str:
    value: dict[str, object] = {"name": draw(name)}
    for field, drawn in (
        ("number", numbers), ("kind", texts), ("ratio", st.floats(allow_nan=False,
         allow_infinity=False)), ("up", st.booleans()), ("note", texts),
    ):  # fmt: skip
        if draw(st.booleans()):
            value[field] = draw(st.none() | drawn)
    return json.dumps(value)


#: Changes of one transaction: no two of its keys give the same row, as neither would be newer.
together = st.lists(names, unique=True, min_size=1, max_size=4).flatmap(
    lambda chosen: st.tuples(*[
        st.tuples(keys, values(st.just(name)) | bad | st.none()) for name in chosen
    ])
).map(dict)  # fmt: skip


class SentinelMachine(RuleBasedStateMachine):
    """An etcd, a sentinel and a database, of which any may be killed at any time."""

    etcd: Etcd
    #: Gives a new database, empty.
    fresh: Callable[[Path], Database]

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="tega-machine-"))
        self.etcd.mend()
        self.etcd.delete_below("/")
        self.database = self.fresh(self.directory)
        self.server = self.database.server
        self.mirror = Mirror(self.etcd, self.database, self.directory, ["--interval", "0.5"])
        self.sentinel = self.mirror.sentinel
        #: Whether it should run: what rules may come must not depend on whether it does.
        self.runs = False
        self.made = False

    @initialize(already=st.lists(st.tuples(keys, values()), max_size=3))
    def begin(self, already: list[tuple[str, str]]) -> None:
        for key, value in already:
            self.etcd.put(key, value)
        self.start_sentinel()

    # -- the source changes -----------------------------------------------------------------------

    @rule(key=keys, value=values())
    def put(self, key: str, value: str) -> None:
        self.etcd.put(key, value)

    @rule(key=keys, value=bad)
    def put_bad(self, key: str, value: str | bytes) -> None:
        self.etcd.put(key, value)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.etcd.delete(key)

    @rule(changes=together)
    def change_together(self, changes: dict[str, str | bytes | None]) -> None:
        self.etcd.change(changes)

    @rule(site=st.sampled_from("ab"))
    def delete_site(self, site: str) -> None:
        self.etcd.delete_below(f"{PREFIX}{site}/")

    @rule()
    def compact(self) -> None:
        self.etcd.compact()

    # -- somebody fails ---------------------------------------------------------------------------

    @precondition(lambda self: self.runs)
    @rule()
    def kill_sentinel(self) -> None:
        assert self.sentinel.alive, self.sentinel.said[-2000:]
        self.sentinel.kill()
        self.runs = False

    @precondition(lambda self: not self.runs)
    @rule()
    def start_sentinel(self) -> None:
        self.sentinel.launch()
        self.runs = True

    @rule()
    def restart_etcd(self) -> None:
        self.etcd.restart()

    @precondition(lambda self: self.server is not None)
    @rule()
    def kill_database(self) -> None:
        assert self.server is not None
        if self.server.alive:
            self.server.kill()

    @precondition(lambda self: self.server is not None)
    @rule()
    def restart_database(self) -> None:
        assert self.server is not None
        if self.server.alive:
            self.server.kill()
        self.server.start()

    @precondition(lambda self: self.made and (self.server is None or self.server.alive))
    @rule(
        statement=st.sampled_from([
            "UPDATE thing SET number = 5", "UPDATE thing SET note = 'drift' WHERE site = 'a'",
            "DELETE FROM thing", "DELETE FROM thing WHERE site = 'b'",
            "INSERT INTO thing (name, site) VALUES ('foreign', 'c')",
        ])
    )  # fmt: skip
    def drift(self, statement: str) -> None:
        if "INSERT" in statement:
            self.database.run("DELETE FROM thing WHERE name = 'foreign'")
        self.database.run(statement)

    # -- all is well again ------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        if self.server is not None and not self.server.alive:
            self.server.start()
        if not self.runs:
            self.start_sentinel()
        self.mirror.settle()
        # A put that changes no row may still be on its way.
        until(lambda: self.sentinel.run("--verify").status == 0, "all is the same")
        self.made = True

    def teardown(self) -> None:
        try:
            self.settle()
            assert self.sentinel.end() == 0, self.sentinel.said[-2000:]
            assert self.mirror.found() == self.mirror.expected()
            self.mirror.verify()
        finally:
            self.mirror.close()
            shutil.rmtree(self.directory)


def sized(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None,
        # To make a failing run smaller takes long with real processes: it is printed as it is.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def machine(request: pytest.FixtureRequest, etcd: Etcd) -> type[SentinelMachine]:
    """The machine with each kind of database."""
    name = request.param
    server = None if name == "sqlite" else request.getfixturevalue(f"one_{name}")

    def make(directory: Path) -> Database:
        if server is None:
            return SQLite(directory / "mirror.db")
        server.mend()
        made: Database = server.database("machine")
        return made

    return type("Machine", (SentinelMachine,), {"etcd": etcd, "fresh": staticmethod(make)})


def test_machine(machine: type[SentinelMachine]) -> None:
    run_state_machine_as_test(machine, settings=sized(2, 15))


@pytest.mark.long
def test_machine_long(machine: type[SentinelMachine]) -> None:
    run_state_machine_as_test(machine, settings=sized(150, 30))
