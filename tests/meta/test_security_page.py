"""The access rules that doc/security.md shows do what its table says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tega.access.command import explain
from tega.access.policy import Policy
from tega.web.app import COMMANDS, Needs

TEXT = (Path(__file__).resolve().parents[2] / "doc/security.md").read_text()
RULES = re.search(r"^```yaml\n(identities:.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
assert RULES is not None
ROWS = re.findall(
    r"^\| (\w+) \| ([rwxsp]) \| (\S+) \| (yes|no) \| (.+) \|$", TEXT, re.MULTILINE
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:3]))
def test_a_row_of_the_table_is_what_the_rules_say(row: tuple[str, ...]) -> None:
    assert RULES is not None
    name, operation, path, answer, reason = row
    allowed, why = explain(Policy({"display": []}, RULES[1]), name, operation, path)
    assert allowed is (answer == "yes"), why
    assert why.startswith(reason), why


def test_there_is_a_table() -> None:
    assert len(ROWS) > 10


def test_the_session_of_the_page_is_what_the_program_prints(tmp_path: Path) -> None:
    assert RULES is not None
    (tmp_path / "access.yaml").write_text(RULES[1])
    (tmp_path / "tokens.yaml").write_text("display: []\n")
    command, answer = re.findall(r"^\$ tega-server (may .*) -d \S+\n(.*)$", TEXT, re.MULTILINE)[0]
    ran = subprocess.run(
        [sys.executable, "-m", "tega.server", *command.split(), "-d", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )
    assert (ran.stdout, ran.returncode) == (answer + "\n", 1)


def test_the_page_names_what_each_command_needs() -> None:
    for needs, until in ((Needs.MANAGE, "; `monitor`"), (Needs.MONITOR, "who may manage")):
        said = TEXT.partition(f"`{needs.value}` for" if needs is Needs.MONITOR else "is for")[2]
        said = said.partition(until)[0]
        for name, command in COMMANDS.items():
            if command.needs is needs:
                assert f"`{name}`" in said, name
