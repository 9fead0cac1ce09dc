"""Tokens and rules that change while sessions and other servers are connected."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guardedsite import RULES, Site, leaks
from service import ROOT, Service
from wsclient import WSClient, put

from tega.access.keeper import add_token, remove_tokens

#: The files are looked at once a second; a loaded machine takes its time.
WITHIN = 2.0
BOUND = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "var")
    yield made
    made.end()


def until(found: Callable[[], Any], what: str, show: Callable[[], Any] = str) -> None:
    limit = time.monotonic() + BOUND
    while not found():
        assert time.monotonic() < limit, (what, show())
        time.sleep(0.05)


def ended(client: WSClient) -> tuple[list[str], int | None]:
    """What was said to the end of a connection, and the close code."""
    said = []
    try:
        while True:
            said.append(client.receive().words[-1])
    except Exception as end:
        return said, getattr(end, "code", None)


def test_a_session_whose_token_is_removed_ends_soon_and_cannot_return(site: Site) -> None:
    tokens = site.directory / "tokens.yaml"
    second = add_token(tokens, "reader")
    until(
        lambda: WSClient(site.service.port, Authorization=f"Bearer {second}").status == 101,
        "a token that is added counts",
    )
    with (
        site.session("reader", "reader-1") as gone,
        WSClient(site.service.port, "reader-2", Authorization=f"Bearer {second}") as stays,
        site.session("op", "op-1") as other,
    ):
        text = tokens.read_text()
        first = text.index("- sha256", text.index("reader:"))
        tokens.write_text(text[:first] + text[text.index("- sha256", first + 1) :])
        begun = time.monotonic()
        assert ended(gone) == (["unauthorized"], 4004)
        assert time.monotonic() - begun < WITHIN
        assert site.session("reader").status == 401
        assert site.ask("reader", "GET", "/motd")[0] == 401
        # Its other token still counts, and so do those of others.
        stays.settle()
        other.settle()
        remove_tokens(tokens, "reader")
        assert ended(stays) == (["unauthorized"], 4004)
        other.settle()


def test_an_ephemeral_node_goes_with_the_token(site: Site) -> None:
    with site.session("op", "op-1") as op:
        op.put("drop.mine", 1, ephemeral=True)
        remove_tokens(site.directory / "tokens.yaml", "op")
        assert ended(op)[1] == 4004
    until(lambda: site.ask("admin", "GET", "/drop/mine")[0] == 404, "the node goes")


def test_other_rules_count_for_open_sessions_at_once(site: Site) -> None:
    with site.session("reader", "reader") as reader, site.session("admin", "admin") as admin:
        reader.subscribe(".*", regex=True)
        admin.put("inv.ne1.config", "mk-config")
        assert [one.command for one in reader.notices()] == ["NOTIFY"]
        site.rules(RULES.replace("- {who: reader, on: inv, may: r}", "- {who: reader, on: drop, "
                                 "may: rw}"))  # fmt: skip
        until(lambda: site.ask("reader", "GET", "/inv")[0] == 403, "the rules are read")
        admin.put("inv.ne1.config", "mk-config")
        admin.put("drop.x", "now")
        (told,) = reader.notices()
        assert [(one["path"], one["instance"]) for one in told.body] == [("drop.x", "now")]
        # What it does is judged by the new rules too.
        assert "versions" in reader.put("drop.y", 1)
        assert reader.tx({"ope": "GET", "path": "inv"})["results"][0]["error"]["code"] == (
            "forbidden"
        )
        site.rules(RULES)
        until(lambda: site.ask("reader", "GET", "/drop")[0] == 403, "the rules are read")
        assert reader.put("drop.y", 1)["code"] == "forbidden"


def test_an_open_transaction_is_judged_by_the_rules_at_its_commit(site: Site) -> None:
    txid = json.loads(site.ask("op", "POST", "/_begin")[1].splitlines()[-1])["txid"]
    assert site.ask("op", "PUT", f"/drop/late?txid={txid}", 1)[0] == 200
    site.rules(RULES.replace("- {who: op, may: rwxsp}", "- {who: op, may: rxsp}"))
    until(lambda: site.ask("op", "PUT", "/drop/x", 1)[0] == 403, "the rules are read")
    assert site.ask("op", "POST", f"/_commit?txid={txid}")[0] == 403
    assert site.ask("admin", "GET", "/drop/late")[0] == 404


def test_a_session_ends_whose_tega_id_is_somebody_elses_now(site: Site) -> None:
    given = "identities: {reader: {tega_ids: [shared]}}\n"
    site.rules(given + RULES)
    until(lambda: site.ask("reader", "GET", "/motd/?tega_id=shared")[0] == 200, "it is reader's")
    with site.session("reader", "shared") as before:
        site.rules("identities: {writer: {tega_ids: [shared]}}\n" + RULES)
        assert ended(before)[1] == 4004
        with site.session("writer", "shared") as after:
            after.settle()


def test_wrong_rules_change_nothing_and_end_nobody(site: Site) -> None:
    with site.session("reader", "reader") as reader:
        site.rules("rules: [{who: misspelt, may: rw}]")
        remove_tokens(site.directory / "tokens.yaml", "op")
        until(lambda: site.ask("op", "GET", "/motd")[0] == 401, "a token counts no more")
        assert site.ask("reader", "GET", "/inv")[0] == 200
        assert site.ask("reader", "GET", "/drop")[0] == 403
        reader.settle()


def test_the_first_token_turns_access_control_on(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "srv")
    with WSClient(service.port, "early") as early:
        early.put("a", 1)
        token = add_token(tmp_path / "tokens.yaml", "alice")
        assert ended(early) == (["unauthorized"], 4004)
        assert service.ask("GET", "/a")[0] == 401
        with WSClient(service.port, "alice", Authorization=f"Bearer {token}") as alice:
            alice.put("a", 2)
    assert service.end()[0] == 0


def test_a_local_server_comes_and_goes_with_its_token_and_rules(tmp_path: Path) -> None:
    """A real one: what its clients do is judged by both servers."""
    rules = (
        "rules:\n- {who: op, may: rwxsp}\n- {who: local, on: conf.locked, may: r}\n"
        "- {who: local, on: conf, may: rwxsp}\n- {who: local, on: oper, may: rw}\npeer: [local]\n"
    )
    site = Site.__new__(Site)
    site.directory = tmp_path / "g"
    site.directory.mkdir()
    tokens = {n: add_token(site.directory / "tokens.yaml", n) for n in ("op", "local")}
    site.tokens = tokens
    site.rules(rules)
    site.service = Service(site.directory, "-t", "g")
    (tmp_path / "token").write_text(tokens["local"])
    local = Service(
        tmp_path / "l", "-t", "local", "-P", str(site.service.port), "-C", "conf", "-O", "oper",
        "--gtoken-file", str(tmp_path / "token"),
    )  # fmt: skip

    def up() -> dict[str, Any]:
        found: dict[str, Any] = local.ask("GET", "/_health")[1]["peers"][0]
        return found

    try:
        until(lambda: up()["state"] == "connected", "it is connected")
        assert site.ask("op", "PUT", "/conf", {"a": 1, "locked": {"k": 1}})[0] == 200
        until(lambda: local.ask("GET", "/conf/a") == (200, 1), "conf is there")
        # The local server lets everybody do everything; the global one does not.
        assert local.ask("PUT", "/conf/a", 2)[0] == 200
        for url, body in (("/conf/locked/k", 2), ("/conf", {}), ("/conf/f", "%op.f")):
            status, answer = local.ask("PUT", url, body)
            assert (status, answer["error"]["code"]) == (403, "forbidden"), url
        assert local.ask("PUT", "/conf/b?tega_id=op", 1)[1]["error"]["code"] == "forbidden"
        assert local.ask("PUT", "/oper/x", 1)[0] == 200
        until(lambda: site.ask("op", "GET", "/oper/x")[0] == 200, "oper is there")
        # Rules by which it may not have all of conf end the connection, and it is told why.
        site.rules(rules.replace("conf.locked, may: r}", "conf.locked, may: ''}"))
        until(lambda: "may not read all of conf" in str(up()), "it is refused", up)
        assert site.ask("op", "PUT", "/conf/a", "mk-unseen")[0] == 200
        assert local.ask("GET", "/conf/a") == (200, 2)
        site.rules(rules)
        until(lambda: local.ask("GET", "/conf/a") == (200, "mk-unseen"), "it is back", up)
        # And without its token it stays away.
        remove_tokens(site.directory / "tokens.yaml", "local")
        until(lambda: "not valid" in str(up()), "it is out", up)
        assert tokens["local"].partition(".")[2] not in str(up())
    finally:
        codes = [one.end() for one in (local, site.service)]
    assert [code for code, _ in codes] == [0, 0]
    for _, said in codes:
        assert not [t for t in tokens.values() if t.partition(".")[2] in said]


def test_no_token_is_in_a_log_an_error_or_a_command_line(tmp_path: Path) -> None:
    """At the most talkative level, with tokens right, wrong and misplaced."""
    (tmp_path / "tokens").mkdir()
    token = add_token(tmp_path / "tokens" / "tokens.yaml", "alice")
    secret, wrong = token.partition(".")[2], "w" * 43
    flags = ("-t", "srv", "-L", "DEBUG", "--tokens", str(tmp_path / "tokens" / "tokens.yaml"))
    service = Service(tmp_path / "var", *flags, "--log-format", "json")
    texts = []
    with WSClient(service.port, "alice-1", Authorization=f"Bearer {token}") as client:
        texts.append(str(client.tx(put("a", 1))))
        for header in (f"Bearer alice.{wrong}", f"Basic {token}", f"Bearer  {token}x", token):
            refused = WSClient(service.port, Authorization=header)
            assert refused.status == 401
            texts.append(refused._taken.decode())
            refused.close()
        client.send(f"NONSENSE {token}"[:20])
        texts.append(str(client.notices()))
    texts.append(Path(f"/proc/{service.process.pid}/cmdline").read_text())
    texts.append(Path(f"/proc/{service.process.pid}/environ").read_text())
    code, said = service.end()
    assert code == 0
    for file in (tmp_path / "var").rglob("*"):
        if file.is_file():
            texts.append(file.read_text(errors="replace"))
    for text in (*texts, said):
        assert secret not in text
        assert wrong not in text
    assert "alice" in said, "whose it was may be told"
    assert (ROOT / "tega").is_dir()
    assert not leaks("admin", said)
