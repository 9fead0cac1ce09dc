"""The text of commits: round trips, damage, and what is torn rather than damaged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logbuilder import assert_same

from tega.log import record, segments, snapshot
from tega.log.base import Settings
from tega.log.record import BadRecord
from tega.paths import Path as NodePath
from tega.store.commit import Commit, Delete, Operation, Rollback, Transaction, make_put
from tega.store.history import State
from tega.store.node import walk
from tega.store.staging import stage
from tega.strictjson import loads

TIME = "2026-11-21T01:34:05.123456Z"
LIFE = "3f2a"
DOCUMENT = Path(__file__).parents[2] / "doc" / "tega-db-format.md"
BLOCK = 512

keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(
    lambda key: key[0] != "_"
)
leaves = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)
opaque = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
values = st.recursive(
    leaves | st.lists(opaque, max_size=3),
    lambda inner: st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
txids = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=5)
roots = st.sampled_from(["a", "b.c", "ä \x1b", '"'])


@st.composite
def histories(draw: Any) -> list[tuple[State, Commit]]:
    """A few commits and the state after each, whatever they hold."""
    state = State(LIFE)
    made = []
    for _ in range(draw(st.integers(1, 5))):
        who = draw(st.sampled_from(["cli-1", "10.0.0.1"]))
        txid = draw(st.none() | txids)
        old = sorted(state.roots)
        if old and draw(st.booleans()):
            root = state.roots[draw(st.sampled_from(old))]
            back = draw(st.integers(root.first, root.version))
            request: Any = Rollback(root.name, back, who, txid)
        else:
            request = Transaction(tuple(draw(_operations(state))), who, txid)
        state, commit = stage(state, request, TIME, 10)
        made.append((state, commit))
    return made


@st.composite
def _operations(draw: Any, state: State) -> list[Operation]:
    there: list[NodePath] = []
    for root in state.live_roots():
        there += [path for path, _, _ in walk(root.content, root.version, (root.name,))]
    if there and draw(st.booleans()):
        return [Delete(draw(st.sampled_from(sorted(there))))]
    # One root each, so that no leaf stands in the way.
    names = draw(st.lists(roots, min_size=1, max_size=3, unique=True))
    return [make_put((name,), draw(values)) for name in names]


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 10**18))
def test_whatever_is_committed_reads_back_equal(
    history: list[tuple[State, Commit]], synced: int
) -> None:
    state = State(LIFE)
    text = record.texts([commit for _, commit in history], synced, LIFE)
    read = list(record.read(text))
    assert [logged.start for logged in read[1:]] == [logged.end for logged in read[:-1]]
    assert read[-1].end == len(text)
    for (expected, commit), logged in zip(history, read, strict=True):
        assert (logged.seq, logged.time, logged.rolled_back) == (
            commit.seq, TIME, commit.rolled_back,
        )
        extras = logged.extras
        assert (extras.synced, extras.life, extras.tega_id, extras.txid) == (
            synced, LIFE, commit.tega_id, commit.txid,
        )
        assert extras.versions == dict(commit.versions)
        assert extras.chain == dict(commit.chains)
        assert [(r.ope, r.path, r.tega_id, r.version) for r in logged.records] == [
            (loads(c.record)["ope"], loads(c.record)["path"], c.tega_id, c.version)
            for c in commit.changes
        ]
        state = record.apply(state, logged, 10)
        assert_same(state, expected)


@settings(max_examples=100, deadline=None)
@given(histories())
def test_a_snapshot_reads_back_equal(history: list[tuple[State, Commit]]) -> None:
    state = history[-1][0]
    text: list[bytes] = []
    for _ in snapshot.write(state, "me", TIME, text.append):
        pass
    logged = record.read_one(b"".join(text), 0)
    assert logged.end == len(b"".join(text))
    assert_same(snapshot.read(logged, 10), state)


def commits(*values_put: Any, synced: int = 0) -> list[bytes]:
    """The text of one commit for each value."""
    state, texts = State(LIFE), []
    for value in values_put:
        request = Transaction((make_put(("a", "b"), value),), "cli-1", "tx")
        state, commit = stage(state, request, TIME, 10)
        texts.append(record.encode(commit, synced, LIFE))
    return texts


def test_no_byte_of_a_commit_can_change_unnoticed() -> None:
    whole, following = commits("value", "following")
    for text in (whole, whole + following):
        for offset in range(len(whole)):
            for flip in range(1, 256):
                damaged = bytearray(text)
                damaged[offset] ^= flip
                with pytest.raises(BadRecord) as caught:
                    record.read_one(bytes(damaged), 0)
                assert caught.value.start == 0


def test_no_beginning_of_a_commit_counts_as_one() -> None:
    (text,) = commits({"x": 1})
    for size in range(len(text)):
        with pytest.raises(BadRecord):
            record.read_one(text[:size], 0)


def test_a_commit_with_a_good_checksum_must_still_follow() -> None:
    first, second, third = commits(1, 2, 3)
    state = record.apply(State(LIFE), record.read_one(first, 0), 10)
    for other, reason in [
        (record.read_one(third, 0), "sequence number 3 after 1"),
        (record.read_one(first, 0), "sequence number 1 after 1"),
    ]:
        with pytest.raises(BadRecord, match=reason):
            record.apply(state, other, 10)
    with pytest.raises(BadRecord, match="life"):
        record.apply(State("other", 1, state.roots), record.read_one(second, 0), 10)
    with pytest.raises(BadRecord, match="versions"):
        record.apply(State(LIFE, 1), record.read_one(second, 0), 10)


# -- torn or corrupt --------------------------------------------------------------------------


class Case(NamedTuple):
    """What follows a good first commit, and whether a crash alone can explain it."""

    name: str
    tail: bytes
    torn: bool


def lost(text: bytes, start: int, first: int, blocks: int) -> bytes:
    """The text, which begins at offset `start` of the file, with blocks that are NUL."""
    low = max(first * BLOCK - start, 0)
    high = min((first + blocks) * BLOCK - start, len(text))
    return text[:low] + bytes(high - low) + text[high:]


def _cases() -> list[Case]:
    first, second, third = commits("one", "two" * 700, "three")
    _, _, synced = commits("one", "two" * 700, "three", synced=2)
    at = len(first)
    flipped = second[:60] + b"X" + second[61:]
    nul = second[:60] + b"\0" + second[61:]
    block = at // BLOCK + 1
    return [
        Case("only the first byte", b"?", True),
        Case("the sequence number, cut", b"? 2", True),
        Case("the first line", b"? 2\n", True),
        Case("a record, cut", second[:200], True),
        Case("all but the checksum", second[:-9], True),
        Case("all but a part of the checksum", second[:-3], True),
        Case("all but the newline", second[:-1], True),
        Case("a last line cut before its end", second[: second.index(b"\n@") + 5], True),
        Case("NULs to the end", bytes(700), True),
        Case("a beginning, then a block of NULs", lost(second, at, block, 9), True),
        Case("a block in the middle that is lost", lost(second, at, block, 1), True),
        Case("a first block that is lost", lost(second, at, block - 1, 1), True),
        Case("a lost block, and what was never synced", lost(second, at, block, 1) + third, True),
        Case("a lost block in both", lost(second + third, at, block, 1)[:-9], True),
        Case("whole, one byte changed", flipped, False),
        Case("whole, the first byte changed", b"!" + second[1:], False),
        Case("whole, the newline changed", second[:-1] + b"!", False),
        Case("whole, the checksum changed", second[:-2] + b"x\n", False),
        Case("a NUL within a block", nul, False),
        Case("a changed byte, and a commit after it", flipped + third, False),
        Case("a cut commit, and a commit after it", second[:200] + third, False),
        Case("a lost block, and a sync after it", lost(second, at, block, 1) + synced, False),
        Case("words", b"hello", False),
        Case("a cut commit after words", b"hello\n" + second[:100], False),
        Case("a cut commit whose first line is words", b"hello" + second[:100], False),
        Case("a record that is no JSON, then a cut one", b"? 2\n{'ope'}\n{", False),
    ]


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_torn_or_corrupt(case: Case) -> None:
    data = commits("one")[0] + case.tail
    good, bad = _read_until_bad(data)
    assert good == 1
    assert record.is_torn(data, bad, 2) is case.torn


def _read_until_bad(data: bytes) -> tuple[int, BadRecord]:
    count = 0
    try:
        for _ in record.read(data):
            count += 1
    except BadRecord as bad:
        return count, bad
    raise AssertionError("everything was read")


def test_every_beginning_is_torn() -> None:
    first, second = commits("one", {"two": 2})
    for size in range(1, len(second)):
        data = first + second[:size]
        _, bad = _read_until_bad(data)
        assert record.is_torn(data, bad, 2), second[:size]


def test_no_changed_byte_of_a_whole_last_commit_is_torn() -> None:
    first, second = commits("one", {"two": 2})
    for offset in range(len(second)):
        for flip in (0x01, 0x0F, 0x10, 0x20, 0x80, 0xFF):
            damaged = bytearray(first + second)
            damaged[len(first) + offset] ^= flip
            _, bad = _read_until_bad(bytes(damaged))
            assert not record.is_torn(bytes(damaged), bad, 2), (offset, flip)


# -- the document -----------------------------------------------------------------------------


def example() -> bytes:
    """The segment that the document shows."""
    (found,) = re.findall(r"```text\n(\? 0\n.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    return str(found).encode()


def test_the_document_shows_a_segment_that_reads() -> None:
    data = example()
    start, *rest = segments.commits(data)
    state = snapshot.read(start, Settings().maxlen)
    for logged in rest:
        state = record.apply(state, logged, Settings().maxlen)
    assert rest
    assert any(logged.rolled_back for logged in rest)
    assert segments.successor(data) is not None


def test_the_document_shows_a_snapshot_that_reads() -> None:
    (found,) = re.findall(r"```text\n(\? 3\n.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    *_, last = segments.commits(example())
    state = snapshot.read(record.read_one(str(found).encode(), 0), Settings().maxlen)
    assert state.seq == last.seq


def test_the_document_shows_how_a_root_is_followed() -> None:
    (found,) = re.findall(r"```text\n(\? 1\n.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    state = State("5d02")
    leaders = []
    for logged in record.read(str(found).encode()):
        state = record.apply(state, logged, Settings().maxlen)
        lead = state.following.get("ip-local1")
        leaders.append(None if lead is None else lead.leader)
    assert leaders == ["", "global", "global", None]
    assert state.roots["ip-local1"].version == 1
