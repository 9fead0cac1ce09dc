"""Who may do what in a session: each message, for each identity, as this table has it.

The table is written by hand from doc/security.md. All that the server says is looked through for
what whoever listens may not see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from certificates import Authority
from guardedsite import CERT, CERT_RULES, TREE, UNSEEN, WHO, Site, leaks
from wsclient import WSClient, delete, put


class Row(NamedTuple):
    """One message, and what comes of it for each of `WHO` but the last: ``ok``, or an error's code.

    :ivar text: with ``{me}`` for the own tega id
    """

    text: str
    outcomes: str


def tx(*operations: dict[str, Any], **more: Any) -> str:
    return "REQUEST 1 TX {me} -\n" + json.dumps({"ops": operations, **more})


def get(path: str, **more: Any) -> dict[str, Any]:
    return {"ope": "GET", "path": path, **more}


def notify(*changes: dict[str, Any]) -> str:
    return "NOTIFY\n" + json.dumps(changes)


ALL = "ok ok ok ok ok ok"
ONLY_ADMIN = "ok forbidden forbidden forbidden forbidden unauthorized"
WRITERS = "ok ok forbidden ok forbidden unauthorized"
ME = "{me}"
CALL = '{"args":[]}'
FREE = put("drop.new", 1)
SECRET = put("inv.ne1.secret.new", 1)

R = Row
TABLE = [
    #                                   admin op reader writer mon nobody
    R("SUBSCRIBE motd local",              "ok ok ok ok ok ok"),
    R("SUBSCRIBE inv local",               "ok ok ok forbidden forbidden unauthorized"),
    R("SUBSCRIBE inv.ne1.secret local",    ONLY_ADMIN),
    R("SUBSCRIBE inv.ne1.secret global",   ONLY_ADMIN),
    R("SUBSCRIBE inv.ne1.secret local False 0", ONLY_ADMIN),
    R("SUBSCRIBE vault local",             ONLY_ADMIN),
    R("SUBSCRIBE none local",              "ok ok forbidden forbidden forbidden unauthorized"),
    R("SUBSCRIBE events.a local",          "ok ok ok forbidden forbidden unauthorized"),
    # A pattern may match anything; what may be read of that is told.
    R("SUBSCRIBE .* local True",           ALL),
    R("SUBSCRIBE vault\\..* local True 0", ALL),
    R("UNSUBSCRIBE vault",                 ALL),
    R("UNSUBSCRIBE",                       ALL),
    R('PUBLISH events.a\n{"message":1}',   "ok ok forbidden ok forbidden unauthorized"),
    R('PUBLISH motd\n{"message":1}',       ONLY_ADMIN),
    R('PUBLISH vault\n{"message":1}',      ONLY_ADMIN),
    R(notify(FREE),                        WRITERS),
    R(notify(FREE, SECRET),                ONLY_ADMIN),
    R(notify(put("inv.ne1", {})),          ONLY_ADMIN),
    R(notify(delete("inv.ne1")),           ONLY_ADMIN),
    R(notify(delete("drop.never")),
      "not_found not_found forbidden not_found forbidden unauthorized"),
    R(notify(put("drop.f", "%op.f")),
      "forbidden ok forbidden forbidden forbidden unauthorized"),
    # Whose a change was elsewhere says nothing here.
    R(notify({**FREE, "tega_id": "op", "seq": 5, "version": 9}), WRITERS),
    R("ROLLBACK drop -1",                  WRITERS),
    R("ROLLBACK inv -1",                   ONLY_ADMIN),
    R("ROLLBACK vault -1",                 ONLY_ADMIN),
    R(tx(),                                ALL),
    R(tx(FREE),                            WRITERS),
    R(tx(FREE, SECRET),                    ONLY_ADMIN),
    R(tx(put("inv.ne1.state", 2)),         WRITERS),
    R(tx(put("inv.ne1", {})),              ONLY_ADMIN),
    R(tx(delete("inv")),                   ONLY_ADMIN),
    R(tx({**FREE, "version": 9999}),
      "collision collision forbidden collision forbidden unauthorized"),
    R(tx(put("drop.leaf.x", 1)),
      "leaf_in_the_way leaf_in_the_way forbidden leaf_in_the_way forbidden unauthorized"),
    R(tx(put("drop.own", 1, True)),        WRITERS),
    R(tx({**put("drop.own2", 1, True), "tega_id": "op"}), WRITERS),
    R(tx(put("drop.f", "%writer.f")),
      "forbidden forbidden forbidden ok forbidden unauthorized"),
    R(tx(put("drop.f", {"a": ["%free.f(1)"]})),
      "forbidden forbidden forbidden forbidden forbidden unauthorized"),
    # A read that is refused is that one's own matter.
    R(tx(get("inv"), get("vault"), get("inv.ne1.secret"), get(".*\\..*", regex_flag=True)), ALL),
    R(tx(get("vault", version=99999), get("inv", version=0), get("inv", internal=True)), ALL),
    R(f"REQUEST 1 RPC {ME} inv.ne1.config\n{CALL}",
      "no_such_function no_such_function forbidden forbidden forbidden unauthorized"),
    R(f"REQUEST 1 RPC {ME} vault.mk-vault\n{CALL}",
      "no_such_function forbidden forbidden forbidden forbidden unauthorized"),
    R("REQUEST 1 TX op-9 -\n" + '{"ops":[]}', " ".join(["malformed"] * 6)),
    R("REQUEST 1 SYNC {me} -\n{}",         " ".join(["no_peer"] * 6)),
    R("REQUEST 1 REFER {me} -\n{}",        " ".join(["no_peer"] * 6)),
    R("PEER applied\n{}",                  " ".join(["not_understood"] * 6)),
]  # fmt: skip

#: tega id that one would go by, and what comes of it.
IDS = [
    #                  admin op reader writer mon nobody
    Row("admin",      "ok forbidden forbidden forbidden forbidden unauthorized"),
    Row("op-1",       "forbidden ok forbidden forbidden forbidden unauthorized"),
    Row("reader",     "forbidden forbidden ok forbidden forbidden unauthorized"),
    Row("reader-x.y", "forbidden forbidden ok forbidden forbidden unauthorized"),
    Row("free",       "forbidden forbidden forbidden forbidden forbidden ok"),
    Row("srv",        "forbidden forbidden forbidden forbidden forbidden refused"),
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site") / "var")
    yield made
    made.end()


def own_id(who: str) -> str:
    return "free" if who == "nobody" else who


def outcome(client: WSClient, text: str) -> tuple[str, str]:
    """What comes of a message, and all that was said in answer to it."""
    client.send(text)
    if text.startswith("REQUEST"):
        found = client.wait_for(lambda m: m.command == "RESPONSE" and m.words[1] == "1")
        return found.body["code"] if found.words[-1] == "ERROR" else "ok", str(found)
    client._asked = 100
    said = client.notices()
    errors = [one for one in said if one.command == "ERROR" and one.words[1] != "gone"]
    assert len(errors) <= 1, errors
    return errors[0].words[1] if errors else "ok", str(said)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.text.replace("\n", " ")[:80])
def test_the_table(site: Site, row: Row) -> None:
    site.fill()
    found, leaked = [], {}
    for who in WHO[:-1]:
        with site.session(who, own_id(who)) as client:
            text = row.text.replace("{me}", own_id(who))
            code, said = outcome(client, text)
        found.append(code)
        if leaks(who, said, text):
            leaked[who] = leaks(who, said, text), said
        if not text.startswith(("SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH")):
            site.fill()
    assert " ".join(found) == row.outcomes
    assert not leaked


@pytest.fixture(scope="module")
def secure_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("secure")
    made = Site(directory / "var", CERT_RULES, authority=Authority(directory))
    yield made
    made.end()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.text.replace("\n", " ")[:80])
def test_who_shows_a_certificate_is_as_good_as_who_shows_a_token(
    secure_site: Site, row: Row
) -> None:
    """What reader has in the table, cert has too, where it goes by its own name."""
    secure_site.fill()
    text = row.text.replace("{me}", CERT).replace("reader", CERT)
    with secure_site.session(CERT, CERT) as client:
        code, said = outcome(client, text)
    assert code == row.outcomes.split()[WHO.index("reader")]
    assert not leaks(CERT, said, text)


@pytest.mark.parametrize("row", IDS, ids=lambda row: row.text)
def test_whose_tega_ids_are_by_certificate(secure_site: Site, row: Row) -> None:
    with secure_site.session(CERT) as client:
        client.send(f"SESSION {row.text.replace('reader', CERT)} local")
        answer = client.receive()
        found = "ok" if answer.command == "SESSIONACK" else answer.words[1]
    assert found == row.outcomes.split()[WHO.index("reader")]


def test_who_shows_a_wrong_token_has_no_session(site: Site) -> None:
    assert site.session("wrong").status == 401


@pytest.mark.parametrize("row", IDS, ids=lambda row: row.text)
def test_whose_tega_ids_are(site: Site, row: Row) -> None:
    found = []
    for who in WHO[:-1]:
        with site.session(who) as client:
            client.send(f"SESSION {row.text} local")
            answer = client.receive()
            found.append("ok" if answer.command == "SESSIONACK" else answer.words[1])
            if answer.command == "ERROR" and row.text != own_id(who):
                # It may try again with one that is its own.
                assert client.begin(own_id(who))["seq"]
    assert " ".join(found) == row.outcomes


def test_no_session_is_taken_over_by_others(site: Site) -> None:
    with site.session("op", "op-1") as first:
        first.put("drop.e", 1, ephemeral=True)
        for who in ("admin", "reader", "nobody"):
            with site.session(who) as other:
                other.send("SESSION op-1 local")
                assert other.receive().command == "ERROR"
                # Nor may it do anything in that name.
                other.send("REQUEST 1 TX op-1 -\n{}")
                assert other.receive().words[:2] == ["ERROR", "not_understood"]
        first.settle()
        assert site.ask("op", "GET", "/drop/e")[0] == 200
        # Its own identity may take it over, of course.
        with site.session("op", "op-1") as second:
            assert first.ended() == 4001
            second.tx(delete("drop.e"))


def test_only_a_peer_is_another_server(site: Site) -> None:
    found = []
    for who in WHO[:-1]:
        with site.session(who) as client:
            client.begin(own_id(who), "global")
            client.send(f"REQUEST 1 SYNC {own_id(who)} -\n{{}}")
            answer = client.receive()
            found.append(answer.body["code"] if answer.words[-1] == "ERROR" else "ok")
    assert found == ["ok", "forbidden", "forbidden", "forbidden", "forbidden", "unauthorized"]


def test_what_is_told_of_changes_and_messages(site: Site) -> None:
    """All is told that may be, and nothing else."""
    site.fill()
    listeners = {who: site.session(who, own_id(who)) for who in WHO[:-1]}
    for client in listeners.values():
        client.subscribe(".*", regex=True)
        client.send("SUBSCRIBE inv.ne1.secret local", "SUBSCRIBE vault local", "SUBSCRIBE events.a "
                    "local", "SUBSCRIBE vault.ch local")  # fmt: skip
        client.notices()
    with site.session("admin", "admin-2") as writes:
        writes.tx(put("inv.ne1", TREE["inv"]["ne1"]), put("vault.mk-vault", "mk-gold"))
        writes.tx(put("inv.ne1.secret.mk-key", "mk-secret"))
        writes.tx(put("drop", TREE["drop"]), put("motd", "changed"))
        writes.tx(put("inv.ne1", {"secret": {"mk-key": "mk-secret"}}))
        writes.tx(put("parts.p1.closed", "mk-closed"))
        writes.send("ROLLBACK inv -1")
        writes.tx(delete("inv.ne1.secret"), delete("vault"))
        writes.send('PUBLISH events.a\n{"message":"heard"}')
        writes.send('PUBLISH vault.ch\n{"message":"mk-gold"}')
        writes.settle()
    for who, client in listeners.items():
        said = client.notices()
        text = json.dumps([(one.words, one.body) for one in said])
        assert not leaks(who, text), (who, leaks(who, text), text)
        told = [(c["ope"], c["path"]) for one in said if one.command == "NOTIFY" for c in one.body]
        heard = [one.body["message"] for one in said if one.command == "MESSAGE"]
        if who == "admin":
            assert ("DELETE", "vault") in told
            assert heard == ["heard", "mk-gold"]
            assert all(mark in text for mark in UNSEEN["op"])
        elif who == "op":
            assert told == [
                ("PUT", "inv.ne1"), ("PUT", "drop"), ("PUT", "motd"), ("PUT", "inv.ne1"),
                ("PUT", "parts.p1.closed"), ("ROLLBACK", "inv"),
            ]  # fmt: skip
            assert heard == ["heard"]
        elif who == "reader":
            assert told == [
                ("PUT", "inv.ne1"), ("PUT", "motd"), ("PUT", "inv.ne1"), ("ROLLBACK", "inv"),
            ]  # fmt: skip
            assert heard == ["heard"]
        else:
            assert told == [("PUT", "motd")]
            assert heard == []
        client.close()
    site.fill()


def test_who_resumes_is_told_what_may_be_read(site: Site) -> None:
    site.fill()
    with site.session("admin", "admin-2") as writes:
        start = writes.ack["seq"]
        life = writes.ack["life"]
        writes.tx(put("vault.mk-vault", "mk-gold"), put("inv.ne1.secret.mk-key", "mk-secret"))
        writes.tx(put("inv.ne1.config", "mk-config"), put("motd", "again"))
    for who in WHO[:-1]:
        for since in (f"{start}@{life}", f"{start}@other", "0"):
            with site.session(who, own_id(who)) as client:
                client.send(
                    f"SUBSCRIBE .* local True {since}",
                    f"SUBSCRIBE motd local False {since}",
                    f"SUBSCRIBE .*\\..* local True {since}",
                )
                client.wait_for(lambda m: "again" in str(m.body))
                said = client.notices()
                text = json.dumps([(one.words, one.body) for one in said])
                assert not leaks(who, text), (who, since, leaks(who, text), text)
    site.fill()


def test_calls_and_their_callers(site: Site) -> None:
    """Who may call at a place does; whoever puts a function there puts its own."""
    site.fill()
    with site.session("op", "op-1") as owner:
        owner.put("drop.f", "%op-1.f", ephemeral=True)
        outcomes = {}
        for who in WHO[:-1]:
            with site.session(who, own_id(who)) as caller:
                number = caller.request("RPC", "drop.f", {"args": [who]})
                let = who in ("admin", "op")
                if owner.is_readable(0.0 if let else 0.3) or let:
                    asked = owner.receive()
                else:
                    outcomes[who] = caller.response(number).body["code"]
                    continue
                assert asked.words[:5] == ["REQUEST", asked.words[1], "RPC", own_id(who), "drop.f"]
                owner.send(f"RESPONSE {asked.words[1]} RPC {own_id(who)}\n{json.dumps('done')}")
                outcomes[who] = caller.response(number).body
        assert outcomes == {
            "admin": "done", "op": "done", "reader": "forbidden", "writer": "forbidden",
            "mon": "forbidden", "nobody": "unauthorized",
        }  # fmt: skip
    site.fill()
