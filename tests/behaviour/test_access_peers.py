"""What another server may do, spoken by hand: for itself, and for those it says that it speaks for.

The rows are written by hand from doc/security.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from guardedsite import tokens_for
from service import Service
from wsclient import Message, WSClient, put

TREE: dict[str, Any] = {
    "conf": {"a": 1, "leaf": "mk-leaf"},
    "part": {"open": 1, "closed": "mk-closed"},
    "vault": {"mk-vault": "mk-gold"},
    "blind": {"leaf": "mk-blind", "x": "mk-x"},
    "half": {"x": 1},
}

#: local1 has conf wholly, leads oper, writes blind without reading it, and some of half; gateway
#: may speak for everybody.
RULES = """
identities:
  gateway: {tega_ids: ["*"]}
rules:
- {who: op, may: rwxsp}
- {who: [local1, gateway], on: conf.fns, may: rwx}
- {who: [local1, gateway], on: conf, may: rwsp}
- {who: local1, on: part.open, may: rw}
- {who: local1, on: oper, may: rw}
- {who: local1, on: blind, may: w}
- {who: local1, on: half.x, may: rw}
- {who: nopeer, may: rwxsp}
peer: [local1, gateway]
"""


class Global:
    """A server with these rules."""

    def __init__(self, directory: Path) -> None:
        self.tokens = tokens_for(directory, "op", "local1", "gateway", "nopeer")
        (directory / "access.yaml").write_text(RULES)
        self.service = Service(directory, "-t", "g")

    def client(self, who: str, tega_id: str | None = None) -> WSClient:
        header = f"Bearer {self.tokens[who]}"
        return WSClient(self.service.port, tega_id, Authorization=header)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Global]:
    made = Global(tmp_path_factory.mktemp("g") / "var")
    with made.client("op", "op") as op:
        op.tx(*[put(key, value) for key, value in TREE.items()])
        yield made
    assert made.service.end()[0] == 0


class Peer:
    """A local server, spoken by hand.

    :ivar said: the text of all that it was told
    """

    def __init__(self, site: Global, who: str, tega_id: str | None = None, **offer: Any) -> None:
        self.client = site.client(who)
        self.tega_id = tega_id or who
        self.client.begin(self.tega_id, "global")
        self.client.send(f"REQUEST 1 SYNC {self.tega_id} -\n{json.dumps(offer)}")
        self._last = 1
        self.taken = self.client.response(1)

    def ask(self, kind: str, tega_id: str, path: str, body: Any) -> Message:
        """Ask for something; the answer."""
        self._last += 1
        self.client.send(f"REQUEST {self._last} {kind} {tega_id} {path}\n{json.dumps(body)}")
        return self.client.response(self._last)

    def tell(self, kind: str, body: Any) -> None:
        self.client.send(f"PEER {kind}\n{json.dumps(body)}")

    def told(self) -> list[Message]:
        """All that it has been told, up to the answer to one more request."""
        self.ask("TX", self.tega_id, "-", {"ops": []})
        found, self.client._kept = list(self.client._kept), type(self.client._kept)()
        return found

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()


def code(answer: Message) -> str:
    return answer.body["code"] if answer.words[-1] == "ERROR" else "ok"


def test_who_may_be_a_peer(site: Global) -> None:
    for who, expected in (("local1", "ok"), ("nopeer", "forbidden"), ("op", "forbidden")):
        with Peer(site, who, f"{who}-p") as peer:
            assert code(peer.taken) == expected
    with site.client("local1") as client:
        client.send("SESSION local2 global")
        assert client.receive().words == ["ERROR", "forbidden"]


@pytest.mark.parametrize(
    ("roots", "expected"),
    [(["conf"], "ok"), (["part"], "forbidden"), (["vault"], "forbidden"), (["blind"], "forbidden"),
     (["conf", "vault"], "forbidden"), (["none"], "forbidden"), ([], "ok")],
)  # fmt: skip
def test_a_root_is_followed_wholly_or_not_at_all(
    site: Global, roots: list[str], expected: str
) -> None:
    with Peer(site, "local1", follow=dict.fromkeys(roots)) as peer:
        assert code(peer.taken) == expected
        told = peer.told()
        if roots == ["conf"]:
            peer.client._kept.extend(told)
            peer.client.wait_for(lambda m: m.words == ["PEER", "root"] and m.body.get("last"))
        text = str(told)
        assert all(mark not in text for mark in ("mk-gold", "mk-vault", "mk-closed", "mk-blind"))


def test_commits_of_other_roots_do_not_go_over(site: Global) -> None:
    with Peer(site, "local1", follow={"conf": None}) as peer, site.client("op", "op-w") as op:
        peer.client.wait_for(lambda m: m.words == ["PEER", "overlay"])
        op.tx(put("vault.mk-vault", "mk-gold"), put("conf.a", "seen"), put("part.closed", "x"))
        op.tx(put("vault.mk-vault", "mk-gold2"))
        op.tx(put("conf.a", "last"))
        peer.client.wait_for(lambda m: m.words == ["PEER", "commit"] and "last" in str(m.body))
        text = str(peer.told())
        assert "seen" in text
        assert "mk-gold" not in text
        assert "vault" not in text


def test_it_leads_what_it_may_write_all_of(site: Global) -> None:
    lead = dict.fromkeys(("oper", "half", "vault", "part"), "local1")
    with Peer(site, "local1", lead=lead) as peer:
        assert peer.taken.body["have"].keys() == {"oper"}
        refused = peer.taken.body["refused"]
        for name in ("half", "vault", "part"):
            assert refused[name] == "local1 may not write all of it"
        assert "mk-" not in str(peer.taken)


class Write(NamedTuple):
    """A forwarded request: by whom it says that it is, and what comes of it for two peers."""

    tega_id: str
    body: dict[str, Any]
    local1: str
    gateway: str


def ops(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"ops": operations}


WRITES = [
    Write("local1", ops(put("conf.b", 1)), "ok", "ok"),
    Write("agent-7", ops(put("conf.b", 1)), "ok", "ok"),
    # op has its tega ids for itself, but for who may speak for all.
    Write("op", ops(put("conf.b", 1)), "forbidden", "ok"),
    Write("op-5", ops(put("conf.b", 1)), "forbidden", "ok"),
    Write("gateway", ops(put("conf.b", 1)), "forbidden", "ok"),
    Write("agent-7", ops({**put("conf.b", 1), "tega_id": "op"}), "forbidden", "ok"),
    Write("agent-7", ops({**put("conf.e", 1, True), "tega_id": "op-5"}), "forbidden", "ok"),
    Write("agent-7", ops(put("conf.f", "%op.f")), "forbidden", "ok"),
    Write("agent-7", ops(put("conf.f", ["%op-x.f(1)"])), "forbidden", "ok"),
    Write("agent-7", ops(put("conf.f", "%agent-7.f")), "ok", "ok"),
    Write("agent-7", ops(put("vault.mine", 1)), "forbidden", "forbidden"),
    Write("agent-7", ops(put("conf.b", 1), put("vault.mine", 1)), "forbidden", "forbidden"),
    Write("agent-7", ops({"ope": "DELETE", "path": "vault"}), "forbidden", "forbidden"),
    Write("agent-7", ops(put("part.open.x", 1)), "leaf_in_the_way", "forbidden"),
    Write("agent-7", ops(put("part", 1)), "forbidden", "forbidden"),
    Write("agent-7", ops(put("blind.leaf.x", 1)), "leaf_in_the_way", "forbidden"),
    Write("agent-7", ops({**put("blind.x", 1), "version": 99}), "collision", "forbidden"),
    Write("agent-7", {"rollback": ["conf", -1]}, "ok", "ok"),
    Write("op", {"rollback": ["conf", -1]}, "forbidden", "ok"),
    Write("agent-7", {"rollback": ["vault", -1]}, "forbidden", "forbidden"),
    Write("agent-7", {"rollback": ["half", -1]}, "forbidden", "forbidden"),
    Write("agent-7", {"barrier": "conf"}, "ok", "ok"),
    Write("agent-7", {"barrier": "vault"}, "forbidden", "forbidden"),
    Write("agent-7", {"barrier": "part"}, "forbidden", "forbidden"),
]


@pytest.mark.parametrize("row", WRITES, ids=lambda row: f"{row.tega_id} {json.dumps(row.body)}")
def test_forwarded_writes(site: Global, row: Write) -> None:
    for who, expected in (("local1", row.local1), ("gateway", row.gateway)):
        with Peer(site, who) as peer, site.client("op", "op-r") as op:
            before = op.tx({"ope": "GET", "path": "vault"}, {"ope": "GET", "path": "blind"})
            answer = peer.ask("TX", row.tega_id, "-", row.body)
            assert code(answer) == expected
            after = op.tx({"ope": "GET", "path": "vault"}, {"ope": "GET", "path": "blind"})
            assert after["results"] == before["results"]
        if expected in ("collision", "leaf_in_the_way") and "blind" in str(row.body):
            assert answer.body.keys() == {"code", "message"}, "it may not read that"
        assert "mk-" not in str(answer)


def test_calls(site: Global) -> None:
    with Peer(site, "local1") as peer, site.client("op", "op-f") as op:
        op.put("conf.fns.f", "%op-f.f", ephemeral=True)
        op.put("conf.g", "%op-f.g", ephemeral=True)
        op.put("vault.f", "%op-f.f", ephemeral=True)
        call = {"args": [], "seconds": 5}
        assert code(peer.ask("RPC", "agent-7", "vault.f", call)) == "forbidden"
        assert code(peer.ask("RPC", "agent-7", "conf.g", call)) == "forbidden", "no x there"
        assert code(peer.ask("RPC", "op", "conf.fns.f", call)) == "forbidden", "in whose name"
        peer._last += 1
        peer.client.send(f"REQUEST {peer._last} RPC agent-7 conf.fns.f\n{json.dumps(call)}")
        asked = op.wait_for(lambda m: m.command == "REQUEST")
        assert asked.words[3:] == ["agent-7", "conf.fns.f"]
        op.send(f'RESPONSE {asked.words[1]} RPC agent-7\n"done"')
        assert peer.client.response(peer._last).body == "done"


def test_functions_count_where_it_may_write(site: Global) -> None:
    functions = [("vault.af", "x"), ("conf.af", "x"), ("half.af", "x")]
    with Peer(site, "local1", functions=functions) as peer, site.client("op", "op-c") as op:
        for path in ("vault.af", "half.af"):
            assert code(op.response(op.request("RPC", path, {}))) == "no_such_function"
        number = op.request("RPC", "conf.af", {})
        asked = peer.client.wait_for(lambda m: m.command == "REQUEST")
        assert asked.words[2:] == ["RPC", "op-c", "conf.af"]
        peer.client.send(f"RESPONSE {asked.words[1]} RPC op-c\n1")
        assert op.response(number).body == 1
        # The same for what it offers later.
        peer.tell("functions", {"functions": [("vault.ag", "x"), ("conf.ag", "x")]})
        peer.told()
        assert code(op.response(op.request("RPC", "vault.ag", {}))) == "no_such_function"


def test_messages(site: Global) -> None:
    channels = [("vault.ch", False), ("conf.ch", False), (".*\\..*", True)]
    with Peer(site, "local1", channels=channels) as peer, site.client("op", "op-m") as op:
        op.send("SUBSCRIBE .*\\..* global True")
        op.settle()
        for channel, tega_id in (("vault.ch", "agent-7"), ("conf.ch", "op"), ("conf.ch", "op-m")):
            peer.tell("message", {"channel": channel, "tega_id": tega_id, "message": "forged"})
        peer.tell("message", {"channel": "conf.ch", "tega_id": "agent-7", "message": "right"})
        peer.told()
        heard = [(m.words[1:], m.body) for m in op.notices() if m.command == "MESSAGE"]
        assert heard == [(["conf.ch", "agent-7"], {"message": "right"})]
        # And down again.
        op.send('PUBLISH vault.ch\n{"message":"mk-gold"}', 'PUBLISH part.ch\n{"message":"mk-part"}',
                'PUBLISH conf.ch\n{"message":"heard"}')  # fmt: skip
        op.settle()
        said = [m.body for m in peer.told() if m.words == ["PEER", "message"]]
        assert [one["message"] for one in said] == ["heard"]


def test_sessions_of_others_are_not_its_own(site: Global) -> None:
    with site.client("op", "op-e") as op:
        op.put("conf.kept", 1, ephemeral=True)
        with Peer(site, "local1", sessions=["op-e", "agent-7"]) as peer:
            assert code(peer.taken) == "ok"
            peer.tell("left", {"tega_ids": ["op-e"]})
            peer.told()
            assert code(peer.ask("TX", "agent-7", "-", ops(put("conf.e7", 1, True)))) == "ok"
        read = op.tx({"ope": "GET", "path": "conf.kept"})
        assert read["results"][0]["instance"] == 1
        op.tx({"ope": "DELETE", "path": "conf.kept"})


def test_a_transaction_id_of_a_client_is_not_one_of_its_own(site: Global) -> None:
    with site.client("op", "op-t") as op, Peer(site, "local1") as peer:
        done = op.tx(put("vault.t", 1), txid="same")
        assert done["versions"].keys() == {"vault"}
        answer = peer.ask("TX", "agent-7", "-", {**ops(put("conf.t", 1)), "txid": "same"})
        assert answer.body["versions"].keys() == {"conf"}
        op.tx({"ope": "DELETE", "path": "vault.t"})
