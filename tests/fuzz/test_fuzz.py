"""Every parser with what fuzzing has found, and with what Hypothesis makes of the same words."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import BOUND, LARGEST, TARGETS, attempt, kept

EACH = pytest.mark.parametrize("name", TARGETS)


@EACH
def test_what_was_found(name: str) -> None:
    inputs = kept(name)
    assert inputs, "scripts/fuzz has kept nothing"
    for file, data in inputs.items():
        try:
            attempt(name, data)
        except Exception as error:
            raise AssertionError(f"corpus/{name}/{file}: {data[:200]!r}") from error


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Words of a target, pieces of what was found, and bytes of any kind, one after the other."""
    found = list(kept(name).values())
    cut = st.tuples(st.sampled_from(found), st.integers(0, LARGEST), st.integers(0, LARGEST))
    piece = st.one_of(
        st.sampled_from(TARGETS[name].words),
        st.binary(max_size=8),
        cut.map(lambda given: given[0][min(given[1:]) : max(given[1:])]),
        st.sampled_from(found),
    )
    return st.lists(piece, max_size=12).map(lambda pieces: b"".join(pieces)[:LARGEST])


def look_on(name: str, count: int) -> None:
    @settings(
        max_examples=count, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(inputs(name))
    def once(data: bytes) -> None:
        attempt(name, data)

    once()


@EACH
def test_what_is_made_up(name: str) -> None:
    look_on(name, 100)


@pytest.mark.long
@EACH
def test_much_that_is_made_up(name: str) -> None:
    look_on(name, 5_000)


def test_a_parser_that_takes_long_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(data: bytes) -> None:
        until = time.process_time() + 1.1 * BOUND
        while time.process_time() < until:
            pass

    monkeypatch.setitem(TARGETS, "path", TARGETS["path"]._replace(run=slow))
    with pytest.raises(AssertionError, match="for 1 bytes"):
        attempt("path", b"a")
