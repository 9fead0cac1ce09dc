"""Bodies of transactions: what is read of them, what is refused, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import immutables
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tega import strictjson
from tega.access.who import UNLIMITED
from tega.database import Database
from tega.errors import Malformed
from tega.log.memory import MemoryLog
from tega.store.commit import Delete, Operation, Put, Transaction, make_put
from tega.store.history import Lead, State
from tega.store.node import thaw
from tega.web import batch
from tega.web.batch import Read

MAX_DEPTH = 8


def read(ops: Any, **more: Any) -> tuple[Transaction, list[Read]]:
    return batch.read(strictjson.dumps({"ops": ops, **more}), "cli-1", MAX_DEPTH, UNLIMITED)


def changes(*given_: Any) -> tuple[Operation, ...]:
    return batch.read_changes(
        strictjson.dumps(list(given_)), "cli-1", MAX_DEPTH, UNLIMITED
    ).operations


# -- what is read ---------------------------------------------------------------------------------


def test_operations_come_in_order_and_reads_by_themselves() -> None:
    transaction, reads = read([
        {"ope": "PUT", "path": "a.b", "instance": {"c": 1}},
        {"ope": "GET", "path": "a"},
        {"ope": "DELETE", "path": 'x."y z"', "version": 3},
        {"ope": "PUT", "path": "here", "instance": None, "version": -1, "ephemeral": True},
        {"ope": "GET", "path": "a.b", "version": -1, "internal": True},
    ])  # fmt: skip
    assert (transaction.tega_id, transaction.txid) == ("cli-1", None)
    first, second, third = transaction.operations
    assert isinstance(first, Put)
    assert (first.path, thaw(first.content), first.expected) == (("a", "b"), {"c": 1}, None)
    assert isinstance(second, Delete)
    assert (second.path, second.expected) == (("x", "y z"), 3)
    assert isinstance(third, Put)
    assert (third.path, third.content, third.expected) == (("here",), None, -1)
    assert (first.ephemeral, third.ephemeral) == (False, True)
    assert reads == [Read(("a",), None, False, None), Read(("a", "b"), -1, True, None)]


def test_an_empty_transaction_is_one() -> None:
    transaction, reads = read([])
    assert (transaction.operations, reads) == ((), [])


@pytest.mark.parametrize("txid", ["t-1", "é", "x" * 255])
def test_a_transaction_may_have_an_id(txid: str) -> None:
    assert read([], txid=txid)[0].txid == txid


def test_no_id_may_be_said() -> None:
    assert read([], txid=None)[0].txid is None


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, 1 << 80, 0.5, "é", {"a": [{}]}])
def test_a_value_is_put_as_it_is(value: Any) -> None:
    (operation,) = read([{"ope": "PUT", "path": "a", "instance": value}])[0].operations
    assert isinstance(operation, Put)
    found = thaw(operation.content)
    assert strictjson.dumps(found) == strictjson.dumps(value)


def test_who_did_it_is_the_session_whatever_an_operation_says() -> None:
    put = {"ope": "PUT", "path": "a", "instance": 1, "tega_id": "somebody"}
    delete = {"ope": "DELETE", "path": "b", "instance": {"was": 1}, "tega_id": "somebody"}
    assert [one.tega_id for one in read([put, delete])[0].operations] == [None, None]
    assert [one.tega_id for one in changes(put, delete)] == [None, None]


def test_a_pattern_is_compiled_at_once() -> None:
    (asked,) = read([{"ope": "GET", "path": "a.*\\.(b)", "regex_flag": True}])[1]
    assert asked.path == ()
    assert asked.pattern is not None
    first, second = asked.pattern
    assert first.match("abc") is not None
    assert second.match("a") is None


# -- what is refused ------------------------------------------------------------------------------

GOOD = {"ope": "PUT", "path": "a", "instance": 1}
WRONG: list[tuple[Any, str]] = [
    (None, "an operation is an object"),
    (1, "an operation is an object"),
    ("PUT", "an operation is an object"),
    ([GOOD], "an operation is an object"),
    ({}, "path is missing"),
    ({"path": "a", "instance": 1}, "ope 'None'"),
    ({"ope": "POST", "path": "a"}, "'POST': it is PUT, DELETE or GET"),
    ({"ope": "put", "path": "a", "instance": 1}, "'put'"),
    ({"ope": ["PUT"], "path": "a", "instance": 1}, "PUT, DELETE or GET"),
    ({"ope": "ROLLBACK", "path": "a"}, "'ROLLBACK'"),
    ({"ope": "PUT", "instance": 1}, "path is missing"),
    ({"ope": "PUT", "path": 1, "instance": 1}, "path is missing, or no text"),
    ({"ope": "PUT", "path": ["a"], "instance": 1}, "no text"),
    ({"ope": "PUT", "path": "", "instance": 1}, "malformed path ''"),
    ({"ope": "PUT", "path": "a..b", "instance": 1}, "malformed path 'a..b'"),
    ({"ope": "PUT", "path": "a._b", "instance": 1}, "reserved key '_b'"),
    ({"ope": "PUT", "path": 'a."b', "instance": 1}, "bad quoted key"),
    ({"ope": "PUT", "path": "a" * 256, "instance": 1}, "key too long"),
    ({"ope": "PUT", "path": ".".join("a" * 9), "instance": 1}, "depth limit is 8"),
    ({"ope": "PUT", "path": "a", "instance": {"b": {"_c": 1}}}, "_c"),
    ({"ope": "PUT", "path": "a", "instance": {"": 1}}, "empty key"),
    ({"ope": "PUT", "path": "a", "instance": [[[[[[[[[1]]]]]]]]]}, "deep|depth"),
    ({"ope": "PUT", "path": "a"}, "a PUT of a without an instance"),
    ({**GOOD, "version": "1"}, "version '1' is not an integer"),
    ({**GOOD, "version": 1.0}, "version '1.0' is not an integer"),
    ({**GOOD, "version": True}, "version 'True' is not an integer"),
    ({**GOOD, "version": -2}, "version -2"),
    ({**GOOD, "ephemeral": 1}, "ephemeral is true or false"),
    ({**GOOD, "ephemeral": None}, "ephemeral is true or false"),
    ({**GOOD, "versoin": 1}, "unknown key 'versoin': known here are .*version"),
    ({**GOOD, "seq": 1}, "unknown key 'seq'"),
    ({**GOOD, "internal": True}, "unknown key 'internal'"),
    ({"ope": "DELETE"}, "path is missing"),
    ({"ope": "DELETE", "path": "a", "version": -1}, "version -1: a delete takes a version from 0"),
    ({"ope": "DELETE", "path": "a", "ephemeral": True}, "unknown key 'ephemeral'"),
    ({"ope": "DELETE", "path": ".".join("a" * 9)}, "depth limit is 8"),
    ({"ope": "GET"}, "path is missing"),
    ({"ope": "GET", "path": ""}, "malformed path"),
    ({"ope": "GET", "path": "a", "instance": 1}, "unknown key 'instance'"),
    ({"ope": "GET", "path": "a", "version": "0"}, "version '0' is not an integer"),
    ({"ope": "GET", "path": "a", "internal": 1}, "internal, regex_flag and consistent are true or"),
    ({"ope": "GET", "path": "a", "regex_flag": "True"}, "regex_flag and consistent are true"),
    ({"ope": "GET", "path": "a", "consistent": 0}, "internal, regex_flag and consistent are"),
    ({"ope": "GET", "path": "(", "regex_flag": True}, r"malformed pattern '\('"),
    ({"ope": "GET", "path": "", "regex_flag": True}, "empty pattern"),
    ({"ope": "GET", "path": "(?=a)", "regex_flag": True}, "RE2"),
    ({"ope": "GET", "path": "a", "regex_flag": True, "version": 0}, "a regex path spans roots"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=lambda one: str(one)[:60])
def test_a_refusal_names_the_operation_and_what_is_wrong(wrong: Any, said: str) -> None:
    with pytest.raises(Malformed, match=rf"^operation 1: .*{said}") as caught:
        read([GOOD, wrong, GOOD])
    assert str(caught.value) == caught.value.body()["error"]["message"]


def test_what_changes_something_reads_what_is_here() -> None:
    consistent = {"ope": "GET", "path": "a", "consistent": True}
    delete = {"ope": "DELETE", "path": "a"}
    for ops in ([GOOD, consistent], [consistent, GOOD], [delete, consistent]):
        number = ops.index(consistent)
        with pytest.raises(Malformed, match=rf"^operation {number}: consistent: .* TX of its own"):
            read(ops)
    assert read([GOOD, consistent | {"consistent": False}])
    _, (asked,) = read([consistent])
    assert asked.consistent


def test_who_has_to_be_asked_for_what_is_read() -> None:
    def asked(*ops: Any, followed: tuple[str, ...] = ("b", "c")) -> list[str]:
        state = State("life", following=immutables.Map({name: Lead() for name in followed}))
        return batch.to_ask_for(state, read(list(ops))[1], UNLIMITED)

    plain, here, there = [{"ope": "GET", "path": path} for path in ("b", "a.x", "c.x")]
    now = {"consistent": True}
    assert asked(plain) == []
    assert asked(plain, here | now, there | now, there | now) == ["c"]
    assert asked(plain | now, there | now) == ["b", "c"]
    assert asked({"ope": "GET", "path": ".*", "regex_flag": True} | now) == ["b", "c"]
    assert asked(plain | now, followed=()) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "bad JSON"),
        (b"{", "bad JSON"),
        (b"null", r'the body of a TX is {"ops"'),
        (b"[]", r'the body of a TX is {"ops"'),
        (b"{}", r'the body of a TX is {"ops"'),
        (b'{"ops":{}}', r'the body of a TX is {"ops"'),
        (b'{"ops":null}', r'the body of a TX is {"ops"'),
        (b'{"ops":[],"ops":[]}', "duplicate key 'ops'"),
        (b'{"ops":[],"tid":"t"}', "a TX with 'tid': it takes ops and txid"),
        (b'{"ops":[],"txid":7}', "txid is a text"),
        (b'{"ops":[],"txid":""}', "transaction id of 0 characters"),
        (b'{"ops":[],"txid":"' + b"x" * 256 + b'"}', "transaction id of 256 characters"),
        (b'{"ops":[{"ope":"PUT","path":"a","instance":NaN}]}', "bad JSON"),
        (b'{"ops":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        batch.read(body, "cli-1", MAX_DEPTH, UNLIMITED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["PUT", "DELETE", "GET", "a", "a.b", '"', "(", "", "_a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)  # fmt: skip
operations = st.dictionaries(
    st.sampled_from([
        "ope", "path", "instance", "version", "ephemeral", "internal", "regex_flag", "consistent",
        "tega_id",
    ]) | st.text(max_size=3),
    json_values,
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(operations | json_values, min_size=1, max_size=3))
def test_whatever_is_asked_is_read_or_refused_by_its_number(ops: list[Any]) -> None:
    for ask, name in ((read, "operation"), (lambda given_: changes(*given_), "change")):
        try:
            ask(ops)
        except Malformed as error:
            said = error.message
        else:
            continue
        number = said.removeprefix(f"{name} ").partition(":")[0]
        assert int(number) < len(ops)
        # Those before it are not to blame.
        ask(ops[: int(number)])


# -- changes from a client ------------------------------------------------------------------------


def test_a_change_may_carry_what_a_notification_does() -> None:
    put, delete = changes(
        {"ope": "PUT", "path": "a", "instance": 1, "tega_id": "x", "seq": 9, "version": 4},
        {"ope": "DELETE", "path": "b", "instance": 2, "tega_id": "x", "seq": 9, "version": 4},
    )
    assert (put.expected, delete.expected) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "an operation is an object"),
        ({"ope": "GET", "path": "a"}, r"ope 'GET': it is PUT, DELETE$"),
        ({"ope": "ROLLBACK", "path": "a", "backto": -1}, "ope 'ROLLBACK'"),
        ({"ope": "PUT", "path": "a"}, "without an instance"),
        ({"ope": "PUT", "path": "a._b", "instance": 1}, "reserved key"),
        ({"ope": "PUT", "path": "a", "instance": 1, "more": 1}, "unknown key 'more'"),
        ({"ope": "DELETE", "path": "a", "backto": -1}, "unknown key 'backto'"),
        ({"ope": "PUT", "path": "a", "instance": 1, "ephemeral": "yes"}, "ephemeral is true"),
        ({"ope": "DELETE", "path": ""}, "malformed path"),
    ],
)
def test_a_refusal_names_the_change_and_what_is_wrong(wrong: Any, said: str) -> None:
    with pytest.raises(Malformed, match=rf"^change 1: .*{said}"):
        changes({"ope": "PUT", "path": "a", "instance": 1}, wrong)


@pytest.mark.parametrize("body", [b"{}", b"null", b'"[]"', b'{"ops":[]}'])
def test_changes_that_are_no_list_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="the body of a NOTIFY is a list of changes"):
        batch.read_changes(body, "cli-1", MAX_DEPTH, UNLIMITED)


# -- what is answered -----------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[Database]:
    with Database(MemoryLog(lambda: "9c41"), "global") as made:
        for value in ({"ne1": {"name": "sw1"}}, {"ne1": {"name": "sw2"}, "a b": [1]}):
            made.commit(Transaction((make_put(("inventory",), value),), "cli-1"))
        yield made
        made.check()


def answer(database: Database, *asked: dict[str, Any]) -> Any:
    """What reads are answered, as JSON."""
    state = database.state
    reads = read([{"ope": "GET", **one} for one in asked])[1]
    text = b"".join(batch.answer(state.seq, (), state, reads, UNLIMITED))
    given_ = strictjson.loads(text)
    assert (given_.keys(), given_["seq"]) == ({"results", "seq", "versions"}, 2)
    return given_["results"]


def test_each_read_has_its_result_in_order(database: Database) -> None:
    asked = [
        {"path": "inventory.ne1"}, {"path": "nothing"}, {"path": "inventory", "version": 0},
        {"path": "inventory", "version": -2}, {"path": 'inventory."a b"'},
    ]  # fmt: skip
    found = answer(database, *asked)
    assert found[0] == {"instance": {"name": "sw2"}, "version": 1}
    assert found[1]["error"]["code"] == "not_found"
    assert found[2] == {"instance": {"ne1": {"name": "sw1"}}, "version": 0}
    assert found[3]["error"]["code"] == "no_such_version"
    assert found[4] == {"instance": [1], "version": 1}


def test_a_read_may_ask_for_the_attributes(database: Database) -> None:
    (found,) = answer(database, {"path": "inventory.ne1.name", "internal": True})
    assert found["version"] == 1
    assert found["instance"]["_value"] == "sw2"
    assert found["instance"]["_parent"] == "ne1"


def test_a_pattern_gives_every_match(database: Database) -> None:
    asked = {"path": "inv.*\\.(ne)([0-9])", "regex_flag": True}
    assert answer(database, asked) == [
        {"instance": {"inventory.ne1": {"groups": [["ne", "1"]], "instance": {"name": "sw2"}}}}
    ]
    assert answer(database, {"path": "nothing", "regex_flag": True}) == [{"instance": {}}]


def test_without_reads_there_are_no_results() -> None:
    for versions in ({}, {"a": 0}, {'"é\n': 3}, {"b": 1, "a": 0}):
        text = batch.text(7, tuple(versions.items()))
        assert strictjson.loads(text) == {"results": [], "seq": 7, "versions": versions}
