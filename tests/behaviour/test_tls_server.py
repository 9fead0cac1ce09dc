"""TLS at a real server, and what both drivers make of it: good certificates, bad ones and none."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Pair, flags
from service import ROOT, Service, check

from tega.driver import (
    AsyncDriver,
    CRUDException,
    Driver,
    SessionException,
    Tls,
)
from tega.errors import Malformed
from tega.subscriber import Subscriber
from tega.tls import names_of

#: Most seconds to wait for what must happen.
PATIENCE = 20.0

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def clients(directory: Path) -> Authority:
    """Signs the certificates of clients."""
    return Authority(directory, "clients")


@pytest.fixture(scope="module")
def service(directory: Path, authority: Authority, clients: Authority) -> Iterator[Service]:
    """A server that takes client certificates."""
    pair = authority.issue("localhost", HOST)
    started = Service(
        directory / "var", "-t", "srv", *flags(pair), "--tls-client-ca", str(clients.file)
    )
    yield started
    assert started.end()[0] == 0
    check(directory / "var", "srv")


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    return Tls(ca=authority.file)


def answer_of(sock: socket.socket, request: bytes) -> tuple[bytes, Any]:
    """What a request is answered, on a connection that ends with it: status line and value."""
    sock.sendall(request)
    answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body)


async def session_error(port: int, **options: Any) -> Exception:
    """Why there is no session."""
    driver = AsyncDriver(HOST, port, **{"timeout": PATIENCE} | options)
    with pytest.raises((OSError, SessionException)) as failed:
        await driver.connect()
    await driver.close()
    return failed.value


def errors(port: int, **options: Any) -> list[Exception]:
    """Why each kind of driver has no connection: by HTTP and by WebSocket."""
    with (
        Driver(HOST, port, **{"timeout": PATIENCE} | options) as driver,
        pytest.raises((OSError, CRUDException)) as failed,
    ):
        driver.put(1, path="nothing")

    async def manage() -> None:
        client = AsyncDriver(HOST, port, **{"timeout": PATIENCE} | options)
        try:
            await client.roots()
        finally:
            await client.close()

    with pytest.raises((OSError, CRUDException)) as managed:
        asyncio.run(manage())
    return [failed.value, managed.value, asyncio.run(session_error(port, **options))]


# What works


def test_both_drivers_work(service: Service, tls: Tls) -> None:
    async def ask() -> None:
        async with AsyncDriver("localhost", service.port, tls=tls) as other:
            assert await other.get("both", python_dict=True) == {"x": 1}
            async with other.watch("both") as changes:
                with Driver(HOST, service.port, tls=tls) as driver:
                    await asyncio.to_thread(driver.put, "y" * 500_000, path="both.long")
                change = await asyncio.wait_for(anext(changes), PATIENCE)
                assert change.instance == "y" * 500_000
            await other.serve("both.f", lambda number: number + 1)
            assert await other.rpc("both.f", 1) == 2
            assert "both" in (await other.roots())[2]

    with Driver(HOST, service.port, tls=tls) as driver:
        driver.put({"x": 1}, path="both")
        asyncio.run(ask())
        driver.begin()
        driver.put(2, path="both.x")
        driver.commit()
        assert driver.get("both.x", python_dict=True) == 2


def test_a_driver_stays_on_its_connection(
    service: Service, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshakes = []
    wrap = ssl.SSLContext.wrap_socket

    def wrapped(self: ssl.SSLContext, *args: Any, **options: Any) -> ssl.SSLSocket:
        handshakes.append(args)
        return wrap(self, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrapped)
    with Driver(HOST, service.port, tls=tls) as driver:
        for number in range(5):
            driver.put(number, path="stays.x")
    assert len(handshakes) == 1


def test_a_subscriber_in_the_background(service: Service, tls: Tls) -> None:
    heard: list[Any] = []

    class Ear(Subscriber):
        def on_notify(self, notifications: list[dict[str, Any]]) -> None:
            heard.append(notifications)

    async def listen() -> None:
        with Driver(HOST, service.port, subscriber=Ear("ear"), tls=tls) as driver:
            running = asyncio.ensure_future(driver.subscriber_client())
            assert await asyncio.to_thread(driver.session_ready, PATIENCE)
            driver.subscribe("background")
            async with AsyncDriver(HOST, service.port, tls=tls) as other:
                end = time.monotonic() + PATIENCE
                while not heard:
                    assert time.monotonic() < end
                    await other.put(1, path="background.x")
                    await asyncio.sleep(0.01)
            driver.close()
            await running

    asyncio.run(listen())
    assert heard[0][0]["path"] == "background.x"


def test_an_early_refusal_is_read(tmp_path: Path, authority: Authority, tls: Tls) -> None:
    service = Service(
        tmp_path, *flags(authority.issue("localhost", HOST)), "--max-body", "1000"
    )
    with Driver(HOST, service.port, tls=tls) as driver:
        for size in (2000, 100_000):
            with pytest.raises(CRUDException) as refused:
                driver.put("x" * size, path="large")
            assert refused.value.status == 413
        driver.put(1, path="small")
    assert service.end()[0] == 0


def test_a_context_of_ones_own(service: Service, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    with Driver(HOST, service.port, tls=context) as driver:
        driver.put(1, path="own.x")


def test_another_name_may_be_expected(tmp_path: Path, authority: Authority) -> None:
    service = Service(tmp_path, *flags(authority.issue("tega.example")))
    wrong = Tls(ca=authority.file)
    for error in errors(service.port, tls=wrong):
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert "its certificate is for another name" in str(error)
        assert HOST in str(error)
    right = Tls(ca=authority.file, server_name="tega.example")

    async def ask() -> None:
        async with AsyncDriver(HOST, service.port, tls=right) as other:
            await other.put(1, path="a")
            await other.roots()

    asyncio.run(ask())
    with Driver(HOST, service.port, tls=right) as driver:
        assert driver.get("a", python_dict=True) == 1
    unverified = Tls(ca=authority.file, verify=False)
    with Driver(HOST, service.port, tls=unverified) as driver:
        assert driver.get("a", python_dict=True) == 1
    assert service.end()[0] == 0


# What does not


def test_an_unknown_authority(service: Service, clients: Authority) -> None:
    for tls in (True, Tls(ca=clients.file)):
        for error in errors(service.port, tls=tls):
            assert isinstance(error, ssl.SSLCertVerificationError)
            assert re.fullmatch(
                rf"cannot connect to a tega server at {HOST}:{service.port}: nobody who is trusted "
                r"here has signed its certificate \(.*\): give the file of its authority as ca",
                str(error),
            )


def test_a_certificate_that_has_expired(tmp_path: Path, authority: Authority, tls: Tls) -> None:
    service = Service(tmp_path, *flags(authority.issue(HOST, days=-1)))
    for error in errors(service.port, tls=tls):
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert "(certificate has expired): renew it, or set the clocks" in str(error)
    assert service.end()[0] == 0


def test_a_session_begins_with_an_error_not_with_silence(service: Service) -> None:
    """Also where it would try for ever to reach a server."""

    async def run() -> None:
        with (
            Driver(HOST, service.port, subscriber=Subscriber("ear"), tls=True) as driver,
            pytest.raises(ssl.SSLCertVerificationError, match="nobody who is trusted"),
        ):
            await asyncio.wait_for(driver.subscriber_client(), PATIENCE)

    asyncio.run(run())


def test_no_tls_where_it_is_wanted(service: Service) -> None:
    for error in errors(service.port):
        assert isinstance(error, CRUDException | SessionException)
        assert error.status == 400
        assert "this server speaks TLS here" in error.message
    with socket.create_connection((HOST, service.port), PATIENCE) as raw:
        head = b"PUT /x/ HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n"
        status, body = answer_of(raw, head + b"x" * 60_000)
        assert status == b"HTTP/1.1 400 Bad Request"
        assert body["error"]["code"] == "malformed"


def test_tls_where_there_is_none(tmp_path: Path, tls: Tls) -> None:
    plain = Service(tmp_path)
    for error in errors(plain.port, tls=tls):
        assert isinstance(error, ssl.SSLError)
        assert "it does not speak TLS on that port: connect without TLS" in str(error)
    status, messages = plain.end()
    assert status == 0
    assert "127.0.0.1 speaks TLS, and this server does not" in messages


def test_tls_where_something_else_answers(tls: Tls) -> None:
    async def run() -> list[str]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read(100)
            writer.close()

        server = await asyncio.start_server(serve, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        found = str(await session_error(port, tls=tls))

        def ask() -> str:
            with Driver(HOST, port, tls=tls) as driver, pytest.raises(OSError) as failed:
                driver.roots()
            return str(failed.value)

        said = [found, await asyncio.to_thread(ask)]
        server.close()
        return said

    for text in asyncio.run(run()):
        assert "it does not speak TLS on that port: connect without TLS" in text


def test_old_versions_are_refused(service: Service, authority: Authority) -> None:
    for most in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = ssl.create_default_context(cafile=authority.file)
        # The system may forbid them to clients too.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = most
        with (
            socket.create_connection((HOST, service.port), PATIENCE) as raw,
            pytest.raises(ssl.SSLError) as failed,
        ):
            context.wrap_socket(raw, server_hostname=HOST)
        assert failed.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=authority.file)
        context.minimum_version = context.maximum_version = version
        with Driver(HOST, service.port, tls=context) as driver:
            driver.put(1, path="versions.x")


def test_rubbish_leaves_the_server_well(service: Service, tls: Tls) -> None:
    quiet = [socket.create_connection((HOST, service.port)) for _ in range(50)]
    for rubbish in (b"\x16", b"\x16\x03\x01\x02\x00" + b"\x00" * 512, b"\x00", b"\x16" * 70_000):
        with socket.create_connection((HOST, service.port), PATIENCE) as raw:
            raw.sendall(rubbish)
    begun = time.monotonic()
    with Driver(HOST, service.port, tls=tls) as driver:
        driver.put(1, path="rubbish.x")
    assert time.monotonic() - begun < 5
    for one in quiet:
        one.close()


# Certificates of clients


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificates_of_clients(
    service: Service, authority: Authority, clients: Authority, version: ssl.TLSVersion
) -> None:
    def shown(pair: Pair) -> ssl.SSLContext:
        context = Tls(ca=authority.file, cert=pair.cert, key=pair.key).context()
        context.maximum_version = version
        return context

    with Driver(HOST, service.port, tls=shown(clients.issue("client.example"))) as driver:
        driver.put(1, path="clients.x")
    for pair in (authority.issue("client.example"), clients.issue("client.example", days=-1)):
        for error in errors(service.port, tls=shown(pair)):
            assert isinstance(error, OSError)
            text = str(error)
            assert text.startswith(f"cannot connect to a tega server at {HOST}:{service.port}: ")
            assert "it does not take the certificate of this client" in text
            assert "may have been done" not in text


def test_key_and_certificate_may_share_a_file(
    service: Service, authority: Authority, clients: Authority, tmp_path: Path
) -> None:
    pair = clients.issue("client.example")
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    with Driver(HOST, service.port, tls=Tls(ca=authority.file, cert=both)) as driver:
        driver.put(1, path="clients.x")
    with pytest.raises(Malformed, match="is for no certificate"):
        Driver(HOST, service.port, tls=Tls(key=pair.key))


def test_whom_a_certificate_is_for(authority: Authority, clients: Authority) -> None:
    pair = clients.issue("a.example", "*.b.example", common_name="agent-1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = authority.issue("localhost")
    server.load_cert_chain(own.cert, own.key)
    server.load_verify_locations(clients.file)
    server.verify_mode = ssl.CERT_REQUIRED
    here, there = socket.socketpair()
    client = Tls(ca=authority.file, cert=pair.cert, key=pair.key).context()

    async def shake() -> dict[str, Any]:
        connecting = asyncio.to_thread(client.wrap_socket, there, server_hostname="localhost")
        accepted, connected = await asyncio.gather(
            asyncio.to_thread(server.wrap_socket, here, server_side=True), connecting
        )
        with accepted, connected:
            found = accepted.getpeercert()
            assert found is not None
            return found

    assert names_of(asyncio.run(shake())) == ["agent-1", "a.example", "*.b.example"]
    assert names_of({}) == []
    assert names_of(
        {
            "subject": ((("organizationName", "x"),), (("commonName", "a"),)),
            "subjectAltName": (
                ("DNS", "a"), ("URI", "spiffe://x/a"), ("IP Address", "::1"), ("email", "a@b"),
            ),
        }
    ) == ["a", "spiffe://x/a"]  # fmt: skip


# Renewal


def test_a_certificate_is_renewed(tmp_path: Path, authority: Authority, tls: Tls) -> None:
    pair = authority.issue(HOST, "old.example")
    service = Service(tmp_path / "var", *flags(pair))

    def names() -> set[str]:
        context = tls.context()
        with (
            socket.create_connection((HOST, service.port), PATIENCE) as raw,
            context.wrap_socket(raw, server_hostname=HOST) as secured,
        ):
            return {name for kind, name in secured.getpeercert()["subjectAltName"]}

    def until(name: str) -> None:
        end = time.monotonic() + PATIENCE
        while name not in names():
            assert time.monotonic() < end, f"it still has {names()}"
            time.sleep(0.1)

    driver = Driver(HOST, service.port, tls=tls)
    driver.put(1, path="a.x")

    async def stay() -> None:
        async with AsyncDriver(HOST, service.port, tls=tls) as other:
            await other.put(2, path="a.y")
            authority.issue(HOST, "new.example", into=pair)
            await asyncio.to_thread(until, "new.example")
            ids = (await other.ids())[2]
            await other.put(3, path="a.y")
            assert (await other.ids())[2] == ids == [other.tega_id]

    assert "old.example" in names()
    asyncio.run(stay())
    driver.put(4, path="a.x")
    pair.cert.write_text("nothing of the kind")
    service.process.send_signal(1)
    assert service.process.stderr is not None
    for line in service.process.stderr:
        if "the new certificate is not used" in line:
            assert f"{pair.cert}: there is no certificate in PEM form in it" in line
            break
    assert "new.example" in names()
    authority.issue(HOST, "newest.example", into=pair)
    service.process.send_signal(1)
    until("newest.example")
    driver.put(5, path="a.x")
    driver.close()
    assert service.end()[0] == 0


def test_a_reconnect_waits_for_a_good_certificate(
    tmp_path: Path, authority: Authority, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that was there goes on trying: somebody will renew what has expired."""
    pair = authority.issue(HOST)
    service = Service(tmp_path / "var", *flags(pair))

    async def run() -> None:
        async with AsyncDriver(HOST, service.port, tls=tls) as driver:
            await driver.put(1, path="a")
            assert service.end()[0] == 0
            authority.issue(HOST, days=-1, into=pair)
            again = await asyncio.to_thread(
                Service, tmp_path / "var", *flags(pair), "-p", str(service.port)
            )
            asked = asyncio.ensure_future(driver.get("a", python_dict=True))
            end = time.monotonic() + PATIENCE
            while "certificate has expired" not in caplog.text:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            authority.issue(HOST, into=pair)
            again.process.send_signal(1)
            assert await asyncio.wait_for(asked, PATIENCE) == 1
            assert (await asyncio.to_thread(again.end))[0] == 0

    with caplog.at_level(logging.WARNING, "tega.driver"):
        asyncio.run(run())


# The start


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        ("missing.pem", "good", "missing.pem cannot be read: No such file or directory"),
        ("good", "missing.pem", "missing.pem cannot be read: No such file or directory"),
        ("good", "cert", "there is no private key in PEM form in it"),
        ("key", "good", "there is no certificate in PEM form in it"),
        ("good", "other", "the key is not that of the certificate in"),
        ("good", "encrypted", "the key needs a pass phrase; store it without one"),
        ("broken", "good", "broken.pem or .* cannot be used: "),
        (".", "good", "cannot be read: Is a directory"),
    ],
)
def test_files_that_cannot_be_used(
    cert: str, key: str, says: str, tmp_path: Path, authority: Authority
) -> None:
    pair = authority.issue(HOST)
    named = {"good": pair.cert, "key": pair.key, "broken": tmp_path / "broken.pem"}
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    keys = {"good": pair.key, "cert": pair.cert, "other": authority.issue(HOST).key}
    if key == "encrypted":
        keys[key] = tmp_path / "encrypted.pem"
        program = shutil.which("openssl")
        if program is None:
            pytest.skip("openssl is not installed")
        subprocess.run(
            [program, "pkcs8", "-topk8", "-in", pair.key, "-out", keys[key],
             "-passout", "pass:secret"],
            check=True, capture_output=True,
        )  # fmt: skip
    done = start(
        tmp_path, "--tls-cert", str(named.get(cert, tmp_path / cert)),
        "--tls-key", str(keys.get(key, tmp_path / key)),
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(says, done.stderr)
    assert "Traceback" not in done.stderr


def test_authorities_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue(HOST)
    done = start(tmp_path, *flags(pair), "--tls-client-ca", str(pair.key))
    assert done.returncode == 1
    assert f"{pair.key}: there is no certificate in PEM form in it" in done.stderr


def start(directory: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """A server that does not start."""
    return subprocess.run(
        [sys.executable, "-m", "tega.server", "-d", str(directory / "var"), "-p", "0", *given],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
