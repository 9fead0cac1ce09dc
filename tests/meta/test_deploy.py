"""The files of doc/deploy: they name what is there, and systemd takes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tega.access.command import explain
from tega.access.policy import Policy
from tega.sentinel.settings import PROGRAM as SENTINEL
from tega.settings import PROGRAM as SERVER
from tega.settings import TABLE
from tega.web.metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "doc/deploy"
UNITS = sorted(DEPLOY.rglob("*.service"))

#: What a family of a histogram has as samples.
SAMPLES = ("_bucket", "_sum", "_count")


def known() -> set[str]:
    """All names of samples, those of the process included."""
    names = set(re.findall(r"^\| `((?:process|python)_\w+)`", (ROOT / "doc/metrics.md").read_text(),
                           re.MULTILINE))
    for family in FAMILIES:
        if family.kind == "histogram":
            names |= {family.name + suffix for suffix in SAMPLES}
        else:
            names.add(family.name)
    return names


def named_in(expression: str) -> set[str]:
    """The metrics of tega and of its process in an expression."""
    return set(re.findall(r"\b(?:tega|process|python)_\w+", expression))


def labels_in(expression: str) -> set[str]:
    """The labels that it chooses or adds up by."""
    chosen = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression)
    by = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return {*chosen, *[one.strip() for group in by for one in group.split(",")]}


def expressions(value: Any) -> Iterator[str]:
    """All expressions of a dashboard or of rules."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == "expr":
                yield part
            else:
                yield from expressions(part)
    elif isinstance(value, list):
        for part in value:
            yield from expressions(part)


@pytest.mark.parametrize("name", ["grafana.json", "tega-alerts.yml"])
def test_every_metric_of_an_expression_exists(name: str) -> None:
    text = (DEPLOY / name).read_text()
    found = list(expressions(json.loads(text) if name.endswith("json") else yaml.safe_load(text)))
    assert len(found) > 10
    labels = {label for family in FAMILIES for label in family.labels}
    for expression in found:
        named = named_in(expression)
        assert named or expression.startswith("up{"), expression
        assert named <= known(), expression
        assert labels_in(expression) <= labels | {"instance", "job", "le"}, expression


def test_the_dashboard_shows_what_there_is() -> None:
    text = (DEPLOY / "grafana.json").read_text()
    dashboard = json.loads(text)
    shown = {name for expression in expressions(dashboard) for name in named_in(expression)}
    missing = [
        family.name for family in FAMILIES
        if not any(name.startswith(family.name) for name in shown)
    ]
    assert set(missing) <= {"tega_log_segments", "tega_log_appended_bytes_total",
                            "tega_peer_expected", "tega_sequence_number", "tega_snapshots_total"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]\w*)", text)) <= variables


def test_prometheus_reads_the_rules_that_are_there() -> None:
    given = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert [(DEPLOY / name).exists() for name in given["rule_files"]] == [True]
    assert {job["metrics_path"] for job in given["scrape_configs"]} == {"/_metrics"}


PROGRAMS = {program.name: program for program in (SERVER, SENTINEL)}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.relative_to(DEPLOY)))
class TestUnits:
    def test_its_flags_and_settings_exist(self, unit: Path) -> None:
        (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        flags = {flag[2:] for flag in command.split() if flag.startswith("--")}
        program = PROGRAMS[command.split()[0].removeprefix("/opt/tega/.venv/bin/")]
        assert flags <= {"settings", *[setting.name for setting in program.table]}

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
    def test_systemd_takes_it(self, unit: Path, tmp_path: Path) -> None:
        # What it starts must be there.
        text = re.sub("/opt/tega/.venv/bin/[a-z-]+", sys.executable, unit.read_text())
        installed = tmp_path / unit.name
        installed.write_text(text.replace("file:///opt/tega", f"file://{ROOT}"))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(installed)],
            capture_output=True, text=True, check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        judged = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(installed)],
            capture_output=True, text=True, check=False,
        )
        assert judged.returncode == 0, judged.stdout[-2000:]


def test_the_hardened_settings_are_settings() -> None:
    given = yaml.safe_load((DEPLOY / "hardened/settings.yaml").read_text())
    settings = {setting.name for setting in TABLE}
    assert given.keys() <= settings
    assert given["address"] == "0.0.0.0"
    assert given["log-format"] == "json"


def test_the_hardened_access_rules_hold() -> None:
    text = (DEPLOY / "hardened/access.yaml").read_text()
    policy = Policy({}, text, "access.yaml")
    assert [explain(policy, *asked)[0] for asked in (
        ("alice", "w", "ne1.secrets"), ("bob", "r", "ne1.config"), ("bob", "r", "ne1.secrets.key"),
        ("site1", "w", "config-site1"), ("site1", "r", "config-site2"), ("anybody", "r", "ne1"),
    )] == [True, True, False, True, False, False]  # fmt: skip
