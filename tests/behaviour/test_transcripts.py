"""Every session that the documents show happens so, to the letter.

``TEGA_UPDATE_DOCS=1`` writes what happened into the documents instead, to be read and committed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from service import Service
from terminal import PATIENCE, ROOT
from transcripts import DEFAULT, Block, Player, Server, alike, blocks, programs

DOCUMENTS = ["README.md", "doc/usage.md", "doc/peering.md"]
UPDATES = bool(os.environ.get("TEGA_UPDATE_DOCS"))


def wait_until_connected(service: Service) -> None:
    """Wait until a local server and its global one have all of each other."""
    until = time.monotonic() + PATIENCE
    while True:
        (up,) = service.ask("GET", "/_health")[1]["peers"]
        if up["state"] == "connected" and all(one["caught_up"] for one in up["roots"].values()):
            return
        assert time.monotonic() < until, up
        time.sleep(0.02)


@contextmanager
def serving(directory: Path, tega_id: str = "global", *flags: str) -> Iterator[Server]:
    service = Service(directory, "-t", tega_id, *flags)
    port = service.port

    def stop() -> None:
        assert service.end()[0] == 0

    def start() -> None:
        nonlocal service
        service = Service(directory, "-t", tega_id, *flags, "-p", str(port))

    if "-P" in flags:
        wait_until_connected(service)
    try:
        yield Server(tega_id, port, directory, stop, start)
    finally:
        stop()


@contextmanager
def serving_plugins(directory: Path) -> Iterator[dict[int, Server]]:
    """What `scripts/global`, `scripts/local1` and `scripts/local2` start, in one directory."""
    with ExitStack() as stack:

        def start(tega_id: str, *flags: str) -> Server:
            flags = (*flags, "-e", str(ROOT / "plugins" / tega_id))
            return stack.enter_context(serving(directory, tega_id, *flags))

        servers = {DEFAULT: start("global")}
        for place, name in enumerate(("local1", "local2"), 1):
            servers[DEFAULT + place] = start(
                name, "-P", str(servers[DEFAULT].port),
                "-C", f"config-{name}", f"ip-{name}", "-O", f"operational-{name}",
            )  # fmt: skip
        yield servers


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server with nothing in it yet."""
    with serving(tmp_path / "var") as server:
        yield server


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_sessions_of_the_documents(name: str, fresh: Server, tmp_path: Path) -> None:
    document = ROOT / name
    recorded = blocks(document)
    assert recorded, f"{name} shows no session"
    home = tmp_path / "home"
    home.mkdir()
    text = document.read_text()
    with ExitStack() as stack:
        patience = {"patience": 2.0} if UPDATES else {}
        player = stack.enter_context(Player({DEFAULT: fresh}, home, **patience))
        if any(block.plugins for block in recorded):
            others = stack.enter_context(serving_plugins(tmp_path / "other"))
            with_plugins = stack.enter_context(Player(others, home, **patience))
        for block in recorded:
            happened = (with_plugins if block.plugins else player).play(block)
            if not UPDATES:
                assert alike(happened) == alike(block.text), f"in {name}"
            elif alike(happened) != alike(block.text):
                text = text.replace(block.text, happened, 1)
    if text != document.read_text():
        document.write_text(text)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_programs_of_the_documents_run(name: str, fresh: Server, tmp_path: Path) -> None:
    for program in programs(ROOT / name):
        ran = subprocess.run(
            [sys.executable, "-c", program.replace("8739", str(fresh.port))],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )
        assert ran.returncode == 0, f"{program}\n{ran.stderr}"


SESSION = """\
$ ./scripts/cli
tega CLI (q: quit, h:help)
[tega: 0] put a
1

[tega: 1] get a
1

[tega: 2] q
"""


def test_a_session_that_differs_is_found(fresh: Server, tmp_path: Path) -> None:
    with Player({DEFAULT: fresh}, tmp_path, patience=2.0) as player:
        assert player.play(Block("", SESSION)) == SESSION
        wrong = re.sub(r"(get a\n)1", r"\g<1>2", SESSION)
        assert player.play(Block("", wrong)) == SESSION


def test_two_terminals_go_on_where_they_were(fresh: Server, tmp_path: Path) -> None:
    command, banner, *_ = SESSION.splitlines()
    first = f"{command} -s -t one\n{banner}\n--- session ready ---\n[tega: 0] sub a\n[tega: 1]\n"
    told = "<MESSAGE>\nchannel: a\ntega_id: two\nmessage: hi\n\n[tega: 1] q\n"
    with Player({DEFAULT: fresh}, tmp_path, patience=2.0) as player:
        assert player.play(Block("1", first)) == first
        assert player.play(Block("2", "$ ./scripts/cli pub a hi -t two\n"))
        assert player.play(Block("1", told)) == told
        assert player.play(Block("1", first)) == first
        assert player.play(Block("1", told)).startswith("[tega: 1] q\n")
