"""What is refused when it is given, what at the commit, and how `tega.idb` says it.

`test_every_refusal.py` has every row of the error table through REST, `Driver` and `tega-cli`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from adapters import Reply, send
from service import Service, check

from tega import idb
from tega.errors import TegaError
from tega.tree import Cont


class Case(NamedTuple):
    """One refusal of `tega.idb`: what is tried, what is raised, and what the message names."""

    name: str
    attempt: Callable[[idb.Tx], Any]
    code: str
    also: type[Exception]
    says: str


def named(name: str) -> Cont:
    return Cont(name)


EMBEDDED = [
    Case("malformed path", lambda t: t.put(1, path="a..b"), "malformed", ValueError, "a..b"),
    Case("reserved key", lambda t: t.put(1, path="a._version"), "malformed", ValueError,
         "_version"),
    Case("reserved key in a value", lambda t: t.put({"b": {"_x": 1}}, path="a"), "malformed",
         ValueError, "_x"),
    Case("key too long", lambda t: t.put(1, path="k" * 256), "malformed", ValueError, "255"),
    Case("too deep", lambda t: t.put(1, path=".".join("k" * 65)), "malformed", ValueError, "64"),
    Case("value too deep", lambda t: t.put({"b": {"c": 1}}, path=".".join("k" * 63)), "malformed",
         ValueError, "depth"),
    Case("not finite", lambda t: t.put(float("inf"), path="a"), "malformed", ValueError, "inf"),
    Case("no JSON", lambda t: t.put(object(), path="a"), "malformed", ValueError, "object"),
    Case("no path", lambda t: t.put(1), "malformed", ValueError, "path="),
    Case("no name", lambda t: t.put(Cont()), "malformed", ValueError, "empty path"),
    Case("version below -1", lambda t: t.put(1, path="a", version=-2), "malformed", ValueError,
         "-2"),
    Case("delete at -1", lambda t: t.delete("seen", version=-1), "malformed", ValueError, "-1"),
    Case("malformed tega id", lambda t: t.put(1, path="a", tega_id="_me"), "malformed", ValueError,
         "_me"),
    Case("malformed pattern", lambda t: idb.get("(x", regex_flag=True), "malformed", ValueError,
         "(x"),
    Case("version of a pattern", lambda t: idb.get("a", 1, True), "malformed", ValueError,
         "version"),
    Case("no such node", lambda t: idb.get("nothing.here"), "not_found", KeyError, "nothing.here"),
    Case("version of nothing", lambda t: idb.get_version("nothing"), "not_found", KeyError,
         "nothing"),
    Case("no such version", lambda t: idb.get("seen", 9), "no_such_version", KeyError, "0 to 0"),
    Case("rollback of nothing", lambda t: idb.rollback("me", "nothing", -1), "not_found", KeyError,
         "nothing"),
    Case("result before the commit", lambda t: t.result, "no_such_transaction", KeyError,
         "not committed"),
    Case("ephemeral", lambda t: t.put(1, path="e", ephemeral=True), "no_session", ValueError,
         "session"),
    Case("marked as ephemeral", lambda t: t.put(named("e").ephemeral_()), "no_session",
         ValueError, "session"),
    Case("started twice", lambda t: idb.start("elsewhere", "me"), "refused", ValueError, "stop"),
]  # fmt: skip


@pytest.fixture
def started(tmp_path: Path) -> Iterator[None]:
    idb.start(tmp_path, "me")
    with idb.tx() as t:
        t.put(1, path="seen")
    yield
    assert idb.roots() == {"seen": 0}, "a refusal changed something"
    idb.stop()
    check(tmp_path, "me")


@pytest.mark.parametrize("case", EMBEDDED, ids=lambda case: case.name)
def test_embedded(case: Case, started: None) -> None:
    t = idb.tx()
    with pytest.raises(TegaError) as caught:
        case.attempt(t)
    assert isinstance(caught.value, case.also)
    assert caught.value.code == case.code
    assert case.says in str(caught.value)


COMMITS = [
    ("collision", lambda t: t.put(2, path="seen", version=7), "collision", ValueError),
    ("must not exist", lambda t: t.put(2, path="seen", version=-1), "collision", ValueError),
    ("leaf in the way", lambda t: t.put(2, path="seen.below"), "leaf_in_the_way", ValueError),
    ("delete of nothing", lambda t: t.delete("nothing"), "not_found", KeyError),
]


@pytest.mark.parametrize(("name", "attempt", "code", "also"), COMMITS)
def test_embedded_at_the_commit(
    name: str, attempt: Callable[[idb.Tx], Any], code: str, also: type[Exception], started: None
) -> None:
    t = idb.tx()
    t.put(1, path="other")
    attempt(t)
    with pytest.raises(TegaError) as caught:
        t.commit()
    assert isinstance(caught.value, also)
    assert caught.value.code == code
    with pytest.raises(ValueError, match="has ended"):
        t.commit()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("refusals")
    service = Service(directory, "-t", "srv")
    assert send(service.port, "PUT", "/seen", b"1").status == 200
    yield service.port
    roots = send(service.port, "GET", "/_roots").json
    assert service.end()[0] == 0
    check(directory, "srv")
    assert roots == {"seen": 0}, "a refusal changed something"


def begin(port: int) -> str:
    txid: str = send(port, "POST", "/_begin").json["txid"]
    return txid


def told(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.code


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("PUT", "/a/_x/", b"1"), ("PUT", "/a/", b"{"), ("PUT", "/a/", b'{"_x":1}'),
        ("PUT", "/a/", b""), ("PUT", "/a/?version=-2", b"1"), ("DELETE", "/seen/?version=-1", None),
        ("PUT", "/", b"1"), ("DELETE", "/", None),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_when_it_is_given(
    port: int, method: str, url: str, body: bytes | None
) -> None:
    txid = begin(port)
    url += f"{'&' if '?' in url else '?'}txid={txid}"
    assert told(send(port, method, url, body)) == (400, "malformed")
    assert send(port, "POST", f"/_cand?txid={txid}").json == [], "it is not part of it"
    assert send(port, "POST", f"/_cancel?txid={txid}").status == 200


@pytest.mark.parametrize(
    ("method", "url", "body", "status", "code"),
    [
        ("PUT", "/seen/?version=7&", b"2", 406, "collision"),
        ("PUT", "/seen/?version=-1&", b"2", 406, "collision"),
        ("DELETE", "/nothing/?version=0&", None, 406, "collision"),
        ("PUT", "/seen/below/?", b"2", 409, "leaf_in_the_way"),
        ("DELETE", "/nothing/?", None, 404, "not_found"),
    ],
)
def test_the_rest_is_judged_at_the_commit(
    port: int, method: str, url: str, body: bytes | None, status: int, code: str
) -> None:
    txid = begin(port)
    assert send(port, "PUT", f"/other?txid={txid}", b"1").status == 200
    assert send(port, method, f"{url}txid={txid}", body).status == 200
    assert told(send(port, "POST", f"/_commit?txid={txid}")) == (status, code)
    assert told(send(port, "POST", f"/_commit?txid={txid}")) == (404, "no_such_transaction")


def test_a_transaction_is_judged_by_its_own_operations_too(port: int) -> None:
    txid = begin(port)
    for method, url, body in [
        ("PUT", "/t/a/", b"1"),
        ("DELETE", "/t/a/", None),
        ("PUT", "/t/a/b/", b"2"),  # No leaf is in the way any more,
        ("DELETE", "/t/a/", None),  # and here is something to delete.
        ("PUT", "/t/?version=-1", b"3"),  # But versions are those from before the transaction.
        ("PUT", "/t/below/", b"4"),
    ]:
        joint = "&" if "?" in url else "?"
        assert send(port, method, f"{url}{joint}txid={txid}", body).status == 200
    assert told(send(port, "POST", f"/_cand?txid={txid}")) == (409, "leaf_in_the_way")
    assert told(send(port, "POST", f"/_commit?txid={txid}")) == (409, "leaf_in_the_way")


@pytest.mark.parametrize(
    ("method", "url", "says"),
    [
        ("GET", "/seen/?internal=maybe", "internal"), ("GET", "/seen/?version=1.5", "version"),
        ("GET", "/seen/?version=--1", "version"), ("GET", "/seen/?version=", "version"),
        ("GET", "/seen/?version=%D9%A1", "version"),
        ("GET", f"/seen/?version={'9' * 30}", "version"),
        ("GET", "/?version=0", "version"), ("GET", "/seen/?regex_flag=1&version=0", "version"),
        ("GET", "/?regex_flag=1", "empty pattern"), ("GET", "/seen/?a", "'a'"),
        ("GET", "/seen/?tega_id=", "tega id"), ("GET", "/seen/?tega_id=%FF", "malformed query"),
        ("GET", f"/seen/?{'&'.join(['x=1'] * 60)}", "malformed query"),
        ("POST", "/_rollback?root_oid=seen", "backto"),
        ("POST", "/_rollback?backto=-1", "root_oid"),
        ("POST", "/_rollback?root_oid=seen&backto=x", "backto"), ("GET", "/_applied", "root_oid"),
        ("POST", "/_cand", "txid"), ("POST", "/_cancel", "txid"), ("POST", "/_rpc", "path"),
        ("POST", "/_rpc?path=a..b", "a..b"), ("GET", "/_roots?x=1", "'x'"),
        ("POST", "/_begin?tega_id=a%20b", "a b"), ("GET", "/%5Fversion/", "_version"),
        ("GET", "//", "empty key"), ("GET", "/a%00b%/?regex_flag=(", "regex_flag"),
    ],
)  # fmt: skip
def test_a_malformed_parameter_is_named(port: int, method: str, url: str, says: str) -> None:
    reply = send(port, method, url)
    assert told(reply) == (400, "malformed")
    assert says in reply.json["error"]["message"]


@pytest.mark.parametrize("body", [b"[]", b"1", b'{"args": {}}', b'{"kwargs": []}', b'{"arg": []}'])
def test_a_malformed_call_is_refused(port: int, body: bytes) -> None:
    reply = send(port, "POST", "/_rpc?path=seen", body)
    assert told(reply) == (400, "malformed")
    assert "args" in reply.json["error"]["message"]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_malformed_key_is_refused(port: int, key: str) -> None:
    reply = send(port, "PUT", "/seen", b"2", {"Idempotency-Key": key})
    assert told(reply) == (400, "malformed")


@pytest.mark.parametrize(
    ("method", "url", "allow"),
    [
        ("POST", "/seen", "DELETE, GET, PUT"), ("OPTIONS", "/", "DELETE, GET, PUT"),
        ("PATCH", "/seen", "DELETE, GET, PUT"), ("GET", "/_commit", "POST"),
        ("GET", "/_clear", "POST"), ("DELETE", "/_roots", "GET"), ("PUT", "/_reload", "GET, POST"),
    ],
)  # fmt: skip
def test_a_method_that_is_not_offered(port: int, method: str, url: str, allow: str) -> None:
    reply = send(port, method, url)
    assert told(reply) == (405, "method_not_allowed")
    assert reply.headers["Allow"] == allow
    assert method in reply.json["error"]["message"]
