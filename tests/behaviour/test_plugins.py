"""Plugins: loaded, isolated, reloaded; the samples do what they say."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from service import ROOT, Service

from tega import plugins
from tega.embedded import Database
from tega.plugins import Plugins
from tega.subscriber import PlugIn


def until(true: Callable[[], Any], seconds: float = 10) -> Any:
    """Wait for a condition."""
    limit = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < limit, "this did not come true"
        time.sleep(0.02)
    return found


#: What is told where the configured interval makes no sense.
PROBLEM = "interval: give 0.1 to 3600 seconds"


@pytest.fixture
def samples(tmp_path: Path) -> Iterator[Service]:
    directories = [str(ROOT / "plugins" / name) for name in ("global", "local1", "local2")]
    service = Service(tmp_path, "-t", "srv", "-e", *directories)
    yield service
    service.process.terminate()
    service.process.communicate(timeout=20)
    assert service.process.returncode == 0


def test_the_samples_work(samples: Service, tmp_path: Path) -> None:
    def call(path: str, *args: Any, **kwargs: Any) -> Any:
        return samples.ask("POST", f"/_rpc?path={path}", {"args": args, "kwargs": kwargs})

    names = ["Clock", "Echo", "Interfaces", "Inventory", "Load"]
    assert sorted(samples.ask("GET", "/_plugins")[1]) == names
    assert samples.ask("GET", "/_ids")[1] == names
    assert call("inventory.ne1.f1", 3, 9, 2) == (200, {"result": 9})
    status, answer = call("inventory.ne1.f2")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", answer["result"])
    assert call("operational-local1.ne1.load")[1]["result"].keys() == {"1m", "5m", "15m"}
    told = datetime.fromisoformat(call("operational-global.time")[1]["result"])
    assert abs(told - datetime.now(timezone.utc)) < timedelta(minutes=1)
    for falsy in (None, 0, "", False, [], {}):
        assert call("operational-local2.ne2.echo", falsy) == (200, {"result": falsy})
    status, answer = call("inventory.ne1.f1", 1, "a")
    assert (status, answer["error"]["code"]) == (502, "call_failed")
    assert "TypeError" in answer["error"]["message"]
    # The machine talks to itself meanwhile: the counters of its loopback move on.
    lo = "/operational-global/interfaces/lo/rx_packets"
    before = until(lambda: samples.ask("GET", lo)[1])
    until(lambda: samples.ask("GET", lo)[1] > before)
    found = samples.ask("GET", "/operational-global/interfaces/lo?internal=True")[1]
    assert found["_ephemeral"] is True
    logged = b"".join(file.read_bytes() for file in tmp_path.glob("log.*"))
    assert b"rx_packets" not in logged, "what is ephemeral is in no log"


def test_the_load_is_reported_as_configured(samples: Service) -> None:
    def got(path: str) -> Any:
        return samples.ask("GET", f"/operational-local1/{path}")[1]

    until(lambda: got("applied") == {"interval": 5})
    assert got("load").keys() == {"1m", "5m", "15m"}
    # At once, and at each change: how often it reports is seen by the versions that it makes.
    assert samples.ask("PUT", "/config-local1", {"interval": 0.1})[0] == 200
    until(lambda: got("applied") == {"interval": 0.1})
    before = samples.ask("GET", "/_roots")[1]["operational-local1"]
    until(lambda: samples.ask("GET", "/_roots")[1]["operational-local1"] > before + 5)
    for wrong in ("often", 0, 10**400, [], {"x": 1}):
        assert samples.ask("PUT", "/config-local1/interval", wrong)[0] == 200
        until(lambda: got("applied") == {"interval": 5, "problem": PROBLEM})
        assert samples.ask("PUT", "/config-local1/interval", 60)[0] == 200
        until(lambda: got("applied") == {"interval": 60})
    assert samples.ask("DELETE", "/config-local1")[0] == 200
    until(lambda: got("applied") == {"interval": 5})
    assert samples.ask("GET", "/operational-local1/applied?internal=True")[1]["_ephemeral"] is True


def write(directory: Path, name: str, text: str) -> None:
    (directory / "plugins").mkdir(exist_ok=True)
    (directory / "plugins" / f"{name}.py").write_text(dedent(text))


GOOD = """
    from tega.subscriber import PlugIn

    class Good(PlugIn):
        def __init__(self):
            super().__init__()
            self.seen = []
            self.subscribe("r")
            with self.tx() as t:
                t.put(self.func(self.what), path="good.what")
                t.put(VERSION, path="good.version", ephemeral=True)

        def what(self):
            return self.seen

        async def on_notify(self, changes):
            self.seen += [change["path"] for change in changes]
            if changes[0]["instance"] == "raise":
                raise RuntimeError("in a callback")
"""


def test_failures_stay_with_the_plugin(tmp_path: Path) -> None:
    write(tmp_path, "a_syntax", "def (")
    write(tmp_path, "b_raises", """
        from tega.subscriber import PlugIn

        class Raises(PlugIn):
            def __init__(self):
                super().__init__("raises")
                with self.tx() as t:
                    t.put(1, path="left.behind", ephemeral=True)
                raise RuntimeError("in a constructor")
    """)
    write(tmp_path, "c_good", GOOD.replace("VERSION", "1"))
    write(tmp_path, "d_double", GOOD.replace("VERSION", "2"))
    write(tmp_path, "e_stops", """
        from tega.subscriber import PlugIn

        class Stops(PlugIn):
            async def initialize(self):
                raise RuntimeError("in a coroutine")
    """)
    service = Service(tmp_path / "log", "-e", str(tmp_path))
    try:
        assert service.ask("GET", "/_plugins")[1] == {"Good": "local", "Stops": "local"}
        assert service.ask("GET", "/left/behind")[0] == 404
        assert service.ask("GET", "/good/version") == (200, 1)
        for value in ("raise", 2):
            assert service.ask("PUT", "/r/a", value)[0] == 200
        seen = ["r.a", "r.a"]
        until(lambda: service.ask("POST", "/_rpc?path=good.what")[1] == {"result": seen})
        write(tmp_path, "c_good", GOOD.replace("VERSION", "3"))
        (tmp_path / "plugins" / "d_double.py").unlink()
        assert service.ask("POST", "/_reload")[1] == {"Good": "local", "Stops": "local"}
        assert service.ask("GET", "/good/version") == (200, 3)
        assert service.ask("GET", "/_channels") == (200, {"r": ["Good"]})
        (tmp_path / "plugins" / "c_good.py").unlink()
        assert service.ask("GET", "/_reload")[1] == {"Stops": "local"}
        assert service.ask("GET", "/good/version")[0] == 404
        status, answer = service.ask("POST", "/_rpc?path=good.what")
        assert (status, answer["error"]["code"]) == (502, "owner_gone")
    finally:
        service.process.terminate()
        _, messages = service.process.communicate(timeout=20)
    for said in (
        "a_syntax.py does not load", "in a constructor",
        "another subscriber or plugin is called Good",
        "plugin Stops has stopped", "in a coroutine", "in a callback",
    ):  # fmt: skip
        assert said in messages


class Installed(PlugIn):
    """As a package would offer it."""


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{__name__}:Installed"
    offered = [
        EntryPoint("one", name, plugins.GROUP),
        EntryPoint("broken", "nowhere.at:all", plugins.GROUP),
        EntryPoint("none", f"{__name__}:until", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: offered)
    reserved: list[set[str]] = []
    with Database.open(tmp_path, "srv") as database:
        loaded = Plugins(database, [], reserved.append)
        loaded.load()
        assert loaded.scopes() == {"Installed": "local"}
        assert database.get_tega_ids() == ["Installed"]
        loaded.unload()
        assert database.get_tega_ids() == []
        database.check()
    assert reserved == [{"Installed"}, set()]


def test_a_plugin_is_made_by_a_server_only() -> None:
    with pytest.raises(OSError, match="made by one"):
        Installed()
