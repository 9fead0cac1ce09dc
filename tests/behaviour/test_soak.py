"""The long trial, for a short while: three servers under everything at once, with faults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What even a short trial looks at.
LOOKED_AT = [
    "what was acknowledged is there", "at the end all that was acknowledged is there",
    "a transaction is seen whole", "followers equal their leader",
    "watchers hear of changes in order, each once", "watchers hear of every change in the end",
    "no answer is a 500", "descriptors are given back", "memory is bounded",
    "tega-log verify finds nothing wrong", "the logs of all servers agree",
    "who may not write is refused", "what may not be read does not show",
]  # fmt: skip


@pytest.mark.parametrize(
    "minutes", [0.3, pytest.param(1.5, marks=pytest.mark.long)]
)
def test_everything_at_once(tmp_path: Path, minutes: float) -> None:
    report = tmp_path / "report.md"
    places = ("scripts/lib", "tests/peering", "tests/behaviour")
    paths = os.pathsep.join(str(ROOT / place) for place in places)
    done = subprocess.run(
        [
            sys.executable, "-m", "soak", "--minutes", str(minutes), "--seed", "7",
            "--report", str(report),
        ],
        env={**os.environ, "PYTHONPATH": paths}, cwd=ROOT, capture_output=True, text=True,
        timeout=300 + 60 * minutes, check=False,
    )  # fmt: skip
    assert report.exists(), done.stderr
    text = report.read_text()
    assert done.returncode == 0, text
    for what in LOOKED_AT:
        assert re.search(rf"^\| {what} \| [1-9]\d* \| held \|$", text, re.MULTILINE), what
