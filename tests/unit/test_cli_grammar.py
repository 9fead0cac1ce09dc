"""Lines, arguments and completions, as the table of commands has them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega import paths
from tega.cli import arguments
from tega.cli.commands import _HANDLERS
from tega.cli.completion import complete, stem
from tega.cli.grammar import INTERACTIVE, VERBS, Command, Where, help_text, parse
from tega.errors import Malformed
from tega.paths import Path

# ---- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("get a.b", Command("get", "a.b")),
        ("  get   a.b   -1  ", Command("get", "a.b", -1)),
        ('get routes."10.0.0.0/24".metric 3', Command("get", 'routes."10.0.0.0/24".metric', 3)),
        ('get a."my key"."q\\"x y".b 0', Command("get", 'a."my key"."q\\"x y".b', 0)),
        ("get if.ge-0/0/0", Command("get", "if.ge-0/0/0")),
        ("geta a", Command("geta", "a")),
        (r"getr (r)-(.*)\.(.*)", Command("getr", r"(r)-(.*)\.(.*)")),
        (r'getr a b"\.[.]', Command("getr", r'a b"\.[.]')),
        ("put a.b", Command("put", "a.b")),
        ("put a.b 2", Command("put", "a.b", 2)),
        ("pute a", Command("pute", "a")),
        ("del a 0", Command("del", "a", 0)),
        ("rollback r -1", Command("rollback", "r", -1)),
        ('rollback "r.s" 2', Command("rollback", "r.s", 2)),
        ("release r", Command("release", "r")),
        ("wait r 3", Command("wait", "r", 3)),
        (
            'wait "r.s" 3 --on ne-1 a.b --timeout 1.5',
            Command("wait", "r.s", 3, options={"on": ("ne-1", "a.b"), "timeout": 1.5}),
        ),
        ("wait r 3 --all", Command("wait", "r", 3, options={"all": True})),
        ('wait "--all" 3', Command("wait", "--all", 3)),
        ("begin", Command("begin")),
        ("h", Command("h")),
        ("help put", Command("h", "put")),
        ("quit", Command("q")),
        ("sub a.b", Command("sub", "a.b")),
        ("subscribe a.b", Command("sub", "a.b")),
        (r"subr a b\.(.*)", Command("subr", r"a b\.(.*)")),
        ("unsub *", Command("unsub", "*")),
        ('unsubscribe "*"', Command("unsub", '"*"')),
        (r"unsubr .*\.x", Command("unsubr", r".*\.x")),
        ("pub a.b", Command("pub", "a.b")),
        ("publish a.b", Command("pub", "a.b")),
        ("inventory.ne1.f1(1,2)", Command("rpc", "inventory.ne1.f1", args=(1, 2))),
        (
            "a.b.x(1, name='Alice')",
            Command("rpc", "a.b.x", args=(1,), kwargs={"name": "Alice"}),
        ),
        ("get(1)", Command("rpc", "get", args=(1,))),
        ('a."x y"()', Command("rpc", 'a."x y"')),
    ],
)
def test_lines(line: str, command: Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("get", "usage: get PATH [VERSION]"),
        ("get a 1 2", "usage: get PATH"),
        ("get a b", "VERSION 'b' is not an integer"),
        ("get a 1.0", "not an integer"),
        ("get a ٣", "not an integer"),
        ("get a..b", "empty key"),
        ("get _a", "reserved"),
        ('get a."b', "bad quoted key"),
        ('get a."b c', "bad quoted key"),
        ("put a {c: 1} x", "the value goes on the lines after it"),
        ("getr", "usage: getr PATTERN"),
        ("rollback a", "usage: rollback ROOT BACKTO"),
        ("rollback a.b 1", "not a root"),
        ("roots x", "usage: roots"),
        ("release", "usage: release ROOT"),
        ("wait r", "usage: wait ROOT VERSION [--on ID...] [--all] [--timeout S]"),
        ("wait r x", "VERSION 'x' is not an integer"),
        ("wait r 3 --on", "usage: wait"),
        ("wait r 3 --on a/b", "malformed tega id 'a/b'"),
        ("wait r 3 --all now", "usage: wait"),
        ("wait --all r 3", "usage: wait"),
        ("wait r 3 --timeout", "usage: wait"),
        ("wait r 3 --timeout 1 2", "usage: wait"),
        ("wait r 3 --timeout -1", "'-1' is not a number of seconds"),
        ("wait r 3 --timeout inf", "'inf' is not a number of seconds"),
        ("wait r 3 --soon", "usage: wait"),
        ("get r --all", "VERSION '--all' is not an integer"),
        ("h foo", "unknown command 'foo'"),
        ("foo", "unknown command 'foo'"),
        ("gte a", "did you mean 'get'?"),
        ("roll a -1", "did you mean 'rollback'?"),
        ("sub", "usage: sub PATH"),
        ("sub a..b", "empty key"),
        ("unsub * *", "usage: unsub PATH"),
        ("subr", "usage: subr PATTERN"),
        ("pub a {c: 1}", "the value goes on the lines after it"),
        ("watch a", "unknown command 'watch'"),
        ("rpc a.b", "unknown command 'rpc'"),
        ("f(g(1))", "not a literal"),
        ("f(__import__('os').system('true'))", "not a literal"),
        ("f(1", "malformed call"),
    ],
)
def test_bad_lines(line: str, problem: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(line)
    assert problem in caught.value.message


@given(st.text().filter(str.strip))
def test_any_line_is_read_or_refused(line: str) -> None:
    with contextlib.suppress(Malformed):
        assert parse(line).name in VERBS


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_any_path_survives_the_line(keys: list[str]) -> None:
    try:
        path = paths.check(keys)
    except Malformed:
        return
    assert paths.parse(parse(f"get {paths.dotted(path)} 1").target) == path


def test_the_table_is_whole() -> None:
    assert set(_HANDLERS) | {"q", "watch"} == set(VERBS)
    for verb in VERBS.values():
        assert verb.help
        optional = [argument.optional for argument in verb.arguments]
        assert optional == sorted(optional), "an argument is needed after one that is not"


def test_help_tells_every_command() -> None:
    text = help_text()
    for verb in VERBS.values():
        if verb.where is not Where.ONE_SHOT:
            assert f"\n{verb.brief} " in "\n" + text
            alone = help_text(verb.name)
            assert alone.startswith(verb.usage + " ")
            for described in (verb, *verb.options):
                assert described.help in alone
    assert "ended by an empty line" in help_text("put")
    assert "ended by an empty line" not in help_text("get")


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("get a.b", Command("get", "a.b")),
        ("get a.b --version -1", Command("get", "a.b", -1)),
        ("put a.b 1 --version 0", Command("put", "a.b", 0)),
        ("rollback a -1", Command("rollback", "a", -1)),
        ("release a", Command("release", "a")),
        ("wait a 3", Command("wait", "a", 3)),
        (
            "wait a 3 --timeout 0 --on b c",
            Command("wait", "a", 3, options={"on": ("b", "c"), "timeout": 0.0}),
        ),
        ("wait --all a 3", Command("wait", "a", 3, options={"all": True})),
        ('get routes."10.0.0.0/24"', Command("get", 'routes."10.0.0.0/24"')),
        ("pub a.b 1", Command("pub", "a.b")),
        ("watch a.b", Command("watch", "a.b")),
        (r"watch --regex (a\.b", Command("watch", r"(a\.b")),
        (
            "rpc a.f 1 -2 [x] no -k n=3 -k m=x=y",
            Command("rpc", "a.f", args=(1, -2, ["x"], "no"), kwargs={"n": 3, "m": "x=y"}),
        ),
    ],
)
def test_arguments(words: str, command: Command) -> None:
    assert arguments.parse(words.split()).command == command


def test_options_stand_before_or_behind_the_command() -> None:
    for words in ("-a h -p 1 -t me -o raw get a", "get -p 1 a -o raw -t me -a h"):
        options = arguments.parse(words.split())
        assert (options.address, options.port) == ("h", 1)
        assert (options.tega_id, options.form) == ("me", "raw")
    options = arguments.parse([])
    assert (options.address, options.port, options.command) == ("127.0.0.1", 8739, None)
    assert (options.tega_id, options.form, options.txid) == (None, "yaml", None)
    assert not options.session
    assert arguments.parse(["-s"]).session


def test_options_of_watch() -> None:
    options = arguments.parse(["watch", "a"])
    assert (options.regex, options.since) == (False, None)
    for since in ("0", "17", "17@9af3-b"):
        options = arguments.parse(["watch", "a", "--regex", "--since", since])
        assert (options.regex, options.since) == (True, since)


def test_values_and_transactions() -> None:
    assert arguments.parse(["put", "a", '{"c": 1}']).value == '{"c": 1}'
    assert arguments.parse(["put", "a", "-1.5"]).value == "-1.5"
    assert arguments.parse(["put", "a", "--", "-x"]).value == "-x"
    assert arguments.parse(["put", "a"]).value is None
    for name in ("put a 1", "pute a 1", "del a", "cand", "cancel", "commit"):
        assert arguments.parse([*name.split(), "--txid", "t"]).txid == "t"
    assert arguments.parse(["clear", "--yes"]).yes
    assert not arguments.parse(["clear"]).yes


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nosuch"], "invalid choice"),
        (["h"], "invalid choice"),
        (["get"], "required: PATH"),
        (["get", "a..b%s"], "malformed path 'a..b%s'"),
        (["get", "a", "--version", "x"], "VERSION 'x' is not an integer"),
        (["get", "a", "--txid", "t"], "unrecognized"),
        (["put", "a", "-1e5"], 'goes after "--"'),
        (["commit"], "required: --txid"),
        (["rollback", "a.b", "-1"], "not a root"),
        (["release", "a.b"], "not a root"),
        (["wait", "a"], "required: VERSION"),
        (["wait", "a", "x"], "VERSION 'x' is not an integer"),
        (["wait", "a", "3", "--on"], "expected at least one argument"),
        (["wait", "a", "3", "--on", "_b"], "malformed tega id '_b'"),
        (["wait", "a", "3", "--timeout", "soon"], "'soon' is not a number of seconds"),
        (["rpc", "a.f", "x: ["], "bad value at line 1"),
        (["rpc", "a.f", "-k", "=1"], "not NAME=VALUE"),
        (["sub", "a"], "invalid choice"),
        (["-s", "get", "a"], "-s is for the prompt"),
        (["pub", "a..b", "1"], "malformed path 'a..b'"),
        (["watch"], "required: PATH"),
        (["watch", "a..b"], "malformed path 'a..b'"),
        (["watch", "", "--regex"], "empty pattern"),
        (["watch", "a", "--since", "-1"], "is not a sequence number"),
        (["watch", "a", "--since", "1@"], "is not a sequence number"),
        (["-p", "0", "roots"], "not a port"),
        (["-p", "65536", "roots"], "not a port"),
        (["-a", "a..b", "roots"], "not the name or address"),
        (["-a", "", "roots"], "not the name or address"),
        (["-t", "a b", "roots"], "malformed tega id"),
        (["-o", "xml", "roots"], "invalid choice"),
        (["roots", "\x1b[2J"], "\\u001b[2J"),
    ],
)
def test_bad_arguments(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments.parse(words)
    shown = capsys.readouterr()
    assert caught.value.code == 2
    assert problem in shown.err
    assert "\x1b" not in shown.err
    assert not shown.out


def test_help_of_arguments_tells_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments.parse(["-h"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for verb in VERBS.values():
        assert (f"\n    {verb.name} " in shown) is (verb.where is not Where.INTERACTIVE)


# ---- completion ----------------------------------------------------------------------------------

TREE: Mapping[str, Any] = {
    "inventory": {"ne1": {"address": "::1", "ge-0/0/0": {"mtu": 1}}, "ne2": {}},
    "invoice": 3,
    "invoice 4": 4,
    "routes": {"10.0.0.0/24": {"metric": 1}, "10.0.1.0/24": {}, "my key": {"x": {}}, 'q"\\': 1},
}


class Tree:
    """What there is at a server."""

    def keys(self, path: Path) -> Mapping[str, bool]:
        node: Any = TREE
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return {}
        return {key: isinstance(child, dict) for key, child in node.items()}

    def channels(self) -> list[str]:
        return ["inventory.ne1", 'inv."a b"', r"inv\.(.*)", "alarms"]


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("ro", ["rollback", "roots"]),
        ("put", ["put", "pute"]),
        ("xyz", []),
        ("inv", ["inventory", "invoice"]),
        ("inventory.ne1.a", ["inventory.ne1.address"]),
        ("h roo", ["h roots"]),
        ("get inve", ["get inventory"]),
        ("get inventory", ["get inventory."]),
        ("get inv", ["get inventory", "get invoice"]),
        ("get invoice", ["get invoice"]),
        ('get "in', ['get "invoice 4"']),
        ('get "inve', ["get inventory"]),
        ("get inventory.", ["get inventory.ne1", "get inventory.ne2"]),
        ("get inventory.ne1.ge", ["get inventory.ne1.ge-0/0/0"]),
        ("get inventory.ne1.ge-0/0/0.", ["get inventory.ne1.ge-0/0/0.mtu"]),
        ("get routes.10", ['get routes."10.0.0.0/24"', 'get routes."10.0.1.0/24"']),
        ('get routes."10.0.0', ['get routes."10.0.0.0/24"']),
        ('get routes."10.0.0.0/24"', ['get routes."10.0.0.0/24".']),
        ('get routes."10.0.0.0/24".', ['get routes."10.0.0.0/24".metric']),
        ("get routes.m", ['get routes."my key"']),
        ('get routes."my ', ['get routes."my key"']),
        ('get routes."my key".', ['get routes."my key".x']),
        ("get routes.q", ['get routes."q\\"\\\\"']),
        ('get routes."q\\"', ['get routes."q\\"\\\\"']),
        ('get routes."q\\', []),
        ("get invoice.", []),
        ("get nosuch.x", []),
        ("get a..", []),
        ("get inventory ", []),
        ("get inventory 1", []),
        ('del routes."my key" ', []),
        ("getr inv", []),
        ("roots ", []),
        ("rollback inve", ["rollback inventory"]),
        ("rollback inventory", ["rollback inventory"]),
        ("rollback inventory.", []),
        ("wait inve", ["wait inventory"]),
        ("wait inventory ", []),
        ("wait inventory 1 ", []),
        ("rele", ["release"]),
        ("nosuch inv", []),
        ("sub inve", ["sub inventory"]),
        ("unsub inv", ['unsub inv."a b"', r"unsub inv\.(.*)", "unsub inventory.ne1"]),
        ("unsubscribe al", ["unsubscribe alarms"]),
        ("pub inventory.", ["pub inventory.ne1"]),
        ("pub nosuch", []),
        ("pub alarms ", []),
    ],
)
def test_completion(line: str, lines: list[str]) -> None:
    assert complete(line, Tree()) == lines
    for completed in lines:
        assert completed.startswith(line[: stem(line)])


def test_an_empty_line_offers_the_commands_and_asks_nobody() -> None:
    class Nobody:
        def keys(self, path: Path) -> Mapping[str, bool]:
            raise AssertionError(path)

        def channels(self) -> list[str]:
            raise AssertionError

    assert complete("", Nobody()) == sorted(INTERACTIVE)


@given(st.text('get inv.ou"\\/ 10'))
def test_completion_never_fails(line: str) -> None:
    for completed in complete(line, Tree()):
        assert completed.startswith(line[: stem(line)])


@given(st.text(min_size=1, max_size=20))
def test_any_key_is_completed_to_a_path_that_reads(key: str) -> None:
    try:
        path = paths.check(("r", key))
    except Malformed:
        return

    class Below:
        def keys(self, above: Path) -> Mapping[str, bool]:
            return {key: False} if above == ("r",) else {}

        def channels(self) -> list[str]:
            return []

    for typed in ("", paths.dotted((key,))):
        lines = complete(f"get r.{typed}", Below())
        assert [paths.parse(parse(line).target) for line in lines] == [path]
