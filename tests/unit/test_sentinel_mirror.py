"""Trees that mirror trees: names, and what a change of the source does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega.sentinel.address import parse
from tega.sentinel.columns import Misfit
from tega.sentinel.source import Batch, Entry
from tega.sentinel.tree.mirror import GONE, EtcdNames, Mirror, Names, TegaNames

ETCD, TEGA = parse("etcd://h/src/"), parse("tega://h/r/conf/")


@pytest.mark.parametrize(
    ("names", "key", "place"),
    [
        (EtcdNames(ETCD, parse("etcd://x/dst/")), b"/src/a/\xff", b"/dst/a/\xff"),
        (EtcdNames(ETCD, parse("etcd://x")), b"/src/a", b"a"),
        (EtcdNames(TEGA, parse("etcd://x/dst/")), b'r.conf.a."x/y%"', b"/dst/a/x%2Fy%25"),
        (EtcdNames(TEGA, parse("etcd://x/dst")), b"r.conf", b"/dst"),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/a/b", ("to", "a", "b")),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/x%2Fy%25", ("to", "x/y%")),
        (TegaNames(parse("etcd://h/src"), parse("tega://x/to/")), b"/src/a", ("to", "a")),
        (TegaNames(TEGA, parse("tega://x/to/t/")), b"r.conf.a.b", ("to", "t", "a", "b")),
    ],
)  # fmt: skip
def test_names(names: Names, key: bytes, place: Any) -> None:
    assert names.place(key) == place


@pytest.mark.parametrize(
    ("names", "key", "says"),
    [
        (EtcdNames(ETCD, parse("etcd://x")), b"/src/", "empty key"),
        (EtcdNames(ETCD, parse("etcd://x")), b"/src/tega-sentinel/a", "the sentinels' own"),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/a//b", "empty key"),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/_a", "reserved key"),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/\xff", "not UTF-8"),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/%41", "write '%' as %25"),
        (TegaNames(ETCD, parse("tega://x/to/")), b"/src/" + b"a/" * 70 + b"a", "at most 64 keys"),
    ],
)
def test_names_that_cannot_be(names: Names, key: bytes, says: str) -> None:
    with pytest.raises(Misfit, match=says):
        names.place(key)


@pytest.mark.parametrize("value", [b"x", b'{"_a": 1}', b'[{"_value": 1}, NaN]'])
def test_values_that_tega_does_not_hold(value: bytes) -> None:
    with pytest.raises(Misfit):
        TegaNames(ETCD, TEGA).value(value)


KEYS = st.sampled_from([b"/src/a", b"/src/a/b", b"/src/a/b/c", b"/src/d", b"/src/d//"])
CHANGES = st.dictionaries(KEYS, st.sampled_from([None, b"1", b'{"x":2}', b"{"]), min_size=1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(CHANGES, min_size=1, max_size=3), max_size=5))
def test_changes_lead_to_what_a_listing_gives(steps: list[list[dict[bytes, bytes | None]]]) -> None:
    """And no put ever finds a leaf above it, or something below."""
    mirror = Mirror(TegaNames(ETCD, TEGA))
    sink: dict[Any, Any] = {}
    source: dict[bytes, Entry] = {}
    revision = 0
    for batches in steps:
        made = []
        for changes in batches:
            revision += 1
            changes = {k: v for k, v in changes.items() if v is not None or k in source}
            entries = [Entry(key, value, revision) for key, value in changes.items()]
            for entry in entries:
                source[entry.key] = entry
                if entry.value is None:
                    del source[entry.key]
            made.append(Batch(revision, tuple(entries)))
        for put in mirror.changes(made)[0]:
            if put.value is GONE:
                del sink[put.place]
            else:
                above = [put.place[:size] for size in range(len(put.place))]
                assert not any(place in sink for place in above)
                below = [place for place in sink if place[: len(put.place)] == put.place]
                assert below in ([], [put.place])
                sink[put.place] = put.value
        listed = Mirror(TegaNames(ETCD, TEGA))
        listed.take(source.values())
        assert sink == {place: value for place, (value, _) in listed.all()[0].items()}


def test_a_reject_is_told_once_until_it_changes() -> None:
    mirror = Mirror(TegaNames(ETCD, TEGA))
    bad = Entry(b"/src/a", b"{", 1)
    assert [event.kind for event in mirror.changes([Batch(1, (bad,))])[1]] == ["reject"]
    again = Mirror(TegaNames(ETCD, TEGA))
    again.take([bad])
    again.heard_of(mirror)
    assert again.all()[1] == []
    assert len(again.changes([Batch(2, (bad._replace(revision=2),))])[1]) == 1
