"""The collector's pauses do not grow with the database."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tega import heap
from tega.heap import Heap


@pytest.fixture
def watched() -> Iterator[Heap]:
    made = Heap()
    made.watch()
    yield made
    made.leave()


def test_what_was_there_is_not_visited_again(watched: Heap) -> None:
    assert gc.get_freeze_count() > 0


def test_what_makes_a_collection_long_is_set_aside(
    watched: Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    gc.collect()
    # Not "the same": of what was set aside some may be freed at any moment.
    assert gc.get_freeze_count() <= before, "a short collection sets nothing aside"
    monkeypatch.setattr(heap, "_NOTICEABLE", 0.0)
    gc.collect()
    assert gc.get_freeze_count() > before + len(kept) // 2


def test_leaving_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Heap()
    made.watch()
    made.leave()
    assert gc.get_freeze_count() == 0
    assert not gc.callbacks or made._collecting not in gc.callbacks
