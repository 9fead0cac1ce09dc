"""The session of a synchronous driver, in another thread or on the loop of an old program."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from scripted import PATIENCE, Scripted
from test_driver_functions import Caller
from tornado.ioloop import IOLoop

from tega.driver import CRUDException, Driver, SessionException, SubscriptionException
from tega.driver import session as module
from tega.protocol import Message, Publish, Response, Subscribe, Unsubscribe
from tega.subscriber import SCOPE
from tega.tree import Func

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(2 * PATIENCE)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Server:
    """A scripted server in a thread."""

    def __init__(self) -> None:
        self._loop = Loop()
        self.scripted = Scripted()
        self._running = self.scripted.running()
        self._loop.do(self._running.__aenter__())
        self.port = self.scripted.port

    def do(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self._loop.do(call())

    def until(self, condition: Callable[[], object]) -> None:
        self._loop.do(self.scripted.until(condition))

    def ask(self, path: str, body: Any) -> tuple[bool, Any]:
        return self._loop.do(Caller(self.scripted).ask(path, body))

    def stop(self) -> None:
        self._loop.do(self._running.__aexit__(None, None, None))
        self._loop.stop()


class Listening:
    """A subscriber that notes what it is told, and where."""

    tega_id = "sub"

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.threads: set[int] = set()
        self._changed = threading.Condition()

    def on_init(self) -> None:
        self._note("init")

    def on_notify(self, notifications: list[dict[str, Any]]) -> None:
        self._note(notifications)

    async def on_message(self, channel: str, tega_id: str, message: Any) -> None:
        self._note((channel, tega_id, message))

    def _note(self, item: Any) -> None:
        with self._changed:
            self.threads.add(threading.get_ident())
            self.told.append(item)
            self._changed.notify_all()

    def until(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.told) >= count, PATIENCE), self.told


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


class Session:
    """The session of a driver in a thread, as the command line runs it."""

    def __init__(self, driver: Driver) -> None:
        self.error: BaseException | None = None
        self._driver = driver
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._driver.subscriber_client())
        except Exception as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def test_a_session_in_a_thread(server: Server) -> None:
    sub = Listening()
    driver = Driver("127.0.0.1", server.port, subscriber=sub, timeout=PATIENCE)
    assert not driver.session_ready(0), "nobody has begun it"
    driver.subscribe("w", SCOPE.GLOBAL)
    driver.subscribe(r"v\..*", regex_flag=True)
    driver.publish("c", {"early": True})
    session = Session(driver)
    assert driver.session_ready(PATIENCE)
    assert driver.session_ready()
    driver.publish("c", 2)
    server.until(lambda: len(server.scripted.of(Publish)) == 2)
    assert [one.text() for one in server.scripted.received] == [
        "SESSION sub local",
        "SUBSCRIBE w global False",
        r"SUBSCRIBE v\..* local True",
        'PUBLISH c\n{"message":{"early":true}}',
        'PUBLISH c\n{"message":2}',
    ]
    server.do(lambda: server.scripted.commit({"path": "w"}))
    server.do(lambda: server.scripted.peer.say('MESSAGE v.x o\n{"message": 0}'))
    sub.until(3)
    assert sub.told[0] == "init"
    assert sub.told[1][0]["path"] == "w"
    assert sub.told[2] == ("v.x", "o", 0)
    assert sub.threads == {session.thread.ident}
    driver.unsubscribe("w")
    driver.unsubscribe("w")
    driver.subscribe("u")
    driver.unsubscribe_all()
    server.until(lambda: len(server.scripted.of(Unsubscribe)) == 2)
    assert server.scripted.of(Unsubscribe) == [Unsubscribe("w"), Unsubscribe()]
    driver.close()
    session.join()
    assert session.error is None
    assert not driver.session_ready()
    driver.close()


def test_a_session_on_the_loop_of_an_old_program(server: Server) -> None:
    class Old(Listening):
        def on_init(self) -> None:
            super().on_init()
            driver.subscribe("w")
            driver.serve("f", lambda: "served")
            driver.publish("c", 1)

        def on_notify(self, notifications: list[dict[str, Any]]) -> None:
            super().on_notify(notifications)
            driver.close()
            loop.stop()

    async def main() -> None:
        IOLoop.current().spawn_callback(driver.subscriber_client)

    sub = Old()
    driver = Driver("127.0.0.1", server.port, subscriber=sub)
    teller = threading.Thread(
        target=lambda: (
            server.until(lambda: len(server.scripted.received) == 4),
            server.do(lambda: server.scripted.commit({"path": "w"})),
        )
    )
    teller.start()
    asyncio_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(asyncio_loop)
    loop = IOLoop.current()
    loop.add_callback(main)
    loop.start()
    teller.join()
    assert [one if one == "init" else one[0]["path"] for one in sub.told] == ["init", "w"]
    assert {one.command for one in server.scripted.received} == {
        "SESSION", "SUBSCRIBE", "REQUEST", "PUBLISH"
    }  # fmt: skip
    for _ in range(100):
        asyncio_loop.run_until_complete(asyncio.sleep(0.01))
        if not asyncio.all_tasks(asyncio_loop):
            break
    assert not asyncio.all_tasks(asyncio_loop)
    loop.close()
    asyncio.set_event_loop(None)


def test_a_session_that_is_cancelled(server: Server) -> None:
    async def main() -> None:
        task = asyncio.create_task(driver.subscriber_client())
        await asyncio.to_thread(driver.session_ready)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    driver = Driver("127.0.0.1", server.port)
    asyncio.run(main())
    server.until(lambda: server.scripted.peer.gone.is_set())


def test_what_was_subscribed_to_outlives_a_run(server: Server) -> None:
    sub = Listening()
    with Driver("127.0.0.1", server.port, subscriber=sub) as driver:
        driver.subscribe("w")
        for run in (1, 2):
            session = Session(driver)
            server.until(lambda count=run: len(server.scripted.of(Subscribe)) == count)
            sub.until(2 * run - 1)
            driver.close()
            session.join()
            server.do(lambda: server.scripted.commit({"path": "w"}))
        session = Session(driver)
        sub.until(5)
    session.join()
    seqs = [one[0]["seq"] for one in sub.told if one != "init"]
    assert seqs == [1, 2], "what came in between is told afterwards"


def test_a_server_that_is_not_there_yet(server: Server) -> None:
    def script(peer: Any, message: Message) -> bool:
        attempts.append(message)
        if len(attempts) < 4:
            peer.cut()
        return len(attempts) < 4

    attempts: list[Message] = []
    server.scripted.script = script
    driver = Driver("127.0.0.1", server.port)
    session = Session(driver)
    assert driver.session_ready(PATIENCE)
    assert len(attempts) == 4
    driver.close()
    session.join()


def test_a_session_that_the_server_ends(server: Server) -> None:
    driver = Driver("127.0.0.1", server.port)
    session = Session(driver)
    assert driver.session_ready(PATIENCE)
    server.do(lambda: server.scripted.peer.say('ERROR taken_over\n{"message": "by another"}'))
    session.join()
    assert isinstance(session.error, SessionException)
    assert session.error.code == "taken_over"
    assert not driver.session_ready(), "nobody waits for what cannot come"


def test_there_is_one_session_at_a_time(server: Server) -> None:
    driver = Driver("127.0.0.1", server.port)
    session = Session(driver)
    assert driver.session_ready(PATIENCE)
    second = Session(driver)
    second.join()
    assert isinstance(second.error, SubscriptionException)
    assert "runs already" in str(second.error)
    assert driver.session_ready()
    driver.close()
    session.join()


def test_subscribing_takes_a_subscriber() -> None:
    driver = Driver()
    for call in (
        lambda: driver.subscribe("w"),
        lambda: driver.unsubscribe("w"),
        driver.unsubscribe_all,
        lambda: driver.publish("c", 1),
    ):
        with pytest.raises(SubscriptionException, match="without a subscriber") as caught:
            call()
        assert caught.value.status is None


def test_what_is_no_path_or_message_is_refused_at_once() -> None:
    driver = Driver(subscriber=Listening())
    for call, shown in (
        (lambda: driver.subscribe("w..x"), "empty key"),
        (lambda: driver.unsubscribe(""), "empty key"),
        (lambda: driver.subscribe("(?=x)", regex_flag=True), "RE2"),
        (lambda: driver.unsubscribe("(", regex_flag=True), "RE2"),
        (lambda: driver.publish("_c", 1), "reserved"),
        (lambda: driver.publish("c", {1}), "type set"),
    ):
        with pytest.raises(SubscriptionException, match=shown) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (400, "malformed")


def test_too_many_messages_wait(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MAX_PUBLICATIONS", 3)
    driver = Driver("127.0.0.1", server.port, subscriber=Listening())
    for n in range(3):
        driver.publish("c", n)
    with pytest.raises(SubscriptionException, match=r"429 .*3 messages wait") as caught:
        driver.publish("c", 3)
    assert caught.value.code == "over_limit"
    session = Session(driver)
    server.until(lambda: len(server.scripted.of(Publish)) == 3)
    driver.close()
    session.join()


def test_serving_from_any_thread(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with Driver("127.0.0.1", server.port, "me", timeout=PATIENCE) as driver:
        for call in (lambda: driver.serve("f", max), lambda: driver.unserve("f")):
            with pytest.raises(SubscriptionException, match="does not run"):
                call()
        session = Session(driver)
        assert driver.session_ready(PATIENCE)
        driver.serve("f", max)
        driver.serve("bound", Func("me", max, 1, 2))
        assert server.ask("f", {"args": [3, 4]}) == (False, 4)
        with pytest.raises(CRUDException, match="404"):
            driver.unserve("g")
        driver.unserve("f")
        assert len(server.scripted.of(Response)) == 1
    session.join()


def test_what_cannot_be_served_is_logged_where_nobody_waits(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Serving(Listening):
        def on_init(self) -> None:
            driver.serve("f..x", max)
            super().on_init()

    sub = Serving()
    caplog.set_level(logging.ERROR)
    with Driver("127.0.0.1", server.port, subscriber=sub) as driver:
        session = Session(driver)
        sub.until(1)
    session.join()
    assert "a function is not served: 400 Bad Request" in caplog.text
