"""A process with too few descriptors: refused clearly, nothing lost, and well again afterwards."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

from service import Service, check
from wsclient import WSClient

#: Of these the server keeps 64 for itself.
DESCRIPTORS = 84

#: Takes every descriptor that the process has left, and gives them back.
HOG = """
    import os
    from tega.subscriber import PlugIn


    class Hog(PlugIn):
        def __init__(self):
            super().__init__()
            self.held = []
            with self.tx() as t:
                t.put(self.func(self.hog), path="hog", ephemeral=True)
                t.put(self.func(self.give), path="give", ephemeral=True)

        def hog(self):
            try:
                while True:
                    self.held.append(os.open('/dev/null', os.O_RDONLY))
            except OSError:
                return len(self.held)

        def give(self):
            while self.held:
                os.close(self.held.pop())
"""


def few() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def until(done: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 20
    while not (found := done()):
        assert time.monotonic() < limit
        time.sleep(0.05)
    return found


def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "srv", "--snapshot-size", "5000", "-l", "1", before=few)
    clients = [WSClient(service.port, f"c{n}") for n in range(DESCRIPTORS - 64)]
    there: dict[str, str] = {}

    def commit() -> None:
        for client in clients:
            key = f"k{len(there)}"
            assert "versions" in client.put(f"kept.{key}", "x" * 500)
            there[key] = "x" * 500

    status, body = service.ask("GET", "/_health")
    assert (status, body["error"]["code"]) == (429, "over_limit")
    refused = WSClient(service.port)
    assert refused.status == 429
    # The log goes on, through more than one segment.
    commit()
    commit()
    assert max(int(file.suffix[1:]) for file in tmp_path.glob("log.srv.?")) > 0
    clients.pop().close()
    until(lambda: service.ask("GET", "/kept/") == (200, there))
    # Those that say nothing go for those that do.
    idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    assert service.ask("GET", "/kept/") == (200, there)
    commit()
    for connection in (*idle, *clients):
        connection.close()
    until(lambda: service.ask("GET", "/_health")[0] == 200)
    assert service.end()[0] == 0
    check(tmp_path, "srv")


def test_no_descriptor_at_all(tmp_path: Path) -> None:
    """As where a plugin keeps files open: nobody can connect, and who is there goes on."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "hog.py").write_text(dedent(HOG))
    service = Service(
        tmp_path / "var", "-t", "srv", "-e", str(tmp_path), "--snapshot-size", "5000", before=few
    )
    with WSClient(service.port, "stays") as client:
        assert client.response(client.request("RPC", "hog", {})).body > 0
        used = cpu(service)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
                assert connection.recv(100).startswith(b"HTTP/1.1 429 ")
        # Over the size of a segment: the next one cannot be opened.
        for number in range(40):
            assert "versions" in client.put(f"kept.k{number}", "x" * 500)
        time.sleep(1)
        assert cpu(service) - used < 0.7, "it must not be busy with what it cannot do"
        client.response(client.request("RPC", "give", {}))
        for number in range(40, 80):
            client.put(f"kept.k{number}", "x" * 500)
        until(lambda: max(int(f.suffix[1:]) for f in (tmp_path / "var").glob("log.srv.?")) > 0)
        assert len(service.ask("GET", "/kept/")[1]) == 80
    status, messages = service.end()
    assert status == 0
    assert "Too many open files" in messages, "a segment that could not be made"
    check(tmp_path / "var", "srv")


def cpu(service: Service) -> float:
    """Seconds of processor time that the server has used."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
