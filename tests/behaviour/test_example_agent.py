"""The example agents do what they say, and vanish cleanly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, flags
from guardedsite import add_token
from programs import build_go
from service import ROOT, Service
from test_plugins import until

from tega.driver import Driver, Tls

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


def test_an_agent_with_a_token_over_tls(tmp_path: Path, command: list[str]) -> None:
    authority = Authority(tmp_path)
    token = add_token(tmp_path / "tokens.yaml", "agent-ne1")
    service = Service(tmp_path, "-t", "srv", *flags(authority.issue("127.0.0.1")))
    agent = subprocess.Popen(
        [*command, "-p", str(service.port), "--ca", str(authority.file), "ne1"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "TEGA_TOKEN": token},
    )
    refused = subprocess.run(
        [*command, "-p", str(service.port), "--ca", str(authority.file), "ne2"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "TEGA_TOKEN": token},
        check=False, timeout=30,
    )
    assert refused.returncode == 1
    assert "agent-ne2" in refused.stderr
    tls = Tls(ca=authority.file)
    try:
        with Driver("127.0.0.1", service.port, token=token, tls=tls) as driver:
            driver.put({"interval": 60, "targets": {"nowhere": "127.0.0.1:x"}}, path="config-ne1")
            until(lambda: driver.get("operational-ne1.*", python_dict=True, regex_flag=True))
    finally:
        agent.kill()
        _, messages = agent.communicate()
        assert service.end()[0] == 0
    for told in (messages, refused.stderr):
        assert token not in told
        assert "Traceback" not in told
        assert "panic" not in told
