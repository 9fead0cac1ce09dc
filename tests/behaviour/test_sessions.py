"""Sessions: how they begin, what they leave behind when they end, and who may have one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service import ROOT, Service, check
from wsclient import BINARY, CLOSE, PING, PONG, Ended, WSClient, delete, frame, put

#: What the server does by itself it has done within so long, seconds.
SOON = 10.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("sessions")
    started = Service(directory, "-t", "srv")
    yield started
    assert started.end()[0] == 0
    check(directory, "srv")


def becomes(condition: Callable[[], bool], seconds: float = SOON) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until


def ids(service: Service) -> list[str]:
    found: list[str] = service.ask("GET", "/_ids")[1]
    return found


def is_there(service: Service, url: str) -> bool:
    return service.ask("GET", url)[0] == 200


# -- the beginning --------------------------------------------------------------------------------


def test_the_acknowledgement_says_where_the_database_is(service: Service) -> None:
    with WSClient(service.port) as client:
        client.send("SESSION first local")
        answer = client.receive()
        assert answer.words == ["SESSIONACK", "srv"]
        health = service.ask("GET", "/_health")[1]
        assert answer.body == {"life": health["life"], "seq": health["seq"]}
        assert "first" in ids(service)
    with WSClient(service.port) as client:
        assert client.begin("go-driver", "global")["life"] == health["life"]
        assert client.put("a", 1)["versions"].keys() == {"a"}


BEFORE_A_SESSION = [
    "SUBSCRIBE a local", "UNSUBSCRIBE", 'PUBLISH a\n{"message":1}', "NOTIFY\n[]", "ROLLBACK a -1",
    'REQUEST 1 TX x -\n{"ops":[]}', "RESPONSE 1 RPC x\n1", "SESSIONACK srv\n{}",
]  # fmt: skip


@pytest.mark.parametrize("text", BEFORE_A_SESSION)
def test_nothing_is_accepted_before_the_session(service: Service, text: str) -> None:
    """It is refused, and the connection stays: it is a message of ours."""
    before = service.ask("GET", "/_channels")[1]
    with WSClient(service.port) as client:
        client.send(text)
        assert client.receive().command == "ERROR"
        client.begin("x")
        client.settle()
        assert client.notices() == []
        assert service.ask("GET", "/_channels")[1] == before


@pytest.mark.parametrize(
    "text",
    ["SESSION", "SESSION a", "SESSION _a local", "SESSION a/b local", "SESSION a nowhere",
     "SESSION a local more", "SESSION  a local", "SESSION a local\n{}", "SESSION " + "a" * 300
     + " local", "SESSION srv local"],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_session_that_cannot_be_may_be_tried_again(service: Service, text: str) -> None:
    with WSClient(service.port) as client:
        client.send(text)
        assert client.receive().command == "ERROR"
        assert client.begin("x")["life"]
        client.settle()


@pytest.mark.parametrize("text", ["GET / HTTP/1.1", "", "session a local", "\0\0", "{}"])
def test_what_is_not_ours_at_all_is_hung_up_on(service: Service, text: str) -> None:
    with WSClient(service.port) as client:
        client.send(text)
        assert client.receive().words == ["ERROR", "not_understood"]
        assert client.ended() == 4003


def test_a_second_session_is_an_error(service: Service) -> None:
    with WSClient(service.port, "x") as client:
        for again in ("x", "y"):
            client.send(f"SESSION {again} local")
            assert client.receive().words == ["ERROR", "not_understood"]
        assert "y" not in ids(service)
        client.put("e", 1, ephemeral=True)
        assert client.response(client.request("TX", "-", {"ops": []})).words[3] == "x"


def test_what_is_sent_with_the_session_is_taken_in_order(service: Service) -> None:
    with WSClient(service.port) as client:
        client.tega_id = "x"
        ops = '{"ops":[{"ope":"PUT","path":"a","instance":1,"ephemeral":false}]}'
        client.send("SESSION x local", "SUBSCRIBE a local", f"REQUEST 1 TX x -\n{ops}")
        assert client.receive().command == "SESSIONACK"
        assert client.receive().words == ["RESPONSE", "1", "TX", "x"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101), ("http://localhost/", 101), ("http://localhost:3000", 101),
        ("http://127.0.0.1", 101), ("http://[::1]:80", 101), ("HTTP://127.0.0.1", 101),
        ("http://example.com", 403), ("http://localhost.example.com", 403), ("null", 403),
        ("", 403), ("http://127.0.0.1.example.com", 403), ("http://user@example.com", 403),
        ("http://localhost@example.com", 403), ("http://[", 403), ("file://", 403),
        ("http://example.com/localhost", 403), ("x" * 5_000, 403),
    ],
)  # fmt: skip
def test_pages_of_elsewhere_are_refused(service: Service, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"Origin": origin}
    with WSClient(service.port, **headers) as client:
        assert client.status == status
        if status == 101:
            assert client.begin("x")["life"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "h2c"}, {"Connection": "close"}, {"Sec_WebSocket_Version": "8"},
        {"Sec_WebSocket_Key": "short"}, {"Sec_WebSocket_Key": "é"},
        {"Sec_WebSocket_Key": "x" * 5_000},
    ],
)  # fmt: skip
def test_a_handshake_that_is_none(service: Service, headers: dict[str, str]) -> None:
    with WSClient(service.port, **headers) as client:
        assert client.status == 400


def test_a_request_under_another_name_is_refused(service: Service) -> None:
    with WSClient(service.port, "x") as client:
        client.send('REQUEST 5 TX y -\n{"ops":[{"ope":"PUT","path":"as.y","instance":1}]}')
        answer = client.receive()
        assert answer.words == ["RESPONSE", "5", "TX", "y", "ERROR"]
        assert not is_there(service, "/as/y/")


@pytest.mark.parametrize("kind", ["SYNC", "REFER"])
def test_what_is_for_servers_is_refused(service: Service, kind: str) -> None:
    with WSClient(service.port, "x") as client:
        answer = client.response(client.request(kind, "-", {}))
        assert (answer.words[-1], answer.body["code"]) == ("ERROR", "no_peer")


# -- the end --------------------------------------------------------------------------------------


def test_all_its_nodes_go_in_one_transaction_under_its_id(service: Service) -> None:
    with WSClient(service.port, "ear") as ear:
        with WSClient(service.port, "x") as client:
            client.tx(put("one.e", 1, True), put("two.e.f", 2, True), put("two.g", 3, True))
            client.put("two.lasting", 4)
            ear.subscribe("one")
            ear.subscribe("two")
        notice = ear.receive()
        changes = [(one["ope"], one["path"], one["instance"]) for one in notice.body]
        assert sorted(changes) == [
            ("DELETE", "one.e", 1), ("DELETE", "two.e.f", 2), ("DELETE", "two.g", 3)
        ]  # fmt: skip
        assert {one["tega_id"] for one in notice.body} == {"x"}
        assert len({one["seq"] for one in notice.body}) == 1
        assert service.ask("GET", "/two/") == (200, {"lasting": 4})
        assert ear.notices() == []


ENDS: dict[str, Callable[[WSClient], None]] = {
    "it hangs up": lambda client: client.close(),
    "it says so": lambda client: client.send_bytes(frame(b"\x03\xe8bye", CLOSE)),
    "a binary frame": lambda client: client.send_bytes(frame(b"x", BINARY)),
    "no frame": lambda client: client.send_bytes(b"GET / HTTP/1.1\r\n\r\n"),
    "in the middle of a frame": lambda client: (client.send_bytes(b"\x81\xfe"), client.close())[1],
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_however_it_ends(service: Service, end: str) -> None:
    with WSClient(service.port, "ending") as client:
        client.put("ending.e", 1, ephemeral=True)
        client.subscribe("ending")
        client.subscribe("end.*", regex=True)
        assert "ending" in service.ask("GET", "/_subscribers")[1]
        ENDS[end](client)
        becomes(lambda: "ending" not in ids(service))
        becomes(lambda: not is_there(service, "/ending/"))
        assert "ending" not in service.ask("GET", "/_subscribers")[1]
        assert "ending" not in service.ask("GET", "/_channels")[1]


def test_a_client_that_was_killed(service: Service) -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests/behaviour')\n"
        "from wsclient import WSClient\n"
        f"client = WSClient({service.port}, 'killed')\n"
        "client.put('killed.e', 1, ephemeral=True)\n"
        "print('ready', flush=True)\n"
        "client.ended()\n"
    )
    client = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    assert is_there(service, "/killed/e/")
    client.kill()
    client.communicate()
    becomes(lambda: not is_there(service, "/killed/"))
    assert "killed" not in ids(service)


def test_the_close_of_a_client_is_answered(service: Service) -> None:
    with WSClient(service.port, "x") as client:
        client.send_bytes(frame(b"\x03\xe8bye", CLOSE))
        assert client.ended() == 1000


def test_a_take_over_keeps_the_nodes(service: Service) -> None:
    with WSClient(service.port, "ear") as ear, WSClient(service.port, "twice") as first:
        first.put("twice.e", 1, ephemeral=True)
        first.subscribe("others")
        ear.subscribe("twice")
        with WSClient(service.port, "twice") as second:
            first.expect("ERROR", "taken_over")
            assert first.ended() == 4001
            first.close()
            second.settle()
            assert service.ask("GET", "/twice/e/") == (200, 1)
            ear.put("others", 1)
            assert second.notices() == [], "it has not subscribed"
            assert second.tx(delete("twice.e"), put("twice.f", 2, True))["versions"]
            assert ids(service).count("twice") == 1
        becomes(lambda: not is_there(service, "/twice/"))


def test_the_first_of_a_take_over_has_no_say_any_more(service: Service) -> None:
    with WSClient(service.port, "twice") as first, WSClient(service.port, "twice") as second:
        first.send('REQUEST 1 TX twice -\n{"ops":[{"ope":"PUT","path":"say","instance":1}]}')
        first.expect("ERROR", "taken_over")
        assert first.ended() == 4001
        second.settle()
        assert not is_there(service, "/say/")


def test_many_take_overs_at_once(service: Service) -> None:
    clients = [WSClient(service.port) for _ in range(50)]
    for client in clients:
        client.tega_id = "many"
        client.send("SESSION many local")
    left = 0
    for client in clients:
        try:
            assert client.receive().command == "SESSIONACK"
            client.put("many.e", 1, ephemeral=True)
            left += 1
        except (Ended, ConnectionError):
            pass
    assert ids(service).count("many") == 1
    for client in clients:
        client.close()
    becomes(lambda: not is_there(service, "/many/"))


# -- silence --------------------------------------------------------------------------------------


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Service]:
    """A server with little patience."""
    started = Service(tmp_path, "-t", "srv", "--ping-interval", "1", "--ping-timeout", "3")
    yield started
    assert started.end()[0] == 0
    check(tmp_path, "srv")


def opcodes_of(client: WSClient) -> list[int]:
    """The kinds of all frames that come until the connection is closed; pings get no answer."""
    opcodes: list[int] = []
    while CLOSE not in opcodes:
        opcodes.append(client.frame()[0])
    return opcodes


def test_a_silent_one_is_pinged_and_then_gone_with_its_nodes(strict: Service) -> None:
    with WSClient(strict.port, "talking") as talking, WSClient(strict.port, "silent") as silent:
        silent.put("silent.e", 1, ephemeral=True)
        talking.put("talking.e", 1, ephemeral=True)
        talking.subscribe("silent")
        # Reading, it answers every ping; the other one reads nothing.
        started = time.monotonic()
        assert talking.receive().body[0]["path"] == "silent.e"
        assert 2 < time.monotonic() - started < 8
        assert "silent" not in ids(strict)
        assert is_there(strict, "/talking/e/")
        assert PING in opcodes_of(silent)


def test_whatever_is_said_shows_that_one_is_there(strict: Service) -> None:
    """Pongs, pings and garbage too; and one that gets much without a word does answer pings."""
    kinds = [frame(b"", PONG), frame(b"", PING), frame(b"x"), frame(b"y", last=False)]
    clients = [WSClient(strict.port, f"c{n}") for n in range(len(kinds))]
    until = time.monotonic() + 6
    with WSClient(strict.port, "clock") as clock:
        while time.monotonic() < until:
            for client, kind in zip(clients, kinds, strict=True):
                client.send_bytes(kind)
            clients[3].send_bytes(frame(b"", 0, last=True))
            if clock.is_readable(0.5):
                clock.send_bytes(frame(clock.frame()[2], PONG))
    assert set(ids(strict)) >= {"c0", "c1", "c2", "c3"}
    for client in clients:
        client.close()


def test_one_that_never_begins_a_session_is_gone_too(strict: Service) -> None:
    with WSClient(strict.port) as client:
        assert PING in opcodes_of(client)


# -- the server ends ------------------------------------------------------------------------------


def test_clients_are_told_that_the_server_goes(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "srv")
    with WSClient(service.port, "x") as client, WSClient(service.port) as nameless:
        client.put("lasting", 1)
        client.put("e", 1, ephemeral=True)
        assert service.end()[0] == 0
        assert client.ended() == 1001
        assert nameless.ended() == 1001
    service = Service(tmp_path, "-t", "srv")
    assert service.ask("GET", "/lasting/") == (200, 1)
    assert not is_there(service, "/e/")
    assert ids(service) == []
    assert service.end(signal.SIGINT)[0] == 0
    check(tmp_path, "srv")


# -- nothing is left ------------------------------------------------------------------------------


def open_files(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


def memory(service: Service) -> int:
    """Bytes of memory that the server has now."""
    with open(f"/proc/{service.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def come_and_go(service: Service, count: int) -> None:
    """Sessions with nodes, subscriptions and a call that stays open."""
    for number in range(count):
        with WSClient(service.port, f"guest{number % 7}") as guest:
            guest.send(f"SUBSCRIBE guests.g{number} local", f"SUBSCRIBE g{number}.* local True")
            ops = [put(f"guests.g{number}.e", number, True), put(f"fs.f{number}", "%srv.f", True)]
            guest.tx(*ops)
            if number % 3 == 0:
                guest.send(f"REQUEST 7 RPC guest{number % 7} fs.f{number}\n{{}}")
            if number % 5 == 0:
                guest.send_bytes(b"\x81\xff\0")


def assert_nothing_is_left(service: Service) -> None:
    becomes(lambda: ids(service) == [])
    becomes(lambda: bool(service.ask("GET", "/") == (200, {})))
    assert service.ask("GET", "/_channels")[1] == {}
    assert service.ask("GET", "/_subscribers")[1] == {}
    becomes(lambda: open_files(service) < 30)


def leaves_nothing(tmp_path: Path, rounds: int, count: int) -> None:
    service = Service(tmp_path, "-t", "srv", "-l", "1", "-L", "WARNING", "--resume", "100")
    come_and_go(service, count)
    assert_nothing_is_left(service)
    files, had = open_files(service), memory(service)
    for _ in range(rounds):
        come_and_go(service, count)
        assert_nothing_is_left(service)
    becomes(lambda: open_files(service) <= files)
    assert memory(service) - had < (8 << 20), "no more than the heap's own ups and downs"
    assert service.end()[0] == 0
    check(tmp_path, "srv")


def test_nothing_is_left_of_many_sessions(tmp_path: Path) -> None:
    leaves_nothing(tmp_path, 4, 125)


@pytest.mark.long
def test_nothing_is_left_of_very_many_sessions(tmp_path: Path) -> None:
    leaves_nothing(tmp_path, 10, 1_000)
