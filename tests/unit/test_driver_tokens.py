"""Tokens of clients: they are shown with each request and handshake, and to nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from guarded import SECRET, TOKEN, Guarded
from scripted import PATIENCE, Scripted, on_loop

from tega.driver import AsyncDriver, CRUDException, Driver, SessionException, Tls
from tega.driver import session as module
from tega.driver.credentials import Credentials, read_token
from tega.errors import Malformed
from tega.subscriber import Subscriber

WRONG = "agent.wrong"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


async def ask(server: Scripted, use: Callable[[Driver], Any], **options: Any) -> Any:
    """Do something with a synchronous driver."""

    def run() -> Any:
        with Driver("127.0.0.1", server.port, timeout=PATIENCE, **options) as driver:
            return use(driver)

    return await asyncio.to_thread(run)


def every_verb(driver: Driver) -> None:
    driver.put(1, path="a")
    driver.get("a", python_dict=True)
    driver.delete("a")
    driver.roots()
    driver.begin()


@on_loop
async def test_it_is_shown_with_each_request() -> None:
    async with Guarded().running() as server:
        await ask(server, every_verb, token=TOKEN)
        assert server.shown == [f"Bearer {TOKEN}"] * 5
        async with AsyncDriver("127.0.0.1", server.port, token=TOKEN) as driver:
            assert server.shown == [f"Bearer {TOKEN}"] * 6
            await driver.put(1, path="a")
            assert len(server.shown) == 6, "a session has shown it at its beginning"
            server.peer.cut()
            await driver.put(2, path="a")
            await driver.roots()
        assert server.shown == [f"Bearer {TOKEN}"] * 8


@on_loop
async def test_without_one_there_is_no_header() -> None:
    async with Guarded().running() as server:
        with pytest.raises(CRUDException):
            await ask(server, every_verb)
        assert server.shown == [None]


@pytest.mark.parametrize("token", [None, WRONG])
@on_loop
async def test_a_request_is_refused_once(token: str | None) -> None:
    async with Guarded().running() as server:
        with pytest.raises(CRUDException) as refused:
            await ask(server, lambda driver: driver.put(1, path="a"), token=token)
        error = refused.value
        assert (error.status, error.reason, error.code) == (401, "Unauthorized", "unauthorized")
        assert error.message == "no token, or a wrong one: see tega-server"
        driver = AsyncDriver("127.0.0.1", server.port, token=token)
        with pytest.raises(CRUDException) as refused:
            await driver.roots()
        await driver.close()
        assert refused.value.status == 401
        assert len(server.shown) == 2
        server.token, server.forbids = token or TOKEN, True
        with pytest.raises(CRUDException) as refused:
            await ask(server, lambda driver: driver.put(1, path="a"), token=server.token)
        assert (refused.value.status, refused.value.code) == (403, "forbidden")
        assert refused.value.message == "agent may not do this"


@on_loop
async def test_a_session_is_refused_with_the_reason() -> None:
    async with Guarded().running() as server:
        driver = AsyncDriver("127.0.0.1", server.port, token=WRONG)
        with pytest.raises(SessionException) as refused:
            await driver.connect()
        error = refused.value
        assert (error.status, error.reason, error.code) == (401, "Unauthorized", "unauthorized")
        assert error.message == "no token, or a wrong one: see tega-server"
        server.forbids = True
        driver = AsyncDriver("127.0.0.1", server.port, token=TOKEN)
        with pytest.raises(SessionException) as refused:
            await driver.connect()
        assert (refused.value.status, refused.value.message) == (403, "agent may not do this")
        with (
            Driver("127.0.0.1", server.port, subscriber=Subscriber("s"), token=WRONG) as waiting,
            pytest.raises(SessionException, match="401 Unauthorized: no token, or a wrong one"),
        ):
            await waiting.subscriber_client()
        assert len(server.shown) == 3


@on_loop
async def test_a_token_that_is_taken_away_ends_the_session() -> None:
    """It will not be right again by asking again: the program has to get another one."""
    async with Guarded().running() as server:
        async with AsyncDriver("127.0.0.1", server.port, token=TOKEN) as driver:
            server.token = None
            server.peer.cut()
            with pytest.raises(SessionException, match="401 Unauthorized: no token, or a wrong"):
                await driver.get("a")
        assert len(server.shown) == 2


@on_loop
async def test_what_passes_is_tried_again() -> None:
    async def crowded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(await reader.readuntil(b"\r\n\r\n"))
        if len(tries) > 3:
            often.set()
        body = b'{"error":{"code":"over_limit","message":"too many connections"}}'
        writer.write(
            b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:9]
        )
        await writer.drain()
        writer.write(body[9:])
        await writer.drain()
        writer.close()

    tries: list[bytes] = []
    often = asyncio.Event()
    server = await asyncio.start_server(crowded, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionError, match=r"429 Too Many Requests: too many connections$"):
        await AsyncDriver("127.0.0.1", port).connect()
    driver = Driver("127.0.0.1", port, subscriber=Subscriber("s"))
    running = asyncio.ensure_future(driver.subscriber_client())
    await asyncio.wait_for(often.wait(), PATIENCE)
    driver.close()
    await running
    server.close()


# Who asks


def test_the_tega_id_is_of_the_identity() -> None:
    assert Driver(token=TOKEN).tega_id.startswith("agent-")
    assert AsyncDriver(token=TOKEN).tega_id.startswith("agent-")
    assert Driver(token=TOKEN).tega_id != Driver(token=TOKEN).tega_id
    assert Driver().tega_id.startswith("driver-")
    assert Driver(token=TOKEN, tega_id="me").tega_id == "me"
    assert AsyncDriver(token=TOKEN, subscriber=Subscriber("s")).tega_id == "s"


@pytest.mark.parametrize(
    "token",
    ["", SECRET, f".{SECRET}", "agent.", "a b.c", f"{TOKEN}\n", f"{TOKEN}\r\nX: y", "a.b.c", "é.b",
     "a.b=", b"a.b", 7],
)  # fmt: skip
def test_what_is_no_token(token: Any) -> None:
    for kind in (Driver, AsyncDriver):
        with pytest.raises(Malformed) as failed:
            kind(token=token)
        assert str(failed.value) == (
            "the token is not right: it is NAME.SECRET, as tega-server has printed it"
        )


# Who does not see it


@on_loop
async def test_it_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = [repr(Credentials(TOKEN)), str(Credentials(TOKEN))]
    async with Guarded().running() as server:
        server.forbids = True
        with pytest.raises(CRUDException) as refused:
            await ask(server, lambda driver: driver.put(1, path="a"), token=TOKEN)
        told.append(repr(refused.getrepr(chain=True)))
        driver = AsyncDriver("127.0.0.1", server.port, token=TOKEN)
        told.append(repr(driver))
        with pytest.raises(SessionException) as ended:
            await driver.connect()
        told.append(repr(ended.value) + repr(ended.value.__context__))
    with pytest.raises(OSError, match="cannot connect") as failed:
        await ask(server, lambda driver: driver.put(1, path="a"), token=TOKEN)
    told.append(repr(failed.value))
    assert SECRET not in "".join(told) + caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST."])
def test_nobody_is_on_the_way_to_this_machine(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    Driver(host, token=TOKEN)
    assert not caplog.records


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "tega.example", "localhost.example"])
def test_it_is_warned_once_of_a_way_without_tls(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    Driver(host, 1234)
    Driver(host, 1234, token=TOKEN, tls=True)
    assert not caplog.records
    for _ in range(2):
        Driver(host, 1234, token=TOKEN)
        AsyncDriver(host, 1234, token=TOKEN)
    shown = f"[{host}]:1234" if ":" in host else f"{host}:1234"
    assert [record.getMessage() for record in caplog.records] == [
        f"the token goes to {shown} without TLS: whoever is on the way can read it"
    ]


# Files


def test_a_file_with_a_token(tmp_path: Any) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN
    for content in (b"", b"\xff\xfe", b"two words", b"x" * 5000):
        file.write_bytes(content)
        with pytest.raises(Malformed) as failed:
            read_token(file)
        assert str(failed.value) == (
            f"{file}: the token is not right: it is NAME.SECRET, as tega-server has printed it"
        )
    with pytest.raises(Malformed, match="token2 cannot be read: No such file or directory"):
        read_token(tmp_path / "token2")


def test_files_of_tls_are_named() -> None:
    for tls in (Tls(ca="/nowhere.pem"), Tls(cert="/nowhere.pem")):
        with pytest.raises(Malformed, match=r"^/nowhere\.pem cannot be read: No such file"):
            Driver(tls=tls)
    with pytest.raises(Malformed, match=r"^tls is 'ca\.pem': give True, a Tls, or an"):
        Driver(tls="ca.pem")
