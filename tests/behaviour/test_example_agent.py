"""The example agents do what they say, and vanish cleanly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import build_go
from service import ROOT, Service
from test_plugins import until

AGENT = ROOT / "doc/examples/agent.py"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path, "-t", "srv")
    yield made
    assert made.end()[0] == 0


@pytest.fixture(params=["python", "go"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """What starts an agent."""
    if request.param == "python":
        return [sys.executable, str(AGENT)]
    return [build_go("./examples/agent")]


def test_an_agent(service: Service, command: list[str]) -> None:
    agent = subprocess.Popen(
        [*command, "-p", str(service.port), "ne1"], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )

    def reported() -> Any:
        status, answer = service.ask("GET", "/operational-ne1/targets")
        return answer if status == 200 else {}

    try:
        until(lambda: service.ask("GET", "/_ids")[1] == ["agent-ne1"])
        here = f"127.0.0.1:{service.port}"
        config = {"interval": 60, "targets": {"here": here, "nowhere": "127.0.0.1:x"}}
        assert service.ask("PUT", "/config-ne1", config)[0] == 200
        until(lambda: reported().keys() == {"here", "nowhere"})
        assert reported()["here"]["up"] is True
        assert reported()["nowhere"]["up"] is False
        # Once more at the change, not after a minute; and whatever a person may write.
        for wrong in (7, {"targets": [1]}, {"interval": "often", "targets": {}}):
            assert service.ask("PUT", "/config-ne1", wrong)[0] == 200
        until(lambda: reported() == {})
        assert service.ask("PUT", "/config-ne1", {"targets": {"here": here}})[0] == 200
        until(lambda: reported().keys() == {"here"})
        answer = service.ask("POST", "/_rpc?path=operational-ne1.probe", {"args": [here]})
        assert answer[1]["result"]["up"] is True
    finally:
        agent.kill()
        _, messages = agent.communicate()
    until(lambda: service.ask("GET", "/_ids")[1] == [])
    until(lambda: service.ask("GET", "/operational-ne1")[0] == 404)
    assert "Traceback" not in messages
    assert "panic" not in messages
