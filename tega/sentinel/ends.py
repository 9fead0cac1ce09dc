"""Source and sink, as the settings name them. What only others need is not loaded: it takes long.
"""

from __future__ import annotations

from collections.abc import Mapping as Variables
from typing import NamedTuple

from tega import paths
from tega.errors import Malformed
from tega.options import Settings
from tega.sentinel import access, address, mappingfile
from tega.sentinel.address import Address
from tega.sentinel.mapping import Mapping
from tega.sentinel.patterns import PathPattern
from tega.sentinel.replica import Place
from tega.sentinel.settings import DEFAULT_SINK
from tega.sentinel.sink import Sink
from tega.sentinel.source import Source


class Ends(NamedTuple):
    """What is mirrored, and where to."""

    source: Source
    sink: Sink


def ends(settings: Settings, variables: Variables[str, str]) -> Ends:
    """The source and the sink that the settings name.

    :raises Malformed: naming what is missing or wrong
    """
    if settings.sink is not None and address.is_tree(settings.sink):
        if settings.mapping is not None or settings.preset is not None:
            raise Malformed("a mapping is for a SQL database: a tree is mirrored key by key")
        if settings.source is None:
            raise Malformed("give --source: what to mirror, such as etcd://127.0.0.1:2379/")
        return _trees(address.parse(settings.source), address.parse(settings.sink), settings)
    return _tables(settings, variables)


def _tables(settings: Settings, variables: Variables[str, str]) -> Ends:
    """A tree, and tables of a SQL database."""
    from tega.sentinel import preset
    from tega.sentinel.sql import dialect as dialects
    from tega.sentinel.sql.sink import SqlSink

    source, mapping, url = settings.source, None, None
    if settings.preset is not None:
        made = preset.titania(variables)
        mapping, url = made.mapping, made.sink
        source = source or made.source
    if settings.mapping is not None:
        mapping = _mapping(settings)
    if source is None:
        raise Malformed("give --source: what to mirror, such as etcd://127.0.0.1:2379/")
    if settings.sink is not None or url is None:
        url = dialects.read_url(settings.sink or DEFAULT_SINK)
    if settings.sink_password is not None:
        url = url.set(password=settings.sink_password)
    where = address.parse(source)
    access.none(settings, "sink")
    if mapping is None:
        raise Malformed("give --mapping: which rows the keys give; doc/sentinel.md has the rules")
    if mapping.tega != where.tega:
        raise Malformed(
            f"the mapping is of {'tega' if mapping.tega else 'etcd'}, and the source {where} is not"
        )
    if where.tega:
        places = [
            Place(pattern.literal, pattern.depth)
            for table in mapping.tables
            for pattern in table.patterns
            if isinstance(pattern, PathPattern)
        ]
        made_source = _tega_source(where, settings, places)
    else:
        made_source = _etcd_source(where, settings, [scope.prefix for scope in mapping.scopes])
    return Ends(
        made_source, SqlSink(url, mapping, settings.name, made_source.name, settings.interval)
    )


def _mapping(settings: Settings) -> Mapping:
    try:
        text = settings.mapping.read_text(encoding="utf-8")
    except OSError as error:
        raise Malformed(f"setting mapping: {settings.mapping}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Malformed(f"setting mapping: {settings.mapping} is no text in UTF-8") from None
    return mappingfile.load(text, str(settings.mapping))


def _trees(where: Address, to: Address, settings: Settings) -> Ends:
    """A tree, and another one that is to be the same."""
    for tree in (where, to):
        if tree.tega and not tree.prefix:
            raise Malformed(f"address {tree}: name a path of tega: tega://HOST:PORT/PATH")
    if (
        (where.tega, where.host, where.port) == (to.tega, to.host, to.port)
        and (where.prefix.startswith(to.prefix) or to.prefix.startswith(where.prefix))
    ):  # fmt: skip
        raise Malformed(f"{to} cannot mirror {where}: one is within the other")
    if where.tega:
        source = _tega_source(where, settings, [Place(paths.parse(where.prefix.decode()))])
    else:
        source = _etcd_source(where, settings, [where.prefix])
    shown = access.of(settings, "sink", to)
    if to.tega:
        from tega.sentinel.tree.tega import TegaSink

        return Ends(source, TegaSink(where, to, shown, settings.name, settings.interval))
    from tega.sentinel.tree.etcd import EtcdSink

    return Ends(source, EtcdSink(where, to, shown, settings.name, settings.interval))


def _etcd_source(where: Address, settings: Settings, prefixes: list[bytes]) -> Source:
    from tega.sentinel.etcdsource import EtcdSource

    return EtcdSource(where, access.of(settings, "source", where), prefixes)


def _tega_source(where: Address, settings: Settings, places: list[Place]) -> Source:
    from tega.sentinel.tegasource import TegaSource

    return TegaSource(where, access.of(settings, "source", where), places)
