"""Local servers that connect over TLS, with tokens and certificates of their own."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from pathlib import Path

import pytest
from realservers import RealServer, until
from test_dialer import (
    GRANTED,
    SECRET,
    Global,
    Middleman,
    dialing,
    on_clock,
    settle,
    warnings,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "behaviour"))
from certificates import Authority, Pair, flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from guarded import TOKEN
from scripted import on_loop

from tega.driver import Driver, Tls
from tega.driver.credentials import Credentials, read_token
from tega.driver.proxy import Proxy

HOST = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Secure(RealServer):
    """A global server that speaks TLS."""

    def __init__(self, directory: Path, authority: Authority, pair: Pair) -> None:
        super().__init__(
            directory, "g", None, (), (), *flags(pair), "--tls-client-ca", str(authority.file)
        )
        self._authority = authority

    def driver(self) -> Driver:
        """A client of it."""
        return Driver(HOST, self.port, tls=Tls(ca=self._authority.file))


def local(directory: Path, port: int, *given: str) -> RealServer:
    return RealServer(directory, "a", (HOST, port), ("config-a",), ("op-a",), *given)


def reason(server: RealServer) -> str:
    """Why it is not connected to its global server."""
    (up,) = server.health()["peers"]
    return str(up.get("reason"))


# Real servers


@on_loop
async def test_over_tls_through_a_proxy(tmp_path: Path, authority: Authority) -> None:
    """The proxy sees nothing but TLS, and the certificate is that of the server behind it."""
    g = Secure(tmp_path / "g", authority, authority.issue(HOST))
    pair = authority.issue("local-1")
    async with Middleman(GRANTED).running() as middleman:

        def run() -> None:
            g.start()
            a = local(
                tmp_path / "a", g.port, "--proxy", f"http://127.0.0.1:{middleman.port}",
                "--gca", str(authority.file), "--gcert", str(pair.cert), "--gkey", str(pair.key),
            )  # fmt: skip
            try:
                a.start()
                until(a.is_up, what="a is connected")
                with g.driver() as driver:
                    driver.put({"mtu": 1500}, path="config-a.eth0")
                    a.put("/op-a/load/", 1)
                    until(lambda: a.get("/config-a/") == {"eth0": {"mtu": 1500}})
                    until(lambda: "op-a" in driver.roots()[2])
                    assert driver.get("op-a", python_dict=True) == {"load": 1}
                a.end()
                with g.driver() as driver:
                    driver.roots()
                g.end()
            finally:
                for server in (a, g):
                    if server.alive:
                        server.kill()
            assert "Traceback" not in a.said + g.said

        await asyncio.to_thread(run)
        assert middleman.heads == [
            f"CONNECT {HOST}:{g.port} HTTP/1.1\r\nHost: {HOST}:{g.port}\r\n\r\n"
        ]


def test_what_is_wrong_is_told_and_may_be_mended(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    g = Secure(tmp_path / "g", authority, authority.issue(HOST))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(other.file.read_bytes())
    g.start()
    a = local(tmp_path / "a", g.port, "--gca", str(trusted))
    try:
        a.start()
        until(lambda: "nobody who is trusted here has signed its certificate" in reason(a))
        trusted.write_bytes(authority.file.read_bytes())
        # The next try may be half a minute away.
        a.ask("POST", "/_sync")
        until(a.is_up, what="a has read its files again")
        a.end()
        g.end()
    finally:
        for server in (a, g):
            if server.alive:
                server.kill()


# The dialer


@on_clock
async def test_a_token_is_read_for_each_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    tokens = ["a.first", "a.second"]

    def credentials() -> Credentials:
        file.write_text(tokens.pop(0))
        return Credentials.of(read_token(file), None)

    body = b'{"error":{"code":"unauthorized","message":"no token \x1b[31m, or a wrong one"}}'
    body = body.replace(b"\x1b", b"\\u001b")
    async with Global().running() as server:
        server.raw = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (
            len(body), body,
        )  # fmt: skip
        with warnings(caplog, "401 Unauthorized: no token"):
            async with dialing(server.port, credentials=credentials) as local:
                assert await local.waiting() == (
                    "401 Unauthorized: no token [31m, or a wrong one"
                )
                assert local.dice.rolls == [(15.0, 30.0)]
                server.raw = None
                local.dialer.kick()
                await local.connected()
        assert [head.partition("Authorization: ")[2].split("\r\n")[0] for head in server.heads] == [
            "Bearer a.first", "Bearer a.second"
        ]  # fmt: skip
        assert "first" not in caplog.text


@pytest.mark.parametrize(("status", "pause"), [(403, 15.0), (503, 0.0), (400, 0.0)])
@on_clock
async def test_what_a_refusal_means(status: int, pause: float) -> None:
    async with Global().running() as server:
        server.raw = b"HTTP/1.1 %d Something\r\nContent-Length: 0\r\n\r\n" % status
        async with dialing(server.port) as local:
            assert await local.waiting() == f"no WebSocket: {status} Something"
            assert local.dice.rolls[0][0] == pause


@on_clock
async def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    file = tmp_path / "token"

    def credentials() -> Credentials:
        return Credentials.of(read_token(file), None)

    async with Global().running() as server, dialing(
        server.port, credentials=credentials
    ) as local:
        assert await local.waiting() == f"{file} cannot be read: No such file or directory"
        assert local.dice.rolls == [(15.0, 30.0)]
        assert not server.heads
        file.write_text(TOKEN)
        local.dialer.kick()
        await local.connected()


@on_clock
async def test_the_proxy_does_not_see_the_token(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pair = authority.issue("global.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    for tls, expected in (
        (Tls(ca=authority.file, server_name="global.example"), None),
        (Tls(ca=authority.file), "its certificate is for another name"),
    ):
        async with Global().running(context) as server, Middleman(GRANTED).running() as middleman:
            proxy = Proxy.parse(f"http://eve:{SECRET}@127.0.0.1:{middleman.port}")
            credentials = Credentials.of(TOKEN, tls)
            async with dialing(
                server.port, proxy=proxy, credentials=lambda made=credentials: made
            ) as local:
                if expected is None:
                    await local.connected()
                    assert f"Authorization: Bearer {TOKEN}\r\n" in server.heads[0]
                else:
                    assert expected in await local.waiting()
                    assert local.dice.rolls == [(15.0, 30.0)]
                    assert not server.heads
            await settle()
            assert "Bearer" not in middleman.heads[0]
    assert TOKEN not in caplog.text
