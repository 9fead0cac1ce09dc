"""A sentinel between etcd and a database, and what must hold once it has caught up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import things
from databases import Database
from etcdserver import Etcd
from processes import until
from sentinels import IN_STEP, Sentinel

#: What the product calls its own tables.
CHECKPOINT = "tega_sentinel"
REJECTS = "tega_sentinel_rejects"


class Mirror:
    """Things of an etcd, mirrored into a database.

    :ivar sentinel: the service; it does not run yet
    """

    def __init__(
        self, etcd: Etcd, database: Database, directory: Path, more: Sequence[str] = ()
    ) -> None:
        self.etcd = etcd
        self.database = database
        self.directory = directory
        (directory / "things.yaml").write_text(things.MAPPING)
        self.sentinel = Sentinel([
            "--mapping", str(directory / "things.yaml"), "--source", etcd.url(),
            "--sink", database.url, *more,
        ])  # fmt: skip

    def expected(self) -> tuple[dict[str, things.Row], set[str]]:
        """What the table must be now, and which keys are rejected."""
        return things.rows(self.etcd.read(things.PREFIX))

    def found(self) -> tuple[dict[str, things.Row], set[str]]:
        """What the table is, and which keys are rejected."""
        rows = [things.plain(row) for row in self.database.rows("thing")]
        found = {row["name"]: row for row in rows}
        assert len(found) == len(rows)
        return found, {text(row["source_key"]) for row in self.database.rows(REJECTS)}

    def settle(self) -> None:
        """Wait until the table is what it must be, and the service, if it runs, says so."""
        if self.sentinel.alive:
            self.sentinel.says(IN_STEP)
        expected = self.expected()
        try:
            until(lambda: self.found() == expected, "the table equals the source")
        except AssertionError:
            rows, rejected = self.found()
            wanted, to_reject = expected
            differ = {
                name: (rows.get(name), wanted.get(name))
                for name in rows.keys() | wanted.keys()
                if rows.get(name) != wanted.get(name)
            }
            raise AssertionError(
                f"found and wanted: {differ}; rejected: {rejected - to_reject}; not rejected: "
                f"{to_reject - rejected}; said: {self.sentinel.said[-2000:]}"
            ) from None

    def verify(self) -> None:
        """Let the product itself compare."""
        done = self.sentinel.run("--verify")
        assert done.status == 0, done.said

    def check(self) -> None:
        """Wait until the table is what it must be, end the service, and compare once more."""
        self.settle()
        assert self.sentinel.end() == 0, self.sentinel.said[-2000:]
        assert self.found() == self.expected()
        self.verify()

    def audited(self) -> list[tuple[str, str]]:
        """The writes to the table since it was watched."""
        return self.database.audited("thing")

    def own_tables(self) -> list[str]:
        """The tables of the product's own."""
        return [one for one in self.database.tables() if one.startswith(CHECKPOINT)]

    def prepare(self) -> None:
        """Make the tables, and count all writes from then on."""
        done = self.sentinel.run("--once")
        assert done.status == 0, done.said
        self.database.audit("thing", "name")

    def close(self) -> None:
        """End the service if it runs; it has never failed by a bug."""
        if self.sentinel.alive:
            self.sentinel.kill()
        self.sentinel.check_words()


def text(value: object) -> str:
    """A key, however the database gives it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
