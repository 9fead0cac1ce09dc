"""The vectors that any driver can be tried with, run against this implementation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ends import Ends
from vectors import load, octets, whole

from tega import protocol
from tega.protocol import frames

MESSAGES = load("messages.json")
REFUSED = load("refused.json")
SEQUENCES = load("sequences.json")
FRAMES = load("frames.json")

def name_of(one: dict[str, Any]) -> str:
    return str(one.get("name") or one["why"])


# -- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", MESSAGES, ids=name_of)
def test_a_message_means_what_it_says(one: dict[str, Any]) -> None:
    assert protocol.parse(one["wire"]).as_data() == one["means"]


@pytest.mark.parametrize("one", MESSAGES, ids=name_of)
def test_a_message_is_written_as_it_should_be(one: dict[str, Any]) -> None:
    written = one.get("written", one["wire"])
    made = message_of(one["means"])
    head, _, body = made.text().partition("\n")
    expected_head, _, expected_body = written.partition("\n")
    assert head == expected_head
    assert bool(body) == bool(expected_body)
    if body:
        assert json.loads(body) == json.loads(expected_body)


def message_of(means: dict[str, Any]) -> protocol.Message:
    """A message from what it means."""
    kinds = {
        kind.command: kind
        for kind in (
            protocol.Session, protocol.SessionAck, protocol.Subscribe, protocol.Unsubscribe,
            protocol.Publish, protocol.PubSubMessage, protocol.Notify, protocol.Rollback,
            protocol.Request, protocol.Response, protocol.Error, protocol.Peer,
        )
    }  # fmt: skip
    given = {name: value for name, value in means.items() if name != "command"}
    if "body" in given:
        given["body"] = json.dumps(given["body"], ensure_ascii=False).encode()
    if given.get("since") is not None:
        seq, _, life = given["since"].partition("@")
        given["since"] = protocol.Since(int(seq), life or None)
    made: protocol.Message = kinds[means["command"]](**given)
    return made


def test_the_vectors_have_every_command() -> None:
    there = {one["means"]["command"] for one in MESSAGES}
    assert there == {kind.command for kind in protocol.Message.__args__}


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one", REFUSED, ids=lambda one: f"{one['why']}, {one['from']}, {one['state']}"
)
def test_what_is_wrong_is_refused(one: dict[str, Any]) -> None:
    ends = Ends(one["state"])
    error = ends.refusal(one["from"], one["wire"])
    assert error.code == one["code"]
    assert error.message
    assert ends.states == {one["state"]}
    ends.not_sent(one["from"], one["wire"])


# -- sequences ------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", SEQUENCES, ids=name_of)
def test_a_sequence(one: dict[str, Any]) -> None:
    ends = Ends()
    for step in one["steps"]:
        before = ends.states
        if "refused" in step:
            assert ends.refusal(step["from"], step["wire"]).code == step["refused"]
            assert ends.states == before
        else:
            ends.say(step["from"], step["wire"])
            assert ends.states == {step["state"]}


@pytest.mark.parametrize("one", SEQUENCES, ids=name_of)
def test_what_would_be_refused_is_not_sent(one: dict[str, Any]) -> None:
    ends = Ends()
    for step in one["steps"]:
        if "refused" in step:
            ends.not_sent(step["from"], step["wire"])
        else:
            ends.say(step["from"], step["wire"])


# -- frames ---------------------------------------------------------------------------------------


def event_of(frame: frames.Frame) -> tuple[str, str | bytes]:
    names = {frames.TEXT: "text", frames.PING: "ping", frames.PONG: "pong", frames.CLOSE: "close"}
    opcode, payload = frame
    return names[opcode], payload


def expected_of(event: dict[str, Any]) -> tuple[str, str | bytes]:
    ((kind, given),) = event.items()
    return kind, whole(given) if kind == "text" else octets(given)


def read(data: bytes, size: int, limit: int) -> tuple[list[tuple[str, str | bytes]], int | None]:
    """What is read of bytes that come in chunks: the events, and the code that ends it."""
    reader = frames.Reader(limit)
    found = []
    try:
        for start in range(0, len(data), size):
            for frame in reader.feed(data[start : start + size]):
                found.append(event_of(frame))
    except frames.Violation as violation:
        return found, violation.code
    return found, None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20], ids="in chunks of {}".format)
@pytest.mark.parametrize("one", FRAMES["reads"], ids=name_of)
def test_frames_are_read(one: dict[str, Any], size: int) -> None:
    found, code = read(octets(one["bytes"]), size, one["limit"])
    assert found == [expected_of(event) for event in one["events"]]
    assert code == one.get("close")


@pytest.mark.parametrize("one", FRAMES["writes"], ids=name_of)
def test_frames_are_written(one: dict[str, Any]) -> None:
    made = frames.frame(octets(one["payload"]), one["opcode"], one["last"])
    assert made == octets(one["bytes"])
