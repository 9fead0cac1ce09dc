"""Crowds that use up what there is, and documents that are made to hurt: others are served."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import select
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from service import Service, check
from test_hostile import peak
from wsclient import WSClient

from tega.access.keeper import add_token

#: How much larger the server may become by any of this, bytes.
GROWTH = 80 << 20

MOST = 60

HOST = b"Host: localhost\r\n"


@contextmanager
def served(tmp_path: Path, *flags: str) -> Iterator[Service]:
    """A server that does not grow by what happens here, and ends well."""
    service = Service(tmp_path, "-t", "srv", *flags)
    service.ask("GET", "/_ready")
    size = peak(service)
    yield service
    assert peak(service) - size < GROWTH
    assert service.end()[0] == 0
    check(tmp_path, "srv")


def connect(service: Service, window: int | None = None) -> socket.socket:
    made = socket.socket()
    if window is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    made.settimeout(20)
    made.connect(("127.0.0.1", service.port))
    return made


def is_over(connection: socket.socket) -> bool:
    """Whether the server has hung up."""
    try:
        while select.select([connection], [], [], 0)[0]:
            if not connection.recv(1 << 16):
                return True
    except ConnectionError:
        return True
    return False


def metric(service: Service, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/_metrics") as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def drip(crowd: list[socket.socket], stop: threading.Event) -> None:
    """Send a byte on each, again and again."""
    while not stop.wait(0.05):
        for connection in crowd:
            try:
                connection.send(b"x")
            except OSError:
                continue


#: What a crowd says, each of it, before it goes on byte by byte.
CROWDS = {
    "that says nothing": b"",
    "of slow headers": b"GET / HTTP/1.1\r\nX: ",
    "of slow bodies": b"PUT /a/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n",
    "of slow chunks": b"PUT /a/ HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n10000\r\n",
    "of kept-alive connections": b"GET /_ready HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("kind", CROWDS)
def test_a_crowd(tmp_path: Path, kind: str) -> None:
    """Slowloris and its kin: where there is no more room, those go that waited longest."""
    with served(tmp_path, "--max-connections", str(MOST)) as service:
        stop = threading.Event()
        with WSClient(service.port, "agent") as agent:
            crowd = []
            for _ in range(3 * MOST):
                crowd.append(connect(service))
                crowd[-1].sendall(CROWDS[kind])
            dripping = threading.Thread(target=drip, args=(crowd, stop))
            dripping.start()
            took = []
            for number in range(20):
                begun = time.monotonic()
                # While all are about to be answered, and for no longer, there is no room.
                while service.ask("PUT", "/other/", number)[0] != 200:
                    assert time.monotonic() - begun < 5
                agent.put("agent", number)
                took.append(time.monotonic() - begun)
            assert sorted(took)[10] < 0.5
            assert metric(service, "tega_http_connections") <= MOST
            stop.set()
            dripping.join()
            assert sum(map(is_over, crowd)) >= 2 * MOST
            for connection in crowd:
                connection.close()


def test_sessions_have_all_the_room_that_there_is(tmp_path: Path) -> None:
    """They are not cut off for others; REST is refused, clearly, and counted."""
    with served(tmp_path, "--max-connections", "10") as service:
        agents = [WSClient(service.port, f"a{n}") for n in range(10)]
        for _ in range(3):
            status, body = service.ask("GET", "/_ready")
            assert (status, body["error"]["code"]) == (429, "over_limit")
        for agent in agents:
            assert "versions" in agent.put(agent.tega_id, 1)
        agents.pop().close()
        limit = time.monotonic() + 20
        while service.ask("GET", "/_ready")[0] != 200:
            assert time.monotonic() < limit
        assert metric(service, 'tega_limit_hits_total{limit="connections"}') >= 3
        for agent in agents:
            agent.close()


def test_slow_readers_of_large_answers(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        for number in range(2):
            wide = {f"leaf{n}": "x" * 50 for n in range(10_000)}
            assert service.ask("PUT", f"/large/part{number}/", wide)[0] == 200
        crowd = [connect(service, window=4096) for _ in range(30)]
        for connection in crowd:
            connection.sendall(b"GET /large/ HTTP/1.1\r\n" + HOST + b"\r\n")
        for _ in range(5):
            begun = time.monotonic()
            assert service.ask("PUT", "/other/", 1)[0] == 200
            assert time.monotonic() - begun < 5
        for connection in crowd:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            connection.close()


def test_who_guesses_tokens_is_slowed_down_and_keeps_nobody_out(tmp_path: Path) -> None:
    token = add_token(tmp_path / "tokens.yaml", "alice")
    service = Service(tmp_path, "-t", "srv", "--max-rate", "20")

    def ask(shown: str, source: str = "127.0.0.1") -> int:
        connection = http.client.HTTPConnection(
            "127.0.0.1", service.port, timeout=20, source_address=(source, 0)
        )
        connection.request("GET", "/", headers={"Authorization": f"Bearer {shown}"})
        status = connection.getresponse().status
        connection.close()
        return status

    begun = time.monotonic()
    answers = [ask(f"alice.{number:043}") for number in range(300)]
    guesses, seconds = answers.count(401), time.monotonic() - begun
    assert set(answers) == {401, 429}
    assert guesses <= 100 + 20 * seconds + 1
    assert ask(token, "127.0.0.2") == 200
    assert ask(token) == 200, "it is counted as alice, not by its address"
    assert ask("alice." + "x" * 43, "127.0.0.3") == 401
    status, messages = service.end()
    assert status == 0
    told = [line for line in messages.splitlines() if " unauthorized: " in line]
    assert told
    assert " at 127.0.0.1: " in told[0]
    assert len(told) < 40
    left_out = [int(found) for found in re.findall(r"unauthorized: (\d+) more", messages)]
    assert len(told) - len(left_out) + sum(left_out) == guesses + 1
    assert token.partition(".")[2] not in messages


#: Documents that are made to hurt, and the status that each gets.
DOCUMENTS: dict[str, tuple[bytes, int]] = {
    "nested deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "nested deep in arrays": (b"[" * 500_000 + b"]" * 500_000, 400),
    "nested deep and open": (b'{"a":' * 180_000, 400),
    "a huge key": (json.dumps({"k" * 900_000: 1}).encode(), 400),
    "as many keys as there is room for": (
        json.dumps({f"k{n}": 1 for n in range(80_000)}).encode(), 200
    ),
    "a million elements": (b"[" + b"1," * 500_000 + b"1]", 200),
    "a million keys": (json.dumps({f"k{n}": 1 for n in range(1_000_000)}).encode(), 413),
    "a key twice": (b'{"a":1,"b":{"c":1,"c":2}}', 400),
    "a key twice, spelt otherwise": (b'{"a":1,"\\u0061":2}', 400),
    "a key twice, among many": (
        b"{" + b",".join(b'"k%d":1' % n for n in range(80_000)) + b',"k0":2}', 400
    ),
    "NaN": (b'{"a":NaN}', 400),
    "infinity": (b"-Infinity", 400),
    "a number over all": (b"1e999999", 400),
    "a lone surrogate": (b'"\\ud800"', 400),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', 400),
    "a lone surrogate as a key": (b'{"\\udfff":1}', 400),
    "an overlong slash": (b'"\xc0\xaf"', 400),
    "an integer of 4000 digits": (b"9" * 4_000, 200),
    "an integer of a million digits": (b"9" * 1_000_000, 400),
    "a float of a million digits": (b"0." + b"1" * 1_000_000, 200),
    "hash collisions": (
        json.dumps({str((1 << 61) * n - n): 1 for n in range(30_000)}).encode(), 200
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("documents"), "-l", "0") as service:
        yield service


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document(shared: Service, kind: str) -> None:
    body, status = DOCUMENTS[kind]
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=20)
    connection.request("PUT", "/hurt/", body)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == status, text[:300]
    assert status == 200 or json.loads(text)["error"]["code"] in ("malformed", "too_large")
    assert len(text) < 1_000
    connection.request("GET", "/hurt/")
    assert connection.getresponse().status in (200, 404)
    connection.close()


def test_a_decompression_bomb_is_not_unpacked(shared: Service) -> None:
    bomb = gzip.compress(b'"' + b"x" * (50 << 20) + b'"', 9)
    size = peak(shared)
    for encoding in ("gzip", "deflate", "gzip, gzip", "br", "zstd"):
        connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=20)
        connection.request("PUT", "/hurt/", bomb, {"Content-Encoding": encoding})
        assert connection.getresponse().status == 400
        connection.close()
    assert peak(shared) - size < 20 << 20
