"""Progress on a terminal while the log is read."""

from __future__ import annotations

import io

import pytest

from tega import server


def test_it_shows_from_the_second_second_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(server.time, "monotonic", lambda: now)
    out = io.StringIO()
    show = server._progress_on(out)
    now = 0.9
    show(1000, 10, 100)
    assert out.getvalue() == ""
    now = 2.0
    show(2000, 20, 100)
    show(2001, 20, 100)
    now = 4.0
    show(8000, 100, 100)
    assert out.getvalue() == (
        "\rreading the log: 2000 commits, 20 %, 1000/s "
        "\rreading the log: 8000 commits, 100 %, 2000/s \n"
    )
