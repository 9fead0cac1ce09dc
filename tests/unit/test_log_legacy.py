"""The format of 2017: what its logs add up to, and which lines are refused."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logbuilder import assert_same

from tega.errors import Corrupt, Malformed
from tega.log import legacy
from tega.log.base import Settings
from tega.log.file import FileLog
from tega.paths import parse
from tega.store.check import check
from tega.store.history import State
from tega.store.node import ABSENT, thaw

DOCUMENT = Path(__file__).parents[2] / "doc" / "tega-db-format.md"


def put(path: str, instance: Any, ope: str = "PUT") -> str:
    return repr({"ope": ope, "path": path, "tega_id": "cli-1", "instance": instance})


def tx(*lines: str) -> str:
    return "\n".join(["?", *lines, "@2016-02-01 10:11:12.123456\n"])


def node(value: Any, version: int, oid: str = "x", **more: Any) -> dict[str, Any]:
    """A node in internal form: a container where `value` is a dict."""
    attributes = {"_oid": oid, "_parent": None, "_version": version, "_ephemeral": False, **more}
    return {**attributes, **value} if isinstance(value, dict) else {**attributes, "_value": value}


def load(directory: Path, *texts: str, **settings: int) -> State:
    """The state that segments of these texts add up to."""
    paths = []
    for number, text in enumerate(texts):
        path = directory / f"log.old.{number}"
        path.write_text(text, "utf-8")
        paths.append(path)
    state = legacy.load(paths, "life", Settings(**settings))
    check(state)
    return state


def value(state: State, path: str, version: int | None = None) -> Any:
    return thaw(state.find(parse(path), version).content)


def versions(state: State, root: str) -> tuple[int, int]:
    """The oldest readable version and the newest."""
    return state.roots[root].first, state.roots[root].version


# -- what logs add up to ----------------------------------------------------------------------


def test_transactions_add_up(tmp_path: Path) -> None:
    state = load(
        tmp_path,
        tx(put("a.b", {"c": 1, "d": [1, ("x", None)]}), put("r", True)),
        tx(put("a.b.c", 2.5)) + tx(put("ü.ge-0/0/0", "%tega.f")),
    )
    assert (state.life, state.seq) == ("life", 3)
    assert value(state, "a") == {"b": {"c": 2.5, "d": (1, ("x", None))}}
    assert value(state, "a", 0) == {"b": {"c": 1, "d": (1, ("x", None))}}
    assert value(state, "r") is True
    assert value(state, "ü") == {"ge-0/0/0": "%tega.f"}
    assert versions(state, "a") == (0, 1)
    assert state.version_at(("a", "b", "d")) == 0


def test_a_delete_deletes(tmp_path: Path) -> None:
    state = load(tmp_path, tx(put("a", {"b": 1, "c": 2})) + tx(put("a.b", 1, "DELETE")))
    assert value(state, "a") == {"c": 2}
    state = load(tmp_path, tx(put("a", {"b": 1})) + tx(put("a", None, "DELETE")))
    assert state.roots["a"].content is ABSENT
    assert value(state, "a", 0) == {"b": 1}


def test_a_delete_of_nothing_is_a_version_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = load(tmp_path, tx(put("a", {"b": 1})) + tx(put("a.x", 1, "DELETE")))
    assert value(state, "a") == {"b": 1}
    assert versions(state, "a") == (0, 1)
    assert f"{tmp_path}/log.old.0: line 5: nothing at a.x to delete" in caplog.text
    state = load(tmp_path, tx(put("never.x", 1, "DELETE")))
    assert (state.seq, len(state.roots)) == (1, 0)


def test_a_put_below_a_leaf_replaces_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = load(tmp_path, tx(put("a.b", 1)) + tx(put("a.b.c", 2)) + tx(put("a.b.c.d.e", 3)))
    assert value(state, "a") == {"b": {"c": {"d": {"e": 3}}}}
    assert value(state, "a", 1) == {"b": {"c": 2}}
    assert "line 5: a.b.c replaces the leaf a.b" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        put("a", 1) + "\n" + put("b", 2) + ":!\n",
        put("a", 1) + "\n" + put("b", 2) + "\n:!\n",
        put("a", 1) + "\n" + put("b", 2) + "\n2015-01-01 10:11:12:!\n",
        "?\n" + put("a", 1) + "\n" + put("b", 2) + "\n:!\n",
        "?\n" + put("a", 1) + "\n" + put("b", 2) + "\n@2016:!\n",
        "\n*\n" + put("a", 1) + "\n* * *\n" + put("b", 2) + "\n@2016\n*",
        "?\r\n" + put("a", 1) + "\r\n" + put("b", 2) + "\r\n@2016\r\n",
        "?\n" + put("a", 1) + "\n" + put("b", 2) + "\n@2016",
        put("a", 1) + "\n" + put("b", 2) + ":!",
    ],
)
def test_ways_to_end_a_transaction(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = load(tmp_path, text)
    assert (state.seq, value(state, "a"), value(state, "b")) == (1, 1, 2)
    assert not caplog.records


@pytest.mark.parametrize("end", ["", put("b", 2) + "\n", put("b", 2)[:-9], put("b", 2)])
@pytest.mark.parametrize("more", [True, False])
def test_a_transaction_without_an_end_is_left_out(
    tmp_path: Path, end: str, more: bool, caplog: pytest.LogCaptureFixture
) -> None:
    unfinished = "?\n" + put("b", 1) + "\n" + end
    last = tx(put("c", 3)) if more else ""
    state = load(tmp_path, tx(put("a", 1)) + unfinished, last)
    assert sorted(state.roots) == (["a", "c"] if more else ["a"])
    assert state.seq == len(state.roots)
    assert f"{tmp_path}/log.old.0: line 4: a transaction without an end" in caplog.text


def test_it_is_not_joined_to_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server of 2017 did that."""
    state = load(tmp_path, "?\n" + put("b", 1) + "\n" + tx(put("a", 1)))
    assert sorted(state.roots) == ["a"]
    assert "line 1: a transaction without an end, 1 records" in caplog.text
    state = load(tmp_path, tx(put("a", 1)) * 2 + "?\n" + put("a", 9) + "\n-1 me a\n")
    assert (value(state, "a"), versions(state, "a"), state.seq) == (1, (0, 0), 3)


def test_a_rollback_pops_old_roots(tmp_path: Path) -> None:
    log = "".join([tx(put("a", number)) for number in range(5)])
    state = load(tmp_path, log + "-2 cli-1 a\n")
    assert (value(state, "a"), versions(state, "a"), state.seq) == (2, (0, 2), 6)
    assert [value(state, "a", n) for n in range(2)] == [0, 1]
    state = load(tmp_path, log + "-2 cli-1 a\n" + tx(put("a", "next")))
    assert (value(state, "a"), versions(state, "a")) == ("next", (0, 3))
    assert [value(state, "a", n) for n in range(3)] == [0, 1, 2]
    # A rollback of a rollback was not possible: what was current was gone.
    state = load(tmp_path, log + "-2 cli-1 a\n-1 cli-1 a\n")
    assert (value(state, "a"), versions(state, "a")) == (1, (0, 1))


def test_old_roots_were_ten_whatever_is_kept_here(tmp_path: Path) -> None:
    log = "".join([tx(put("a", number)) for number in range(15)])
    state = load(tmp_path, log + "-10 cli-1 a\n", maxlen=2)
    assert (value(state, "a"), versions(state, "a")) == (4, (4, 4))
    with pytest.raises(Corrupt, match="a rollback by 11 where a has 10 old roots"):
        load(tmp_path, log + "-11 cli-1 a\n", maxlen=20)
    state = load(tmp_path, log, maxlen=3)
    assert versions(state, "a") == (11, 14)
    assert [value(state, "a", n) for n in range(11, 15)] == [11, 12, 13, 14]
    assert versions(load(tmp_path, log, maxlen=20), "a") == (4, 14)
    assert versions(load(tmp_path, log, maxlen=0), "a") == (14, 14)


def test_a_snapshot_replaces_the_content_of_a_root(tmp_path: Path) -> None:
    tree = node({"b": node(1, 2), "c": node({"d": node([1], 0)}, 1), "e": node({}, 9)}, 4)
    state = load(tmp_path, tx(put("a", {"gone": 1})), tx(put("a", tree, "SS")))
    assert value(state, "a") == {"b": 1, "c": {"d": (1,)}, "e": {}}
    assert versions(state, "a") == (4, 4)
    at = {path: state.version_at(parse(path)) for path in ("a", "a.b", "a.c", "a.c.d", "a.e")}
    # A node is never newer than its parent.
    assert at == {"a": 4, "a.b": 2, "a.c": 1, "a.c.d": 0, "a.e": 4}


def test_history_before_a_snapshot_stays_where_versions_follow(tmp_path: Path) -> None:
    before = tx(put("a", {"x": 1})) + tx(put("a.x", 2))
    same = load(tmp_path, before, tx(put("a", node({"x": node(2, 1)}, 1), "SS")) + "-1 me a\n")
    assert (value(same, "a"), versions(same, "a")) == ({"x": 1}, (0, 0))
    following = load(tmp_path, before, tx(put("a", node({"x": node(3, 2)}, 2), "SS")))
    assert versions(following, "a") == (0, 2)
    assert (value(following, "a"), value(following, "a", 1)) == ({"x": 3}, {"x": 2})
    unversioned = load(tmp_path, before, tx(put("a", {"x": {"_value": 3}}, "SS")))
    assert (value(unversioned, "a"), versions(unversioned, "a")) == ({"x": 3}, (0, 2))
    several = load(tmp_path, before, tx(*[put("a", node(n, n), "SS") for n in (7, 8, 9)]))
    assert versions(several, "a") == (7, 9)
    assert [value(several, "a", n) for n in (7, 8, 9)] == [7, 8, 9]


def test_a_snapshot_between_changes(tmp_path: Path) -> None:
    state = load(
        tmp_path, tx(put("a.x", 1), put("a", node({"y": node(2, 0)}, 0), "SS"), put("a.z", 3))
    )
    assert (value(state, "a"), versions(state, "a"), state.seq) == ({"y": 2, "z": 3}, (0, 1), 1)


def test_versions_that_were_overwritten(tmp_path: Path) -> None:
    tree = node({"b": node(1, -5), "c": node(2, 0, _version="x")}, 0, _version={"x": 1})
    state = load(tmp_path, tx(put("a", tree, "SS")))
    assert versions(state, "a") == (0, 0)
    assert value(state, "a") == {"b": 1, "c": 2}


def test_ephemeral_nodes_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = node("x", 0, _ephemeral=True)
    tree = node({"a": node({"s": gone}, 0), "b": node({"s": gone, "t": node(1, 0)}, 0)}, 0)
    state = load(tmp_path, tx(put("r", tree, "SS"), put("e", gone, "SS")))
    assert value(state, "r") == {"b": {"t": 1}}
    assert state.roots["e"].content is ABSENT
    assert "line 2: ephemeral nodes left out: r.a.s, r.b.s" in caplog.text


def test_the_same_log_gives_the_same_state_and_another_one_other_hashes(tmp_path: Path) -> None:
    def chain(text: str) -> str:
        return load(tmp_path, text).roots["a"].chain

    log = tx(put("a", 1)) + tx(put("a", 2))
    chains = [chain(log), chain(log + "-1 me a\n"), chain(tx(put("a", 1)))]
    chains += [chain(tx(put("a", node(1, 0), "SS"))), chain(tx(put("a", node(2, 0), "SS")))]
    assert len({*chains}) == 5
    assert chain(log) == chains[0]


def test_the_server_reads_it_and_begins_a_segment_of_today(tmp_path: Path) -> None:
    expected = load(tmp_path, tx(put("a", {"b": 1})) + tx(put("a.b", 2)), tx(put("c", [1])))
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        log = FileLog(tmp_path, "old", lambda: "life")
        assert_same(log.recover(Settings()), expected)
        log.close()
    assert {path: path.read_bytes() for path in old} == old
    assert (tmp_path / "log.old.2").exists()


def test_the_document_shows_a_log_that_reads(tmp_path: Path) -> None:
    (found,) = re.findall(r"```text\n(\?\n.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    state = load(tmp_path, found)
    assert value(state, "inventory") == {"ne1": {"name": "ooo", "up": True}}
    assert value(state, "routes") == {"r1": 5}
    assert versions(state, "routes") == (4, 4)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (put("a", {1, 2}), "a set cannot be stored"),
        (put("a", b"x"), "not a plain Python literal"),
        (put("a", 1j), "not a plain Python literal"),
        (put("a", float("nan")), "not a plain Python literal"),
        (put("a", float("inf")), "not a plain Python literal"),
        (put("a", 0).replace("0", "1e999"), "not a finite number"),
        (put("a", 0).replace("0", "9" * 5000), "literal|integer too long"),
        (put("a", {"_version": 3}), "reserved key '_version'"),
        (put("a", {"b": {"_x": 3}}), "reserved key '_x'"),
        (put("a", {1: 2}), "keys are strings"),
        (put("a", {"": 2}), "empty key"),
        (put("a", 0).replace("0", r"'\ud800'"), "lone surrogate"),
        (put("a", {"b": {"_x": 3}}, "SS"), "reserved key '_x'"),
        (put("a", {"b": {2: 3}}, "SS"), "keys are strings"),
        (put("a", {"_value": {1}}, "SS"), "a set cannot be stored"),
        (put("a.b", 1, "SS"), "a snapshot is of a whole root"),
        (put("a._b", 1), "malformed path"),
        (put("", 1), "malformed path"),
        (put("a", 1, "GET"), "'ope' is PUT, DELETE or SS"),
        ("{'ope': 'PUT', 'path': 'a', 'tega_id': 'x'}", "'instance' is missing"),
        ("{'ope': 'PUT', 'path': 1, 'tega_id': 'x', 'instance': 1}", "are strings"),
        ("{'ope': 'PUT', 'path': 'a', 'tega_id': [], 'instance': 1}", "are strings"),
        ("{'PUT'}", "a record is a dict"),
        ("{'a': 1}}", "not a Python literal"),
        ("{'a': 1", "not a Python literal"),
        ("{'a' 'b': 1}", "not a plain Python literal"),
        ("{'a': 1 if 2 else 3}", "not a plain Python literal"),
        ("{'a': [1][0]}", "not a plain Python literal"),
        ("{'a': f()}", "not a plain Python literal"),
        ("{'a': __import__('os').system('true')}", "not a plain Python literal"),
        ("{'a': ''.join(())}", "not a plain Python literal"),
        ("{[]: 1}", "not a Python literal"),
        ("{'a': 'x\0'}", "not a Python literal"),
        ('{"ope":"PUT","path":"a","tega_id":"x","instance":true}', "not a plain Python literal"),
        ("{" * 1_000 + "}" * 1_000, "nested too deep"),
        ("{'a': " + "[" * 100_000, "nested too deep"),
        ("{'a': " + "(" * 63 + ")" * 63 + "}", "'ope' is PUT"),
        ("{'a': " + "-" * 100_000 + "1}", "not a plain Python literal"),
        ("{'a': " + "1+" * 100_000 + "1}", "not a plain Python literal"),
        ("{'a': " + "not " * 100_000 + "1}", "not a plain Python literal"),
        ("{'a': " + "1-1" * 100_000 + "}", "not a plain Python literal"),
        ("{'a': " + "'x'" * 100_000 + "}", "not a plain Python literal"),
        ("hello", "neither a record nor a marker"),
        ("? 17", "neither a record nor a marker"),
        ("[1]", "neither a record nor a marker"),
        ("-1 me", "a rollback is"),
        ("-x me a", "a rollback is"),
        ("-1 me a.b", "a rollback is"),
        ("-1 me never", "a rollback by 1 where never has 0 old roots"),
        ("-0 me r", "a rollback by 0 where r has 0 old roots"),
    ],
)
def test_a_line_that_cannot_be_read(tmp_path: Path, line: str, reason: str) -> None:
    before = tx(put("r", "é")) + "?\n"
    with pytest.raises(Corrupt, match=reason) as caught:
        load(tmp_path, before + line + "\n@2016\n")
    offset = len(before.encode())
    assert caught.value.details == {"file": f"{tmp_path}/log.old.0", "line": 5, "offset": offset}
    assert f"log.old.0: line 5, byte offset {offset}: " in caught.value.message
    assert "mend that line by hand" in caught.value.message


def test_a_line_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "log.old.0"
    path.write_bytes(b"?\n{'ope': '\xff'}\n@2016\n")
    with pytest.raises(Corrupt, match=r"line 2, byte offset 2: not a Python literal.*utf-8"):
        legacy.load([path], "life", Settings())


def test_a_record_outside_of_a_transaction(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"line 4, .*a record outside of a transaction"):
        load(tmp_path, tx(put("a", 1)) + put("b", 1) + "\n@2016\n")


def test_depth_counts_the_path(tmp_path: Path) -> None:
    for nested in ({"c": {"d": 1}}, [[1]], {"c": [1]}):
        assert value(load(tmp_path, tx(put("a.b", nested)), max_depth=4), "a.b") is not None
        with pytest.raises(Corrupt, match="nested too deep"):
            load(tmp_path, tx(put("a.b", nested)), max_depth=3)
    tree = {"_value": 1}
    for _ in range(3):
        tree = {"k": tree}
    assert load(tmp_path, tx(put("a", tree, "SS")), max_depth=4).seq == 1
    with pytest.raises(Corrupt, match="nested too deep"):
        load(tmp_path, tx(put("a", tree, "SS")), max_depth=3)


def test_a_log_of_today_with_a_damaged_beginning_is_not_taken_for_one_of_2017(
    tmp_path: Path,
) -> None:
    log = FileLog(tmp_path, "me", lambda: "life")
    log.recover(Settings())
    log.close()
    path = tmp_path / "log.me.0"
    path.write_bytes(b"? \x20" + path.read_bytes()[3:])
    with pytest.raises(Corrupt):
        FileLog(tmp_path, "me", lambda: "life").recover(Settings())
    assert not legacy.is_legacy(path.read_bytes())
    assert [entry.name for entry in tmp_path.glob("log.*")] == ["log.me.0"]


# -- literals ---------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_whatever_python_writes_is_read(value: Any) -> None:
    try:
        text = repr(value).encode()
    except UnicodeEncodeError:
        return
    assert repr(legacy.literal(text, 100)) == repr(value)


@settings(max_examples=300, deadline=None)
@given(st.text("{}[]()'\"\\,:-+.0123eEjTrueNonax_*= \n#fb", max_size=30))
def test_nothing_but_malformed_comes_of_a_hostile_line(text: str) -> None:
    try:
        found = legacy.literal(text.encode(), 10)
    except Malformed:
        return
    assert isinstance(found, dict | list | tuple | set | str | int | float | None)


def test_warnings_go_to_the_log_of_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, "?\n" + put("a", 1))
    assert [(r.name, r.levelno) for r in caplog.records] == [("tega.log.legacy", logging.WARNING)]
