"""Every row of the error table that can occur, through REST, `Driver` and `tega-cli`.

Each refusal has its status and code, and a message that names the culprit (invariant 7).
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tega.database import Database, new_life
from tega.driver import CRUDException, Driver, TransactionException
from tega.errors import BY_CODE
from tega.log.file import FileLog

ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """One refusal: what it is, and how each interface runs into it.

    `rest` is method, URL and body; `cli` are arguments; None where an interface cannot send it.
    """

    name: str
    code: str
    status: int
    says: str
    rest: tuple[str, str, bytes | None]
    driver: Callable[[Driver], Any] | None
    cli: tuple[str, ...] | None


DEEP = ".".join(["k"] * 65)
CASES = [
    Case("malformed path", "malformed", 400, "empty key", ("PUT", "/a//b/", b"1"),
         lambda d: d.put(1, path="a..b"), ("put", "a..b", "1")),
    Case("reserved key", "malformed", 400, "_version", ("PUT", "/a/_version/", b"1"),
         lambda d: d.put(1, path="a._version"), ("put", "a._version", "1")),
    Case("reserved key in a value", "malformed", 400, "_x", ("PUT", "/a/", b'{"_x":1}'),
         lambda d: d.put({"_x": 1}, path="a"), ("put", "a", '{"_x": 1}')),
    Case("key too long", "malformed", 400, "255", ("PUT", f"/{'k' * 256}/", b"1"),
         lambda d: d.put(1, path="k" * 256), ("put", "k" * 256, "1")),
    Case("too deep", "malformed", 400, "depth", ("PUT", "/" + DEEP.replace(".", "/"), b"1"),
         lambda d: d.put(1, path=DEEP), ("put", DEEP, "1")),
    Case("malformed JSON", "malformed", 400, "JSON", ("PUT", "/a/", b"{"), None, None),
    Case("not UTF-8", "malformed", 400, "UTF-8", ("PUT", "/a/", b'"\xff"'), None, None),
    Case("no body", "malformed", 400, "no body", ("PUT", "/a/", None), None, None),
    Case("key twice", "malformed", 400, "'a'", ("PUT", "/x/", b'{"a":1,"a":2}'), None, None),
    Case("not finite", "malformed", 400, "", ("PUT", "/a/", b"NaN"),
         lambda d: d.put(float("nan"), path="a"), None),
    Case("malformed version", "malformed", 400, "version", ("GET", "/seen/?version=x", None),
         None, None),
    Case("version below -1", "malformed", 400, "-2", ("PUT", "/seen/?version=-2", b"1"),
         lambda d: d.put(1, path="seen", version=-2), ("put", "seen", "1", "--version", "-2")),
    Case("delete at -1", "malformed", 400, "-1", ("DELETE", "/seen/?version=-1", None),
         lambda d: d.delete("seen", version=-1), ("del", "seen", "--version", "-1")),
    Case("malformed pattern", "malformed", 400, "(x", ("GET", "/(x/?regex_flag=1", None),
         lambda d: d.get("(x", regex_flag=True), ("getr", "(x")),
    Case("RE2 has not", "malformed", 400, "RE2", ("GET", "/(%3F=x)/?regex_flag=1", None),
         lambda d: d.get("(?=x)", regex_flag=True), ("getr", "(?=x)")),
    Case("unknown parameter", "malformed", 400, "'versoin'", ("GET", "/seen/?versoin=1", None),
         None, None),
    Case("parameter twice", "malformed", 400, "twice", ("GET", "/seen/?version=0&version=0", None),
         None, None),
    Case("missing parameter", "malformed", 400, "'txid'", ("POST", "/_commit", None), None, None),
    Case("malformed tega id", "malformed", 400, "_me", ("GET", "/seen/?tega_id=_me", None),
         None, None),
    Case("no such node", "not_found", 404, "nothing.here", ("GET", "/nothing/here/", None),
         lambda d: d.get("nothing.here"), ("get", "nothing.here")),
    Case("delete of nothing", "not_found", 404, "nothing.here", ("DELETE", "/nothing/here/", None),
         lambda d: d.delete("nothing.here"), ("del", "nothing.here")),
    Case("rollback of no root", "not_found", 404, "nothing",
         ("POST", "/_rollback?root_oid=nothing&backto=-1", None),
         lambda d: d.rollback("nothing", -1), ("rollback", "nothing", "-1")),
    Case("no such version", "no_such_version", 404, "there are 0 to 0",
         ("GET", "/seen/?version=9", None),
         lambda d: d.get("seen", version=9), ("get", "seen", "--version", "9")),
    Case("no such transaction", "no_such_transaction", 404, "'zz'",
         ("POST", "/_commit?txid=zz", None),
         lambda d: (d.join("zz"), d.commit()), ("commit", "--txid", "zz")),
    Case("no such function", "no_such_function", 404, "seen", ("POST", "/_rpc?path=seen", b"{}"),
         lambda d: d.rpc("seen"), ("rpc", "seen")),
    Case("no such command", "no_such_command", 404, "/_nope", ("GET", "/_nope", None), None, None),
    Case("no peer", "no_peer", 404, "peer", ("POST", "/_sync", None),
         lambda d: d.sync(), ("sync",)),
    Case("method", "method_not_allowed", 405, "PATCH", ("PATCH", "/seen/", b"1"), None, None),
    Case("collision", "collision", 409, "expected version 7, found version 0",
         ("PUT", "/seen/?version=7", b"2"),
         lambda d: d.put(2, path="seen", version=7), ("put", "seen", "2", "--version", "7")),
    Case("must not exist", "collision", 409, "nothing there", ("PUT", "/seen/?version=-1", b"2"),
         lambda d: d.put(2, path="seen", version=-1), ("put", "seen", "2", "--version", "-1")),
    Case("leaf in the way", "leaf_in_the_way", 409, "seen", ("PUT", "/seen/below/", b"2"),
         lambda d: d.put(2, path="seen.below"), ("put", "seen.below", "2")),
    Case("no session", "no_session", 409, "session", ("PUT", "/e/?ephemeral=True", b"1"),
         lambda d: d.put(1, path="e", ephemeral=True), ("pute", "e", "1")),
    Case("body too large", "too_large", 413, "1048576", ("PUT", "/a/", b'"' + b"x" * (1 << 20)),
         lambda d: d.put("x" * (1 << 20), path="a"), None),
    Case("URL too long", "url_too_long", 414, "65536", ("GET", "/" + "k/" * 40_000, None),
         None, None),
    Case("owner gone", "owner_gone", 502, "'nobody'", ("POST", "/_rpc?path=f", b"{}"),
         lambda d: d.rpc("f"), ("rpc", "f")),
]  # fmt: skip


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("refusals")
    process = subprocess.Popen(
        [sys.executable, "-m", "tega.server", "-t", "srv", "-p", "0", "-d", directory],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if line.startswith("ready on "))
        found = int(ready.rpartition(":")[2])
        with Driver(port=found) as driver:
            driver.put(1, path="seen")
            driver.put("%nobody.f", path="f")
        yield found
    finally:
        process.terminate()
        assert process.wait(20) == 0
    with Database(FileLog(directory, "srv", new_life), "srv") as database:
        database.check()
        assert database.state.seq == 2, "a refusal changed something"


def each(interface: str) -> Any:
    able = [case for case in CASES if getattr(case, interface) is not None]
    return pytest.mark.parametrize("case", able, ids=[case.name for case in able])


@each("rest")
def test_rest(case: Case, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(*case.rest)
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    assert (error["code"], answer.status) == (case.code, case.status)
    assert case.says in error["message"]
    connection.close()


@each("driver")
def test_driver(case: Case, port: int) -> None:
    assert case.driver is not None
    with Driver(port=port) as driver, pytest.raises(
        (CRUDException, TransactionException)
    ) as caught:
        case.driver(driver)
    refused = caught.value
    assert (refused.code, refused.status) == (case.code, case.status)
    assert case.says in refused.message
    assert str(refused).startswith(str(case.status))


@each("cli")
def test_cli(case: Case, port: int) -> None:
    assert case.cli is not None
    done = subprocess.run(
        [sys.executable, "-m", "tega.cli.main", "-p", str(port), *case.cli],
        capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, check=False,
    )
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert case.says in done.stderr
    if done.returncode == 1:
        assert done.stderr.startswith(str(case.status))


def test_a_collision_at_commit_is_406(port: int) -> None:
    with Driver(port=port) as driver:
        driver.begin()
        driver.put(3, path="other")
        driver.put(2, path="seen", version=7)
        with pytest.raises(TransactionException, match="expected version 7") as caught:
            driver.commit()
        assert (caught.value.code, caught.value.status) == ("collision", 406)
        with pytest.raises(CRUDException):
            driver.get("other")


def test_the_table_is_whole() -> None:
    """What is not produced here is produced elsewhere, or is no answer of a server."""
    elsewhere = {
        "read_only", "outcome_unknown", "internal",  # tests/behaviour/test_server.py
        "closed", "unavailable",  # tests/unit/test_database.py
        "not_understood", "forbidden", "over_limit",  # tests/behaviour/test_sessions.py
        "call_failed", "call_timeout",  # tests/behaviour/test_rpc.py
        "unauthorized",  # tests/behaviour/test_access.py
        "ephemeral_conflict",  # tests/unit/test_store_ephemeral.py
        "leader_away", "led_elsewhere", "diverged",  # tests/peering/
        "log", "corrupt", "locked",  # errors of the start
        "refused",  # the base of the 409s
    }  # fmt: skip
    assert {case.code for case in CASES} | elsewhere == set(BY_CODE)
