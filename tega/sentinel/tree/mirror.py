"""What a tree is to hold, given the keys of the source. Pure.

All keys of the source are held here, so that it can be told which of them stand in each other's
way: tega holds one value at a place, while etcd may have a key and others below it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from tega import paths, strictjson
from tega.errors import Malformed
from tega.paths import Path
from tega.sentinel.address import Address
from tega.sentinel.columns import Misfit
from tega.sentinel.sink import Event
from tega.sentinel.source import Batch, Entry

#: Where sentinels have their checkpoints: no key is mirrored to there.
OWN: Final = "tega-sentinel"


class Put(NamedTuple):
    """Something to be put, or where `value` is `GONE` to be deleted.

    :ivar place: of etcd a key, of tega a path
    :ivar value: of etcd bytes, of tega any JSON value
    :ivar event: what that is to people
    """

    place: Any
    value: Any
    event: Event


#: The value of what is to be deleted.
GONE: Final = object()


class Names(ABC):
    """How keys of the source are called in the sink."""

    @abstractmethod
    def place(self, key: bytes) -> Hashable:
        """Where a key of the source is to be in the sink.

        :raises Misfit: where it cannot be
        """

    @abstractmethod
    def value(self, value: bytes) -> Any:
        """The value as the sink holds it.

        :raises Misfit: where it cannot
        """

    def above(self, place: Any) -> Iterable[Hashable]:
        """The places that cannot hold a value because of one here."""
        return ()


class EtcdNames(Names):
    """Keys of etcd or paths of tega, as keys of etcd."""

    def __init__(self, source: Address, sink: Address) -> None:
        self._source = source
        self._sink = sink

    def place(self, key: bytes) -> bytes:
        if not self._source.tega:
            place = self._sink.prefix + key[len(self._source.prefix) :]
        else:
            size = len(paths.parse(self._source.prefix.decode()))
            rest = [_escaped(name) for name in paths.parse(key.decode())[size:]]
            prefix = self._sink.prefix.decode().removesuffix("/")
            place = "/".join([prefix, *rest]).encode()
        if not place:
            raise Misfit("an empty key cannot be")
        if place.startswith(f"{OWN}/".encode()):
            raise Misfit(f"keys under {OWN}/ are the sentinels' own")
        return place

    def value(self, value: bytes) -> bytes:
        return value


class TegaNames(Names):
    """Keys of etcd or paths of tega, as paths of tega; values are JSON."""

    def __init__(self, source: Address, sink: Address) -> None:
        self._source = source
        self._prefix = paths.parse(sink.prefix.decode())

    def place(self, key: bytes) -> Path:
        size = len(self._source.prefix)
        try:
            if self._source.tega:
                rest = paths.parse(key.decode())[len(paths.parse(self._source.prefix.decode())) :]
            else:
                names = key[size:].decode().removeprefix("/").split("/")
                rest = tuple([_unescaped(name) for name in names])
            path = paths.check((*self._prefix, *rest))
        except UnicodeDecodeError:
            raise Misfit("the key is not UTF-8") from None
        except Malformed as error:
            raise Misfit(f"it cannot be a path of tega: {error.message}") from None
        if len(path) > paths.MAX_DEPTH:
            raise Misfit(f"a path of tega has at most {paths.MAX_DEPTH} keys")
        return path

    def value(self, value: bytes) -> Any:
        try:
            document = strictjson.loads(value)
            _check(document)
        except Malformed as error:
            raise Misfit(error.message) from None
        return document

    def above(self, place: Path) -> Iterator[Path]:
        for size in range(1, len(place)):
            yield place[:size]


def _check(value: Any) -> None:
    """Refuse names in a value that tega does not take."""
    if type(value) is dict:
        paths.check_keys(value)
        for child in value.values():
            _check(child)


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _unescaped(name: str) -> str:
    plain = name.replace("%2F", "/").replace("%25", "%")
    if _escaped(plain) != name:
        raise Malformed(f"{name[:64]!r}: write '%' as %25 and '/' as %2F, and nothing else so")
    return plain


class Mirror:
    """The keys of the source, and what they make of the sink.

    :param names: how they are called there
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self.keys: dict[bytes, Entry] = {}
        self._places: dict[Any, bytes] = {}
        self._below: Counter[Any] = Counter()
        self._rejected: dict[bytes, tuple[int, str]] = {}

    def take(self, entries: Iterable[Entry]) -> None:
        """Take in keys that it does not have yet."""
        for entry in entries:
            self._set(entry)

    def _set(self, entry: Entry) -> None:
        self._unset(entry.key)
        self.keys[entry.key] = entry
        try:
            place = self._names.place(entry.key)
        except Misfit:
            return
        self._places[place] = entry.key
        self._below.update(self._names.above(place))

    def _unset(self, key: bytes) -> None:
        if self.keys.pop(key, None) is None:
            return
        try:
            place = self._names.place(key)
        except Misfit:
            return
        if self._places.pop(place, None) is not None:
            self._below.subtract(self._names.above(place))

    def wanted(self, key: bytes) -> tuple[Any, Any]:
        """Where a key is to be in the sink, and with which value.

        :raises Misfit: where it cannot be there
        """
        entry = self.keys[key]
        assert entry.value is not None
        place = self._names.place(key)
        if self._below[place] > 0:
            raise Misfit("other keys are below it, and tega holds one value at a place")
        return place, self._names.value(entry.value)

    def all(self) -> tuple[dict[Any, tuple[Any, Entry]], list[Event]]:
        """All that is to be in the sink: place to value and key; and what is newly rejected."""
        found: dict[Any, tuple[Any, Entry]] = {}
        rejected: list[Event] = []
        for key, entry in self.keys.items():
            try:
                place, value = self.wanted(key)
            except Misfit as misfit:
                rejected += self.reject(entry, str(misfit))
            else:
                found[place] = (value, entry)
        return found, rejected

    def reject(self, entry: Entry, reason: str) -> list[Event]:
        """Remember that a key does not fit: the event of that, unless it is known."""
        if self._rejected.get(entry.key) == (entry.revision, reason):
            return []
        self._rejected[entry.key] = (entry.revision, reason)
        return [Event("reject", "", {}, entry.key, entry.revision, reason=reason)]

    def heard_of(self, other: Mirror) -> None:
        """Take over which keys are known not to fit."""
        self._rejected = {key: why for key, why in other._rejected.items() if key in self.keys}

    def changes(self, batches: Sequence[Batch]) -> tuple[list[Put], list[Event]]:
        """What some batches do to the sink: deletions before what may come in their place."""
        puts: list[Put] = []
        rejected: list[Event] = []
        for batch in batches:
            touched = self._touched(batch)
            before = {key: self._value(key) for key in touched}
            for entry in batch.entries:
                if entry.value is None:
                    self._unset(entry.key)
                    self._rejected.pop(entry.key, None)
                else:
                    self._set(entry)
            gone, made = [], []
            causes = {entry.key: entry for entry in batch.entries}
            for key, old in before.items():
                cause = causes.get(key) or self.keys[key]
                new = None
                if key in self.keys:
                    try:
                        new = self.wanted(key)
                    except Misfit as misfit:
                        rejected += self.reject(cause, str(misfit))
                    else:
                        self._rejected.pop(key, None)
                if new is None and old is not None:
                    gone.append(_put(old[0], GONE, "delete", cause))
                elif new is not None and new != old:
                    made.append(_put(*new, "insert" if old is None else "update", cause))
            puts += gone + made
        return puts, rejected

    def _touched(self, batch: Batch) -> list[bytes]:
        """The keys that a batch may change something for: its own, and those above them."""
        touched = dict.fromkeys([entry.key for entry in batch.entries])
        for entry in batch.entries:
            try:
                above = self._names.above(self._names.place(entry.key))
            except Misfit:
                continue
            touched.update({self._places[p]: None for p in above if p in self._places})
        return list(touched)

    def _value(self, key: bytes) -> tuple[Any, Any] | None:
        if key not in self.keys:
            return None
        try:
            return self.wanted(key)
        except Misfit:
            return None


def _put(place: Any, value: Any, kind: str, cause: Entry, drift: bool = False) -> Put:
    return Put(place, value, Event(kind, "", {}, cause.key, cause.revision, drift=drift))
