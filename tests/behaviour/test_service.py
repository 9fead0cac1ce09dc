"""The server as a process: settings, start, end, a disk that is full, `kill -9`."""

from __future__ import annotations

import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from service import ROOT, Service, check

from tega.driver import CRUDException, Driver
from tega.errors import Malformed
from tega.settings import PROGRAM, TABLE, load


def test_a_signal_ends_it_and_the_next_start_has_everything(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a")
    assert service.ask("PUT", "/r/", {"x": [1, None]})[0] == 200
    assert service.end()[0] == 0
    service = Service(tmp_path, "-t", "a")
    assert service.ask("GET", "/r/") == (200, {"x": [1, None]})
    assert service.end(signal.SIGINT)[0] == 0
    check(tmp_path, "a")


def test_an_answer_in_flight_is_sent_before_the_end(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a")
    leaves = {f"leaf{n}": n for n in range(20_000)}
    for part in range(20):
        assert service.ask("PUT", f"/big/c{part}/", leaves)[0] == 200
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(b"GET /big/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        taken = client.recv(1000)
        service.process.send_signal(signal.SIGTERM)
        while more := client.recv(1 << 16):
            taken += more
    assert taken.endswith(b"0\r\n\r\n"), "the last chunk is there"
    service.process.communicate(timeout=20)
    assert service.process.returncode == 0


def test_a_server_that_ends_is_not_ready(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a")
    leaves = {f"leaf{n}": "x" * 20 for n in range(20_000)}
    for part in range(20):
        assert service.ask("PUT", f"/big/c{part}/", leaves)[0] == 200
    asking = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    asking.request("GET", "/_ready")
    answer = asking.getresponse()
    assert (answer.status, answer.read()) == (200, b'{"status":"ready","tega_id":"a"}')
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        # It waits for this answer to be taken.
        client.sendall(b"GET /big/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(1000)
        service.process.send_signal(signal.SIGTERM)
        status = 200
        while status == 200:
            asking.request("GET", "/_ready")
            answer = asking.getresponse()
            status, body = answer.status, answer.read()
        assert status == 503
        assert b"the server ends" in body
        while client.recv(1 << 16):
            pass
    asking.close()
    service.process.communicate(timeout=20)
    assert service.process.returncode == 0


def test_kill_9_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a", "--snapshot-size", "20000")
    acknowledged: dict[int, int] = {}

    def write(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        try:
            for value in range(1_000_000):
                connection.request("PUT", f"/r{client}/x/", str(value))
                if connection.getresponse().read() is None:
                    return
                acknowledged[client] = value
        except (OSError, http.client.HTTPException):
            return

    clients = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for client in clients:
        client.start()
    while sum(acknowledged.values()) < 2_000:
        clients[0].join(0.01)
    service.process.kill()
    for client in clients:
        client.join()
    service.process.communicate()
    service = Service(tmp_path, "-t", "a")
    for client, value in acknowledged.items():
        status, found = service.ask("GET", f"/r{client}/x/")
        assert status == 200
        assert found in (value, value + 1), "acknowledged, or the one in flight"
    assert service.end()[0] == 0
    check(tmp_path, "a")


def test_a_disk_that_is_full_makes_it_read_only(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    service = Service(tmp_path, "-t", "a", before=limit)
    assert service.ask("PUT", "/r/", "kept")[0] == 200
    status, refused = service.ask("PUT", "/r/", "x" * 30_000)
    assert (status, refused["error"]["code"]) == (503, "outcome_unknown")
    status, refused = service.ask("PUT", "/r/", 1)
    assert (status, refused["error"]["code"]) == (503, "read_only")
    assert "Mend the disk" in refused["error"]["message"]
    assert service.ask("GET", "/r/") == (200, "kept")
    status, health = service.ask("GET", "/_health")
    assert (status, health["status"]) == (503, "read_only")
    assert service.end()[0] == 0
    service = Service(tmp_path, "-t", "a")
    assert service.ask("GET", "/r/") == (200, "kept")
    assert service.ask("PUT", "/r/", 1)[0] == 200
    assert service.end()[0] == 0
    check(tmp_path, "a")


@pytest.mark.parametrize("first", ["driver", "cli"])
def test_a_full_disk_through_driver_and_command_line(tmp_path: Path, first: str) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    def by_driver() -> str:
        with Driver(port=service.port) as driver, pytest.raises(CRUDException) as caught:
            driver.put("x" * 30_000, path="r")
        return str(caught.value)

    def by_cli() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tega.cli.main", "-p", str(service.port), "put", "r"],
            input="x" * 30_000, capture_output=True, text=True, cwd=ROOT, check=False,
        )
        assert done.returncode == 1
        return done.stderr

    service = Service(tmp_path, "-t", "a", before=limit)
    asked = [by_driver, by_cli] if first == "driver" else [by_cli, by_driver]
    unknown, refused = asked[0](), asked[1]()
    assert unknown.startswith("503")
    assert "may be there after a restart" in unknown
    assert refused.startswith("503")
    assert "Mend the disk" in refused
    assert service.end()[0] == 0
    check(tmp_path, "a")


def test_a_bug_shows_nothing_of_itself(tmp_path: Path) -> None:
    """A handler that raises gives 500 with a reference; the log has the traceback."""
    program = (
        "import sys, tega.web.management as m\n"
        "def roots(context, call): raise RuntimeError('secret')\n"
        "m.roots = roots\n"
        "import tega.server; sys.exit(tega.server.main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-d", tmp_path, "-p", "0", "-t", "a"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )
    assert process.stdout is not None
    port = next(int(line.rpartition(":")[2]) for line in process.stdout if "ready on" in line)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/_roots")
    answer = connection.getresponse()
    body = answer.read().decode()
    assert answer.status == 500
    assert "secret" not in body
    reference = re.search(r"reference ([0-9a-f]{8})", body)
    assert reference is not None
    connection.request("GET", "/_old")
    assert connection.getresponse().status == 200, "the server goes on"
    connection.close()
    process.terminate()
    _, messages = process.communicate(timeout=20)
    assert reference[1] in messages
    assert "RuntimeError: secret" in messages


def test_one_writer_a_directory(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a")
    second = Service(tmp_path, "-t", "a")
    messages = second.process.communicate(timeout=20)[1]
    assert second.process.returncode == 1
    assert f"in use for tega id a by process {service.process.pid}" in messages
    other = Service(tmp_path, "-t", "b")
    assert "but of a: this starts an empty database" in other.end()[1]
    assert service.end()[0] == 0


def test_an_occupied_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        second = Service(tmp_path, "-t", "a", "-p", port)
        messages = second.process.communicate(timeout=20)[1]
    assert second.process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in messages
    check(tmp_path, "a")


def test_a_tega_id_is_made_once(tmp_path: Path) -> None:
    service = Service(tmp_path)
    made = service.ask("GET", "/_health")[1]["tega_id"]
    service.end()
    service = Service(tmp_path)
    assert service.ask("GET", "/_health")[1]["tega_id"] == made
    assert service.end()[0] == 0


def test_a_damaged_log_is_not_started_from(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a")
    for value in range(3):
        service.ask("PUT", "/r/", f"value{value}")
    service.end()
    file = tmp_path / "log.a.0"
    whole = file.read_bytes()
    offset = whole.index(b"value1")
    file.write_bytes(whole[:offset] + b"X" + whole[offset + 1 :])
    damaged = Service(tmp_path, "-t", "a")
    messages = damaged.process.communicate(timeout=20)[1]
    assert damaged.process.returncode == 1
    assert re.search(r"log\.a\.0: line \d+, byte offset \d+: the checksum differs", messages)
    assert "tega-log repair" in messages
    assert file.read_bytes()[offset : offset + 1] == b"X", "nothing was changed"


def test_flag_over_variable_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("port: 1001\nmaxlen: 3\nsync: never\n")
    flags = ["--settings", str(file), "-p", "1003"]
    settings = load(flags, {"TEGA_PORT": "1002", "TEGA_MAXLEN": "4"})
    assert (settings.port, settings.maxlen, settings.sync) == (1003, 4, "never")
    assert settings.max_body == 1 << 20


#: Any text may be the name of a host; what is wrong with an address, the start says.
JUDGED = [setting for setting in TABLE if setting.name != "address"]

#: What is wrong for each of them, where "?!" is not.
WRONG = {"config": "a.b", "operational": "_a"} | {
    setting.name: "" for setting in TABLE if "file" in setting.expects or setting.name == "logdir"
}


@pytest.mark.parametrize("setting", JUDGED, ids=lambda setting: setting.name)
def test_a_wrong_setting_is_named(setting: Any, tmp_path: Path) -> None:
    wrong = WRONG.get(setting.name, "?!")
    if not setting.switch:
        with pytest.raises(Malformed, match=rf"{setting.name}.*{re.escape(setting.expects)}"):
            load([f"--{setting.name}", wrong], {})
    with pytest.raises(Malformed, match=PROGRAM.variable(setting)):
        load([], {PROGRAM.variable(setting): wrong})
    file = tmp_path / "settings.yaml"
    file.write_text(f"{setting.name}: '{wrong}'\n")
    with pytest.raises(Malformed, match=re.escape(str(file))):
        load(["--settings", str(file)], {})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--nope", "1"], "--nope"), (["--port"], "--port"), (["extra"], "extra")],
)
def test_wrong_usage_is_status_2(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tega.server", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ}, check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
