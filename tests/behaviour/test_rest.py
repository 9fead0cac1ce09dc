"""Every row of the REST tables, over a socket."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from service import Service, check


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("rest")
    made = Service(directory, "-t", "srv", "-l", "3")
    yield made
    assert made.end()[0] == 0
    check(directory, "srv")


def raw(service: Service, method: str, url: str, body: bytes | None = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request(method, url, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def exchange(service: Service, sent: bytes) -> bytes:
    """What a server says to bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        taken = b""
        while more := client.recv(1 << 16):
            taken += more
    return taken


def test_documents(service: Service) -> None:
    status, made = service.ask("PUT", "/d/10.0.0.0%2F24/metric/?tega_id=me", 5)
    assert (status, made["versions"]) == (200, {"d": 0})
    assert service.ask("GET", "/d/10.0.0.0%2F24/metric") == (200, 5)
    made = json.loads(raw(service, "PUT", "/d/ge-0%2F0%2F0/%C3%BC%20x", b"null").body)
    assert made["versions"] == {"d": 1}
    whole = {"10.0.0.0/24": {"metric": 5}, "ge-0/0/0": {"ü x": None}}
    assert service.ask("GET", "/d/") == (200, whole)
    assert raw(service, "GET", "/d/").getheader("ETag") == '"1"'
    assert raw(service, "GET", "/d/10.0.0.0%2F24").getheader("ETag") == '"0"'
    assert service.ask("GET", "/d/?version=0")[1] == {"10.0.0.0/24": {"metric": 5}}
    assert service.ask("GET", "/d/?version=-1")[1] == {"10.0.0.0/24": {"metric": 5}}
    assert service.ask("DELETE", "/d/ge-0%2F0%2F0/%C3%BC%20x?version=1")[1]["versions"] == {"d": 2}
    assert service.ask("GET", "/d/") == (200, {"10.0.0.0/24": {"metric": 5}}), "the parent went too"
    assert "d" in service.ask("GET", "/")[1]
    assert service.ask("GET", "/d/?consistent=True")[0] == 200


def test_internal_form(service: Service) -> None:
    service.ask("PUT", "/i/", {"a": 1})
    service.ask("PUT", "/i/b", 3)
    assert service.ask("GET", "/i/?internal=True")[1] == {
        "_oid": "i", "_parent": None, "_version": 1, "_ephemeral": False,
        "a": {"_oid": "a", "_parent": "i", "_version": 0, "_ephemeral": False, "_value": 1},
        "b": {"_oid": "b", "_parent": "i", "_version": 1, "_ephemeral": False, "_value": 3},
    }  # fmt: skip


def test_regex(service: Service) -> None:
    service.ask("PUT", "/r-a/", {"a": 1, "b": {"c": 2}})
    found = service.ask("GET", "/(r)-(.*)%5C.(.*)/?regex_flag=True")[1]
    assert found == {
        "r-a.a": {"groups": [["r", "a"], ["a"]], "instance": 1},
        "r-a.b": {"groups": [["r", "a"], ["b"]], "instance": {"c": 2}},
    }
    assert service.ask("GET", "/none%5C.x/?regex_flag=True") == (200, {})
    assert service.ask("GET", "/(a%2B)%2B$/?regex_flag=True")[0] == 200


def test_a_transaction(service: Service) -> None:
    txid = service.ask("POST", "/_begin?tega_id=me")[1]["txid"]
    assert service.ask("PUT", f"/t1/x?txid={txid}", 1) == (200, {"txid": txid})
    assert service.ask("PUT", f"/t2/?txid={txid}", 2) == (200, {"txid": txid})
    assert service.ask("DELETE", f"/t2/?txid={txid}") == (200, {"txid": txid})
    assert service.ask("GET", f"/t1/x?txid={txid}")[0] == 404, "a GET reads what is committed"
    first, second = service.ask("POST", f"/_cand?txid={txid}")[1]
    assert (first["_oid"], first["x"]["_value"]) == ("t1", 1)
    assert second == {"_oid": "t2", "_deleted": True}
    status, made = service.ask("POST", f"/_commit?txid={txid}")
    assert (status, made["versions"]) == (200, {"t1": 0, "t2": 0})
    assert service.ask("POST", f"/_commit?txid={txid}") == (200, made), "sent again"
    txid = service.ask("POST", "/_begin")[1]["txid"]
    assert service.ask("POST", f"/_cancel?txid={txid}")[0] == 200
    assert service.ask("POST", f"/_commit?txid={txid}")[0] == 404


def test_one_commit_asked_for_twice_at_once(service: Service) -> None:
    """A retry that arrives while the first is on its way waits for it."""
    txid = service.ask("POST", "/_begin")[1]["txid"]
    service.ask("PUT", f"/twice/?txid={txid}", 1)
    request = f"POST /_commit?txid={txid} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(8)]
    for client in clients:
        client.sendall(request)
    answers = {client.recv(1 << 16).partition(b"\r\n\r\n")[2] for client in clients}
    assert len(answers) == 1
    assert b'"versions":{"twice":0}' in answers.pop()
    for client in clients:
        client.close()


def test_a_key_makes_a_retry_safe(service: Service) -> None:
    first = raw(service, "PUT", "/k/", b"1", Idempotency_Key="one").body
    service.ask("PUT", "/k/", 2)
    assert raw(service, "PUT", "/k/", b"1", Idempotency_Key="one").body == first
    assert service.ask("GET", "/k/")[1] == 2
    back = raw(service, "POST", "/_rollback?root_oid=k&backto=-1", Idempotency_Key="two").body
    again = raw(service, "POST", "/_rollback?root_oid=k&backto=-1", Idempotency_Key="two").body
    assert back == again
    assert service.ask("GET", "/k/")[1] == 1


def test_history(service: Service) -> None:
    for value in range(6):
        service.ask("PUT", "/h/", value)
    assert {"h": [2, 3, 4]} in service.ask("GET", "/_old")[1], "maxlen is 3 here"
    assert service.ask("GET", "/_roots")[1]["h"] == 5
    assert service.ask("POST", "/_rollback?root_oid=h&backto=2&tega_id=me")[0] == 200
    assert service.ask("GET", "/h/")[1] == 2
    assert service.ask("DELETE", "/h/")[1]["versions"] == {"h": 7}
    assert "h" not in service.ask("GET", "/_roots")[1]
    assert {"h": [4, 5, 6]} in service.ask("GET", "/_old")[1]
    assert service.ask("PUT", "/h/", 9)[1]["versions"] == {"h": 8}
    assert service.ask("GET", "/_applied?root_oid=h") == (200, {"srv": 8})
    assert service.ask("POST", "/_release?root_oid=h")[0] == 404


def test_edges(service: Service) -> None:
    service.ask("PUT", "/e/a", 1)
    service.ask("PUT", "/e/b", 2)
    newest = service.ask("GET", "/_edges?root_oid=e")[1]
    pairs = [("e(1)", "e.a(0)"), ("e.a(0)", "e(1)"), ("e(1)", "e.b(1)"), ("e.b(1)", "e(1)")]
    assert newest == [list(pair) for pair in pairs]
    both = service.ask("GET", "/_edges?root_oid=e&old_roots=True")[1]
    assert ["e(0)", "e.a(0)"] in both
    assert ["e.a(0)", "e(1)"] in both
    assert ["e.a(0)", "e(0)"] not in both


@pytest.mark.parametrize(
    ("url", "expected"),
    [("/_channels", {}), ("/_subscribers", {}), ("/_ids", []), ("/_global", []),
     ("/_forwarders", []), ("/_plugins", {}), ("/_reload", {})],
)  # fmt: skip
def test_what_is_not_there_yet(service: Service, url: str, expected: Any) -> None:
    assert service.ask("GET", url) == (200, expected)


def test_health_and_snapshot(service: Service) -> None:
    status, health = service.ask("GET", "/_health")
    assert (status, health["status"], health["tega_id"]) == (200, "ok", "srv")
    assert service.ask("POST", "/_ss?tega_id=me") == (200, {"seq": health["seq"]})


def test_clear(tmp_path: Any) -> None:
    service = Service(tmp_path, "-t", "c")
    service.ask("PUT", "/x/", 1)
    life = service.ask("GET", "/_health")[1]["life"]
    assert service.ask("POST", "/_clear")[0] == 200
    assert service.ask("GET", "/_old") == (200, [])
    assert service.ask("GET", "/_health")[1]["life"] != life
    assert service.ask("PUT", "/x/", 2)[1] == {"seq": 1, "versions": {"x": 0}}
    assert service.end()[0] == 0
    check(tmp_path, "c")


def test_text_survives_to_the_byte(service: Service) -> None:
    value = {"b": 2**70, "a": ["\x00\x1b[31m", "é\u2028😀", -0.5, 1e300], "Z": {}, "": []}
    del value[""]
    service.ask("PUT", "/exact/", value)
    body = raw(service, "GET", "/exact/").body
    assert json.loads(body) == value
    assert str(2**70).encode() in body
    assert list(json.loads(body)) == sorted(value)


def test_http_of_all_kinds(service: Service) -> None:
    service.ask("PUT", "/http/", 1)
    one = b"GET /http/ HTTP/1.1\r\nHost: x\r\n\r\n"
    assert exchange(service, one * 3).count(b"HTTP/1.1 200 OK") == 3, "pipelined"
    old = exchange(service, b"GET /http/ HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\n1")
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(b"PUT /http/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"1\r\n4\r\n1\r\n2\r\n0\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in client.recv(1 << 16)
    assert service.ask("GET", "/http/")[1] == 42
    assert exchange(service, b"PUT /http/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1") == b""
    refused = raw(service, "OPTIONS", "/http/")
    assert (refused.status, refused.getheader("Allow")) == (405, "DELETE, GET, PUT")
    head = exchange(service, b"HEAD /http/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405")
    assert head.endswith(b"\r\n\r\n"), "what answers HEAD has no body"
    assert b"400" in exchange(service, b"nonsense\r\n\r\n")
    assert service.ask("GET", "/http/")[1] == 42


def test_sizes(service: Service) -> None:
    longest = json.dumps("x" * ((1 << 20) - 2)).encode()
    assert raw(service, "PUT", "/big/", longest).status == 200
    assert raw(service, "GET", "/big/").body == longest
    assert raw(service, "PUT", "/big/", longest + b" ").status == 413
    waits = b"PUT /big/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n"
    answer = exchange(service, waits + b"Expect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413"), "before the body is asked for"
    far = f"PUT /big/ HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
    assert b"HTTP/1.1 413" in exchange(service, far), "refused before it is sent"
    for key in ("k" * 255, "%C3%BC" * 127):
        assert service.ask("PUT", f"/s/{key}", 1)[0] == 200
    for key in ("k" * 256, "%C3%BC" * 128):
        assert service.ask("PUT", f"/s/{key}", 1)[0] == 400
    assert service.ask("PUT", "/deep" + "/k" * 63, 1)[0] == 200
    assert service.ask("PUT", "/deep" + "/k" * 64, 1)[0] == 400
    value: Any = 1
    for _ in range(63):
        value = {"k": value}
    assert service.ask("PUT", "/nested/", value)[0] == 200
    assert service.ask("PUT", "/nested/k/", value)[0] == 400
    assert raw(service, "GET", "/%FF/").status == 400


def test_a_hundred_thousand_siblings(service: Service) -> None:
    leaves = {f"{n:05x}": n % 10 for n in range(100_000)}
    body = json.dumps(leaves, separators=(",", ":")).encode()
    assert raw(service, "PUT", "/wide/", body).status == 200
    assert service.ask("PUT", "/wide/one-more", "x")[1]["versions"] == {"wide": 1}
    assert service.ask("GET", "/wide/00007") == (200, 7)
    whole = service.ask("GET", "/wide/")[1]
    assert whole == {**leaves, "one-more": "x"}
    assert list(whole) == sorted(whole)
    found = service.ask("GET", "/wide%5C.0000[12]/?regex_flag=1")[1]
    assert list(found) == ["wide.00001", "wide.00002"]


def test_small_requests_are_answered_while_a_large_answer_is_sent(service: Service) -> None:
    for part in range(10):
        service.ask("PUT", f"/large/c{part}/", {f"leaf{n}": n for n in range(20_000)})
    answered = []
    done = threading.Event()

    def small() -> None:
        while not done.is_set():
            answered.append(service.ask("GET", "/large/c3/leaf7/"))

    client = threading.Thread(target=small)
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("GET", "/large/")
    answer = connection.getresponse()
    client.start()
    while len(answered) < 5:  # The answer has begun, and cannot end: nobody takes it yet.
        client.join(0.001)
    assert len(json.loads(answer.read())) == 10
    done.set()
    client.join()
    connection.close()
    assert set(map(str, answered)) == {"(200, 7)"}
