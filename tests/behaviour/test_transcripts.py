"""Every session that the documents show happens so, to the letter.

``TEGA_UPDATE_DOCS=1`` writes what happened into the documents instead, to be read and committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transcripts import ROOT, alike, blocks, replay

DOCUMENTS = ["README.md", "doc/usage.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_sessions_of_the_documents(name: str, server, tmp_path: Path) -> None:
    document = ROOT / name
    recorded = blocks(document)
    assert recorded, f"{name} shows no session"
    home = tmp_path / "home"
    home.mkdir()
    text = document.read_text()
    for block in recorded:
        happened = replay(block, server.port, server.directory, home)
        if os.environ.get("TEGA_UPDATE_DOCS"):
            text = text.replace(block, happened, 1)
        else:
            assert alike(happened) == alike(block), f"in {name}"
    if text != document.read_text():
        document.write_text(text)


def test_a_session_that_differs_is_found(server, tmp_path: Path) -> None:
    block = "$ ./scripts/cli\ntega CLI (q: quit, h:help)\n[tega: 0] put a\n1\n\n[tega: 1] q\n"
    happened = replay(block, server.port, server.directory, tmp_path)
    assert happened == block
    assert replay(block.replace("put a", "get z"), server.port, server.directory, tmp_path) != block
