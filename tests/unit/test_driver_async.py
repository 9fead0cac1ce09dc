"""What the asynchronous driver does over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from scripted import on_loop
from test_driver import BEGUN, DONE, HALF, LOST, PATIENCE, SILENT, Server, refusal, server

import tega.driver
from tega.driver import AsyncDriver, CRUDException, Driver, TransactionException, exchange
from tega.errors import Malformed
from tega.tree import Cont

__all__ = ["server"]


def made(server: Server, **options: Any) -> AsyncDriver:
    return AsyncDriver("127.0.0.1", server.server_port, "me", timeout=PATIENCE, **options)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PAUSES", (0.0, 0.001, 0.001))


@on_loop
async def test_management_is_that_of_the_other_driver(server: Server) -> None:
    verbs = ["clear", "ss", "sync", "roots", "old", "channels", "subscribers", "ids", "global",
             "global_", "forwarders", "plugins", "reload", "edges"]  # fmt: skip
    answer = (200, {"r": 0})
    with Driver("127.0.0.1", server.server_port, "me", timeout=PATIENCE) as other:
        driver = made(server)
        for verb in verbs:
            server.play(answer, answer)
            assert await getattr(driver, verb)() == getattr(other, verb)() == (200, "OK", {"r": 0})
        server.play(answer, answer)
        await driver.edges("r.x y", old_roots=True)
        other.edges("r.x y", old_roots=True)
        await driver.rollback("r", -1)
        other.rollback("r", -1)
    for one, two in zip(server.seen[::2], server.seen[1::2], strict=True):
        assert (one.method, one.path, one.query, one.body) == (
            two.method, two.path, two.query, two.body
        )  # fmt: skip
        assert (one.key is None) == (two.key is None)


@on_loop
async def test_a_transaction_from_begin_to_commit(server: Server) -> None:
    driver = made(server)
    r = Cont("r")
    r.x = 1
    server.play(BEGUN, BEGUN, BEGUN, (200, []), DONE)
    assert driver.txid is None
    assert await driver.begin() == driver.txid == "t1"
    with pytest.raises(TransactionException, match="t1 is open"):
        await driver.begin()
    with pytest.raises(TransactionException, match="t1 is open"):
        await driver.join("t2")
    assert await driver.put(r.x.ephemeral_()) == {"txid": "t1"}
    assert await driver.delete("r.y", version=2) == {"txid": "t1"}
    assert await driver.cand() == []
    assert await driver.commit() == "t1"
    assert driver.txid is None
    assert [(seen.method, seen.path, seen.query) for seen in server.seen] == [
        ("POST", "/_begin", {"tega_id": "me"}),
        ("PUT", "/r/x/", {"tega_id": "me", "txid": "t1", "ephemeral": "true"}),
        ("DELETE", "/r/y/", {"tega_id": "me", "txid": "t1", "version": "2"}),
        ("POST", "/_cand", {"txid": "t1"}),
        ("POST", "/_commit", {"txid": "t1"}),
    ]
    for step in (driver.cand, driver.cancel, driver.commit):
        with pytest.raises(TransactionException, match="without a transaction"):
            await step()
    await driver.join("t2")
    assert await driver.cancel() == "t2"


@on_loop
async def test_a_commit_of_unknown_outcome_can_be_asked_again(server: Server) -> None:
    driver = made(server)
    server.play(BEGUN, refusal(503, "outcome_unknown"), *[LOST] * 4, DONE, BEGUN,
                refusal(406, "collision"))  # fmt: skip
    await driver.begin()
    with pytest.raises(TransactionException, match="503"):
        await driver.commit()
    with pytest.raises(ConnectionError, match="it may have been done"):
        await driver.commit()
    assert await driver.commit() == "t1"
    await driver.begin()
    with pytest.raises(TransactionException, match="406 Not Acceptable"):
        await driver.commit()
    assert driver.txid is None


@on_loop
async def test_lost_answers(server: Server) -> None:
    driver = made(server)
    server.play(LOST, HALF, LOST, DONE)
    await driver.rollback("r", -1)
    assert len(server.seen) == 4
    assert len({seen.key for seen in server.seen}) == 1
    for call in (driver.clear, driver.reload):
        for loss in (LOST, HALF):
            server.play(loss)
            with pytest.raises(ConnectionError, match=r"no answer from .* it may have been done"):
                await call()
    assert len(server.seen) == 8
    server.play(*[LOST] * 4)
    with pytest.raises(ConnectionError, match=r"to GET /_roots .*\)$"):
        await driver.roots()
    assert len(server.seen) == 12


@on_loop
async def test_an_answer_that_takes_too_long_is_lost(server: Server) -> None:
    driver = AsyncDriver("127.0.0.1", server.server_port, timeout=0.2)
    server.play(SILENT, DONE, SILENT)
    assert (await driver.roots())[0] == 200
    with pytest.raises(TimeoutError, match="no answer from"):
        await driver.clear()
    assert len(server.seen) == 3


@on_loop
async def test_refusals_are_told(server: Server) -> None:
    driver = made(server)
    server.play(refusal(404, "no_peer", path="r"), (302, b""), (502, b"<html>proxy</html>"))
    with pytest.raises(CRUDException, match="404 Not Found: no_peer it is") as caught:
        await driver.sync()
    assert (caught.value.code, caught.value.details) == ("no_peer", {"path": "r"})
    for shown in ("302 Found", "502 Bad Gateway: <html>proxy"):
        with pytest.raises(CRUDException, match=shown):
            await driver.roots()
    driver._http.close()


@on_loop
async def test_many_at_a_time_and_close(server: Server) -> None:
    driver = made(server)
    done = await asyncio.gather(*[driver.roots() for _ in range(100)])
    assert len(done) == 100
    await driver.close()
    await driver.roots()
    await driver.close()


def test_every_driver_has_a_tega_id_of_its_own() -> None:
    class Subscriber:
        tega_id = "sub"

    one, two = AsyncDriver(), AsyncDriver()
    assert one.tega_id.startswith("driver-")
    assert one.tega_id != two.tega_id
    assert AsyncDriver(subscriber=Subscriber()).tega_id == "sub"
    with pytest.raises(Malformed, match="malformed tega id"):
        AsyncDriver(tega_id="no spaces")


def test_all_names_are_there() -> None:
    for name in tega.driver.__all__:
        assert getattr(tega.driver, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = tega.driver.Nothing


def test_a_program_without_an_event_loop_does_not_wait_for_its_import() -> None:
    code = "import sys, tega.driver; print(*{'asyncio', 'tornado', 're2'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
