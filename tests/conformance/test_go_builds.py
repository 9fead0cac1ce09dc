"""The Go driver builds for the machines that agents run on, without C, as small as is said."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from programs import build_go
from service import ROOT

README = (ROOT / "driver/README.md").read_text()

#: By how much releases of Go may differ.
TOLERANCE = 0.15


def said(pattern: str) -> float:
    """How many bytes something has, as README.md says: in MB."""
    found = re.search(pattern, " ".join(README.split()))
    assert found is not None, pattern
    return float(found[1]) * 1e6


@pytest.mark.parametrize(
    ("machine", "elf", "size"),
    [
        ({"GOARCH": "arm", "GOARM": "7"}, (1, 40), r"`arm` \(`GOARM=7`\) it is ([\d.]+) MB"),
        ({"GOARCH": "arm64"}, (2, 183), r"for `arm64` ([\d.]+) MB"),
        ({"GOARCH": "mipsle", "GOMIPS": "softfloat"}, (1, 8), r"one static file, ([\d.]+) MB"),
    ],
    ids=lambda given: given.get("GOARCH") if isinstance(given, dict) else "",
)
def test_an_agent_for_a_small_box(
    machine: dict[str, str], elf: tuple[int, int], size: str
) -> None:
    made = build_go(
        "./examples/agent", "-trimpath", "-ldflags=-s -w", GOOS="linux", CGO_ENABLED="0", **machine
    )
    text = Path(made).read_bytes()
    assert text[:4] == b"\x7fELF"
    # 32 or 64 bits, little-endian; the machine.
    assert (text[4], text[5], int.from_bytes(text[18:20], "little")) == (elf[0], 1, elf[1])
    assert b"ld-linux" not in text
    assert b"ld-musl" not in text
    assert len(text) == pytest.approx(said(size), rel=TOLERANCE)
    if machine["GOARCH"] == "mipsle":
        packed = said(r"([\d.]+) MB as a compressed package")
        assert len(gzip.compress(text)) == pytest.approx(packed, rel=TOLERANCE)
