"""Who gets what over REST: each verb and each command, for each identity, as this table has it.

The table is written by hand from doc/security.md. The text of every answer is looked through for
what whoever asks may not see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from certificates import Authority
from guardedsite import CERT, CERT_RULES, TREE, WHO, Site, leaks

from tega.web.app import COMMANDS, DOCUMENTS


class Row(NamedTuple):
    """One request, and its status for each of `WHO`.

    :ivar url: with ``{own}`` and ``{other}`` for open transactions, of whoever asks and of admin
    """

    method: str
    url: str
    statuses: str
    body: Any = None


R = Row
TABLE = [
    #                                      admin op  reader writer mon nobody wrong
    R("GET", "/",                             "200 200 200 200 200 200 401"),
    R("GET", "/?internal=True",               "200 200 200 200 200 200 401"),
    R("GET", "/motd",                         "200 200 200 200 200 200 401"),
    R("GET", "/inv",                          "200 200 200 403 403 401 401"),
    R("GET", "/inv/?internal=True",           "200 200 200 403 403 401 401"),
    R("GET", "/inv/?consistent=True",         "200 200 200 403 403 401 401"),
    R("GET", "/inv/?version=0",               "200 200 200 403 403 401 401"),
    R("GET", "/inv/?version=99999",           "404 404 404 403 403 401 401"),
    R("GET", "/inv/ne1/config",               "200 200 200 403 403 401 401"),
    R("GET", "/inv/ne1/state",                "200 200 200 403 403 401 401"),
    # Whether anything stands there or not.
    R("GET", "/inv/ne1/secret",               "200 403 403 403 403 401 401"),
    R("GET", "/inv/ne2/secret",               "404 403 403 403 403 401 401"),
    R("GET", "/inv/ne1/secret/?version=0",    "200 403 403 403 403 401 401"),
    R("GET", "/inv/none",                     "404 404 404 403 403 401 401"),
    R("GET", "/vault",                        "200 403 403 403 403 401 401"),
    R("GET", "/vault/?version=99999",         "404 403 403 403 403 401 401"),
    R("GET", "/none",                         "404 404 403 403 403 401 401"),
    # Something below could be seen, so that it is as if nothing were there.
    R("GET", "/parts",                        "200 200 200 403 403 401 401"),
    R("GET", "/parts/p2",                     "404 404 404 403 403 401 401"),
    R("GET", "/parts/p1/closed",              "200 200 403 403 403 401 401"),
    R("GET", "/parts/p1/?version=99999",      "404 404 404 403 403 401 401"),
    R("GET", "/.*/?regex_flag=True",          "200 200 200 200 200 200 401"),
    R("GET", "/.*%5C..*%5C..*/?regex_flag=True&internal=True",
                                              "200 200 200 200 200 200 401"),
    R("GET", "/inv%5C.ne1%5C.s.*%5C..*/?regex_flag=True",
                                              "200 200 200 200 200 200 401"),
    R("GET", "/_x",                           "404 404 404 404 404 404 401"),
    R("GET", "/inv/?tega_id=reader-2",        "403 403 200 403 403 401 401"),
    R("GET", "/motd/?tega_id=free",           "403 403 403 403 403 200 401"),
    R("PATCH", "/inv",                        "405 405 405 405 405 405 401", {}),
    R("HEAD", "/inv",                         "405 405 405 405 405 405 401"),
    R("OPTIONS", "/inv",                      "405 405 405 405 405 405 401"),

    R("PUT", "/inv/ne2/config",               "200 200 403 403 403 401 401", 1),
    R("PUT", "/inv/ne1/state",                "200 200 403 200 403 401 401", 1),
    R("PUT", "/inv/ne1/state/deep",           "409 409 403 409 403 401 401", 1),
    # All below goes with it.
    R("PUT", "/inv/ne1",                      "200 403 403 403 403 401 401", {}),
    R("PUT", "/inv",                          "200 403 403 403 403 401 401", {}),
    R("PUT", "/inv/ne1/secret/mine",          "200 403 403 403 403 401 401", 1),
    R("PUT", "/vault/mine",                   "200 403 403 403 403 401 401", 1),
    R("PUT", "/new",                          "200 200 403 403 403 401 401", 1),
    R("PUT", "/drop/x",                       "200 200 403 200 403 401 401", {"a": 1}),
    R("PUT", "/drop/x?version=99999",         "409 409 403 409 403 401 401", 1),
    R("PUT", "/drop/leaf/below",              "409 409 403 409 403 401 401", 1),
    R("PUT", "/drop/t?tega_id=reader",        "403 403 403 403 403 401 401", 1),
    R("PUT", "/drop/t?tega_id=writer-7",      "403 403 403 200 403 401 401", 1),
    R("PUT", "/drop/t?tega_id=free",          "403 403 403 403 403 401 401", 1),
    # op has a session; that is its own.
    R("PUT", "/drop/e?ephemeral=True&tega_id=op-1",
                                              "403 200 403 403 403 401 401", 1),
    R("PUT", "/drop/e2?ephemeral=True&tega_id=writer",
                                              "403 403 403 409 403 401 401", 1),
    R("PUT", "/drop/f",                       "403 200 403 403 403 401 401", "%op-1.f"),
    R("PUT", "/drop/f",                       "403 403 403 200 403 401 401", {"a": ["%writer.f"]}),
    R("PUT", "/",                             "400 400 400 400 400 400 401", 1),
    R("PUT", "/drop/x?txid={own}",            "200 200 403 200 403 401 401", 1),
    R("PUT", "/vault/x?txid={own}",           "200 403 403 403 403 401 401", 1),
    R("PUT", "/drop/x?txid={other}",          "200 404 403 404 403 401 401", 1),
    R("GET", "/motd?txid={other}",            "200 404 404 404 404 404 401"),

    R("DELETE", "/drop/gone",                 "200 200 403 200 403 401 401"),
    R("DELETE", "/drop/never",                "404 404 403 404 403 401 401"),
    R("DELETE", "/drop/gone?version=99999",   "409 409 403 409 403 401 401"),
    R("DELETE", "/inv/ne1/secret",            "200 403 403 403 403 401 401"),
    R("DELETE", "/inv/ne1",                   "200 403 403 403 403 401 401"),
    R("DELETE", "/vault",                     "200 403 403 403 403 401 401"),
    R("DELETE", "/",                          "400 400 400 400 400 400 401"),
    R("DELETE", "/drop/x?txid={own}",         "200 200 403 200 403 401 401"),

    R("GET", "/_applied?root_oid=inv",        "200 200 200 403 403 401 401"),
    R("GET", "/_applied?root_oid=vault",      "200 403 403 403 403 401 401"),
    R("GET", "/_applied?root_oid=none",       "404 404 403 403 403 401 401"),
    R("POST", "/_begin",                      "200 200 200 200 200 200 401"),
    R("POST", "/_begin?tega_id=op",           "403 200 403 403 403 401 401"),
    R("POST", "/_cancel?txid={own}",          "200 200 200 200 200 200 401"),
    R("POST", "/_cancel?txid={other}",        "200 404 404 404 404 404 401"),
    R("POST", "/_cand?txid={own}",            "200 200 200 200 200 200 401"),
    R("POST", "/_cand?txid={other}",          "200 404 404 404 404 404 401"),
    R("GET", "/_channels",                    "200 403 403 403 200 401 401"),
    R("POST", "/_clear",                      "200 403 403 403 403 401 401"),
    R("POST", "/_commit?txid={own}",          "200 200 200 200 200 200 401"),
    R("POST", "/_commit?txid={other}",        "200 404 404 404 404 404 401"),
    R("GET", "/_edges",                       "200 200 200 200 200 200 401"),
    R("GET", "/_edges?old_roots=True",        "200 200 200 200 200 200 401"),
    R("GET", "/_edges?root_oid=inv",          "200 200 200 403 403 401 401"),
    R("GET", "/_edges?root_oid=vault",        "200 403 403 403 403 401 401"),
    R("GET", "/_edges?root_oid=parts",        "200 200 200 403 403 401 401"),
    R("GET", "/_forwarders",                  "200 403 403 403 200 401 401"),
    R("GET", "/_global",                      "200 403 403 403 200 401 401"),
    R("GET", "/_health",                      "200 200 200 200 200 200 401"),
    R("GET", "/_ids",                         "200 403 403 403 200 401 401"),
    R("GET", "/_metrics",                     "200 403 403 403 200 401 401"),
    R("GET", "/_old",                         "200 200 200 200 200 200 401"),
    R("GET", "/_plugins",                     "200 403 403 403 200 401 401"),
    R("GET", "/_openapi",                     "200 200 200 200 200 200 401"),
    R("GET", "/_ready",                       "200 200 200 200 200 200 401"),
    # There is nothing to release, nor anybody to catch up with.
    R("POST", "/_release?root_oid=inv",       "404 403 403 403 403 401 401"),
    R("GET", "/_reload",                      "200 403 403 403 403 401 401"),
    R("POST", "/_reload",                     "200 403 403 403 403 401 401"),
    R("POST", "/_rollback?root_oid=drop&backto=-1",
                                              "200 200 403 200 403 401 401"),
    R("POST", "/_rollback?root_oid=drop&backto=99999",
                                              "404 404 403 404 403 401 401"),
    R("POST", "/_rollback?root_oid=inv&backto=-1",
                                              "200 403 403 403 403 401 401"),
    R("POST", "/_rollback?root_oid=vault&backto=-1",
                                              "200 403 403 403 403 401 401"),
    R("GET", "/_roots",                       "200 200 200 200 200 200 401"),
    # No function stands there.
    R("POST", "/_rpc?path=inv.ne1.config",    "404 404 403 403 403 401 401"),
    R("POST", "/_rpc?path=vault.f",           "404 403 403 403 403 401 401"),
    R("POST", "/_ss",                         "200 403 403 403 403 401 401"),
    R("GET", "/_subscribers",                 "200 403 403 403 200 401 401"),
    R("POST", "/_sync",                       "404 403 403 403 404 401 401"),
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site") / "var")
    with made.session("op", "op-1"):
        yield made
    made.end()


def begun(site: Site, who: str) -> str:
    """A transaction of somebody, with a change in it where that one may make any."""
    status, text = site.ask(who, "POST", "/_begin")
    assert status == 200, text
    txid: str = json.loads(text.splitlines()[-1])["txid"]
    for path in ("/drop/y", "/inv/ne2/state", "/parts/p1/closed"):
        site.ask(who, "PUT", f"{path}?txid={txid}", "mine")
    return txid


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.url} {row.body or ''}")
def test_the_table(site: Site, row: Row) -> None:
    found, leaked = [], {}
    for who in WHO:
        if row.method != "GET":
            site.fill()
        own = begun(site, who) if "{own}" in row.url and who != "wrong" else "none"
        other = begun(site, "admin") if "{other}" in row.url else "none"
        url = row.url.format(own=own, other=other)
        status, text = site.ask(who, row.method, url, row.body)
        found.append(status)
        if row.url == "/_openapi":
            # It tells of the interface alone, and names a code that happens to be a mark.
            text = text.replace("`closed`", "").replace('"closed"', "")
        if leaks(who, text, url):
            leaked[who] = leaks(who, text, url), text
        if status == 401:
            assert "www-authenticate: bearer" in text.lower()
        if row.method == "PUT" and status != 200:
            # A refusal has changed nothing.
            assert json.loads(site.ask("admin", "GET", "/")[1].splitlines()[-1]).items() >= (
                TREE.items()
            )
    assert " ".join(map(str, found)) == row.statuses
    assert not leaked
    if row.method != "GET":
        site.fill()


@pytest.fixture(scope="module")
def secure_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("secure")
    made = Site(directory / "var", CERT_RULES, authority=Authority(directory))
    yield made
    made.end()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.url} {row.body or ''}")
def test_who_shows_a_certificate_is_as_good_as_who_shows_a_token(
    secure_site: Site, row: Row
) -> None:
    """What reader has in the table, cert has too, where it goes by its own name."""
    site = secure_site
    if row.method != "GET":
        site.fill()
    own = begun(site, CERT) if "{own}" in row.url else "none"
    other = begun(site, "admin") if "{other}" in row.url else "none"
    url = row.url.format(own=own, other=other).replace("reader", CERT)
    status, text = site.ask(CERT, row.method, url, row.body)
    assert status == int(row.statuses.split()[WHO.index("reader")])
    if row.url != "/_openapi":
        assert not leaks(CERT, text, url)


def test_a_certificate_counts_where_no_token_comes(secure_site: Site) -> None:
    site = secure_site
    assert site.ask(CERT, "GET", "/inv")[0] == 200
    assert site.ask("nobody", "GET", "/inv")[0] == 401, "one without a certificate"
    token = f"Bearer {site.tokens['mon']}"
    assert site.ask(CERT, "GET", "/_subscribers", Authorization=token)[0] == 200
    assert site.ask(CERT, "GET", "/inv", Authorization=token)[0] == 403
    assert site.ask(CERT, "GET", "/motd", Authorization="Bearer cert.wrong")[0] == 401


def test_the_table_has_every_verb_and_command() -> None:
    rows = {(row.method, row.url.partition("?")[0]) for row in TABLE}
    for name, command in COMMANDS.items():
        for method in command.methods:
            assert (method, f"/{name}") in rows, f"{method} /{name} has no row"
    assert DOCUMENTS.keys() <= {method for method, url in rows if not url.startswith("/_")}
    for row in TABLE:
        assert len(row.statuses.split()) == len(WHO), row


def value(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


def test_what_is_left_out_of_a_parent(site: Site) -> None:
    """Not only is nothing shown that may not be: all is that may."""
    site.fill()
    seen = {who: value(site.ask(who, "GET", "/")[1]) for who in WHO[:-1]}
    ne1 = {"config": "mk-config", "state": "mk-state"}
    inv = {"ne1": ne1, "ne2": TREE["inv"]["ne2"]}
    some = {"motd": "welcome"}
    assert {key: seen["admin"][key] for key in TREE} == TREE
    assert {key: seen["op"][key] for key in TREE if key != "vault"} == {
        **{key: TREE[key] for key in TREE if key != "vault"}, "inv": inv,
    }  # fmt: skip
    parts = {"p1": {"open": "mk-open"}}
    assert seen["reader"] == {**some, "inv": inv, "parts": parts}
    assert seen["writer"] == seen["mon"] == seen["nobody"] == some
    matched = value(site.ask("reader", "GET", "/.*%5C..*%5C..*/?regex_flag=True")[1])
    assert {path: one["instance"] for path, one in matched.items()} == {
        "inv.ne1.config": "mk-config", "inv.ne1.state": "mk-state", "inv.ne2.config": "mk-config",
        "parts.p1.open": "mk-open",
    }  # fmt: skip


def test_what_management_shows(site: Site) -> None:
    site.fill()
    roots = {who: set(value(site.ask(who, "GET", "/_roots")[1])) for who in WHO[:-1]}
    assert roots["admin"] >= TREE.keys()
    assert roots["reader"] == {"motd", "inv", "parts"}
    assert roots["writer"] == roots["nobody"] == {"motd"}
    for who in WHO[:-1]:
        old = {name for one in value(site.ask(who, "GET", "/_old")[1]) for name in one}
        assert old >= roots[who]
        assert "vault" not in old or who == "admin"
    edges = value(site.ask("reader", "GET", "/_edges?root_oid=inv")[1])
    names = {name.partition("(")[0] for pair in edges for name in pair}
    assert names == {"inv", "inv.ne1", "inv.ne2", "inv.ne1.config", "inv.ne1.state",
                     "inv.ne2.config"}  # fmt: skip


def test_candidates_show_only_what_may_be_read(site: Site) -> None:
    site.fill()
    for who, expected in (("op", {"drop", "inv", "parts"}), ("writer", set()), ("admin", None)):
        txid = begun(site, who)
        found = {one["_oid"]: one for one in value(site.ask(who, "POST", f"/_cand?txid={txid}")[1])}
        if expected is None:
            assert "secret" in found["inv"]["ne1"]
        else:
            assert found.keys() == expected
            assert "secret" not in str(found)


def test_refusals_do_not_tell_why_of_what_is_hidden(site: Site) -> None:
    """Only the code shows that a leaf is in the way, or that the version is another one."""
    site.fill()
    refused = {
        ("PUT", "/drop/x?version=99999"): "collision",
        ("PUT", "/drop/leaf/below"): "leaf_in_the_way",
        ("DELETE", "/drop/never"): "not_found",
    }
    for (method, url), code in refused.items():
        plain = value(site.ask("op", method, url, 1)[1])["error"]
        error = value(site.ask("writer", method, url, 1)[1])["error"]
        assert plain["code"] == error["code"] == code
        assert error.keys() == {"code", "message"}
        assert error["message"] != plain["message"]
    found = value(site.ask("op", "PUT", "/drop/x?version=99999", 1)[1])["error"]
    assert found["found"] >= 0


def test_an_ephemeral_node_in_a_hidden_place_is_not_told_of(site: Site) -> None:
    """Who may write all of a place, and read only some of it."""
    site.fill()
    rules = (site.directory / "access.yaml").read_text()
    with site.session("admin", "admin-e") as admin:
        admin.put("drop.pub.hid.mk-eph", 1, ephemeral=True)
        more = "- {who: writer, on: drop.pub.hid, may: w}\n- {who: writer, on: drop.pub, may: rw}"
        before = "- {who: writer, on: drop,"
        site.rules(rules.replace(before, f"{more}\n{before}"))
        admin.subscribe("motd")
        try:
            for _ in range(200):
                status, text = site.ask("writer", "GET", "/drop/pub")
                if status != 403:
                    break
                admin.is_readable(0.05)
            status, text = site.ask("writer", "PUT", "/drop/pub", 1)
            assert status == 409
            assert "mk-eph" not in text
            assert "admin-e" not in text
        finally:
            site.rules(rules)
            for _ in range(200):
                if site.ask("writer", "GET", "/drop/pub")[0] == 403:
                    break
                admin.is_readable(0.05)


def test_a_transaction_id_of_one_is_not_that_of_another(site: Site) -> None:
    site.fill()
    status, text = site.ask("admin", "PUT", "/vault/k", 1, Idempotency_Key="deploy-1")
    assert status == 200
    assert site.ask("admin", "PUT", "/vault/k", 1, Idempotency_Key="deploy-1")[1].endswith(
        text.splitlines()[-1]
    )
    status, text = site.ask("op", "PUT", "/drop/k", 1, Idempotency_Key="deploy-1")
    assert status == 200
    assert value(text)["versions"].keys() == {"drop"}
    status, text = site.ask("op", "POST", "/_commit?txid=deploy-1")
    assert (status, leaks("op", text)) == (404, [])
    with site.session("writer", "writer") as writer:
        answer = writer.tx({"ope": "PUT", "path": "drop.k2", "instance": 1}, txid="deploy-1")
        assert answer["versions"].keys() == {"drop"}
    assert value(site.ask("admin", "GET", "/drop")[1])["k2"] == 1


def test_roots_that_may_not_be_known_of_do_not_show(site: Site) -> None:
    """Where rules could let something be seen in any root, those with nothing of it are hidden."""
    rules = (site.directory / "access.yaml").read_text()
    site.fill()
    before = "- {who: reader, on: inv,"
    assert before in rules
    site.rules(rules.replace(before, f"- {{who: reader, on: '*.*.none', may: r}}\n{before}"))
    try:
        for _ in range(200):
            if site.ask("reader", "GET", "/other")[0] == 404:
                break
            with site.session("admin", "admin-w") as admin:
                admin.is_readable(0.05)
        absent = site.ask("reader", "GET", "/other")[1].splitlines()[-1].replace("other", "vault")
        for url in ("/vault", "/vault/?version=99999", "/vault/?version=0", "/vault/mk-vault"):
            status, text = site.ask("reader", "GET", url)
            assert (status, leaks("reader", text, url)) == (404, [])
        assert site.ask("reader", "GET", "/vault")[1].splitlines()[-1] == absent
        other = site.ask("reader", "GET", "/other/?version=9")[1].splitlines()[-1]
        assert site.ask("reader", "GET", "/vault/?version=9")[1].splitlines()[-1] == (
            other.replace("other", "vault")
        )
        for url in ("/_roots", "/_old", "/_edges", "/_edges?root_oid=vault",
                    "/_applied?root_oid=vault"):  # fmt: skip
            assert not leaks("reader", site.ask("reader", "GET", url)[1], url), url
    finally:
        site.rules(rules)
        for _ in range(200):
            if site.ask("reader", "GET", "/other")[0] == 403:
                break
            with site.session("admin", "admin-w") as admin:
                admin.is_readable(0.05)
