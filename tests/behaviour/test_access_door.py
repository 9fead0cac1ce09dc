"""Who comes in at all: where a server listens, pages of elsewhere, and the limits."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import ROOT, Service
from wsclient import KEY, WSClient, frame, put

from tega.access.keeper import add_token


def ask(
    port: int, method: str, url: str, body: str | None = None, **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, url, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    text = (body or "").encode()
    connection.putheader("Content-Length", str(len(text)))
    connection.endheaders(text)
    answer = connection.getresponse()
    found = answer.read().decode()
    connection.close()
    return answer.status, found


# -- where it listens -----------------------------------------------------------------------------


def start(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Try to start a server that is to refuse that."""
    return subprocess.run(
        [sys.executable, "-m", "tega.server", "-d", directory, "-p", "0", *flags],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_it_does_not_listen_beyond_loopback_without_tokens(tmp_path: Path, address: str) -> None:
    ran = start(tmp_path, "-a", address)
    assert ran.returncode == 1
    assert "ready on" not in ran.stdout
    assert "Traceback" not in ran.stderr
    for part in (f"tega-server token add NAME --logdir {tmp_path}", "--insecure", "can be reached"):
        assert part in ran.stderr
    # What it says helps.
    add_token(tmp_path / "tokens.yaml", "alice")
    service = Service(tmp_path, "-a", "0.0.0.0")
    assert service.port
    assert service.ask("GET", "/")[0] == 401
    assert service.end()[0] == 0


def test_insecure_is_said_aloud(tmp_path: Path) -> None:
    service = Service(tmp_path, "-a", "0.0.0.0", "--insecure")
    assert service.ask("PUT", "/a", 1)[0] == 200
    assert service.end()[0] == 0


def test_rules_alone_are_access_control(tmp_path: Path) -> None:
    (tmp_path / "access.yaml").write_text("rules: [{who: anybody, on: a, may: r}]")
    service = Service(tmp_path, "-a", "0.0.0.0")
    assert service.ask("GET", "/a")[0] == 404
    assert service.ask("PUT", "/a", 1)[0] == 401
    assert service.end()[0] == 0


@pytest.mark.parametrize(
    ("file", "text"),
    [("access.yaml", "rules: [{who: x, may: r}]"), ("tokens.yaml", "alice: [{sha256: x}]")],
)
def test_wrong_files_stop_the_start(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    ran = start(tmp_path)
    assert ran.returncode in (1, 2)
    assert file in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "ready on" not in ran.stdout


# -- pages ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(
        tmp_path_factory.mktemp("door"), "-t", "srv", "--allow-origin", "https://tool.example"
    )
    yield made
    assert made.end()[0] == 0


def test_a_page_of_elsewhere_can_do_nothing(service: Service) -> None:
    assert service.ask("PUT", "/kept", 1)[0] == 200
    for origin in (
        "https://evil.example", "http://evil.example:8739", "null", "", "http://localhost.evil.example",
        "http://127.0.0.1.evil.example", "file://", "http://", "x", "http://[", "https://tool.example.evil",
        "http://tool.example", "https://tool.example:8080",
    ):  # fmt: skip
        for method, url in (("POST", "/_clear"), ("GET", "/kept"), ("PUT", "/kept"),
                            ("DELETE", "/kept"), ("POST", "/_rpc?path=a.b")):  # fmt: skip
            status, text = ask(service.port, method, url, "2", Origin=origin)
            assert status == 403, (origin, method)
            assert json.loads(text)["error"]["code"] == "forbidden"
        assert WSClient(service.port, Origin=origin).status == 403
    assert service.ask("GET", "/kept") == (200, 1)


def test_pages_of_its_own_of_loopback_and_those_allowed(service: Service) -> None:
    port = service.port
    for origin in (f"http://127.0.0.1:{port}", "http://localhost:3000", "http://[::1]:1",
                   "https://tool.example"):  # fmt: skip
        assert ask(port, "PUT", "/page", "1", Origin=origin)[0] == 200, origin
        with WSClient(port, Origin=origin) as client:
            assert client.status == 101


def headers_of(port: int, method: str, url: str, **headers: str) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


LONG = {f"k{n}": "x" * 100 for n in range(2_000)}


@pytest.mark.parametrize("url", ["/cors", "/cors/k1", "/none", "/_health", "/cors?nonsense=1"])
def test_a_browser_shows_answers_to_pages_that_are_let_in(service: Service, url: str) -> None:
    assert service.ask("PUT", "/cors", LONG)[0] == 200
    for origin in ("https://tool.example", "http://localhost:3000"):
        _, told = headers_of(service.port, "GET", url, Origin=origin)
        assert told["access-control-allow-origin"] == origin
        assert told["vary"] == "Origin"
        assert "etag" in told["access-control-expose-headers"].lower()
    status, told = headers_of(service.port, "GET", url, Origin="https://evil.example")
    assert status == 403
    assert told["vary"] == "Origin"
    assert "access-control-allow-origin" not in told
    _, told = headers_of(service.port, "GET", url)
    assert "access-control-allow-origin" not in told


def test_a_browser_asks_before_it_sends(service: Service, tmp_path: Path) -> None:
    """It shows no credential with that, also where there are tokens."""
    add_token(tmp_path / "tokens.yaml", "alice")
    guarded = Service(tmp_path, "-t", "srv", "--allow-origin", "https://tool.example")
    asks = {"Access_Control_Request_Method": "PUT",
            "Access_Control_Request_Headers": "authorization"}  # fmt: skip
    for port in (service.port, guarded.port):
        page = "https://tool.example"
        status, told = headers_of(port, "OPTIONS", "/a", Origin=page, **asks)
        assert status == 200
        assert told["access-control-allow-origin"] == page
        assert "PUT" in told["access-control-allow-methods"]
        assert "Authorization" in told["access-control-allow-headers"]
        for origin in ({}, {"Origin": "https://evil.example"}):
            status, told = headers_of(port, "OPTIONS", "/a", **origin, **asks)
            assert status == 403
            assert "access-control-allow-origin" not in told
    # What it sends then needs one.
    status, told = headers_of(guarded.port, "GET", "/a", Origin="https://tool.example")
    assert status == 401
    assert told["access-control-allow-origin"] == "https://tool.example"
    status, _ = headers_of(
        service.port, "OPTIONS", "/a", Origin="http://evil.example", Host="evil.example", **asks
    )
    assert status == 403, "a name that was looked up as loopback"
    assert guarded.end()[0] == 0


def test_a_picture_in_a_page_of_elsewhere_changes_nothing(service: Service) -> None:
    """A browser gets it without telling the origin, and the answer does not matter."""
    port, host = service.port, f"127.0.0.1:{service.port}"
    for headers in (
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Referer": f"http://{host}/"},
        {"Referer": "https://evil.example/"}, {"Referer": f"https://evil.example/?//{host}/"},
        {"Referer": "http://["}, {"Referer": ""},
    ):  # fmt: skip
        assert headers_of(port, "GET", "/_reload", **headers)[0] == 403, headers
        assert headers_of(port, "GET", "/_plugins", **headers)[0] == 200, headers
    for headers in (
        {}, {"Sec_Fetch_Site": "none"}, {"Sec_Fetch_Site": "same-origin"},
        {"Referer": f"http://{host}/_plugins"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "https://tool.example"},
    ):  # fmt: skip
        assert headers_of(port, "GET", "/_reload", **headers)[0] == 200, headers


def test_a_name_looked_up_as_loopback_is_not_this_server(service: Service) -> None:
    """A page of evil.example may have that name looked up as 127.0.0.1: it is its own origin."""
    port = service.port
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "a.b.c"):
        for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
            status, text = ask(port, "POST", "/_clear", "", **headers)
            assert status == 403, headers
            assert "ask for 127.0.0.1 or localhost" in text
        assert WSClient(port, Host=host).status == 403
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:9", "x.localhost",
                 os.uname().nodename, "tool.example", "srv"):  # fmt: skip
        assert ask(port, "GET", "/", Host=host)[0] == 200, host


def test_with_tokens_a_name_tells_nothing(tmp_path: Path) -> None:
    token = add_token(tmp_path / "tokens.yaml", "alice")
    made = Service(tmp_path, "-t", "srv")
    shown = {"Authorization": f"Bearer {token}"}
    assert ask(made.port, "GET", "/", Host="db.example", **shown)[0] == 200
    assert ask(made.port, "POST", "/_clear", "", Host="db.example")[0] == 401
    assert ask(made.port, "POST", "/_clear", "", Origin="https://evil.example", **shown)[0] == 403
    assert made.end()[0] == 0


# -- limits ---------------------------------------------------------------------------------------


def test_max_sessions(tmp_path: Path) -> None:
    made = Service(tmp_path, "-t", "srv", "--max-sessions", "2")
    with WSClient(made.port, "a") as first, WSClient(made.port, "b"):
        third = WSClient(made.port)
        assert third.status == 429
        assert json.loads(third._taken)["error"]["code"] == "over_limit"
        first.settle()
        assert made.ask("PUT", "/a", 1)[0] == 200, "REST goes on"
    limit = time.monotonic() + 20
    while WSClient(made.port).status != 101:
        assert time.monotonic() < limit
    assert made.end()[0] == 0


def test_max_sessions_holds_for_many_that_come_at_once(tmp_path: Path) -> None:
    made = Service(tmp_path, "-t", "srv", "--max-sessions", "5")
    asking = (
        "GET /_pubsub HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    ).encode()
    sockets = [socket.create_connection(("127.0.0.1", made.port), 20) for _ in range(40)]
    for one in sockets:
        one.sendall(asking)
    answers = sorted(one.recv(12) for one in sockets)
    assert answers == [b"HTTP/1.1 101"] * 5 + [b"HTTP/1.1 429"] * 35
    for one in sockets:
        one.close()
    assert made.end()[0] == 0


def test_max_transactions(tmp_path: Path) -> None:
    made = Service(tmp_path, "-t", "srv", "--max-transactions", "2")
    txids = [made.ask("POST", "/_begin")[1]["txid"] for _ in range(2)]
    status, body = made.ask("POST", "/_begin")
    assert (status, body["error"]["code"], body["error"]["limit"]) == (429, "over_limit", 2)
    assert made.ask("POST", f"/_cancel?txid={txids[0]}")[0] == 200
    assert made.ask("POST", "/_begin")[0] == 200
    assert made.end()[0] == 0


def test_max_rate_over_rest_is_for_each_identity(tmp_path: Path) -> None:
    tokens = {name: add_token(tmp_path / "tokens.yaml", name) for name in ("alice", "bob")}
    made = Service(tmp_path, "-t", "srv", "--max-rate", "5")

    def get(name: str) -> tuple[int, str]:
        return ask(made.port, "GET", "/", Authorization=f"Bearer {tokens[name]}")

    # At first a hundred at once; then they are refused, until time has passed.
    answers = [get("alice") for _ in range(130)]
    refused = [json.loads(text)["error"] for status, text in answers if status == 429]
    assert [status for status, _ in answers[:100]] == [200] * 100
    assert refused
    assert refused[0]["code"] == "over_limit"
    assert 0 < refused[0]["seconds"] <= 0.2
    assert get("bob")[0] == 200
    limit = time.monotonic() + 20
    while get("alice")[0] != 200:
        assert time.monotonic() < limit
        time.sleep(refused[0]["seconds"])
    assert made.end()[0] == 0


def test_max_rate_reads_a_session_more_slowly_and_loses_nothing(tmp_path: Path) -> None:
    made = Service(tmp_path, "-t", "srv", "--max-rate", "100")
    with WSClient(made.port, "busy") as busy:
        begun = time.monotonic()
        for number in range(300):
            busy.request("TX", "-", {"ops": [put(f"a.k{number:03}", number)]})
        answers = [busy.receive() for _ in range(300)]
        took = time.monotonic() - begun
    assert [int(one.words[1]) for one in answers] == list(range(1, 301))
    assert all(one.words[-1] != "ERROR" for one in answers)
    # A hundred are free; the rest come at a hundred a second.
    assert took > 1.8
    limit = time.monotonic() + 20
    while (found := made.ask("GET", "/a"))[0] == 429:
        assert found[1]["error"]["seconds"] > 0
        assert time.monotonic() < limit
    assert found[1] == {f"k{n:03}": n for n in range(300)}
    assert made.end()[0] == 0


def test_max_requests_is_no_error(tmp_path: Path) -> None:
    made = Service(tmp_path, "-t", "srv", "--max-requests", "4")
    with WSClient(made.port, "owner") as owner, WSClient(made.port, "asks") as asks:
        owner.put("a.f", "%owner.f", ephemeral=True)
        numbers = [asks.request("RPC", "a.f", {"args": [n]}) for n in range(20)]
        asked = [owner.receive() for _ in range(4)]
        # The fifth is not read before half are answered.
        assert not owner.is_readable(0.3)
        answered = 0
        while answered < 20:
            one = asked.pop(0) if asked else owner.receive()
            owner.send(f"RESPONSE {one.words[1]} RPC asks\n{json.dumps(one.body['args'][0])}")
            answered += 1
        assert [asks.response(number).body for number in numbers] == list(range(20))
        # A function that too many call at the same time is another matter: that is refused.
        with WSClient(made.port, "more") as more:
            first = [asks.request("RPC", "a.f", {}) for _ in range(3)]
            waiting = [owner.receive() for _ in first]
            fourth, fifth = more.request("RPC", "a.f", {}), more.request("RPC", "a.f", {})
            assert more.response(fifth).body["code"] == "over_limit"
            for one in [*waiting, owner.receive()]:
                owner.send(f"RESPONSE {one.words[1]} RPC {one.words[3]}\n1")
            assert [asks.response(number).body for number in first] == [1, 1, 1]
            assert more.response(fourth).body == 1
    assert made.end()[0] == 0


def test_max_backlog_lets_a_client_catch_up(tmp_path: Path) -> None:
    made = Service(tmp_path, "-t", "srv", "--max-backlog", "65536")
    with WSClient(made.port, "slow", window=4096) as slow, WSClient(made.port, "busy") as busy:
        slow.subscribe("a")
        for number in range(100):
            busy.put("a.text", f"{number:03}" + "x" * 100_000)
        seen: list[str] = []
        behind = 0
        while not seen or seen[-1] != "099":
            one = slow.receive()
            if one.words == ["ERROR", "behind"]:
                behind += 1
            elif one.command == "NOTIFY":
                seen += [change["instance"][:3] if isinstance(change["instance"], str)
                         else change["instance"]["text"][:3] for change in one.body]  # fmt: skip
        assert behind
        assert seen == sorted(seen)
    assert made.end()[0] == 0


def test_a_client_that_sends_more_than_it_may_is_cut(service: Service) -> None:
    with WSClient(service.port, "big") as big:
        big.send_bytes(frame(b"x" * (1 << 20) + b"x" * (1 << 17)))
        assert big.ended() == 1009
