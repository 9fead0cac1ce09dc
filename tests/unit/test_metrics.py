"""Histograms and peaks: plain numbers, without any clock."""

from __future__ import annotations

import pytest

from tega.errors import BY_CODE
from tega.metrics import COMMITS, LIMITS, SECONDS, Histogram, Meters, Peak


def test_a_value_falls_below_the_first_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 2, 3, 4, 5, 100):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2, 2]
    assert histogram.sum == 117


@pytest.mark.parametrize("bounds", [SECONDS, COMMITS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_a_peak_is_kept_for_a_span_and_at_most_two() -> None:
    peak = Peak(span=10)
    assert peak.largest(100) == 0
    peak.note(3, 100)
    peak.note(1, 105)
    assert peak.largest(109) == 3
    assert peak.largest(109) == 3, "asking takes nothing away"
    peak.note(2, 111)
    assert peak.largest(112) == 3, "of the span before"
    assert peak.largest(121) == 2
    assert peak.largest(131) == 0


def test_a_peak_of_long_ago_is_forgotten_though_nothing_came_since() -> None:
    peak = Peak(span=10)
    peak.note(3, 100)
    assert peak.largest(500) == 0


def test_meters_are_of_their_own() -> None:
    one, other = Meters(), Meters()
    one.refusals["forbidden"] += 1
    one.commit_seconds.observe(1)
    one.request_seconds["get"].observe(1)
    assert other.refusals["forbidden"] == other.commit_seconds.sum == 0
    assert other.request_seconds["get"].sum == 0


def test_refusals_and_limits_are_there_from_the_start() -> None:
    meters = Meters()
    assert meters.refusals.keys() == BY_CODE.keys()
    assert set(meters.refusals.values()) == {0}
    assert meters.limits == dict.fromkeys(LIMITS, 0)
