"""What arrives for a prompt is shown once, in order, and never in the midst of something."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tega.cli.board import CALL, Board
from tega.cli.live import _MOST, Live
from tega.driver import Driver, SessionException

PATIENCE = 10.0


class Place:
    """Notes what is shown; `while_shown` happens in the midst of it."""

    def __init__(self, while_shown: Callable[[], object] = lambda: None) -> None:
        self.free = True
        self.shown: list[str] = []
        self._while_shown = while_shown

    def show(self, text: str) -> None:
        self._while_shown()
        self.shown.append(text)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait in the main thread, where signals are handled."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "this did not come true"
        select.select([], [], [], 0.01)


def call(board: Board) -> None:
    """Call as another thread does; the handler has run when this returns."""
    thread = threading.Thread(target=board.call)
    thread.start()
    thread.join()
    select.select([], [], [], 0)


def test_it_is_shown_at_once_where_there_is_a_place() -> None:
    board, place = Board(), Place()
    board.post("0\n")
    with board.called(interrupts=True), board.at(place):
        call(board)
        board.post("1\n")
        board.post("2\n")
        call(board)
        call(board)
        assert place.shown == ["0\n", "1\n2\n"]
        assert len(board) == 0


def test_it_waits_where_there_is_none() -> None:
    board, place = Board(), Place()
    with board.called(interrupts=True):
        board.post("1\n")
        call(board)
        with board.at(place):
            place.free = False
            call(board)
            assert place.shown == []
            place.free = True
        call(board)
        assert place.shown == []
        board.show(place)
        assert place.shown == ["1\n"]
        board.show(place)
        assert place.shown == ["1\n"]


def test_the_place_is_there_again_after_an_error() -> None:
    failures = iter([ValueError("once")])

    def fail() -> None:
        for failure in failures:
            raise failure

    board, place = Board(), Place(fail)
    with board.called(interrupts=True), board.at(place):
        board.post("1\n")
        with pytest.raises(ValueError, match="once"):
            call(board)
        board.post("2\n")
        call(board)
    assert place.shown == ["2\n"]


def test_a_call_in_the_midst_of_it_waits() -> None:
    board = Board()
    depth: list[int] = []

    def called_again() -> None:
        depth.append(1)
        if len(depth) == 1:
            board.post("2\n")
            call(board)
            assert len(depth) == 1

    place = Place(called_again)
    with board.called(interrupts=True), board.at(place):
        board.post("1\n")
        call(board)
        assert place.shown == ["1\n"]
        call(board)
    assert place.shown == ["1\n", "2\n"]


def test_ctrl_c_loses_nothing() -> None:
    board = Board()
    place = Place(lambda: signal.raise_signal(signal.SIGINT))
    board.post("1\n")
    with pytest.raises(KeyboardInterrupt):
        board.show(place)
    assert place.shown == ["1\n"]


@pytest.mark.parametrize("interrupts", [True, False])
def test_it_is_shown_while_the_main_thread_waits(interrupts: bool) -> None:
    board, place = Board(), Place()
    before = signal.getsignal(CALL)
    reading, writing = os.pipe()

    def post() -> None:
        board.post("1\n")
        while len(board) and interrupts:
            board.call()
            done.wait(0.01)
        if not interrupts:
            board.call()
        os.write(writing, b"x")

    done = threading.Event()
    with board.called(interrupts), board.at(place):
        thread = threading.Thread(target=post)
        thread.start()
        # Where it is not interrupted, the handler runs after it.
        assert os.read(reading, 1) == b"x"
        thread.join()
        wait_for(lambda: place.shown)
    assert place.shown == ["1\n"]
    assert signal.getsignal(CALL) == before
    os.close(reading)
    os.close(writing)


# ---- the session of a prompt ---------------------------------------------------------------------


class FakeDriver(Driver):
    """A driver whose session does what a test says."""

    def __init__(self, live: Live, does: Callable[[Live, FakeDriver], Any]) -> None:
        super().__init__(subscriber=live)
        self.is_ready = True
        self.ended = threading.Event()
        self._does = does

    async def subscriber_client(self) -> None:
        await self._does(self.subscriber, self)
        await asyncio.to_thread(self.ended.wait)

    def session_ready(self, timeout: float | None = None) -> bool:
        return self.is_ready

    def close(self) -> None:
        self.ended.set()


def test_the_main_thread_is_called_until_it_has_shown_it() -> None:
    class Late:
        """Is free only when it has been asked some times."""

        def __init__(self) -> None:
            self.asked = 0
            self.shown: list[str] = []

        @property
        def free(self) -> bool:
            self.asked += 1
            return self.asked > 3

        def show(self, text: str) -> None:
            self.shown.append(text)

    async def ready(live: Live, driver: FakeDriver) -> None:
        live.on_init()

    board, place = Board(), Late()
    live = Live("me", board)
    with board.called(interrupts=True), board.at(place), live.session(FakeDriver(live, ready)):
        wait_for(lambda: place.shown)
    assert place.shown == ["--- session ready ---\n"]


def test_too_much_waits() -> None:
    taken: list[int] = []

    async def flood(live: Live, driver: FakeDriver) -> None:
        live.on_init()
        for number in range(3 * _MOST):
            await live.on_message("a", "b", number)
            taken.append(number)

    board, place = Board(), Place()
    live = Live("me", board)
    with board.called(interrupts=True), live.session(FakeDriver(live, flood)):
        wait_for(lambda: len(board) > _MOST)
        select.select([], [], [], 0.2)
        assert len(board) == _MOST + 1
        with board.at(place):
            wait_for(lambda: len(taken) == 3 * _MOST)
            wait_for(lambda: not len(board))
    messages = "".join(place.shown).split("message: ")[1:]
    assert [int(message.split()[0]) for message in messages] == list(range(3 * _MOST))


def test_what_the_driver_warns_of_is_shown() -> None:
    log = logging.getLogger("tega.driver.session")

    async def lose(live: Live, driver: FakeDriver) -> None:
        log.warning("cannot connect")
        await asyncio.sleep(0)
        live.on_init()
        log.info("this is nobody's business")
        log.warning("the connection was lost\x1b[2J")
        driver.is_ready = False
        await asyncio.sleep(0)
        log.warning("cannot connect")
        await asyncio.sleep(0)
        live.on_init()

    board, place = Board(), Place()
    live = Live("me", board)
    driver = FakeDriver(live, lose)
    driver.is_ready = False
    with board.called(interrupts=True), live.session(driver):
        wait_for(lambda: len(board) == 5)
        board.show(place)
    assert "".join(place.shown).splitlines() == [
        "--- cannot connect ---",
        "--- session ready ---",
        "--- session lost: the connection was lost\\u001b[2J ---",
        "--- cannot connect ---",
        "--- session ready ---",
    ]


def test_the_session_ends_for_good() -> None:
    error = SessionException("taken over", code="taken_over")

    async def end(live: Live, driver: FakeDriver) -> None:
        live.on_init()
        raise error

    board, place = Board(), Place()
    live = Live("me", board)
    with board.called(interrupts=True), board.at(place), live.session(FakeDriver(live, end)):
        wait_for(lambda: live.failure)
    assert live.failure is error
    assert place.shown == ["--- session ready ---\n"]
