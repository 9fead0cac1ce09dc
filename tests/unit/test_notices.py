"""What of a commit reaches whom, and how it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tega.notices import Notice, addressed, standing, whole
from tega.paths import parse
from tega.store.commit import Commit, Request, Rollback, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.staging import stage
from tega.topics import Topics

TIME = "2026-11-21T01:34:05.123456Z"


def put(path: str, value: Any, ephemeral: bool = False) -> Any:
    return make_put(parse(path), value, ephemeral=ephemeral)


def delete(path: str) -> Any:
    return make_delete(parse(path))


def made(*steps: Any) -> tuple[State, Commit]:
    """The last of some commits, and the state after it; each step is an operation or several."""
    state, commit = State("life"), None
    for step in steps:
        request: Request = step
        if not isinstance(step, Rollback):
            operations = step if isinstance(step, tuple) else (step,)
            request = Transaction(operations, "me")
        state, commit = stage(state, request, TIME, 10)
    assert commit is not None
    return state, commit


def subscribed(*rows: tuple[str, str]) -> Topics:
    """Subscriptions: who, and the path."""
    topics = Topics()
    for who, text in rows:
        regex = "*" in text
        topics.add(tuple(text.split("\\.")) if regex else parse(text), regex, who, 0)
    return topics


def shares(topics: Topics, commit: Commit) -> list[tuple[Notice, list[Any]]]:
    return [one for one in addressed(topics, commit) if one is not None]


def told(topics: Topics, commit: Commit) -> list[tuple[list[Any], list[tuple[str, str, Any]]]]:
    """Who gets what."""
    return [
        (who, [(one["ope"], one["path"], one["instance"]) for one in notice.as_data()])
        for notice, who in shares(topics, commit)
    ]


def as_json(notice: Notice) -> Any:
    return json.loads(b"".join(notice.chunks()))


def test_how_a_change_reads() -> None:
    _, commit = made(put("a.b", 1), put('a."10.0.0.0/24"', {"x": [1, None], "y": 1.0}))
    [(notice, _)] = shares(subscribed(("x", "a")), commit)
    expected = {
        "ope": "PUT", "path": 'a."10.0.0.0/24"', "tega_id": "me", "seq": 2, "version": 1,
        "instance": {"x": [1, None], "y": 1.0},
    }  # fmt: skip
    assert as_json(notice) == [expected]
    [data] = notice.as_data()
    assert json.loads(json.dumps(data)) == expected


def test_a_rollback_is_one_change_on_the_root_for_those_whose_part_changed() -> None:
    _, commit = made(
        put("a", {"b": {"c": 1}, "d": 2}), (put("a.b.c", 5), put("a.e", 1)), put("a.q", 1),
        Rollback("a", -2, "me"),
    )  # fmt: skip
    topics = subscribed(
        ("root", "a"), ("b", "a.b"), ("c", "a.b.c"), ("c", "a.e"), ("d", "a.d"), ("f", "a.f"),
        ("pattern", r".*\.e.*"), ("other", "b"), ("below", "a.b.c.x"),
    )  # fmt: skip
    [(notice, who)] = shares(topics, commit)
    assert sorted(who) == ["b", "c", "pattern", "root"]
    assert as_json(notice) == [
        {"ope": "ROLLBACK", "path": "a", "tega_id": "me", "seq": 4, "version": 3,
         "backto": -2, "instance": None}
    ]  # fmt: skip


def test_a_rollback_to_the_same_is_told_nobody() -> None:
    _, commit = made(put("a", 1), put("a", 1), Rollback("a", -1, "me"))
    assert told(subscribed(("x", "a"), ("y", ".*")), commit) == []


def test_those_who_get_the_same_share_a_notice() -> None:
    _, commit = made((put("a", {"b": 1, "c": 2}), put("d", 3)))
    topics = subscribed(
        *[(f"b{n}", "a.b") for n in range(50)], *[(f"d{n}", "d") for n in range(50)],
        ("both", "a.b"), ("both", "d"), ("twice", "a.b"), ("twice", "a.b*"),
    )  # fmt: skip
    notices = [(sorted(who), changes) for who, changes in told(topics, commit)]
    assert len(notices) == 3
    b, d = ("PUT", "a.b", 1), ("PUT", "d", 3)
    assert (sorted([f"b{n}" for n in range(50)] + ["twice"]), [b]) in notices
    assert (sorted(f"d{n}" for n in range(50)), [d]) in notices
    assert (["both"], [b, d]) in notices


@pytest.mark.parametrize("path", ["a", "a.b"], ids=["as it is", "cut"])
def test_nobody_hears_of_what_came_before_the_subscription(path: str) -> None:
    _, commit = made(put("a.c", 0), put("a", {"b": 1}))
    topics = Topics()
    topics.add(parse(path), False, "late", 2)
    assert shares(topics, commit) == []
    topics.add(parse(path), False, "early", 1)
    assert [who for _, who in shares(topics, commit)] == [["early"]]


def test_a_delete_carries_what_was_removed_however_large_it_was() -> None:
    value = {f"k{n}": "x" * 1000 for n in range(1_500)}
    _, commit = made(put("a.b", value), delete("a.b"))
    assert len(commit.changes[0].record) < 1_000, "the log does without"
    [(notice, _)] = shares(subscribed(("x", "a")), commit)
    assert as_json(notice)[0]["instance"] == value
    assert notice.as_data()[0]["instance"] == value
    assert max(map(len, notice.chunks())) < 1_200_000


def test_a_delete_carries_the_ephemeral_nodes_that_went_too() -> None:
    _, commit = made(put("a.b", 1), put("a.e", 2, ephemeral=True), delete("a"))
    assert b'"e"' not in commit.changes[0].record, "they are in no log"
    [(notice, _)] = shares(subscribed(("x", "a")), commit)
    assert as_json(notice)[0]["instance"] == {"b": 1, "e": 2}


def test_a_long_cut_is_made_in_bounded_pieces() -> None:
    _, commit = made(put("a", {"b": {f"k{n}": "x" * 10 for n in range(50_000)}}))
    [(notice, _)] = shares(subscribed(("x", "a.b")), commit)
    assert max(map(len, notice.chunks())) < 50_000
    assert len(as_json(notice)[0]["instance"]) == 50_000


def test_a_whole_change_is_the_text_of_its_record() -> None:
    _, commit = made(put("a", {"b": 1}))
    [change] = commit.changes
    before = bytes(change.record)
    piece = whole(change)
    [text] = piece.chunks(1)
    assert text == before[:-1] + b',"seq":1}'
    assert change.record is piece.record, "not made anew"
    assert change.record == before


def test_what_a_subscriber_gets_is_its_own() -> None:
    _, commit = made(put("a", {"b": {"c": 1}}))
    [(notice, _)] = shares(subscribed(("x", "a"), ("y", "a")), commit)
    notice.as_data()[0]["instance"]["b"]["c"] = "altered"
    assert notice.as_data()[0]["instance"] == {"b": {"c": 1}}
    assert commit.changes[0].content is notice.pieces[0].content
    assert as_json(notice)[0]["instance"] == {"b": {"c": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [("PUT", "a", {"b": 1, "c": {"d": 2}}, 1)]),
        ("a.c.d", [("PUT", "a.c.d", 2, 1)]),
        ("a.q", [("DELETE", "a.q", None, 0)]),
        ("q", [("DELETE", "q", None, 0)]),
        (r".*", [("PUT", "a", {"b": 1, "c": {"d": 2}}, 1), ("PUT", "e", 3, 0)]),
        (r"a\..*", [("PUT", "a.b", 1, 0), ("PUT", "a.c", {"d": 2}, 1)]),
        (r"q\..*", []),
    ],
)
def test_what_stands_there(text: str, expected: list[Any]) -> None:
    state, _ = made(put("a.b", 1), put("a.c.d", 2), put("e", 3), put("gone", 1), delete("gone"))
    regex = "*" in text
    levels = tuple(text.split("\\.")) if regex else parse(text)
    found = json.loads(b"".join(standing(state, levels, regex, "srv")))
    assert [(one["ope"], one["path"], one["instance"], one["version"]) for one in found] == expected
    assert all((one["tega_id"], one["seq"]) == ("srv", 5) for one in found)
