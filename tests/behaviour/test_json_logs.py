"""The log of a server as JSON, whatever clients and plugins do."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from adapters import send
from service import ROOT, Service
from wsclient import WSClient

#: Percent-encoded, it clears a screen and forges a line.
HOSTILE = "%1b%5b2J%0a%7b%22level%22:%22INFO%22%7d%e2%80%ae"


def ended(service: Service) -> list[dict[str, Any]]:
    """What a server has logged, once it has ended."""
    service.process.send_signal(signal.SIGTERM)
    _, messages = service.process.communicate(timeout=30)
    assert service.process.returncode == 0
    assert messages.isascii()
    told = [json.loads(line) for line in messages.splitlines()]
    for one in told:
        assert {"time", "level", "logger", "message"} <= one.keys(), one
        assert one["time"].endswith("Z")
        assert one["level"] in ("INFO", "WARNING", "ERROR")
    return told


def test_every_line_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/bad.py").write_text("raise ValueError('\\x1b[2J\\nforged')\n")
    service = Service(
        tmp_path / "var", "-t", "srv", "--log-format", "json", "-e", str(tmp_path),
        "--max-body", "1000",
    )  # fmt: skip
    assert service.port
    url = f"/a{HOSTILE}/?tega_id=eve{HOSTILE}"
    assert send(service.port, "PUT", url, b"1" * 2000).status == 413
    with WSClient(service.port, "one") as client:
        client.send("REQUEST 1 TX two -\n{}")
        assert client.receive().words[-1] == "ERROR"
    told = ended(service)
    assert {one["tega_id"] for one in told} == {"srv"}
    (failed,) = [one for one in told if "exception" in one]
    assert "Traceback" in failed["exception"]
    assert "forged" in failed["exception"]
    (refused,) = [one for one in told if one["logger"] == "tega.refusals"]
    assert refused["code"] == "too_large"
    assert refused["source"] == "127.0.0.1"
    assert refused["who"].startswith("eve\x1b[2J")
    assert refused["what"] == f"PUT /a{HOSTILE}/"


def test_lines_for_people_are_no_worse(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "srv", "--max-body", "1000")
    url = f"/a{HOSTILE}/?tega_id=eve{HOSTILE}"
    assert send(service.port, "PUT", url, b"1" * 2000).status == 413
    status, messages = service.end()
    assert status == 0
    lines = messages.splitlines()
    assert all(line.isprintable() and line[:2] == "20" for line in lines), lines
    (refused,) = [line for line in lines if "tega.refusals" in line]
    assert r"eve\u001b[2J\n{" in refused


def test_a_flood_of_refusals_does_not_fill_the_disk(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "srv", "--log-format", "json", "--max-subscriptions", "1")
    with WSClient(service.port, "eve") as client:
        client.send(*[f"SUBSCRIBE k{number} local False" for number in range(1001)])
        for _ in range(1000):
            assert client.receive().words == ["ERROR", "over_limit"]
    refused = [one for one in ended(service) if one["logger"] == "tega.refusals"]
    counted = [one for one in refused if "left_out" in one]
    # As many for each second that it has taken, and one line more for each.
    assert len(refused) < 100
    assert len(refused) - len(counted) + sum(one["left_out"] for one in counted) == 1000


def test_a_sequence_number_goes_along(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    service = Service(tmp_path, "-t", "srv", "--log-format", "json", before=limit)
    assert service.ask("PUT", "/r/", 1)[0] == 200
    assert service.ask("PUT", "/r/", "x" * 30_000)[0] == 503
    (failed,) = [one for one in ended(service) if one["level"] == "ERROR"]
    assert "read-only now" in failed["message"]
    assert failed["seq"] == 1


@pytest.mark.parametrize("given", ["xml", ""])
def test_another_format_is_refused(tmp_path: Path, given: str) -> None:
    service = Service(tmp_path, "--log-format", given)
    _, messages = service.process.communicate(timeout=30)
    assert service.process.returncode == 2
    assert "right is: text, json" in messages


def test_the_document_names_every_member() -> None:
    text = (ROOT / "doc/metrics.md").read_text()
    for member in ("time", "level", "logger", "message", "tega_id", "seq", "exception", "code",
                   "who", "source", "what", "left_out"):
        assert f"`{member}`" in text, member
