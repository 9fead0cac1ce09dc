"""The synchronous driver, against a server that plays a script and notes what it is sent."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

import tega.driver
import tega.driver.driver as module
import tega.driver.transport as transport
from tega.driver import CRUDException, Driver, SubscriptionException, TransactionException, exchange
from tega.errors import Malformed
from tega.tree import Cont, Func

#: Most seconds to wait for what must happen.
PATIENCE = 10

LOST = "read the request, then hang up"
HALF = "hang up in the middle of the answer"
SILENT = "say nothing until the test is over"
BYE = "answer, then hang up without announcing it"
UNREAD = "refuse the body without reading it"

DONE = (200, {"seq": 1, "versions": {"r": 0}})
BEGUN = (200, {"txid": "t1"})


def refusal(status: int, code: str, **details: Any) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": f"{code} it is", **details}}


@dataclass(frozen=True)
class Seen:
    """A request as it came in; `connection` numbers the connections."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


class Server(ThreadingHTTPServer):
    """Answers with the steps of its script, then with `DONE`."""

    daemon_threads = True
    script: deque[Any]
    seen: list[Seen]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = deque()
        self.seen = []
        self.over = threading.Event()
        self.closed = threading.Semaphore(0)
        self.connections = 0

    def play(self, *steps: Any) -> None:
        self.script.extend(steps)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.closed.release()

    def wait_closed(self) -> None:
        """Until one more connection is closed at this end."""
        assert self.closed.acquire(timeout=PATIENCE)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1
        self.number = self.server.connections

    def answer(self) -> None:
        step = self.server.script.popleft() if self.server.script else DONE
        size = int(self.headers.get("Content-Length", 0))
        body = b"" if step is UNREAD else self.rfile.read(size)
        path, _, query = self.path.partition("?")
        self.server.seen.append(
            Seen(
                self.command,
                path,
                {name: values[0] for name, values in parse_qs(query).items()},
                {name.lower(): value for name, value in self.headers.items()},
                body,
                self.number,
            )
        )
        self.close_connection = step in (LOST, HALF, SILENT, BYE, UNREAD)
        if step is SILENT:
            self.server.over.wait()
        elif step is HALF:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        elif step is BYE:
            self.write(*DONE)
        elif step is UNREAD:
            self.write(*refusal(413, "too_large"))
        elif step is not LOST:
            self.write(*step)

    do_GET = do_PUT = do_DELETE = do_POST = answer

    def write(self, status: int, value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def driver(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setattr(exchange, "PAUSES", (0.0, 0.001, 0.001))
    with Driver("127.0.0.1", server.server_port, tega_id="me", timeout=PATIENCE) as driver:
        yield driver


# What is sent


def test_a_put_goes_where_the_instance_stands(server: Server, driver: Driver) -> None:
    r = Cont("r")
    r["10.0.0.0/24"].metric = 1
    r.a.b = {"x": [1, 2.5, None], "y": "ü"}
    assert driver.put(r["10.0.0.0/24"].metric) == DONE[1]
    driver.put(r.a)
    leaf, container = server.seen
    assert (leaf.method, leaf.path, leaf.body) == ("PUT", "/r/10.0.0.0%2F24/metric/", b"1")
    assert leaf.query == {"tega_id": "me"}
    assert leaf.headers["content-type"] == "application/json"
    assert container.path == "/r/a/"
    assert json.loads(container.body) == {"b": {"x": [1, 2.5, None], "y": "ü"}}


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("r", "/r/"),
        ('routes."10.0.0.0/24".metric', "/routes/10.0.0.0%2F24/metric/"),
        ('r."a b%?#&=;+"', "/r/a%20b%25%3F%23%26%3D%3B%2B/"),
        ("r.é.日本", "/r/%C3%A9/%E6%97%A5%E6%9C%AC/"),
        ('r."..".x', "/r/../x/"),
        ("r.ge-0/0/0", "/r/ge-0%2F0%2F0/"),
    ],
)
def test_keys_survive_in_the_url(server: Server, driver: Driver, path: str, url: str) -> None:
    driver.put(1, path=path)
    driver.get(path, python_dict=True)
    driver.delete(path)
    assert [seen.path for seen in server.seen] == [url] * 3


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, "", [], {}, 2**70, 0.1, "日本", {"a": [{"b": None}]}, (1, "x")],
)
def test_a_put_takes_any_plain_value_with_a_path(
    server: Server, driver: Driver, value: Any
) -> None:
    driver.put(value, path="r.x")
    assert json.loads(server.seen[0].body) == (list(value) if type(value) is tuple else value)


def test_a_put_takes_documents_and_functions_with_a_path(server: Server, driver: Driver) -> None:
    r = Cont("r")
    r.flag = True
    driver.put(r, path="elsewhere")
    driver.put({"of": r.flag, "in": {"r": r}, "f": Func("me", max)}, path="elsewhere")
    assert r.qname_() == ["r"]
    driver.put(Func("me", max, 1), path="r.f")
    assert [json.loads(seen.body) for seen in server.seen] == [
        {"flag": True},
        {"of": True, "in": {"r": {"flag": True}}, "f": "%me.max"},
        "%me.max(1)",
    ]


def test_version_and_ephemeral_are_sent_where_given(server: Server, driver: Driver) -> None:
    driver.put(1, version=0, path="r.x")
    driver.put(1, version=-1, ephemeral=True, path="r.x")
    driver.delete("r.x", version=0)
    driver.get("r.x", version=-1, python_dict=True)
    r = Cont("r")
    r.x = 1
    driver.put(r.x.ephemeral_())
    assert [seen.query for seen in server.seen] == [
        {"tega_id": "me", "version": "0"},
        {"tega_id": "me", "version": "-1", "ephemeral": "true"},
        {"tega_id": "me", "version": "0"},
        {"tega_id": "me", "version": "-1"},
        {"tega_id": "me", "ephemeral": "true"},
    ]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda d: d.put(float("nan"), path="r"), "not a finite number"),
        (lambda d: d.put({"a": {1, 2}}, path="r"), "type set cannot be stored"),
        (lambda d: d.put("\ud800", path="r"), "lone surrogate"),
        (lambda d: d.put({1: "a", "1": "b"}, path="r"), "duplicate key"),
        (lambda d: d.rpc("r.f", {1, 2}), "type set cannot be stored"),
        (lambda d: d.put({"a": 1}), "a dict that stands nowhere"),
        (lambda d: d.put(Cont()), "a Cont that stands nowhere"),
        (lambda d: d.put(1, path="r._version"), "reserved key '_version'"),
        (lambda d: d.get("r..x"), "empty key"),
        (lambda d: d.delete(""), "empty key"),
    ],
)
def test_what_cannot_be_is_refused_unsent(
    server: Server, driver: Driver, call: Callable[[Driver], Any], shown: str
) -> None:
    with pytest.raises(CRUDException, match=shown) as caught:
        call(driver)
    assert (caught.value.status, caught.value.code) == (400, "malformed")
    assert str(caught.value).startswith("400 Bad Request: ")
    assert not server.seen


# What comes back


def test_get_gives_documents_that_know_their_place(server: Server, driver: Driver) -> None:
    leaf = {"_value": 3, "_version": 4, "_oid": "c", "_parent": "b", "_ephemeral": False}
    container = {"_version": 5, "_oid": "b", "_parent": "a", "_ephemeral": False, "c": leaf}
    null = {**leaf, "_value": None}
    server.play((200, container), (200, leaf), (200, null))
    b = driver.get("r.a.b")
    assert b == {"c": 3}
    assert (b._version, b.c._version) == (5, 4)
    assert b.c.qname_() == ["r", "a", "b", "c"]
    c = driver.get("r.a.b.c")
    assert (c, c._version, c.qname_()) == (3, 4, ["r", "a", "b", "c"])
    assert driver.get("r.a.b.c") is None
    assert [seen.query["internal"] for seen in server.seen] == ["true"] * 3
    driver.put(b)
    assert (server.seen[-1].path, server.seen[-1].body) == ("/r/a/b/", b'{"c":3}')


def test_get_gives_a_root(server: Server, driver: Driver) -> None:
    attributes = {"_version": 2, "_oid": "r", "_parent": None, "_ephemeral": False}
    server.play((200, {**attributes, "_value": [1, 2]}), (200, attributes))
    leaf = driver.get("r")
    assert (leaf, leaf.qname_(), leaf._version) == ((1, 2), ["r"], 2)
    empty = driver.get("r")
    assert (empty, empty.qname_()) == ({}, ["r"])


def test_get_gives_plain_and_internal_forms(server: Server, driver: Driver) -> None:
    form = {"_value": 3, "_version": 4, "_oid": "r", "_parent": None, "_ephemeral": False}
    server.play((200, {"b": [1], "c": 2**70}), (200, form))
    assert driver.get("r", python_dict=True) == {"b": [1], "c": 2**70}
    assert driver.get("r", internal=True) == form
    assert [seen.query.get("internal") for seen in server.seen] == [None, "true"]


def test_a_value_within_itself_is_refused(server: Server, driver: Driver) -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(CRUDException, match="in itself"):
        driver.put(value, path="r")
    assert not server.seen


def test_get_with_a_pattern(server: Server, driver: Driver) -> None:
    leaf = {"_value": 3, "_version": 4, "_oid": "x.y", "_parent": "r-a", "_ephemeral": False}
    found = {'r-a."x.y"': {"groups": [["r", "a"], ["x.y"]], "instance": leaf}}
    plain = {'r-a."x.y"': {"groups": [["r", "a"], ["x.y"]], "instance": 3}}
    server.play((200, found), (200, plain), (200, {}))
    pattern = r"(r)-(.*)\.(.*/)"
    answer = driver.get(pattern, regex_flag=True)
    assert answer == plain
    assert answer['r-a."x.y"']["instance"].qname_() == ["r-a", "x.y"]
    assert driver.get(pattern, regex_flag=True, python_dict=True) == plain
    assert driver.get(pattern, regex_flag=True) == {}
    assert server.seen[0].path == "/%28r%29-%28.%2A%29%5C.%28.%2A%2F%29/"
    assert server.seen[0].query == {"internal": "true", "regex_flag": "true", "tega_id": "me"}


def test_a_refusal_tells_all(server: Server, driver: Driver) -> None:
    server.play(refusal(409, "collision", path="r.x", expected=1))
    with pytest.raises(CRUDException) as caught:
        driver.put(1, version=1, path="r.x")
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == "409 Conflict: collision it is"
    assert (error.status, error.reason, error.code) == (409, "Conflict", "collision")
    assert error.message == "collision it is"
    assert error.details == {"path": "r.x", "expected": 1}


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ((502, b"<html>proxy</html>"), "502 Bad Gateway: <html>proxy</html>"),
        ((500, b""), "500 Internal Server Error: the server gave no reason"),
        ((404, ["odd"]), "404 Not Found: ['odd']"),
        ((200, b"<html>hello</html>"), "200 OK: the answer is not JSON"),
        ((302, b""), "302 Found: the server gave no reason"),
    ],
)
def test_an_answer_that_tega_would_not_give_is_shown(
    server: Server, driver: Driver, answer: Any, shown: str
) -> None:
    server.play(answer)
    with pytest.raises(CRUDException) as caught:
        driver.get("r")
    assert str(caught.value).startswith(shown)
    assert len(server.seen) == 1


def test_a_body_refused_unread_is_a_refusal(server: Server, driver: Driver) -> None:
    server.play(UNREAD)
    with pytest.raises(CRUDException, match="too_large it is"):
        driver.put("x" * 20_000_000, path="r.x")
    assert len(server.seen) == 1


# Management


@pytest.mark.parametrize(
    ("call", "method", "path", "query"),
    [
        (lambda d: d.rollback("r", -1), "POST", "/_rollback", {"root_oid": "r", "backto": "-1"}),
        (lambda d: d.clear(), "POST", "/_clear", {}),
        (lambda d: d.ss(), "POST", "/_ss", {}),
        (lambda d: d.sync(), "POST", "/_sync", {}),
        (lambda d: d.applied("r.x y"), "GET", "/_applied", {"root_oid": "r.x y"}),
        (lambda d: d.release("r.x y"), "POST", "/_release", {"root_oid": "r.x y"}),
        (lambda d: d.roots(), "GET", "/_roots", {}),
        (lambda d: d.old(), "GET", "/_old", {}),
        (lambda d: d.channels(), "GET", "/_channels", {}),
        (lambda d: d.subscribers(), "GET", "/_subscribers", {}),
        (lambda d: d.ids(), "GET", "/_ids", {}),
        (lambda d: getattr(d, "global")(), "GET", "/_global", {}),
        (lambda d: d.forwarders(), "GET", "/_forwarders", {}),
        (lambda d: d.plugins(), "GET", "/_plugins", {}),
        (lambda d: d.reload(), "POST", "/_reload", {}),
        (lambda d: d.edges(), "GET", "/_edges", {}),
        (
            lambda d: d.edges("r.x y", old_roots=True),
            "GET",
            "/_edges",
            {"root_oid": "r.x y", "old_roots": "true"},
        ),
    ],
)
def test_management_gives_status_reason_and_data(
    server: Server,
    driver: Driver,
    call: Callable[[Driver], Any],
    method: str,
    path: str,
    query: dict[str, str],
) -> None:
    server.play((200, {"r": 0}), (200, b""), refusal(404, "no_peer"))
    assert call(driver) == (200, "OK", {"r": 0})
    assert call(driver) == (200, "OK", None)
    with pytest.raises(CRUDException, match="404 Not Found: no_peer it is"):
        call(driver)
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.query) == (method, path, {"tega_id": "me", **query})


@pytest.mark.parametrize("result", [None, 0, "", [], {"a": 1}])
def test_rpc_gives_what_the_function_returned(server: Server, driver: Driver, result: Any) -> None:
    server.play((200, {"result": result}), refusal(502, "owner_gone"))
    assert driver.rpc("r.f", 1, "x", retry="p", key=None) == (200, "OK", result)
    with pytest.raises(CRUDException, match="502 Bad Gateway: owner_gone it is"):
        driver.rpc("r.f")
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/_rpc")
    assert seen.query == {"path": "r.f", "tega_id": "me"}
    assert json.loads(seen.body) == {"args": [1, "x"], "kwargs": {"retry": "p", "key": None}}


# Transactions


def test_a_transaction_from_begin_to_commit(server: Server, driver: Driver) -> None:
    server.play(BEGUN, BEGUN, BEGUN, DONE)
    assert driver.txid is None
    assert driver.begin() == driver.txid == "t1"
    assert driver.put(1, path="r.x") == {"txid": "t1"}
    assert driver.delete("r.y") == {"txid": "t1"}
    assert driver.commit() == "t1"
    assert driver.txid is None
    driver.put(1, path="r.x")
    assert [(seen.path, seen.query.get("txid")) for seen in server.seen] == [
        ("/_begin", None),
        ("/r/x/", "t1"),
        ("/r/y/", "t1"),
        ("/_commit", "t1"),
        ("/r/x/", None),
    ]
    # What changes the database has a key; a transaction's own id is its key.
    assert [seen.key is None for seen in server.seen] == [True, True, True, True, False]


def test_the_candidate_in_its_three_forms(server: Server, driver: Driver) -> None:
    attributes = {"_version": 1, "_parent": None, "_ephemeral": False}
    roots = [
        {**attributes, "_oid": "r", "x": {**attributes, "_oid": "x", "_parent": "r", "_value": 7}},
        {**attributes, "_oid": "leaf", "_value": None},
        {"_oid": "gone", "_deleted": True},
    ]
    server.play(BEGUN, *[(200, roots)] * 3)
    driver.begin()
    r, leaf = driver.cand()
    assert (r, r.x.qname_(), leaf) == ({"x": 7}, ["r", "x"], None)
    assert driver.cand(python_dict=True) == [{"x": 7}, None]
    assert driver.cand(internal=True) == roots
    assert [(seen.path, seen.query) for seen in server.seen[1:]] == [("/_cand", {"txid": "t1"})] * 3


def test_steps_out_of_order_are_refused_here(server: Server, driver: Driver) -> None:
    for step in (driver.cand, driver.cancel, driver.commit):
        with pytest.raises(TransactionException, match="without a transaction") as caught:
            step()
        assert caught.value.status is None
    assert not server.seen
    server.play(BEGUN, BEGUN)
    driver.begin()
    for again in (driver.begin, lambda: driver.join("t2")):
        with pytest.raises(TransactionException, match="transaction t1 is open"):
            again()
    assert driver.cancel() == "t1"
    assert [seen.path for seen in server.seen] == ["/_begin", "/_cancel"]


def test_a_transaction_begun_elsewhere(server: Server, driver: Driver) -> None:
    driver.join("t2")
    driver.put(1, path="r")
    assert driver.commit() == "t2"
    assert [seen.query["txid"] for seen in server.seen] == ["t2", "t2"]


def test_a_refused_commit_ends_the_transaction(server: Server, driver: Driver) -> None:
    server.play(BEGUN, refusal(406, "collision"), BEGUN)
    driver.begin()
    with pytest.raises(TransactionException, match="406 Not Acceptable: collision it is"):
        driver.commit()
    assert driver.begin() == "t1"


def test_other_refusals_of_a_transaction(server: Server, driver: Driver) -> None:
    server.play(refusal(429, "unavailable"))
    with pytest.raises(TransactionException, match="429"):
        driver.begin()
    server.play(BEGUN, *[refusal(404, "no_such_transaction")] * 2)
    driver.begin()
    with pytest.raises(TransactionException, match="404"):
        driver.cand()
    assert driver.cancel() == "t1"
    server.play(BEGUN, refusal(503, "closed"))
    driver.begin()
    with pytest.raises(TransactionException, match="503"):
        driver.cancel()
    assert driver.txid is None


def test_a_commit_of_unknown_outcome_can_be_asked_again(server: Server, driver: Driver) -> None:
    server.play(BEGUN, refusal(503, "outcome_unknown"), *[LOST] * 4, DONE)
    driver.begin()
    with pytest.raises(TransactionException, match="503"):
        driver.commit()
    with pytest.raises(ConnectionError, match="it may have been done"):
        driver.commit()
    assert driver.commit() == "t1"
    commits = server.seen[1:]
    assert len(commits) == 6
    assert {(seen.path, seen.query["txid"], seen.key) for seen in commits} == {
        ("/_commit", "t1", commits[0].key)
    }


# Lost answers


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.put(1, path="r.x"),
        lambda d: d.delete("r.x"),
        lambda d: d.rollback("r", -1),
    ],
)
def test_a_change_is_sent_again_with_its_key(
    server: Server, driver: Driver, change: Callable[[Driver], Any]
) -> None:
    server.play(LOST, HALF, LOST, DONE)
    change(driver)
    assert len(server.seen) == 4
    first = server.seen[0]
    assert first.key
    assert {(s.method, s.path, s.key, s.body) for s in server.seen} == {
        (first.method, first.path, first.key, first.body)
    }
    change(driver)
    assert server.seen[4].key not in (None, first.key)


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.rpc("r.f"),
        lambda d: d.clear(),
        lambda d: d.reload(),
        lambda d: d.release("r"),
        lambda d: (d.join("t1"), d.delete("r.x")),
    ],
)
@pytest.mark.parametrize("loss", [LOST, HALF])
def test_what_is_not_safe_is_sent_once(
    server: Server, driver: Driver, call: Callable[[Driver], Any], loss: str
) -> None:
    driver.ids()  # httplib2 would be keen to try again on a connection that has worked
    server.play(loss)
    with pytest.raises(ConnectionError, match="it may have been done"):
        call(driver)
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.get("r", python_dict=True),
        lambda d: d.roots(),
        lambda d: d.applied("r"),
        lambda d: d.sync(),
        lambda d: (d.join("t1"), d.put(1, path="r.x")),
    ],
)
def test_what_is_safe_without_a_key_is_sent_again_without_one(
    server: Server, driver: Driver, call: Callable[[Driver], Any]
) -> None:
    server.play(LOST, HALF, DONE)
    call(driver)
    assert [seen.key for seen in server.seen] == [None] * 3


def test_tries_come_to_an_end(server: Server, driver: Driver) -> None:
    server.play(*[LOST] * 8)
    where = f"127.0.0.1:{server.server_port}"
    with pytest.raises(ConnectionError, match=f"no answer from {where} to PUT /r/x/ .*may have"):
        driver.put(1, path="r.x")
    assert len(server.seen) == 4
    with pytest.raises(ConnectionError, match="to GET /r/") as caught:
        driver.get("r")
    assert "may have been done" not in str(caught.value)
    assert len(server.seen) == 8


def test_a_refusal_is_no_lost_answer(server: Server, driver: Driver) -> None:
    server.play(refusal(503, "outcome_unknown"))
    with pytest.raises(CRUDException, match="503 Service Unavailable") as caught:
        driver.put(1, path="r.x")
    assert caught.value.code == "outcome_unknown"
    assert len(server.seen) == 1


def test_an_answer_that_takes_too_long_is_lost(server: Server) -> None:
    server.play(SILENT, DONE, *[SILENT])
    with Driver("127.0.0.1", server.server_port, timeout=0.2) as driver:
        driver.put(1, path="r.x")
        assert len({seen.key for seen in server.seen}) == 1
        with pytest.raises(TimeoutError, match="no answer from"):
            driver.rpc("r.f")
    assert len(server.seen) == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refused_connection_is_told_at_once(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "PAUSES", (10 * PATIENCE,))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=f"{host}:{port}: Connection refused"):
            Driver(host, port).put(1, path="r")


def test_a_host_without_address_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(exchange, "PAUSES", (10 * PATIENCE,))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match="tega server at nowhere:8739: Name or service not known"):
        Driver("nowhere").roots()


def test_a_server_that_goes_away_leaves_the_outcome_open(
    server: Server, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.play(LOST)
    connect = transport.Connection.connect
    calls = []

    def once(self: transport.Connection) -> None:
        calls.append(self)
        if len(calls) > 1:
            raise exchange.Unreachable(ConnectionRefusedError(111, "Connection refused"))
        connect(self)

    monkeypatch.setattr(transport.Connection, "connect", once)
    with pytest.raises(ConnectionError, match="it may have been done"):
        driver.put(1, path="r.x")
    assert len(calls) == 4


# Connections


def test_the_connection_is_kept(server: Server, driver: Driver) -> None:
    for _ in range(5):
        driver.put(1, path="r.x")
    server.play(refusal(404, "not_found"))
    with pytest.raises(CRUDException):
        driver.get("r.y")
    driver.roots()
    assert {seen.connection for seen in server.seen} == {1}


def test_a_connection_that_was_closed_is_made_anew_before_sending(
    server: Server, driver: Driver
) -> None:
    server.play(BYE, (200, {"result": 1}))
    driver.roots()
    server.wait_closed()
    assert driver.rpc("r.f") == (200, "OK", 1)
    assert [seen.connection for seen in server.seen] == [1, 2]


def test_an_interrupted_call_does_not_leave_its_answer_behind(
    server: Server, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: transport.Connection) -> None:
        raise KeyboardInterrupt

    server.play((200, {"result": "first"}), (200, {"result": "second"}))
    with monkeypatch.context() as patch:
        patch.setattr(transport.Connection, "getresponse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            driver.rpc("r.f")
    server.wait_closed()  # the first answer has been given by now
    assert driver.rpc("r.f") == (200, "OK", "second")


def test_close_closes_the_connections_of_all_threads(server: Server) -> None:
    together = threading.Barrier(3)

    def call(_: int) -> None:
        shared.roots()
        together.wait(PATIENCE)

    with ThreadPoolExecutor(3) as pool:
        with Driver("127.0.0.1", server.server_port) as shared:
            list(pool.map(call, range(3)))
            assert len({seen.connection for seen in server.seen}) == 3
        for _ in range(3):
            server.wait_closed()
    shared.roots()
    shared.close()
    server.wait_closed()


@pytest.mark.filterwarnings("error")
def test_a_thread_that_ends_takes_its_connection_along(server: Server, driver: Driver) -> None:
    thread = threading.Thread(target=driver.roots)
    thread.start()
    thread.join()
    server.wait_closed()


def test_threads_share_a_driver_but_no_transaction(server: Server, driver: Driver) -> None:
    server.play(BEGUN)
    driver.begin()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: driver.txid).result() is None
        pool.submit(driver.put, 1, path="r.x").result()
    driver.put(2, path="r.x")
    _, theirs, ours = server.seen
    assert (theirs.query.get("txid"), ours.query.get("txid")) == (None, "t1")
    assert theirs.connection != ours.connection


def test_an_environment_of_proxies_is_of_no_concern(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with Driver("127.0.0.1", server.server_port) as driver:
        driver.roots()
    assert len(server.seen) == 1


# Identity


def test_every_driver_has_a_tega_id_of_its_own() -> None:
    one, two = Driver(), Driver()
    assert one.tega_id.startswith("driver-")
    assert one.tega_id != two.tega_id
    with pytest.raises(Malformed, match="malformed tega id"):
        Driver(tega_id="no spaces")


def test_a_driver_speaks_for_its_subscriber() -> None:
    class Subscriber:
        tega_id = "sub"

    subscriber = Subscriber()
    assert Driver(subscriber=subscriber).tega_id == "sub"
    driver = Driver(tega_id="other", subscriber=subscriber)
    assert (driver.tega_id, driver.subscriber) == ("other", subscriber)


def test_an_ipv6_address_is_bracketed() -> None:
    with socket.socket(socket.AF_INET6) as bound:
        bound.bind(("::1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=rf"\[::1\]:{port}"):
            Driver("::1", port).roots()


def test_the_exceptions_are_where_they_were() -> None:
    for kind in (CRUDException, TransactionException, SubscriptionException):
        assert getattr(tega.driver, kind.__name__) is getattr(module, kind.__name__) is kind


# The exchanges need no transport


def test_an_exchange_is_driven_by_hand() -> None:
    verb = exchange.delete("r.x", None, "me", None)
    request = next(verb)
    assert (request.method, request.url, request.retry) == ("DELETE", "/r/x/?tega_id=me", True)
    with pytest.raises(StopIteration) as end:
        verb.send(exchange.Response(200, "OK", {}, b'{"seq":1,"versions":{"r":2}}'))
    assert end.value.value == {"seq": 1, "versions": {"r": 2}}
