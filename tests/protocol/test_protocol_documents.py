"""`doc/message-format.md` says what the code does: examples, members, codes, limits."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest
from diagrams import ROOT, body_alike, fences, steps

from tega import paths, protocol, strictjson, watch
from tega.access.who import UNLIMITED
from tega.errors import BY_CODE, Malformed
from tega.protocol import frames
from tega.settings import TABLE
from tega.web import batch, sessions, websocket

PAGE = "doc/message-format.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
COMMANDS = {kind.command for kind in protocol.Message.__args__}

#: Codes of errors that come by HTTP alone, when a server starts, or in its log.
ELSEWHERE = {
    "method_not_allowed", "no_such_command", "no_such_transaction", "too_large",
    "url_too_long", "log", "corrupt", "locked", "diverged",
}  # fmt: skip
DEFAULTS = {setting.name: setting.default for setting in TABLE}
#: Codes that are no refusals.
TOLD = {"gone", "behind", "taken_over"}


class Example(NamedTuple):
    """A message in the document.

    :ivar command: the heading that it stands under
    :ivar sign: ``=`` before what it means, ``!`` before the code that it is refused with
    """

    command: str
    wire: str
    sign: str
    said: str


def examples() -> list[Example]:
    found = []
    for block in fences(PAGE, "message"):
        for part in block.text.strip().split("\n\n"):
            *lines, said = part.split("\n")
            found.append(Example(block.name.split()[0], "\n".join(lines), said[0], said[2:]))
    return found


EXAMPLES = examples()


def rows(after: str) -> list[list[str]]:
    """The cells of the first table after a text, without its head."""
    table = re.search(r"^\|.*?\n\| ---.*?\n((?:\|.*\n)+)", TEXT[TEXT.index(after) :], re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[1].splitlines()]


def codes_in(cells: list[str]) -> set[str]:
    return {code for cell in cells for code in re.findall(r"`(\w+)`", cell)}


# -- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.wire[:60])
def test_an_example_means_what_the_document_says(example: Example) -> None:
    assert example.wire.split()[0] == example.command
    if example.sign == "!":
        with pytest.raises(Malformed) as caught:
            protocol.parse(example.wire)
        assert caught.value.code == example.said
    else:
        assert example.sign == "="
        message = protocol.parse(example.wire)
        assert message.as_data() == json.loads(example.said)
        assert message.text() in (example.wire, example.wire + " False")


@pytest.mark.parametrize(
    "example",
    [one for one in EXAMPLES if "\n" in one.wire and one.sign == "="],
    ids=lambda example: example.wire[:60],
)
def test_an_example_is_one_that_happens(example: Example) -> None:
    """Each is in a diagram of the other document, and those happen so."""
    head, _, body = example.wire.partition("\n")
    page = "doc/message-sequence.md"
    shown = [
        step
        for block in [*fences(page, "sequence"), *fences(page, "text")]
        for step in steps(block.text)
    ]
    assert any(step.head == head and body_alike(step.body, body) for step in shown)


def test_every_command_is_described() -> None:
    headings = set(re.findall(r"^## ([A-Z]+)$", TEXT, re.MULTILINE))
    in_grammar = set(re.findall(r'^[A-Z]\w+ += "([A-Z]+)"', TEXT, re.MULTILINE))
    shown = {example.command for example in EXAMPLES if example.sign == "="}
    assert headings == in_grammar == shown == COMMANDS


# -- codes ----------------------------------------------------------------------------------------


def test_every_code_is_described() -> None:
    described = codes_in([row[0] for row in rows("## Codes")])
    assert described == (BY_CODE.keys() - ELSEWHERE) | TOLD


def test_codes_elsewhere_in_the_document_are_codes() -> None:
    known = BY_CODE.keys() | TOLD
    said = [row[-1] for row in rows("| limit |")] + re.findall(r"^! (\w+)$", TEXT, re.MULTILINE)
    assert codes_in(said) <= known


def test_every_close_code_is_described() -> None:
    in_code = {
        value
        for module in (frames, sessions, websocket)
        for value in vars(module).values()
        if type(value) is int and 1000 <= value < 5000
    }
    assert {int(row[0]) for row in rows("The server closes with")} == in_code


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("message from a client", websocket._MORE, "64 KiB"),
        ("message from a server", websocket._MAX_PEER, "256 MiB"),
        ("payload", frames._CONTROL, "125 bytes"),
        ("key in a path", paths.MAX_KEY, "255 bytes"),
        ("transaction id", paths.MAX_TXID, "255 characters"),
        ("subscriptions", watch._MAX_PATTERNS, "1000 patterns"),
        ("levels", watch._MAX_PATTERN_LEVELS, "5000 levels"),
        ("levels", watch._LEVELS_EACH, "10 for each path"),
        ("calls", DEFAULTS["max-requests"], "1024"),
        ("requests", DEFAULTS["max-requests"], "1024"),
        ("bytes", DEFAULTS["max-backlog"], "1 MiB"),
    ],
)
def test_a_limit_is_what_the_document_says(limit: str, value: int, said: str) -> None:
    (row,) = [row for row in rows("| limit |") if row[0].startswith(limit)]
    assert said in row[1]
    number, _, unit = said.partition(" ")
    assert int(number) * {"KiB": 1 << 10, "MiB": 1 << 20}.get(unit, 1) == value


# -- members --------------------------------------------------------------------------------------

MEMBERS: dict[str, Any] = {
    "path": "inventory.ne1", "instance": {"name": "sw1"}, "version": 3, "ephemeral": True,
    "internal": True, "regex_flag": True, "consistent": True, "tega_id": "cli-9",
}  # fmt: skip
CELLS = [
    (row[0].strip("`"), ope, said)
    for row in rows("**TX** is a transaction")
    for ope, said in zip(("PUT", "DELETE", "GET"), row[1:4], strict=True)
]


def read(**members: Any) -> tuple[Any, Any]:
    """What a transaction of one operation asks for: operations and reads."""
    body = strictjson.dumps({"ops": [members]})
    transaction, reads = batch.read(body, "cli-1", 64, UNLIMITED)
    return transaction.operations, reads


@pytest.mark.parametrize(("member", "ope", "said"), CELLS)
def test_a_member_of_an_operation(member: str, ope: str, said: str) -> None:
    values = {**MEMBERS, "ope": ope}
    needed = {name for name, of, what in CELLS if (of, what) == (ope, "must")}
    without = {name: values[name] for name in needed - {member}}
    with_it = without | {member: values[member]}
    if said == "must":
        assert read(**with_it)
        with pytest.raises(Malformed, match=member):
            read(**without)
    elif said == "may":
        assert shown(read(**with_it)) != shown(read(**without))
    elif said == "ignored":
        assert shown(read(**with_it)) == shown(read(**without))
    else:
        assert said == "no"
        with pytest.raises(Malformed, match=member):
            read(**with_it)


def shown(asked: tuple[Any, Any]) -> list[Any]:
    """What is asked for, to be compared."""
    operations, reads = asked
    return [
        (type(one), one.path, one.expected, getattr(one, "ephemeral", None)) for one in operations
    ] + [(*one[:3], one.pattern is None, one.consistent) for one in reads]


def test_the_table_of_members_is_whole() -> None:
    known = batch._PUT_KEYS | batch._DELETE_KEYS | batch._GET_KEYS
    assert {member for member, _, _ in CELLS} == {"ope", *MEMBERS} == known


def test_a_change_can_be_passed_on_as_it_came() -> None:
    """The members of a change are those of the document, and a client may send them all."""
    members = [name for row in rows("From the server: the changes") for name in codes_in(row[:1])]
    assert set(members) == {"ope", "path", "tega_id", "instance", "seq", "version", "backto"}
    for ope in ("PUT", "DELETE"):
        change = {
            "ope": ope, "path": "a.b", "tega_id": "cli-9", "instance": 1, "seq": 4, "version": 3
        }  # fmt: skip
        text = strictjson.dumps([change])
        (operation,) = batch.read_changes(text, "cli-1", 64, UNLIMITED).operations
        assert (operation.path, operation.expected) == (("a", "b"), None)
