"""The diagrams of the documents happen so, played against a server; and the table of states."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from diagrams import ROOT, Block, Step, body_alike, fences, steps
from ends import Ends
from rawpeer import CLOSE, PING, PONG, TEXT, Cut, RawPeer, masked, serving

from tega import protocol
from tega.errors import Malformed, NotUnderstood
from tega.protocol import Connection, Role

PAGE = "doc/message-sequence.md"
PLAYED = fences(PAGE, "sequence")
SHOWN = fences(PAGE, "text")


class Play:
    """A diagram on its way: the connections in it, and what each client makes of them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._peers: dict[str, RawPeer] = {}
        self._ends: dict[str, Connection] = {}
        self._over: set[str] = set()
        #: By client, what it has said that it should not have, and is still to be told of.
        self._wrong: dict[str, int] = {}

    async def play(self, all_steps: list[Step]) -> None:
        for step, after in zip(all_steps, [*all_steps[1:], None], strict=True):
            if step.who not in self._peers:
                self._peers[step.who] = await RawPeer.connect(self._port)
                self._ends[step.who] = Connection(Role.CLIENT)
            if not step.sends:
                await self._hear(step)
                continue
            self._say(step)
            # What one client says without a pause goes out together.
            if step.is_message and (after is None or (after.who, after.sends) != (step.who, True)):
                await self._peers[step.who].settle()
        await self._end()

    async def _end(self) -> None:
        for who in self._peers.keys() - self._over:
            await self._peers[who].settle()
            assert self._peers[who].kept == [], f"{who} was told more than the document shows"
        assert not any(self._wrong.values()), self._wrong

    def _say(self, step: Step) -> None:
        peer = self._peers[step.who]
        if step.is_message:
            try:
                sent = self._ends[step.who].send(protocol.parse(step.text))
                assert sent == step.text, "a document shows messages as they are written"
            except Malformed:
                self._wrong[step.who] = self._wrong.get(step.who, 0) + 1
            peer.say(step.text)
        elif step.head == "cut":
            self._over.add(step.who)
            peer.cut()
        else:
            word, *code = step.head.split()
            peer.write(masked(closing(*code), {"ping": PING, "pong": PONG, "close": CLOSE}[word]))

    async def _hear(self, step: Step) -> None:
        opcode, payload = await self._peers[step.who].hear()
        if step.is_message:
            assert opcode == TEXT, (step, opcode, payload)
            text = payload.decode()
            head, _, body = text.partition("\n")
            assert head == step.head
            assert body_alike(step.body, body), f"shown {step.body}, happened {body}"
            message = self._ends[step.who].receive(text)
            if isinstance(message, protocol.Error) and self._wrong.get(step.who):
                self._wrong[step.who] -= 1
            return
        word, *code = step.head.split()
        assert (opcode, payload) == (
            {"ping": PING, "pong": PONG, "close": CLOSE}[word], closing(*code)
        ), step  # fmt: skip
        if word == "close":
            self._over.add(step.who)


def closing(code: str = "", *reason: str) -> bytes:
    """The payload of a close frame."""
    return int(code).to_bytes(2, "big") + " ".join(reason).encode() if code else b""


def settings(block: str) -> dict[str, float]:
    """The settings that a diagram is played with: ``(with --rpc-timeout 1)``."""
    found = re.search(r"^\(with (.*)\)$", block, re.MULTILINE)
    pairs = re.findall(r"--(\S+) (\S+)", found[1]) if found is not None else []
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("block", PLAYED, ids=lambda block: block.name)
def test_a_diagram_happens_so(block: Block) -> None:
    async def play() -> None:
        async with serving(**settings(block.text)) as port:
            await Play(port).play(steps(block.text))

    run(play())


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


SHORT = "cli-1 -> SESSION cli-1 local\ncli-1 <- SESSIONACK global\n         %s\n"


@pytest.mark.parametrize(
    "wrong",
    [
        SHORT % '{"life":"9c41","seq":1}',
        SHORT % '{"life":"9c41"}',
        SHORT.replace("global", "other") % '{"life":"9c41","seq":0}',
        SHORT.replace("<- SESSIONACK", "<- ERROR") % '{"life":"9c41","seq":0}',
        SHORT % '{"life":"9c41","seq":0}' + "cli-1 -> SESSION cli-1 local\n",
        "cli-1 -> SESSION cli-1 local\n",
        "cli-1 -> ping\ncli-1 <- ping\n",
    ],
)
def test_a_diagram_that_is_wrong_is_found(wrong: str) -> None:
    async def play() -> None:
        async with serving() as port:
            await Play(port).play(steps(wrong))

    with pytest.raises(AssertionError):
        run(play())


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.name)
def test_a_diagram_that_is_not_played_keeps_to_the_protocol(block: Block) -> None:
    shown = steps(block.text)
    assert shown
    client = Ends("open").client
    for step in shown:
        assert not step.sends
        assert client.receive(step.text).text() == step.text


def test_a_server_that_ends_says_so() -> None:
    async def work() -> None:
        async with serving() as port:
            peer = await RawPeer.connect(port)
            peer.say("SESSION cli-1 local")
            assert (await peer.hear()).opcode == TEXT
        assert await peer.hear() == (CLOSE, closing("1001", "the server ends"))
        peer.write(masked(b"", CLOSE))
        with pytest.raises(Cut):
            await peer.hear()

    run(work())


# -- what may come when ---------------------------------------------------------------------------

#: A message of each kind.
EXAMPLES = {
    "SESSION": "SESSION cli-1 local",
    "SESSIONACK": 'SESSIONACK global\n{"life":"9c41","seq":0}',
    "SUBSCRIBE": "SUBSCRIBE a local False",
    "UNSUBSCRIBE": "UNSUBSCRIBE",
    "PUBLISH": 'PUBLISH a\n{"message":1}',
    "MESSAGE": 'MESSAGE a cli-2\n{"message":1}',
    "NOTIFY": "NOTIFY\n[]",
    "ROLLBACK": "ROLLBACK a -1",
    "REQUEST": "REQUEST 1 RPC cli-2 a\n{}",
    "RESPONSE": "RESPONSE 1 RPC cli-2\n1",
    "ERROR": 'ERROR refused\n{"message":"no"}',
    "PEER": "PEER applied\n{}",
}


def table() -> dict[tuple[str, str, str], str]:
    """What the document says of a message, who says it, and the state in which it comes."""
    rows = re.findall(
        r"^\| (\w+) from the (\w+) \| (.*) \| (.*) \| (.*) \|$",
        (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE,
    )  # fmt: skip
    return {
        (command, who, state): said
        for command, who, *cells in rows
        for state, said in zip(("new", "greeted", "open"), cells, strict=True)
    }


TABLE = table()


@pytest.mark.parametrize("state", ["new", "greeted", "open"])
@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("command", EXAMPLES)
def test_a_message_may_come_when_the_document_says(command: str, who: str, state: str) -> None:
    wire = EXAMPLES[command]
    said = TABLE.get((command, who, state), "no")
    ends = Ends(state)
    if said == "no":
        ends.not_sent(who, wire)
        assert ends.refusal(who, wire).code == "not_understood"
        assert ends.states == {state}
        return
    if said == "to a REQUEST":
        ends.not_sent(who, wire)
        assert ends.refusal(who, wire).code == "not_understood"
        ends.say("server" if who == "client" else "client", EXAMPLES["REQUEST"])
    ends.say(who, wire)
    assert ends.states == {said.split("`")[1] if said.startswith("to `") else state}


def test_the_table_has_every_message_from_whom_it_can_come() -> None:
    assert {command for command, _, _ in TABLE} == set(EXAMPLES)
    assert set(EXAMPLES) == {kind.command for kind in protocol.Message.__args__}
    assert {said for said in TABLE.values() if not said.startswith("to `")} == {
        "yes", "no", "to a REQUEST"
    }  # fmt: skip


def test_an_end_knows_what_is_still_to_be_answered() -> None:
    ends = Ends("open")
    for number in range(3):
        ends.say("client", f"REQUEST {number} TX cli-1 -\n{{}}")
    assert (ends.client.asked, ends.server.was_asked) == (3, 3)
    ends.say("server", "RESPONSE 1 TX cli-1\n{}")
    ends.server.answered(2)
    assert (ends.client.asked, ends.server.was_asked) == (2, 1)
    ends.client.give_up(0)
    assert ends.client.asked == 1
    assert ends.refusal("server", "RESPONSE 0 TX cli-1\n{}").code == "not_understood"
    with pytest.raises(NotUnderstood):
        ends.server.answered(2)
    ends.client.give_up(0)
    assert (ends.server.asked, ends.client.was_asked) == (0, 0)
