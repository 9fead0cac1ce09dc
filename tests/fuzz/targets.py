"""What is fuzzed: for each parser what it may raise, and what must hold of what it takes.

``scripts/fuzz`` looks for inputs with atheris; `test_fuzz` tries those that it has kept, and some
that Hypothesis makes of the same words.
"""

from __future__ import annotations

import json as standard
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tornado.httputil import HTTPHeaders

from tega import paths, protocol, strictjson
from tega.access import policy
from tega.access.who import UNLIMITED
from tega.cli import grammar, yamltext
from tega.errors import Malformed, Unauthorized
from tega.log import legacy, record
from tega.peering import codec
from tega.protocol import frames
from tega.settings import load
from tega.store import match
from tega.web import batch
from tega.web.http import Call

#: Most bytes of an input.
LARGEST = 2048

#: Seconds of processor time that such an input may take. Most take a thousandth of it.
BOUND = 0.5

CORPUS = Path(__file__).with_name("corpus")


class Target(NamedTuple):
    """One parser.

    :ivar run: takes an input; raises what no parser may
    :ivar words: what inputs are made of
    """

    run: Callable[[bytes], None]
    words: tuple[bytes, ...]


def text_of(data: bytes) -> str:
    """An input as text, in which anything may be, lone surrogates too."""
    return data.decode("utf-8", "surrogateescape")


def dotted(data: bytes) -> None:
    """A path comes out of each of its spellings as it went in."""
    try:
        path = paths.parse(text_of(data))
    except Malformed:
        return
    assert paths.parse(paths.dotted(path)) == path
    assert paths.parse(paths.wire(path)) == path
    assert not any(c.isspace() for c in paths.wire(path))
    assert paths.from_url(paths.to_url(path)) == path


def url(data: bytes) -> None:
    """A URL's path too."""
    try:
        path = paths.from_url(text_of(data))
    except Malformed:
        return
    assert paths.from_url(paths.to_url(path)) == path
    if path:
        assert paths.parse(paths.dotted(path)) == path


def globs(data: bytes) -> None:
    """Of levels with asterisks there is one at least, and each has something between two."""
    try:
        levels = paths.split_globs(text_of(data))
    except Malformed:
        return
    assert levels
    assert all(isinstance(level, str) or len(level) > 1 for level in levels)


def names(data: bytes) -> None:
    """Tega ids, transaction ids and hosts are taken as they are, or not at all."""
    text = text_of(data)
    for check in (paths.check_tega_id, paths.check_txid, paths.check_host):
        try:
            assert check(text) == text
        except Malformed:
            continue


def json(data: bytes) -> None:
    """What is taken, Python's own reader takes for the same, no key is twice; it is stable."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        assert len(made) == len(pairs)
        return made

    try:
        value = strictjson.loads(data)
    except Malformed:
        return
    assert standard.loads(data, object_pairs_hook=unique) == value
    text = strictjson.dumps(value)
    assert strictjson.dumps(strictjson.loads(text)) == text


def pattern(data: bytes) -> None:
    """A pattern that is taken says yes or no to any key."""
    try:
        levels = match.compile_pattern(text_of(data))
    except Malformed:
        return
    for level in levels:
        for key in ("a", "a" * 255, "interfaces.0/0", "é\n"):
            level.match(key)


def message(data: bytes) -> None:
    """A message that is written again is the same."""
    try:
        parsed = protocol.parse(data.decode())
    except (Malformed, UnicodeDecodeError):
        # A frame that is not UTF-8 does not get that far.
        return
    again = protocol.parse(parsed.text())
    assert again == parsed
    assert again.text() == parsed.text()


def frame(data: bytes) -> None:
    """In one chunk or byte by byte: that gives the same messages, and ends for the same cause."""
    found = []
    for chunks in ([data], [data[n : n + 1] for n in range(len(data))]):
        reader = frames.Reader(1 << 12)
        got: list[object] = []
        try:
            for chunk in chunks:
                got += reader.feed(chunk)
        except frames.Violation as violation:
            got.append(violation.code)
        found.append(got)
    assert found[0] == found[1]


def log_record(data: bytes) -> None:
    """Records follow each other without a gap, up to the end or to the bad one."""
    end, found = 0, None
    try:
        for logged in record.read(data):
            assert logged.start == end
            end = logged.end
    except record.BadRecord as bad:
        found = bad
    if found is None:
        assert end == len(data)
    else:
        assert end == found.start <= found.offset <= len(data)
        record.is_torn(data, found, 1)


def legacy_log(data: bytes) -> None:
    """A log of old is read up to the first line that is none."""
    def warn(place: legacy.Place, text: str) -> None:
        assert place.line > 0
        assert text

    legacy.is_legacy(data)
    try:
        for _ in legacy.transactions(Path("log"), data, 64, warn):
            continue
    except legacy.BadLine:
        return


def rules(data: bytes) -> None:
    """Rules that are taken decide for each that they name."""
    try:
        found = policy.Policy({}, text_of(data), "access.yaml")
    except Malformed:
        return
    for name in found.names:
        who = found.get(name)
        assert who is not None
        assert who.rights is None or who.rights.at(("a", "b")).may("r") in (True, False)


def tokens(data: bytes) -> None:
    """What is taken has names, and digests for each."""
    try:
        found = policy.read_tokens(text_of(data), "tokens.yaml")
    except Malformed:
        return
    for name, kept_of_it in found.items():
        assert policy.check_name(name, "tokens.yaml") == name
        assert all(len(token.sha256) == 64 for token in kept_of_it)


def credential(data: bytes) -> None:
    """No header lets in somebody who has no token."""
    header = text_of(data)
    policy.digest_in(header)
    guarded = policy.Policy({"alice": []}, None, "access.yaml")
    try:
        who = guarded.who(header)
    except Unauthorized:
        return
    assert not who.known


def query(data: bytes) -> None:
    """A URL's query is read, or refused."""
    try:
        call = Call("GET", text_of(data), HTTPHeaders())
        call.allow("version", "flag")
        call.integer("version")
        call.flag("flag")
    except Malformed:
        return


def transaction(data: bytes) -> None:
    """Operations that are taken have paths and values as the tree has them."""
    for read in (lambda: batch.read(data, "me", 64, UNLIMITED)[0],
                 lambda: batch.read_changes(data, "me", 64, UNLIMITED)):
        try:
            taken = read()
        except Malformed:
            continue
        for operation in taken.operations:
            assert paths.parse(paths.dotted(operation.path)) == operation.path


def yaml(data: bytes) -> None:
    """What is typed reads as a value that, printed, reads as the same."""
    try:
        value = yamltext.loads(text_of(data))
    except Malformed:
        return
    assert yamltext.loads(yamltext.dumps(value)) == value
    assert yamltext.loads(yamltext.dumps_line(value)) == value


def line(data: bytes) -> None:
    """A line at the prompt is a command, or refused."""
    text = text_of(data)
    if text.strip():
        try:
            grammar.parse(text)
        except Malformed:
            return


def settings(data: bytes) -> None:
    """A settings file is taken or refused."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        try:
            load(["--settings", file.name], {})
        except Malformed:
            return


def peer(data: bytes) -> None:
    """What servers say to each other is read, or refused."""
    readers: Iterable[Callable[[bytes], object]] = (
        codec.read_offer, codec.read_taken, codec.read_applied, codec.read_functions,
        codec.read_ids, codec.read_commit, codec.read_overlay, codec.read_chunk, codec.object_in,
        lambda body: codec.read_request(body, "peer"),
        lambda body: codec.error_in(body, "peer"),
        codec.barrier_in,
    )  # fmt: skip
    # The protocol takes nothing else for a body.
    try:
        body = text_of(data).encode()
    except UnicodeEncodeError:
        return
    for read in readers:
        try:
            read(body)
        except Malformed:
            continue


_JSON = (
    b"{", b"}", b"[", b"]", b":", b",", b'"a"', b'"\\ud800"', b"null", b"1e999", b"-0", b"NaN",
    b"true", b'{"a":1,"a":2}', b"9" * 40, b"\xff", b'"\\u0000"',
)  # fmt: skip
_PATHS = (
    b".", b'"', b'"a.b"', b"\\u0020", b"_", b"*", b"/", b"%2F", b"%ff", b"%00", b" ", b"\xc3\xa9",
    b"\x00", b"k" * 255, b"a.b", b"\\",
)  # fmt: skip
_YAML = (
    b":", b"- ", b"\n", b"  ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!int ", b"!!map ", b"|\n",
    b"? ", b"<<: ", b"'", b'"', b"#", b"---\n", b"%YAML 1.1\n", b"\t", b"\xff", b"null",
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "path": Target(dotted, _PATHS),
    "url": Target(url, _PATHS),
    "globs": Target(globs, _PATHS),
    "names": Target(names, (*_PATHS, b"xn--", b"a" * 63, b"-", b"::1", b"\xe2\x80\xae")),
    "json": Target(json, _JSON),
    "pattern": Target(
        pattern,
        (
            b"(", b")", b"(a+)+$", b"[", b"]", b"\\.", b"{1000}", b"{1,}", b"|", b"(?P<n>", b"\\1",
            b"(?=", b"\\pL", b".*", b"^", b"$", b"\\x{10ffff}", b"\x00", b"(?i)", b"[^",
        ),
    ),
    "message": Target(
        message,
        (
            b"SESSION ", b"SESSIONACK ", b"SUBSCRIBE ", b"UNSUBSCRIBE ", b"PUBLISH ", b"MESSAGE ",
            b"NOTIFY", b"ROLLBACK ", b"REQUEST ", b"RESPONSE ", b"ERROR ", b"PEER ", b" ", b"\n",
            b"\r\n", b"local", b"global", b"True", b"1", b"-1", b"1@life", b"TX", b"RPC", b"SYNC",
            b'{"message":1}', b'[{"ope":"PUT","path":"a","instance":1}]', b"{}", *_PATHS,
        ),
    ),
    "frame": Target(
        frame,
        (
            b"\x81", b"\x01", b"\x80", b"\x00", b"\x88", b"\x89", b"\x8a", b"\x82", b"\xf1",
            b"\xfe\x00\x10", b"\xff" + bytes(8), b"\x81\x81\0\0\0\0x", b"\x01\x80\0\0\0\0",
            b"\x80\x81abcdx", b"\x89\x80\0\0\0\0", b"\x81\x82\0\0\0\0\xc3\xa9",
        ),
    ),
    "record": Target(
        log_record,
        (
            b"? 1\n", b"? 0\n", b"@2026-11-21T01:34:05.123456Z 1 ", b'{"synced":0,"life":"l"}',
            b" 00000000\n", b"-1 a b\n", bytes(512), b"\n", b'{"ope":"PUT","path":"a",', *_JSON,
        ),
    ),
    "legacy": Target(
        legacy_log,
        (
            b"?\n", b"@2017-01-01 00:00:00\n", b":!", b"-1 a b\n", b"*", b"{'ope': 'PUT', ",
            b"'path': 'a.b', ", b"'tega_id': 'x', ", b"'instance': {'a': 1}}\n", b"'\\x00'",
            b"((((", b"b'x'", b"1e400", b"{1, 2}", b"\\N{DASH}", b"\n", b"0x1", b"1_0", b"-",
        ),
    ),
    "rules": Target(
        rules,
        (
            *_YAML, b"identities:\n", b"rules:\n", b"who: ", b"on: ", b"may: rwxsp", b"manage: ",
            b"anybody", b"known", b"tega_ids: ", b"roles: ", b"certificate: ", b'"*"',
        ),
    ),
    "credential": Target(credential, (b"Bearer ", b"bearer", b"alice", b".", b" ", b"Basic ")),
    "query": Target(query, (b"/a/", b"?", b"&", b"=", b"version=", b"flag=", b"-1", b"9" * 20,
                            b"True", b"%", b"%ff", b"+", b";", b"\xc3\xa9")),
    "transaction": Target(
        transaction,
        (
            b'{"ops":[', b'{"ope":"PUT","path":"a","instance":', b'{"ope":"DELETE","path":"a.b"}',
            b'{"ope":"GET","path":"a"', b',"regex_flag":true', b',"version":', b',"internal":true',
            b',"ephemeral":true', b'],"txid":"t"}', b',"seq":1', b"}]}", b"%me.f", *_JSON, *_PATHS,
        ),
    ),
    "yaml": Target(yaml, (*_YAML, *_JSON)),
    "line": Target(
        line,
        (
            b"put ", b"get ", b"del ", b"rollback ", b"sub ", b"watch ", b"pub ", b"rpc ", b"a.b",
            b"--version ", b"-1", b"(", b")", b"f(1, x=2)", b"'", b'"', b",", b"=", b"\\", *_PATHS,
        ),
    ),
    "tokens": Target(tokens, (*_YAML, b"sha256: ", b"0" * 64, b"made: ", b"alice:\n")),
    "settings": Target(
        settings, (*_YAML, b"port: 1\n", b"logdir: /tmp\n", b"config: [a, b]\n", b"9" * 5_000)
    ),
    "peer": Target(
        peer,
        (
            *_JSON, b'"have":', b'"follow":', b'"lead":', b'"tega_ids":', b'"functions":',
            b'"ops":[', b'"rollback":', b'"txid":', b'"root":', b'"barrier":', b'"code":"locked"',
            b'"path":"a.b"', b'"ope":"PUT"', b'"instance":',
        ),
    ),
}  # fmt: skip


def attempt(name: str, data: bytes) -> None:
    """Try one input.

    :raises Exception: whatever the parser should not have raised
    :raises AssertionError: where it gives what it should not, or takes too long
    """
    took = BOUND
    for _ in range(3):
        begun = time.process_time()
        TARGETS[name].run(data)
        took = min(took, time.process_time() - begun)
        # What takes long again was not the collector's work.
        if took < BOUND:
            break
    assert took < BOUND, f"{took:.2f} s for {len(data)} bytes"


def kept(name: str) -> dict[str, bytes]:
    """The corpus of a target: inputs by the names of their files."""
    there = CORPUS / name
    files = sorted(there.iterdir()) if there.exists() else []
    return {file.name: file.read_bytes() for file in files}
