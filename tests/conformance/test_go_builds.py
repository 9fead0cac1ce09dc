"""The Go driver builds for the machines that agents run on, without C."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import build_go

#: Bytes that a stripped agent may have: driver/README.md says what they have.
MOST = 9_000_000


@pytest.mark.parametrize(
    "machine",
    [
        {"GOARCH": "arm", "GOARM": "7"},
        {"GOARCH": "arm64"},
        {"GOARCH": "mipsle", "GOMIPS": "softfloat"},
    ],
    ids=lambda machine: machine["GOARCH"],
)
def test_an_agent_for_a_small_box(machine: dict[str, str]) -> None:
    made = build_go(
        "./examples/agent", "-trimpath", "-ldflags=-s -w", GOOS="linux", CGO_ENABLED="0", **machine
    )
    text = Path(made).read_bytes()
    assert text[:4] == b"\x7fELF"
    assert len(text) < MOST
