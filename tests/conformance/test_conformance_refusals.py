"""What is refused, and what ends: alike through the program of each language."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import PROGRAMS, Program, Refused
from service import ROOT, Service
from test_conformance import PAIRS, refused

RULES = """
rules:
- {who: reader, on: r.secret, may: ""}
- {who: reader, on: r, may: rs}
- {who: writer, on: "*", may: rwxsp}
manage: [writer]
"""


def token(what: str, name: str, directory: Path) -> str:
    """Add a token, which is given, or remove those of a name."""
    command = [sys.executable, "-m", "tega.server", "token", what, name, "-d", str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a server, and gives its address; it is ended after the test."""
    started = []

    def start(*flags: str) -> str:
        service = Service(tmp_path, "-t", "one", *flags)
        started.append(service)
        return f"127.0.0.1:{service.port}"

    yield start
    for service in started:
        assert service.end()[0] == 0


@pytest.fixture
def programs(request: pytest.FixtureRequest) -> Iterator[tuple[Program, Program]]:
    """Two programs, without any client yet."""
    for language in request.param:
        PROGRAMS[language]()
    with Program(request.param[0]) as first, Program(request.param[1]) as second:
        yield first, second


@pytest.mark.parametrize("language", PROGRAMS)
def test_what_is_wrong_is_refused_alike(language: str, start: Callable[..., str]) -> None:
    PROGRAMS[language]()
    address = start("--max-body", "50000")
    with Program(language) as program:

        def refuses(code: str, do: str, **members: Any) -> None:
            assert refused(program, code, do, client="c", **members), (do, members)

        for wrong in ("_x", "a b", "x" * 256):
            refuses("malformed", "open", address=address, tega_id=wrong)
        refuses("malformed", "open", address=address, token="secret")
        program.do("open", client="c", address=address, tega_id="c")
        program.do("put", client="c", path="r.a", value=1)
        for path in ("r..a", "", "r._a", 'r."a', f"r.{'x' * 256}"):
            for do, more in (
                ("get", {}), ("delete", {}), ("put", {"value": 1}), ("subscribe", {"stream": "s"}),
                ("listen", {"stream": "s"}), ("publish", {"value": 1}), ("unserve", {}),
                ("serve", {"function": "null"}), ("call", {"args": []}),
            ):  # fmt: skip
                refuses("malformed", do, path=path, **more)
        for pattern in ("(", "", "(?=x)"):
            refuses("malformed", "match", path=pattern)
            refuses("malformed", "subscribe", path=pattern, regex=True, stream="s")
        refuses("malformed", "subscribe", path="r", stream="s", **{"from": "x"})
        refuses("malformed", "put", path="r", value={"_version": 1})
        refuses("malformed", "put", path="r", value={"": 1})
        refuses("not_found", "get", path="r.b")
        refuses("not_found", "delete", path="r.b")
        refuses("no_such_version", "get", path="r", version=9)
        refuses("collision", "put", path="r.a", value=1, version=-1)
        refuses("collision", "delete", path="r.a", version=9)
        refuses("leaf_in_the_way", "put", path="r.a.b", value=1)
        refuses("leaf_in_the_way", "serve", path="r.a.f", function="null")
        refuses("no_such_function", "unserve", path="r.f")
        refuses("no_such_function", "call", path="r.f", args=[])
        refuses("no_such_version", "rollback", root="r", backto=9)
        refuses("not_found", "rollback", root="none", backto=-1)
        # What is too large ends a connection, but not the session.
        refuses("too_large", "put", path="r.b", value="x" * 200_000)
        program.do("publish", client="c", path="r", value="x" * 200_000)
        assert program.do("put", client="c", path="r.b", value=1)["versions"] == {"r": 1}


@pytest.mark.parametrize("programs", PAIRS, ids="-".join, indirect=True)
def test_calls_end(programs: tuple[Program, Program], start: Callable[..., str]) -> None:
    caller, owner = programs
    address = start("--rpc-timeout", "1")
    caller.do("open", client="c", address=address)
    owner.do("open", client="c", address=address)
    for function in ("wait", "refuse", "echo"):
        owner.do("serve", client="c", path=f"f.{function}", function=function)
    refused(caller, "call_failed", "call", client="c", path="f.refuse", args=[])
    refused(caller, "call_timeout", "call", client="c", path="f.wait", args=[])
    assert caller.do("call", client="c", path="f.echo", args=[1])["args"] == [1]
    caller.tell("call", client="c", path="f.wait", args=[])
    owner.kill()
    with pytest.raises(Refused) as caught:
        caller.answer()
    assert caught.value.code == "owner_gone"


@pytest.mark.parametrize("programs", PAIRS, ids="-".join, indirect=True)
def test_rules_and_the_end_of_a_token(
    programs: tuple[Program, Program], start: Callable[..., str], tmp_path: Path
) -> None:
    reader, writer = programs
    tokens = {name: token("add", name, tmp_path).strip() for name in ("reader", "writer")}
    (tmp_path / "access.yaml").write_text(RULES)
    address = start()
    refused(reader, "unauthorized", "open", client="c", address=address)
    wrong = f"{tokens['reader']}x"
    refused(reader, "unauthorized", "open", client="c", address=address, token=wrong)
    foreign = {"tega_id": "writer", "token": tokens["reader"]}
    refused(reader, "forbidden", "open", client="c", address=address, **foreign)
    reader.do("open", client="c", address=address, token=tokens["reader"])
    writer.do("open", client="c", address=address, token=tokens["writer"])
    reader.do("subscribe", client="c", stream="s", path="r")
    writer.do("put", client="c", path="r", value={"secret": 1, "open": 2})
    assert reader.do("next", stream="s")["instance"] == {"open": 2}
    assert reader.do("get", client="c", path="r") == {"open": 2}
    for do, members in (
        ("put", {"path": "r.a", "value": 1}), ("get", {"path": "other"}),
        ("delete", {"path": "r"}), ("call", {"path": "r.f", "args": []}),
        ("subscribe", {"path": "other", "stream": "o"}), ("rollback", {"root": "r", "backto": -1}),
        ("serve", {"path": "r.f", "function": "null"}), ("snapshot", {}),
    ):  # fmt: skip
        refused(reader, "forbidden", do, client="c", **members)
    token("remove", "reader", tmp_path)
    refused(reader, "unauthorized", "next", stream="s")
    refused(reader, "unauthorized", "get", client="c", path="r")
    assert writer.do("get", client="c", path="r.secret") == 1
