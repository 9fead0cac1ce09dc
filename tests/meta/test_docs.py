"""The documents agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("doc/**/*.md"), ROOT / "driver/README.md"])


def test_the_reference_is_what_the_tables_give() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts/lib/reference.py"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )
    assert (ROOT / "doc/reference.md").read_text() == made.stdout, "run scripts/docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short(page: Path) -> None:
    """Tables apart, and what a program printed."""
    code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            code = not code
        if not code and not line.startswith("|"):
            assert len(line) <= 100, f"{page.name}:{number} has {len(line)} characters"


def test_files_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "doc/architecture.md").read_text()
    block = re.search(r"^```\ntega/\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    named = set(re.findall(r"\b([a-z0-9]+)\.py\b", block[1]))
    there = {file.stem for file in (ROOT / "tega").rglob("*.py")}
    assert named <= there, named - there


def test_files_that_a_page_shows_are_shown_as_they_are() -> None:
    shown = 0
    for page in PAGES:
        pattern = r"\]\(([^)]+)\):\n\n```python\n(.*?)\n```"
        for file, text in re.findall(pattern, page.read_text(), re.DOTALL):
            assert (page.parent / file).read_text().rstrip() == text, f"{page.name} shows {file}"
            shown += 1
    assert shown > 0
