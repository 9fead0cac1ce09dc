"""Entry point of ``tega-sentinel``."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping as Variables
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from sqlalchemy.engine import URL

from tega import paths
from tega.errors import Malformed
from tega.options import Settings
from tega.sentinel import address, mappingfile, metrics, preset, verify
from tega.sentinel.address import Address
from tega.sentinel.engine import Sentinel
from tega.sentinel.etcd import Access
from tega.sentinel.etcdsource import EtcdSource
from tega.sentinel.mapping import Mapping
from tega.sentinel.metrics import Metrics
from tega.sentinel.patterns import PathPattern
from tega.sentinel.replica import Place
from tega.sentinel.report import JsonReport, Report, TextReport
from tega.sentinel.settings import load
from tega.sentinel.sink import Fenced, Sink, SinkError, Unfit
from tega.sentinel.source import Away, Source
from tega.sentinel.sql import dialect as dialects
from tega.sentinel.sql.sink import SqlSink
from tega.sentinel.tegasource import TegaSource
from tega.sentinel.tree.etcd import EtcdSink
from tega.sentinel.tree.tega import TegaSink

#: Exit statuses: something differs; wrong settings; another sentinel has taken over; it failed.
_DIFFERS, _WRONG, _TAKEN, _FAILED = 1, 2, 3, 4


class Ends(NamedTuple):
    """What is mirrored, and where to."""

    source: Source
    sink: Sink


def ends(settings: Settings, variables: Variables[str, str]) -> Ends:
    """The source and the sink that the settings name.

    :raises Malformed: naming what is missing or wrong
    """
    mapping: Mapping | None = None
    source, sink = settings.source, settings.sink
    url: URL | None = None
    if sink is not None and address.is_tree(sink):
        if settings.mapping is not None or settings.preset is not None:
            raise Malformed("a mapping is for a SQL database: a tree is mirrored key by key")
        if source is not None:
            return _trees(address.parse(source), address.parse(sink), settings)
    if settings.preset is not None:
        made = preset.titania(variables)
        mapping, url = made.mapping, made.sink
        source = source or made.source
    if settings.mapping is not None:
        try:
            text = settings.mapping.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed(f"setting mapping: {error}") from None
        mapping = mappingfile.load(text, str(settings.mapping))
    if source is None:
        raise Malformed("give --source: what to mirror, such as etcd://127.0.0.1:2379/")
    if sink is None and url is None:
        raise Malformed("give --sink: where to mirror it to, such as sqlite:////tmp/mirror.db")
    where = address.parse(source)
    if sink is not None:
        url = dialects.read_url(sink, settings.sink_password)
    assert url is not None
    if mapping is None:
        raise Malformed("give --mapping: which rows the keys give; doc/sentinel.md has the rules")
    if mapping.tega != where.tega:
        raise Malformed(
            f"the mapping is of {'tega' if mapping.tega else 'etcd'}, and the source {where} is not"
        )
    made_source = _source(where, settings, mapping)
    return Ends(
        made_source, SqlSink(url, mapping, settings.name, made_source.name, settings.interval)
    )


def _source(where: Address, settings: Settings, mapping: Mapping) -> Source:
    if not where.tega:
        return EtcdSource(where, _access(settings), [scope.prefix for scope in mapping.scopes])
    return TegaSource(where, [
        Place(pattern.literal, pattern.depth)
        for table in mapping.tables
        for pattern in table.patterns
        if isinstance(pattern, PathPattern)
    ])  # fmt: skip


def _trees(where: Address, to: Address, settings: Settings) -> Ends:
    """A tree, and another one that is to be the same."""
    for tree in (where, to):
        if tree.tega and not tree.prefix:
            raise Malformed(f"address {tree}: name a path of tega: tega://HOST:PORT/PATH")
    if where[:3] == to[:3] and (
        where.prefix.startswith(to.prefix) or to.prefix.startswith(where.prefix)
    ):
        raise Malformed(f"{to} cannot mirror {where}: one is within the other")
    source: Source
    if where.tega:
        source = TegaSource(where, [Place(paths.parse(where.prefix.decode()))])
    else:
        source = EtcdSource(where, _access(settings), [where.prefix])
    if to.tega:
        return Ends(source, TegaSink(where, to, settings.name, settings.interval))
    access = _access(settings)._replace(user=settings.sink_user, password=settings.sink_password)
    return Ends(source, EtcdSink(where, to, access, settings.name, settings.interval))


def _access(settings: Settings) -> Access:
    return Access(
        settings.etcd_user, settings.etcd_password,
        settings.etcd_ca, settings.etcd_cert, settings.etcd_key,
    )  # fmt: skip


async def work(settings: Settings, these: Ends, report: Report) -> int:
    """Do what the settings say.

    :returns: the exit status
    """
    if settings.verify or settings.dry_run:
        return await _compared(settings, these, report)
    measured = Metrics()
    sentinel = Sentinel(these.source, these.sink, report, measured, Random())  # noqa: S311  # it only spreads retries
    if settings.once:
        await sentinel.once()
        return 0
    if settings.port is not None:
        _, port = metrics.serve(settings.port, settings.address, measured, sentinel.health)
        report.say(f"metrics on http://{settings.address}:{port}/_metrics", port=port)
    task = asyncio.ensure_future(sentinel.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        report.say("ended")
    return 0


async def _compared(settings: Settings, these: Ends, report: Report) -> int:
    await these.source.open()
    await these.sink.peek()
    if settings.dry_run:
        found = await verify.compare(these.source, these.sink, report)
        report.events(found, would=True)
        report.say(f"would change {len(found)}, and has changed nothing")
        return 0
    found = await verify.verify(these.source, these.sink, report)
    report.events(found, would=True)
    if found:
        report.say(f"{len(found)} differ: above is what would mend them")
        return _DIFFERS
    report.say(f"{these.sink.name} agrees with {these.source.name}")
    return 0


async def run(settings: Settings, these: Ends, report: Report) -> int:
    """Do what the settings say, then disconnect.

    :returns: the exit status
    """
    try:
        return await work(settings, these, report)
    except (Away, SinkError) as error:
        report.error("source" if isinstance(error, Away) else "sink", str(error))
        return _FAILED
    except Unfit as error:
        report.error("sink", str(error))
        return _FAILED
    except Fenced as error:
        report.error("sink", str(error))
        return _TAKEN
    finally:
        await these.source.close()
        await these.sink.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tega-sentinel``.

    :returns: the exit status: 0; 1 where something differs; 2 for a wrong setting; 3 where another
        sentinel has taken over the checkpoint; 4 where source or sink cannot be used
    """
    try:
        settings = load(sys.argv[1:] if arguments is None else arguments, os.environ)
        logging.basicConfig(
            level=settings.loglevel, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        these = ends(settings, os.environ)
    except Malformed as error:
        print(f"tega-sentinel: {error}", file=sys.stderr)
        return _WRONG
    report: Report = TextReport(sys.stdout)
    if settings.log_format == "json":
        report = JsonReport(sys.stdout)
    return asyncio.run(run(settings, these, report))


if __name__ == "__main__":
    sys.exit(main())
