"""The first program of driver/README.md does what is shown there, and builds without the clone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from programs import OLDEST_GO, find_go
from service import ROOT, Service

README = (ROOT / "driver/README.md").read_text()


def block(tag: str) -> str:
    """The first block with that tag."""
    found = re.search(rf"^```{tag}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def block_with(text: str) -> str:
    """The block of commands that has that line."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (found,) = [one for one in blocks if f"{text}\n" in one]
    return str(found)


def test_the_first_program(tmp_path: Path) -> None:
    find_go()
    service = Service(tmp_path / "log", "-t", "one")
    try:
        # The clone is where the document has it: beside the program's directory.
        (tmp_path / "tega").symlink_to(ROOT)
        commands = f"set -e\n{block('sh')}cat > main.go\ngo mod tidy >&2\ngo run .\n"
        program = block("go").replace("127.0.0.1:8739", f"127.0.0.1:{service.port}")
        done = subprocess.run(
            ["bash", "-c", commands], input=program, cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == block("text")
        alone = f"set -e\ncd hello\n{block_with('go mod vendor')}rm ../tega\ngo build .\n"
        subprocess.run(
            ["bash", "-c", alone], cwd=tmp_path, check=True, env={**os.environ, "GOPROXY": "off"}
        )
    finally:
        assert service.end()[0] == 0


def test_the_release_of_go_is_the_one_that_is_named() -> None:
    release = ".".join(map(str, OLDEST_GO))
    assert f"It needs Go {release}," in README
    assert f"\ngo {release}\n" in (ROOT / "driver/go.mod").read_text()
