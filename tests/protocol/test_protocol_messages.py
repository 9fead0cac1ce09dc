"""Messages: written and read they stay the same, and whatever else comes is refused in order."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tega import protocol, strictjson
from tega.errors import Malformed, NotUnderstood
from tega.paths import dotted, wire
from tega.protocol import (
    Connection,
    Error,
    Message,
    Notify,
    Publish,
    PubSubMessage,
    Request,
    Response,
    Role,
    Rollback,
    Session,
    SessionAck,
    Since,
    Subscribe,
    Unsubscribe,
    parse,
)

#: A busy machine is no reason to fail.
relaxed = settings(deadline=None)

LETTERS = "abcXYZ012-."
KEYS = ["ge-0/0/0", "10.0.0.0/24", "a b", " ", ".", '"', "back\\slash", "\n", "\r", "日本", "-"]

tega_ids = st.from_regex(r"[A-Za-z0-9.-][A-Za-z0-9._-]{0,20}", fullmatch=True)
keys = st.sampled_from(KEYS) | st.text(min_size=1, max_size=12).filter(lambda key: key[0] != "_")
key_paths = st.lists(keys, min_size=1, max_size=4)
dotted_paths = key_paths.map(dotted)
patterns = st.text(min_size=1, max_size=20).filter(lambda text: not set(text) & set(" \n"))
scopes = st.sampled_from(["local", "global"])
numbers = st.integers(0, 10**18 - 1)
lives = st.text(LETTERS, min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip
bodies = json_values.map(strictjson.dumps)
published = json_values.map(lambda value: strictjson.dumps({"message": value}))
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3).map(strictjson.dumps)
sinces = st.none() | st.builds(Since, numbers, st.none() | lives)
types = st.sampled_from(["RPC", "TX", "SYNC", "REFER"])
request_paths = st.just("-") | key_paths.map(wire)

messages = st.one_of(
    st.builds(Session, tega_ids, scopes),
    st.builds(SessionAck, tega_ids, st.text(max_size=8), st.integers(0)),
    st.builds(Subscribe, dotted_paths, scopes, st.just(False), sinces),
    st.builds(Subscribe, patterns, scopes, st.just(True), sinces),
    st.just(Unsubscribe()),
    st.builds(Unsubscribe, dotted_paths, st.just(False)),
    st.builds(Unsubscribe, patterns, st.just(True)),
    st.builds(Publish, dotted_paths, published),
    st.builds(PubSubMessage, dotted_paths, tega_ids, published),
    st.builds(Notify, bodies),
    st.builds(Rollback, keys, st.integers(-(10**18) + 1, 10**18 - 1)),
    st.builds(Request, numbers, types, tega_ids, request_paths, bodies),
    st.builds(Response, numbers, types, tega_ids, st.booleans(), bodies),
    st.builds(Error, st.text("abc_", min_size=1), objects),
)

words = st.sampled_from([
    "SESSION", "SESSIONACK", "SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH", "MESSAGE", "NOTIFY",
    "ROLLBACK", "REQUEST", "RESPONSE", "ERROR", "RPC", "TX", "local", "True", "False", "a", "a.b",
    '"a b"', '"a\\u0020b"', '"', "-", "-1", "0", "17@9c41", "@", "", "_a", "\r", "\t", "é",
])  # fmt: skip
heads = st.lists(words | st.text(max_size=4), max_size=6).map(" ".join)
tails = st.sampled_from([
    "", "\n", "\r\n", "\n{}", "\n[]", '\n{"message":1}', '\n{"life":"1","seq":1}',
    '\n{"message":1,"message":2}', '\n{"message":"\\ud800"}', "\nNaN", '\n{"message":1e999}',
    "\n" + "[" * 100_000, '\n{"message":' + "[" * 5_000 + "]" * 5_000 + "}", "\n\0",
])  # fmt: skip


@relaxed
@given(messages)
def test_what_is_written_is_read_as_it_was(message: Message) -> None:
    assert parse(message.text()) == message


@relaxed
@given(messages)
def test_the_first_line_may_end_as_lines_of_the_net_do(message: Message) -> None:
    text = message.text()
    assume("\n" in text)
    assert parse(text.replace("\n", "\r\n", 1)) == message


@relaxed
@given(messages)
def test_a_parameter_holds_no_space(message: Message) -> None:
    head = message.text().partition("\n")[0]
    assert "" not in head.split(" ")
    assert len(head.split(" ")) <= 5


@relaxed
@given(messages)
def test_a_message_as_data_is_json(message: Message) -> None:
    data = message.as_data()
    assert data["command"] == message.command
    assert strictjson.loads(strictjson.dumps(data)) == data
    assert set(data) - {"command"} == set(type(message).__struct_fields__)


def read(text: str) -> Message | None:
    """A message, or None where it is refused as it should be."""
    try:
        return parse(text)
    except Malformed as error:
        refusal = error
    assert refusal.message
    assert strictjson.loads(strictjson.dumps(refusal.body())) == refusal.body()
    assert len(refusal.message) < 2_000, "what is refused is not said again in full"
    return None


@relaxed
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)


@relaxed
@given(heads, tails)
def test_what_looks_like_a_message_is_read_or_refused(head: str, tail: str) -> None:
    read(head + tail)


@relaxed
@given(messages, st.integers(0), st.integers(0, 3), st.text(max_size=2))
def test_what_was_a_message_is_read_or_refused(
    message: Message, at: int, cut: int, inserted: str
) -> None:
    text = message.text()
    at %= len(text) + 1
    found = read(text[:at] + inserted + text[at + cut :])
    # What is read is passed on as what it is.
    if found is not None and "\r" not in inserted:
        assert parse(found.text()) == found


@relaxed
@given(heads, tails, st.sampled_from(Role))
def test_a_connection_takes_a_message_or_refuses_it(head: str, tail: str, role: Role) -> None:
    connection = Connection(role)
    before = connection.state
    heard = None
    with suppress(Malformed):
        heard = connection.receive(head + tail)
    assert heard is not None or connection.state is before


# -- what errors say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire_text", "kind", "said"),
    [
        ("HELLO", NotUnderstood, "'HELLO'.*begins with SESSION, "),
        ("x" * 1000, NotUnderstood, "unknown message 'x{32}'"),
        ("SESSION a", Malformed, "SESSION takes a tega id and a scope"),
        ("SUBSCRIBE a", Malformed, "may take a regex flag"),
        ("SUBSCRIBE  a local", Malformed, "separated by one space"),
        ("PUBLISH a", Malformed, "body must follow on the next line"),
        ("SESSION a local\n{}", Malformed, "takes no body"),
        ("SESSION a here", Malformed, "scope 'here': it is local or global"),
        ("SUBSCRIBE a local yes", Malformed, "regex flag 'yes'"),
        ("SUBSCRIBE a local True 1@", Malformed, "17@9af3"),
        ("SUBSCRIBE a..b local", Malformed, "'a..b'"),
        ("SESSION _a local", Malformed, "'_a'"),
        ("ROLLBACK a.b 1", Malformed, "'a.b'.*name of a root"),
        ("ROLLBACK a 1.5", Malformed, "backto '1.5'"),
        ("REQUEST x TX a -\n", Malformed, "seq_no 'x'"),
        ("REQUEST 1 GET a -\n", Malformed, "RPC or TX or SYNC or REFER"),
        ('PUBLISH a\n{"a":1}', Malformed, "PUBLISH: the body is"),
        ("ERROR a\n1", Malformed, "ERROR: the body is a JSON object"),
    ],
)
def test_an_error_says_what_is_wrong(wire_text: str, kind: type[Malformed], said: str) -> None:
    with pytest.raises(Malformed, match=said) as caught:
        parse(wire_text)
    assert type(caught.value) is kind


def test_a_body_is_passed_on_to_the_letter() -> None:
    body = '{ "message" : 1.0, "" : [1e3 ] }'
    assert parse(f"REQUEST 1 RPC a f\n{body}").text() == f"REQUEST 1 RPC a f\n{body}"


@pytest.mark.parametrize("value", [None, 0, 0.0, False, "", [], {}])
def test_what_is_empty_or_false_arrives_as_itself(value: Any) -> None:
    text = json.dumps(value)
    response = parse(f"RESPONSE 1 RPC a\n{text}").as_data()["body"]
    message = parse(f'MESSAGE a b\n{{"message":{text}}}').as_data()["body"]["message"]
    for found in (response, message):
        assert type(found) is type(value)
        assert found == value


def test_the_scope_and_the_flag_have_defaults() -> None:
    assert protocol.parse("SUBSCRIBE a local") == Subscribe("a")
    assert protocol.parse("UNSUBSCRIBE a") == Unsubscribe("a")
    assert Session("a").text() == "SESSION a local"
