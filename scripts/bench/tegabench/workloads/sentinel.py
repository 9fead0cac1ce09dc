"""tega-sentinel beside a plain loop of single upserts."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from tegabench import httpwire
from tegabench.bench import Bench
from tegabench.process import BenchError, Process, python
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.etcd import Etcd, b64
from tegabench.systems.mariadb import MariaDb
from tegabench.systems.tega import Tega
from tegabench.table import whole

#: Keys of the first pass that the loop is given: it takes as long for each of them.
_SAMPLE = 1000

#: Changes of which is looked how soon they are there.
_LAGS = 30

_LOOP = "one upsert a transaction, as services do it"

MAPPING = """tables:
  device:
    {keys}
    primary_key: deviceName
    columns: {{deviceName: string(255), projectSymbolFk: string(255), deviceIp: string(255),
               connectionStatus: integer, os: string(255)}}
"""


def sentinel(bench: Bench) -> Iterator[Workload]:
    """Keys of etcd or tega into SQL tables: the first full pass, changes, and their lag."""
    count = bench.sizes.mirrored
    etcd = bench.start(Etcd)
    if etcd is not None:
        bench.say(f"  {whole(count)} keys into etcd")
        for start in range(0, count, 500):
            keys = range(start, min(start + 500, count))
            etcd.put_all([(_key(number), _device(number, "new")) for number in keys])
        yield from _mirrored(bench, etcd, count, "SQLite", lambda: _file(bench))
        mariadb = bench.start(MariaDb)
        if mariadb is not None:
            yield from _mirrored(bench, etcd, count, "MariaDB", lambda: _database(bench, mariadb))
            mariadb.stop()
        etcd.stop()
    tega = bench.start(Tega)
    if tega is not None:
        for start in range(0, count, 2000):
            keys = range(start, min(start + 2000, count))
            devices = {_name(number): json.loads(_device(number, "new")) for number in keys}
            # A container for every so many: a body may be 1 MiB.
            httpwire.call_json(tega.address, "PUT", f"/device/group-{start}/", devices)
        mirror = Mirror(bench, f"tega://127.0.0.1:{tega.address[1]}/", "paths: device.{group}.{id}")
        measure = partial(_first, mirror, lambda: _file(bench), count)
        yield Workload(
            f"first full pass over {whole(count)} nodes of tega into SQLite", "keys/s",
            [Contestant("tega", "tega", measure)],
        )  # fmt: skip


def _mirrored(
    bench: Bench, etcd: Etcd, count: int, kind: str, sink: Callable[[], str]
) -> Iterator[Workload]:
    source = f"etcd://127.0.0.1:{etcd.address[1]}/"
    mirror = Mirror(bench, source, "keys: /Device/{id}")
    loop = Loop(bench, str(etcd.address[1]), "")
    changes = count // 20
    for title, unit, measure in (
        (f"first full pass over {whole(count)} keys of etcd into {kind}", "keys/s",
         lambda one: _first(one, sink, count)),
        (f"{whole(changes)} changes of etcd at once into {kind}", "changes/s",
         lambda one: _changes(one, etcd, sink, changes)),
        (f"from a put into etcd to its row in {kind}", "ms",
         lambda one: _lag(one, etcd, sink)),
    ):  # fmt: skip
        contestants = [
            Contestant(_LOOP, "limit", partial(measure, loop)),
            Contestant("tega", "tega", partial(measure, mirror)),
        ]
        yield Workload(title, unit, contestants, _LOOP, higher_is_better=unit != "ms", once=True)


class Mirror:
    """The sentinel, as a process."""

    def __init__(self, bench: Bench, source: str, keys: str) -> None:
        self._bench = bench
        self._source = source
        self._keys = keys
        self._log = Path()
        self.process: Process | None = None

    def command(self, place: Path, sink: str, most: int) -> list[str]:
        """The command line."""
        mapping = place / "mapping.yaml"
        mapping.write_text(MAPPING.format(keys=self._keys))
        return python(
            *("-m", "tega.sentinel", "--source", self._source, "--sink", sink),
            *("--mapping", str(mapping), "--interval", "3600"),
        )

    def start(self, sink: str, most: int = 0) -> None:
        """Start it, and wait until it has all keys, or so many of them."""
        place = self._bench.place("mirror")
        self._log = place / "output.txt"
        self.process = Process(self.command(place, sink, most), self._log, self._bench.cores.server)
        self.process.wait_ready(lambda: self.ready(self._log.read_text()), 600)

    def ready(self, output: str) -> bool:
        """Whether it has all keys, by what it has printed."""
        return "in step with" in output

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def pass_rate(self, started: float, count: int) -> float:
        """Keys a second of the pass that was made since, the start of the process included."""
        return count / (time.perf_counter() - started)


class Loop(Mirror):
    """The loop of upserts, as a process."""

    def command(self, place: Path, sink: str, most: int) -> list[str]:
        return python("-m", "tegabench.upserts", self._source, sink, str(most))

    def start(self, sink: str, most: int = _SAMPLE) -> None:
        super().start(sink, min(most, _SAMPLE))

    def ready(self, output: str) -> bool:
        return "listed" in output

    def pass_rate(self, started: float, count: int) -> float:
        found = re.search(r"listed (\d+) (\S+)", self._log.read_text())
        assert found is not None
        return int(found[1]) / float(found[2])


def _first(mirror: Mirror, sink: Callable[[], str], count: int) -> Sample:
    started = time.perf_counter()
    mirror.start(sink(), count)
    try:
        return Sample(mirror.pass_rate(started, count))
    finally:
        mirror.stop()


def _changes(mirror: Mirror, etcd: Etcd, sink: Callable[[], str], count: int) -> Sample:
    """So many changes are made while it is stopped; how quickly has it caught up?"""
    url, mark = sink(), f"changed-{time.monotonic_ns()}"
    mirror.start(url)
    assert mirror.process is not None
    try:
        os.kill(mirror.process.pid, signal.SIGSTOP)
        for number in range(count):
            _put(etcd, number, mark)
        begun = time.perf_counter()
        os.kill(mirror.process.pid, signal.SIGCONT)
        # They come in order: with the last one all are there.
        _wait(url, mark, count - 1)
        return Sample(count / (time.perf_counter() - begun), checked=count)
    finally:
        mirror.stop()


def _lag(mirror: Mirror, etcd: Etcd, sink: Callable[[], str]) -> Sample:
    url = sink()
    mirror.start(url)
    lags = []
    try:
        for number in range(_LAGS):
            mark = f"lag-{time.monotonic_ns()}"
            begun = time.perf_counter()
            _put(etcd, number, mark)
            _wait(url, mark, number)
            lags.append(time.perf_counter() - begun)
    finally:
        mirror.stop()
    return Sample(1000 * statistics.median(lags), checked=_LAGS)


def _wait(url: str, mark: str, number: int) -> None:
    """Wait until a row has this in it."""
    query = sa.text("SELECT os FROM device WHERE deviceName = :name").bindparams(name=_name(number))
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    end = time.monotonic() + 300
    try:
        with engine.connect() as connection:
            while connection.scalar(query) != mark:
                if time.monotonic() > end:
                    raise BenchError(f"the change of {_name(number)} has not come within 300 s")
                time.sleep(0.001)
    finally:
        engine.dispose()


def _put(etcd: Etcd, number: int, os_: str) -> None:
    etcd.post("put", {"key": b64(_key(number)), "value": b64(_device(number, os_))})


def _name(number: int) -> str:
    return f"device-{number:06d}"


def _key(number: int) -> bytes:
    return f"/Device/{_name(number)}".encode()


def _device(number: int, os_: str) -> bytes:
    return json.dumps({
        "deviceName": _name(number), "projectSymbolFk": "project-7", "os": os_,
        "deviceIp": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "connectionStatus": 0,
    }).encode()  # fmt: skip


def _file(bench: Bench) -> str:
    return f"sqlite:///{bench.place('sqlite') / 'mirror.db'}"


def _database(bench: Bench, mariadb: MariaDb) -> str:
    """A new database of the server."""
    name = f"mirror{bench.generation()}"
    url = f"mysql+pymysql://root@127.0.0.1:{mariadb.address[1]}"
    engine = sa.create_engine(f"{url}/")
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    engine.dispose()
    return f"{url}/{name}"
