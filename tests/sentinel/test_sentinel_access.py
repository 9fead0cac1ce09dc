"""TLS, users and tokens: both ends show what they are asked for, and say what was refused."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import things
from certificates import Authority, Pair, flags
from databases import SQLite
from etcdserver import PROGRAM, Etcd
from guardedsite import tokens_for
from mirrors import Mirror
from processes import until
from sentinels import Sentinel
from tegaserver import TegaServer
from things import PREFIX, thing

from tega.access.keeper import remove_tokens

HOST = "127.0.0.1"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="etcd is not installed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Pair:
    """Of servers."""
    return authority.issue("localhost", HOST)


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    """Of whoever asks them."""
    return authority.issue("sentinel.example")


@pytest.fixture(scope="module")
def tls(authority: Authority, client: Pair) -> ssl.SSLContext:
    """How the tests speak with them."""
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(client.cert, client.key)
    return context


def secured(authority: Authority, certificate: Pair) -> list[str]:
    """The flags of an etcd that speaks TLS, and wants certificates."""
    return [
        "--cert-file", str(certificate.cert), "--key-file", str(certificate.key),
        "--trusted-ca-file", str(authority.file), "--client-cert-auth",
    ]  # fmt: skip


@pytest.fixture
def guarded(
    tmp_path: Path, authority: Authority, certificate: Pair, tls: ssl.SSLContext
) -> Iterator[Etcd]:
    """An etcd with TLS that wants a certificate of clients, and a user with a password."""
    (tmp_path / "etcd").mkdir()
    etcd = Etcd(tmp_path / "etcd", *secured(authority, certificate), tls=tls)
    try:
        etcd.start()
        etcd.protect({"reader": ("pass/word", "/things/")})
        yield etcd
    finally:
        etcd.end()


@pytest.fixture
def served(
    tmp_path: Path, authority: Authority, certificate: Pair, tls: ssl.SSLContext
) -> Iterator[TegaServer]:
    """A tega server with TLS that wants tokens, or a certificate."""
    place = tmp_path / "served"
    place.mkdir()
    tokens = tokens_for(place / "log", "admin", "reader", "writer")
    (place / "log" / "access.yaml").write_text(
        "identities:\n  boxes: {certificate: sentinel.example, tega_ids: [tega-sentinel-*]}\n"
        "  reader: {}\n"
        "rules:\n- {who: [admin, boxes], may: rwxsp}\n- {who: reader, on: things, may: r}\n"
        "- {who: writer, on: copy, may: rw}\n- {who: writer, on: tega-sentinel, may: rw}\n"
    )
    (tmp_path / "token").write_text(tokens["reader"] + "\n")
    (tmp_path / "writer").write_text(tokens["writer"] + "\n")
    plain = ssl.create_default_context(cafile=authority.file)
    server = TegaServer(
        place, *flags(certificate), "--tls-client-ca", str(authority.file), tls=plain
    )
    server.token = tokens["admin"]
    try:
        server.start()
        yield server
    finally:
        server.end()


def not_often(sentinel: Sentinel, refusal: str) -> None:
    """Whether it says what is refused, and tries again at growing intervals."""
    sentinel.launch()
    sentinel.says(refusal)
    time.sleep(3)
    assert sentinel.alive
    tries = len(re.findall(refusal, sentinel.said_now))
    assert tries <= 10, sentinel.said_now
    assert sentinel.end() == 0


# -- etcd -----------------------------------------------------------------------------------------


def test_etcd_with_tls_and_a_user(
    guarded: Etcd, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    mirror = Mirror(guarded, SQLite(tmp_path / "mirror.db"), tmp_path)
    sentinel = mirror.sentinel
    (tmp_path / "password").write_text("pass/word\n")
    known = ["--source-ca", str(authority.file)]
    shown = ["--source-cert", str(client.cert), "--source-key", str(client.key)]
    user = ["--source-user", "reader"]
    plain = list(sentinel.arguments)
    file = ["--source-password-file", str(tmp_path / "password")]
    guarded.put(f"{PREFIX}lab/1", thing("one"))
    try:
        sentinel.arguments = [*plain, *known, *shown, *user, *file]
        sentinel.start()
        guarded.put(f"{PREFIX}lab/2", thing("two"))
        mirror.settle()
        # Its token was of the life of the server that has ended.
        guarded.restart()
        guarded.put(f"{PREFIX}lab/1", thing("one", 2))
        guarded.put("/elsewhere", "nothing that this user may read")
        mirror.check()

        # The password in a variable, and a wrong one.
        sentinel.arguments = [*plain, *known, *shown, *user]
        sentinel.variables["TEGA_SENTINEL_SOURCE_PASSWORD"] = "pass/word"
        assert sentinel.run("--verify").status == 0
        sentinel.variables["TEGA_SENTINEL_SOURCE_PASSWORD"] = "wr0ng"
        done = sentinel.run("--once")
        assert done.status == 4
        assert re.search("error source: .*authentication failed", done.said), done.said
        assert "wr0ng" not in done.said
        not_often(sentinel, "error source: .*authentication failed")
        del sentinel.variables["TEGA_SENTINEL_SOURCE_PASSWORD"]

        for arguments, says in (
            ([*plain, *known, *shown], "user name is empty|permission denied"),
            ([*plain, *known, *user, *file], "error source: .*does it take the one in cert"),
            ([*plain, *shown, *user, *file], "error source: .*CERTIFICATE_VERIFY_FAILED"),
        ):
            sentinel.arguments = arguments
            done = sentinel.run("--once")
            assert done.status == 4, done.said
            assert re.search(says, done.said), (arguments, done.said)
    finally:
        mirror.close()


def test_a_user_that_may_not_read_it_all(
    guarded: Etcd, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    done = Sentinel(
        ["--source", guarded.url("/other/"), "--sink", "etcd://127.0.0.1:1/x/", "--verify",
         "--source-ca", str(authority.file), "--source-cert", str(client.cert), "--source-key",
         str(client.key), "--source-user", "reader"],
        {"TEGA_SENTINEL_SOURCE_PASSWORD": "pass/word"},
    ).run()  # fmt: skip
    assert done.status == 4
    assert "permission denied" in done.said


# -- tega -----------------------------------------------------------------------------------------


def test_tega_with_tls_and_a_token(
    served: TegaServer, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    (tmp_path / "things.yaml").write_text(things.TEGA_MAPPING)
    database = SQLite(tmp_path / "mirror.db")
    plain = ["--mapping", str(tmp_path / "things.yaml"), "--sink", database.url]
    known = ["--source", served.url(""), "--source-ca", str(authority.file)]
    token = ["--source-token-file", str(tmp_path / "token")]
    sentinel = Sentinel([*plain, *known, *token])

    def names() -> set[str]:
        return {row["name"] for row in database.rows("thing")}

    served.put(("things", "lab", "1"), {"name": "one"})
    served.put(("other",), "nothing that this token may read")
    try:
        sentinel.start()
        served.put(("things", "lab", "2"), {"name": "two"})
        until(lambda: names() == {"one", "two"}, "a change comes")

        # The token is taken away, and another one given.
        log = served.directory / "log"
        shown = (tmp_path / "token").read_text().strip()
        assert remove_tokens(log / "tokens.yaml", "reader") == 1
        served.restart()
        sentinel.says("error source: .*401 .*; trying again in")
        served.put(("things", "lab", "3"), {"name": "three"})
        (tmp_path / "token").write_text(tokens_for(log, "reader")["reader"] + "\n")
        until(lambda: names() == {"one", "two", "three"}, "it has gone on with the new token")
        assert sentinel.end() == 0
        assert sentinel.run("--verify").status == 0
        assert shown not in sentinel.said

        # A certificate instead, of which the access rules know.
        sentinel.arguments = [
            *plain, *known, "--source-cert", str(client.cert), "--source-key", str(client.key)
        ]
        assert sentinel.run("--verify").status == 0

        sentinel.arguments = [*plain, *known]
        done = sentinel.run("--once")
        assert done.status == 4
        assert re.search("error source: .*401 Unauthorized: .*token", done.said), done.said
        not_often(sentinel, "error source: .*401")
        (tmp_path / "token").write_text("reader.wrong\n")
        sentinel.arguments = [*plain, *known, *token]
        assert "401 Unauthorized" in sentinel.run("--once").said
        sentinel.arguments = [*plain, "--source", served.url(""), *token]
        done = sentinel.run("--once")
        assert done.status == 4
        assert "nobody who is trusted here has signed" in done.said, done.said
    finally:
        if sentinel.alive:
            sentinel.kill()
        sentinel.check_words()


def test_a_token_that_may_not_read_it(
    served: TegaServer, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text(things.TEGA_MAPPING.replace("things.", "other."))
    served.put(("other", "lab", "1"), {"name": "one"})
    sentinel = Sentinel([
        "--mapping", str(tmp_path / "m.yaml"), "--sink", f"sqlite:///{tmp_path}/m.db",
        "--source", served.url(""), "--source-ca", str(authority.file),
        "--source-token-file", str(tmp_path / "token"),
    ])  # fmt: skip
    done = sentinel.run("--once")
    assert done.status == 4
    assert re.search("error source: .*403 .*other", done.said), done.said


def test_both_ends_are_secure(
    served: TegaServer, guarded: Etcd, authority: Authority, client: Pair, tmp_path: Path
) -> None:
    """From etcd into tega, each with what it wants."""
    guarded.put("/things/a/b", "1")
    sentinel = Sentinel(
        ["--source", guarded.url("/things/"), "--source-ca", str(authority.file), "--source-cert",
         str(client.cert), "--source-key", str(client.key), "--source-user", "reader",
         "--sink", served.url("copy"), "--sink-ca", str(authority.file), "--sink-token-file",
         str(tmp_path / "writer")],
        {"TEGA_SENTINEL_SOURCE_PASSWORD": "pass/word"},
    ).with_port()  # fmt: skip
    try:
        sentinel.start()
        assert served.get("copy") == {"a": {"b": 1}}
        guarded.put("/things/a/b", "2")
        until(lambda: served.get("copy") == {"a": {"b": 2}}, "a change comes")
        assert sentinel.health()[0] == 200
        # A lost server shows at once, though no full pass is due for long.
        served.kill()
        until(lambda: sentinel.health()[0] == 503, "it says that it has no connection", 5)
        found = json.dumps(sentinel.health()[1]["connected"])
        assert found == '{"source": true, "sink": false}'
        served.start()
        until(lambda: sentinel.health()[0] == 200, "it says that it has one again")
        assert sentinel.end() == 0
        assert sentinel.run("--verify").status == 0
        sentinel.arguments[sentinel.arguments.index("--sink-token-file") + 1] = str(
            tmp_path / "token"
        )
        done = sentinel.run("--once")
        assert done.status == 4
        assert re.search("error sink: .*403", done.said), done.said
    finally:
        if sentinel.alive:
            sentinel.kill()
        sentinel.check_words()


def test_a_lost_source_shows_at_once(served: TegaServer, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "things.yaml").write_text(things.TEGA_MAPPING)
    sentinel = Sentinel([
        "--mapping", str(tmp_path / "things.yaml"), "--sink", f"sqlite:///{tmp_path}/m.db",
        "--source", served.url(""), "--source-ca", str(authority.file),
        "--source-token-file", str(tmp_path / "token"),
    ]).with_port()  # fmt: skip
    try:
        sentinel.start()
        assert sentinel.health()[0] == 200
        served.kill()
        until(lambda: sentinel.health()[0] == 503, "it says that it has no connection", 5)
        served.start()
        until(lambda: sentinel.health()[0] == 200, "it says that it has one again")
        assert sentinel.end() == 0
    finally:
        if sentinel.alive:
            sentinel.kill()
        sentinel.check_words()
