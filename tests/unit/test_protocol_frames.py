"""Frames of a client, in any chunks: what comes out, and what ends the connection."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NORMAL,
    NOT_TAKEN,
    NOT_UTF8,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    VIOLATION,
    Frame,
    Reader,
    Violation,
    accept_value,
    close_frame,
    frame,
)

LIMIT = 1 << 20

relaxed = settings(deadline=None)
masks = st.binary(min_size=4, max_size=4) | st.just(b"\0\0\0\0")
texts = st.text(max_size=40) | st.sampled_from(["", "x" * 125, "x" * 126, "é" * 70, "日" * 70])


def masked(payload: bytes, opcode: int = TEXT, last: bool = True, mask: bytes = b"mask") -> bytes:
    """A frame as a client sends it, made the plainest way."""
    size = len(payload)
    if size < 126:
        length = struct.pack("!B", 0x80 | size)
    elif size < 1 << 16:
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    hidden = bytes([byte ^ mask[at % 4] for at, byte in enumerate(payload)])
    return bytes((opcode | (0x80 if last else 0),)) + length + mask + hidden


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """Bytes cut at these places."""
    for start, end in pairwise([0, *sorted(cuts), len(data)]):
        yield data[start:end]


def outcome(
    data: bytes, cuts: Iterable[int] = (), limit: int = LIMIT
) -> tuple[list[Frame], int | None]:
    """What comes of bytes in chunks, and the code that ends the connection if it does."""
    reader = Reader(limit)
    found: list[Frame] = []
    try:
        for chunk in pieces(data, cuts):
            for one in reader.feed(chunk):
                found.append(one)
    except Violation as error:
        return found, error.code
    return found, None


def read(data: bytes, cuts: Iterable[int] = (), limit: int = LIMIT) -> list[Frame]:
    """What comes of bytes that are as they should be."""
    found, code = outcome(data, cuts, limit)
    assert code is None
    return found


def violation(data: bytes, limit: int = LIMIT) -> Violation:
    with pytest.raises(Violation) as caught:
        list(Reader(limit).feed(data))
    assert len(caught.value.reason.encode()) <= 123, "it has to fit into a close frame"
    return caught.value


# -- whatever a client may send -------------------------------------------------------------------


@st.composite
def sent(draw: st.DrawFn) -> tuple[bytes, list[Frame]]:
    """Messages in fragments with control frames between, and what should come of them."""
    data = b""
    expected = []
    for _ in range(draw(st.integers(0, 5))):
        text = draw(texts)
        payload = text.encode()
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        edges = [0, *cuts, len(payload)]
        for number, (start, end) in enumerate(pairwise(edges)):
            last = number == len(cuts)
            opcode = CONTINUATION if number else TEXT
            data += masked(payload[start:end], opcode, last, draw(masks))
            if last:
                expected.append((TEXT, text))
            for opcode in draw(st.lists(st.sampled_from([PING, PONG]), max_size=2)):
                control = draw(st.binary(max_size=125))
                data += masked(control, opcode, True, draw(masks))
                expected.append((opcode, control))
    return data, expected


@relaxed
@given(sent(), st.data())
def test_any_chunks_give_the_same(given_: tuple[bytes, list[Frame]], data: st.DataObject) -> None:
    sent_bytes, expected = given_
    cuts = data.draw(st.lists(st.integers(0, len(sent_bytes)), max_size=12))
    for places in (cuts, [], range(len(sent_bytes))):
        assert read(sent_bytes, places) == expected


@relaxed
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_are_read_or_refused(data: bytes, cuts: list[int]) -> None:
    """Whatever the chunks, it comes to the same."""
    everywhere = outcome(data, range(len(data)), 50)
    assert outcome(data, [min(cut, len(data)) for cut in cuts], 50) == everywhere
    assert outcome(data, [], 50) == everywhere


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 124, 125, 126, 127, 65535, 65536, 70001])
@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0", b"abcd"])
def test_a_mask_is_taken_off(size: int, mask: bytes) -> None:
    text = ("0123456789" * (size // 10 + 1))[:size]
    assert read(masked(text.encode(), mask=mask)) == [(TEXT, text)]


def test_many_messages_in_one_chunk_come_in_order() -> None:
    expected = [(TEXT, str(number)) for number in range(5000)]
    data = b"".join([masked(text.encode()) for _, text in expected])
    assert read(data) == expected
    assert read(data, range(0, len(data), 1000)) == expected


# -- what ends the connection ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(b"a"), VIOLATION, "masked"),
        (masked(b"a", TEXT | 0x40), VIOLATION, "reserved"),
        (masked(b"a", TEXT | 0x20), VIOLATION, "reserved"),
        (masked(b"a", TEXT | 0x10), VIOLATION, "reserved"),
        (masked(b"a", 0x3), VIOLATION, "unknown"),
        (masked(b"a", 0xB), VIOLATION, "control"),
        (masked(b"x" * 126, PING), VIOLATION, "control"),
        (masked(b"x" * 126, CLOSE), VIOLATION, "control"),
        (masked(b"a", PING, last=False), VIOLATION, "control"),
        (masked(b"a", CONTINUATION), VIOLATION, "order"),
        (masked(b"a", last=False) + masked(b"b"), VIOLATION, "order"),
        (masked(b"a", BINARY), NOT_TAKEN, "binary"),
        (masked(b"\xff"), NOT_UTF8, "UTF-8"),
        (masked(b"\xed\xa0\x80"), NOT_UTF8, "UTF-8"),
        (masked(b"x" * (LIMIT + 1)), TOO_BIG, str(LIMIT)),
    ],
)
def test_what_is_wrong_ends_it(data: bytes, code: int, reason: str) -> None:
    error = violation(data)
    assert error.code == code
    assert reason in error.reason


def test_the_messages_before_are_still_taken() -> None:
    data = masked(b"a") + masked(b"b") + frame(b"c") + masked(b"d")
    assert outcome(data) == ([(TEXT, "a"), (TEXT, "b")], VIOLATION)


@pytest.mark.parametrize("first", [0x81, 0x01])
@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 30, 1 << 62, (1 << 64) - 1])
def test_the_head_of_too_much_is_enough(first: int, size: int) -> None:
    reader = Reader(LIMIT)
    head = struct.pack("!BBQ", first, 0xFF, size)
    assert list(reader.feed(head[:9])) == []
    with pytest.raises(Violation) as caught:
        list(reader.feed(head[9:]))
    assert caught.value.code == TOO_BIG


def test_a_head_of_1_gib_takes_no_memory() -> None:
    head = struct.pack("!BBQ", 0x81, 0xFF, 1 << 30) + b"mask"
    tracemalloc.start()
    try:
        # Allowed, and still nothing but what has come is kept.
        reader = Reader(1 << 31)
        assert list(reader.feed(head)) == []
        for _ in range(16):
            assert list(reader.feed(b"x" * 1024)) == []
        assert violation(head).code == TOO_BIG
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_as_much_as_the_limit_is_taken_and_no_more() -> None:
    assert read(masked(b"x" * 10), limit=10) == [(TEXT, "x" * 10)]
    assert violation(masked(b"x" * 11), 10).code == TOO_BIG
    in_two = masked(b"x" * 70, last=False)
    assert len(read(in_two + masked(b"x" * 30, CONTINUATION), limit=100)) == 1
    assert violation(in_two + masked(b"x" * 31, CONTINUATION), 100).code == TOO_BIG


def test_the_limit_holds_for_each_message_by_itself() -> None:
    reader = Reader(100)
    for _ in range(50):
        whole = masked(b"x" * 70, last=False) + masked(b"x" * 30, CONTINUATION)
        assert [payload for _, payload in reader.feed(whole)] == ["x" * 100]


def test_a_control_frame_between_fragments_does_not_count() -> None:
    ping = masked(b"y" * 125, PING)
    data = masked(b"x" * 70, last=False) + ping + masked(b"x" * 30, CONTINUATION)
    assert [opcode for opcode, _ in read(data, limit=100)] == [PING, TEXT]


def test_empty_fragments_without_end_are_too_much() -> None:
    limit = 64 * 1000
    empty = masked(b"", CONTINUATION, last=False)
    assert outcome(masked(b"", last=False) + 999 * empty, limit=limit) == ([], None)
    assert outcome(masked(b"", last=False) + 1001 * empty, limit=limit) == ([], TOO_BIG)


def test_a_long_message_in_many_chunks_is_put_together_once() -> None:
    """Bytes are not copied again for each chunk that comes."""
    text = "x" * 1_000_000
    data = masked(text.encode(), mask=b"\0\0\0\0")
    reader = Reader(LIMIT)
    tracemalloc.start()
    try:
        found = []
        for start in range(0, len(data), 4096):
            found += list(reader.feed(data[start : start + 4096]))
        assert found == [(TEXT, text)]
        # Chunks, joined, payload and text: each once.
        assert tracemalloc.get_traced_memory()[1] < 6 * len(data)
    finally:
        tracemalloc.stop()
    assert list(reader.feed(masked(b"next"))) == [(TEXT, "next")]


# -- what a server sends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8100"), (125, "817d"), (126, "817e007e"), (65535, "817effff"),
        (65536, "817f0000000000010000"),
    ],
)  # fmt: skip
def test_a_frame_has_the_shortest_head(size: int, head: str) -> None:
    assert frame(b"x" * size) == bytes.fromhex(head) + b"x" * size


def test_fragments_and_control_frames_are_marked_as_such() -> None:
    assert frame(b"a", TEXT, last=False)[0] == 0x01
    assert frame(b"a", CONTINUATION, last=False)[0] == 0x00
    assert frame(b"a", CONTINUATION)[0] == 0x80
    assert frame(b"", PING) == b"\x89\0"
    assert frame(b"ab", PONG) == b"\x8a\x02ab"


def test_a_close_frame_has_code_and_reason() -> None:
    assert close_frame(NORMAL, "") == b"\x88\x02\x03\xe8"
    assert close_frame(4001, "taken over") == b"\x88\x0c\x0f\xa1taken over"


def test_a_long_reason_is_cut_to_what_a_close_frame_holds() -> None:
    made = close_frame(4003, "x" * 500)
    assert made == b"\x88\x7d\x0f\xa3" + b"x" * 123


def test_the_answer_to_a_key() -> None:
    """The example of RFC 6455, section 1.3."""
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
