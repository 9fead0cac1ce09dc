"""What goes out on a connection: written together, in order, and never more than is taken."""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tega.protocol.frames import CLOSE, CONTINUATION, TEXT, close_frame, frame
from tega.web import turns as module
from tega.web.outbox import FRAGMENT, PING_FRAME, Outbox, Outboxes
from tega.web.turns import Turns


class Stream:
    """A stream of which the other end takes what it is told to.

    :param slow: whether it takes only what `take` says
    """

    def __init__(self, slow: bool = False) -> None:
        self.slow = slow
        self._closed = False
        self.writes: list[bytes] = []
        self.unsent = 0
        self.outbox: Outbox

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self.writes.append(data)
        if self.slow:
            self.unsent += len(data)

    def take(self) -> None:
        """Take everything."""
        if self.unsent:
            self.unsent = 0
            self.outbox.taken()

    def pause(self) -> None:
        raise AssertionError("nothing comes")

    def resume(self) -> None:
        raise AssertionError("nothing comes")

    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self.unsent = 0
        # As `lost` of a connection does.
        asyncio.get_running_loop().call_soon(self.outbox.taken)

    @property
    def sent(self) -> list[tuple[int, bool, bytes]]:
        """The frames: opcode, whether it is the last of its message, payload."""
        found = []
        data = b"".join(self.writes)
        while data:
            first, size = data[0], data[1]
            start = 2
            if size == 126:
                (size,), start = struct.unpack("!H", data[2:4]), 4
            elif size == 127:
                (size,), start = struct.unpack("!Q", data[2:10]), 10
            found.append((first & 0x0F, bool(first & 0x80), data[start : start + size]))
            data = data[start + size :]
        return found

    @property
    def messages(self) -> list[bytes]:
        """The messages: fragments put together, which have nothing between them."""
        found: list[bytes] = []
        whole = True
        for opcode, last, payload in self.sent:
            assert (opcode == CONTINUATION) is not whole, "a message in the middle of another one"
            if whole:
                found.append(payload)
            else:
                found[-1] += payload
            whole = last
        assert whole, "the last message has no end"
        return found


class Bench:
    """An outbox on a stream."""

    def __init__(self, slow: bool = False, outboxes: Outboxes | None = None) -> None:
        self.stream = Stream(slow)
        self.drained = 0
        self.outboxes = outboxes or Outboxes()
        self.outbox = self.stream.outbox = Outbox(self.stream, self.outboxes, self._on_drained)

    def _on_drained(self) -> None:
        assert not self.outbox.busy
        self.drained += 1


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


async def turns(count: int = 1) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def long_message(name: bytes, fragments: int = 4) -> tuple[bytes, Iterator[bytes]]:
    """A message that takes several fragments: whole, and its pieces."""
    piece = name * (FRAGMENT // 4 // len(name))
    return piece * 4 * fragments, iter([piece] * 4 * fragments)


# -- short messages -------------------------------------------------------------------------------


def test_what_one_turn_sends_is_written_at_one_go() -> None:
    async def work() -> None:
        bench = Bench()
        for number in range(1000):
            bench.outbox.send(frame(b"%d" % number))
        assert bench.stream.writes == []
        await turns()
        assert len(bench.stream.writes) == 1
        assert bench.stream.messages == [b"%d" % number for number in range(1000)]
        bench.outbox.send(frame(b"next turn"))
        bench.outbox.send(PING_FRAME)
        await turns()
        assert len(bench.stream.writes) == 2
        await turns(3)
        assert len(bench.stream.writes) == 2

    run(work)


def test_a_frame_goes_to_many_without_being_copied() -> None:
    async def work() -> None:
        outboxes = Outboxes()
        benches = [Bench(outboxes=outboxes) for _ in range(100)]
        made = frame(b"x" * 1000)
        for bench in benches:
            bench.outbox.send(made)
        await turns()
        assert all(bench.stream.writes == [made] for bench in benches)
        assert all(bench.stream.writes[0] is made for bench in benches)

    run(work)


def test_a_turn_can_be_ended_early() -> None:
    async def work() -> None:
        bench = Bench()
        other = Bench(outboxes=bench.outboxes)
        bench.outbox.send(frame(b"a"))
        bench.outbox.flush()
        assert bench.stream.messages == [b"a"]
        bench.outbox.send(frame(b"b"))
        other.outbox.send(frame(b"c"))
        bench.outboxes.flush()
        assert bench.stream.messages == [b"a", b"b"]
        assert other.stream.messages == [b"c"]
        await turns(2)
        assert len(bench.stream.writes) == 2

    run(work)


def test_the_backlog_is_what_the_client_has_still_to_take() -> None:
    async def work() -> None:
        bench = Bench(slow=True)
        made = frame(b"x" * 98)
        assert (bench.outbox.backlog, bench.outbox.busy) == (0, False)
        bench.outbox.send(made)
        bench.outbox.send(made)
        assert (bench.outbox.backlog, bench.outbox.busy) == (200, False)
        await turns()
        assert (bench.outbox.backlog, bench.outbox.busy) == (200, True)
        bench.outbox.send(made)
        assert bench.outbox.backlog == 300
        await turns()
        assert bench.drained == 0
        bench.stream.take()
        await turns()
        assert (bench.outbox.backlog, bench.outbox.busy) == (0, False)
        assert bench.drained == 1

    run(work)


def test_nobody_is_told_that_it_drained_while_something_is_left() -> None:
    async def work() -> None:
        bench = Bench(slow=True)
        bench.outbox.send(frame(b"a"))
        await turns()
        bench.outbox.send(frame(b"b"))
        bench.outbox.flush()
        await turns()
        assert (bench.outbox.busy, bench.drained) == (True, 0)
        bench.stream.take()
        await turns()
        assert bench.drained == 1

    run(work)


# -- long messages --------------------------------------------------------------------------------


def test_pieces_that_are_few_are_one_frame() -> None:
    async def work() -> None:
        bench = Bench()
        bench.outbox.send_pieces(iter([b"RESPONSE\n", b"", b"[1,", b"2]"]))
        bench.outbox.send_pieces(iter([]))
        await turns()
        assert bench.stream.sent == [(TEXT, True, b"RESPONSE\n[1,2]")]
        assert not bench.outbox.busy

    run(work)


@pytest.mark.parametrize("payload", [b"", b"at last"])
def test_of_pieces_that_take_long_nothing_is_sent_before_there_is_something(payload: bytes) -> None:
    async def work() -> None:
        bench = Bench()

        def pieces() -> Iterator[bytes]:
            for _ in range(3):
                until = time.monotonic() + 0.02
                while time.monotonic() < until:
                    yield b""
            yield payload

        bench.outbox.send_pieces(pieces())
        bench.outbox.send(frame(b"next"))
        assert bench.outbox.busy
        while bench.outbox.busy:
            await turns()
        await turns()
        assert bench.stream.messages == [one for one in (payload, b"next") if one]

    run(work)


def test_a_long_message_goes_in_fragments_and_what_comes_meanwhile_waits() -> None:
    async def work() -> None:
        bench = Bench()
        first, pieces = long_message(b"first.")
        second, more = long_message(b"second")
        outbox = bench.outbox
        outbox.send(frame(b"before"))
        outbox.send_pieces(pieces)
        outbox.send(frame(b"between"))
        outbox.send_pieces(more)
        outbox.send_pieces(iter([b"short"]))
        outbox.send(frame(b"after"))
        assert outbox.busy
        await turns(100)
        assert not outbox.busy
        expected = [b"before", first, b"between", second, b"short", b"after"]
        assert bench.stream.messages == expected
        assert all(len(payload) <= 2 * FRAGMENT for _, _, payload in bench.stream.sent)
        assert outbox.backlog == 0
        outbox.send(frame(b"later"))
        await turns()
        assert bench.stream.messages == [*expected, b"later"]

    run(work)


def test_fragments_are_made_as_the_client_takes_them() -> None:
    async def work() -> None:
        bench = Bench(slow=True)
        made = 0

        def pieces() -> Iterator[bytes]:
            nonlocal made
            for _ in range(100):
                made += 1
                yield b"x" * FRAGMENT

        bench.outbox.send_pieces(pieces())
        await turns(50)
        # The first one is on its way.
        assert made <= 2
        assert bench.outbox.backlog <= 3 * FRAGMENT
        rounds = 0
        while bench.outbox.busy:
            before = made
            bench.stream.take()
            await turns(5)
            assert made <= before + 1
            rounds += 1
        assert rounds >= 100
        assert bench.drained == 1
        assert len(bench.stream.messages) == 1
        assert len(bench.stream.messages[0]) == 100 * FRAGMENT

    run(work)


def test_other_connections_go_on_beside_a_long_message() -> None:
    async def work() -> None:
        stuck = Bench(slow=True)
        other = Bench(outboxes=stuck.outboxes)
        stuck.outbox.send_pieces(long_message(b"x")[1])
        await turns(3)
        other.outbox.send(frame(b"a"))
        await turns()
        assert other.stream.messages == [b"a"]
        stuck.stream.close()
        await turns(5)

    run(work)


def test_what_waits_behind_a_long_message_is_in_the_backlog() -> None:
    async def work() -> None:
        bench = Bench(slow=True)
        bench.outbox.send_pieces(long_message(b"x")[1])
        await turns(3)
        for _ in range(100):
            before = bench.outbox.backlog
            bench.outbox.send(frame(b"x" * 98))
            assert bench.outbox.backlog == before + 100
        while bench.outbox.busy:
            bench.stream.take()
            await turns(5)
        assert bench.outbox.backlog == 0
        assert len(bench.stream.messages) == 101

    run(work)


def test_long_messages_that_wait_are_in_the_backlog_too() -> None:
    """They hold memory, so whoever asks for more and more of them must be stopped some time."""

    async def work() -> None:
        bench = Bench(slow=True)
        bench.outbox.send_pieces(long_message(b"x")[1])
        await turns(3)
        for _ in range(10_000):
            if bench.outbox.backlog > 1 << 20:
                break
            bench.outbox.send_pieces(long_message(b"x")[1])
        assert bench.outbox.backlog > 1 << 20
        bench.stream.close()
        await turns(5)

    run(work)


def test_making_a_message_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that take long to make are not all made in one turn."""
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    def pieces() -> Iterator[bytes]:
        nonlocal now
        for _ in range(100):
            now += 0.001
            yield b"x"

    async def work() -> None:
        nonlocal now
        busy = Turns()
        done, rest = busy.gather(pieces())
        assert rest is not None
        assert 5 <= len(done) <= 13
        assert len(done + b"".join(rest)) == 100
        # However many begin at once, all together they take a little longer.
        began = now
        for _ in range(100):
            assert busy.gather(pieces())[1] is not None
        assert now - began < 0.005 * 5 + 100 * 0.001

    run(work)


def test_a_message_is_made_in_one_turn_where_that_is_quick() -> None:
    async def work() -> None:
        assert Turns().gather(iter([b"x"] * 1000)) == (b"x" * 1000, None)
        done, rest = Turns().gather(iter([b"x" * FRAGMENT, b"y"]))
        assert (done, rest is None) == (b"x" * FRAGMENT, False)

    run(work)


def test_in_each_turn_of_the_loop_one_of_many_goes_on_in_order() -> None:
    async def work() -> None:
        shared = Turns()
        said: list[tuple[int, int]] = []
        turn = 0

        async def long_work(number: int) -> None:
            for _ in range(3):
                await shared.next()
                said.append((turn, number))

        tasks = [asyncio.ensure_future(long_work(number)) for number in range(3)]
        for _ in range(20):
            turn += 1
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert [number for _, number in said] == [0, 1, 2] * 3
        assert len({turn for turn, _ in said}) == 9

    run(work)


# -- the end --------------------------------------------------------------------------------------


def test_the_last_frame_comes_after_all_that_was_sent_and_nothing_after_it() -> None:
    async def work() -> None:
        bench = Bench()
        bench.outbox.send(frame(b"a"))
        bench.outbox.end(close_frame(4001, "taken over"))
        bench.outbox.send(frame(b"b"))
        bench.outbox.send_pieces(iter([b"c"]))
        bench.outbox.send_pieces(long_message(b"d")[1])
        await turns(5)
        assert bench.stream.sent == [
            (TEXT, True, b"a"), (CLOSE, True, b"\x0f\xa1taken over")
        ]  # fmt: skip

    run(work)


def test_a_long_message_is_cut_by_the_last_frame() -> None:
    """A control frame may stand between fragments, and a client must learn why it is closed."""

    async def work() -> None:
        bench = Bench(slow=True)
        bench.outbox.send_pieces(long_message(b"x")[1])
        await turns(3)
        bench.outbox.send(frame(b"a"))
        bench.outbox.end(close_frame(4001, "taken over"))
        for _ in range(10):
            bench.stream.take()
            await turns(3)
        assert bench.stream.sent[-1] == (CLOSE, True, b"\x0f\xa1taken over")
        assert [opcode for opcode, _, _ in bench.stream.sent].count(CLOSE) == 1
        assert not any(last for opcode, last, _ in bench.stream.sent if opcode != CLOSE)

    run(work)


def test_what_is_sent_on_a_closed_connection_is_lost_without_a_word() -> None:
    async def work() -> None:
        bench = Bench()
        bench.stream.close()
        bench.outbox.send(frame(b"a"))
        bench.outbox.send_pieces(long_message(b"x")[1])
        await turns(20)
        bench.outbox.send(frame(b"b"))
        await turns(2)
        assert bench.stream.writes == []

    run(work)


def test_a_long_message_to_nobody_is_not_made() -> None:
    async def work() -> None:
        bench = Bench()
        made = 0

        def pieces() -> Iterator[bytes]:
            nonlocal made
            for _ in range(100):
                made += 1
                yield b"x" * FRAGMENT

        bench.outbox.send_pieces(pieces())
        await turns(2)
        bench.stream.close()
        before = made
        await turns(300)
        assert made <= before + 2

    run(work)


def test_a_connection_that_closes_while_it_has_to_take_drains_never() -> None:
    async def work() -> None:
        bench = Bench(slow=True)
        bench.outbox.send(frame(b"a"))
        await turns()
        bench.stream.close()
        await turns(3)
        assert bench.drained == 0

    run(work)


def test_a_long_message_ends_with_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        tasks = len(asyncio.all_tasks())
        bench = Bench(slow=True)
        made = 0

        def pieces() -> Iterator[bytes]:
            nonlocal made
            while True:
                made += 1
                yield b"x" * FRAGMENT

        bench.outbox.send_pieces(pieces())
        await turns(5)
        bench.stream.close()
        await turns(5)
        before = made
        await turns(20)
        assert made == before
        assert len(asyncio.all_tasks()) == tasks
        assert bench.drained == 0

    run(work)
    assert caplog.records == []


def test_a_message_that_cannot_be_made_to_its_end_cuts_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        bench = Bench()

        def pieces() -> Iterator[bytes]:
            yield b"x" * FRAGMENT
            raise RuntimeError("a bug")

        bench.outbox.send_pieces(pieces())
        await turns(5)
        assert bench.stream.closed()
        assert [last for _, last, _ in bench.stream.sent] == [False], "half of it is no whole"

    with caplog.at_level(logging.ERROR):
        run(work)
    assert "a bug" in caplog.text
