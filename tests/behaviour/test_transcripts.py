"""Every session that the documents show happens so, to the letter.

``TEGA_UPDATE_DOCS=1`` writes what happened into the documents instead, to be read and committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from transcripts import ROOT, alike, blocks, programs, replay

DOCUMENTS = ["README.md", "doc/usage.md"]


class Fresh(NamedTuple):
    """A server with nothing in it yet."""

    port: int
    directory: Path


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Fresh]:
    directory = tmp_path / "var"
    process = subprocess.Popen(
        [sys.executable, "-m", "tega.server", "-t", "global", "-p", "0", "-d", directory],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if line.startswith("ready on "))
        yield Fresh(int(ready.rpartition(":")[2]), directory)
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_sessions_of_the_documents(name: str, fresh: Fresh, tmp_path: Path) -> None:
    document = ROOT / name
    recorded = blocks(document)
    assert recorded, f"{name} shows no session"
    home = tmp_path / "home"
    home.mkdir()
    text = document.read_text()
    for block in recorded:
        happened = replay(block, fresh.port, fresh.directory, home)
        if os.environ.get("TEGA_UPDATE_DOCS"):
            text = text.replace(block, happened, 1)
        else:
            assert alike(happened) == alike(block), f"in {name}"
    if text != document.read_text():
        document.write_text(text)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_programs_of_the_documents_run(name: str, fresh: Fresh, tmp_path: Path) -> None:
    for program in programs(ROOT / name):
        ran = subprocess.run(
            [sys.executable, "-c", program.replace("8739", str(fresh.port))],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )
        assert ran.returncode == 0, f"{program}\n{ran.stderr}"


def test_a_session_that_differs_is_found(fresh: Fresh, tmp_path: Path) -> None:
    block = "$ ./scripts/cli\ntega CLI (q: quit, h:help)\n[tega: 0] put a\n1\n\n[tega: 1] q\n"
    happened = replay(block, fresh.port, fresh.directory, tmp_path)
    assert happened == block
    other = block.replace("1\n\n", "2\n\n")
    assert alike(replay(other, fresh.port, fresh.directory, tmp_path)) != alike(block)
