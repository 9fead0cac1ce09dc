"""Who is who: what the two files may say, each error in them, and what they come to."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from tega.access import policy as policies
from tega.access.policy import Policy, Token, digest, name_in, read_tokens
from tega.access.who import Who
from tega.errors import Forbidden, Malformed, Unauthorized
from tega.paths import parse

MADE = "2026-11-21T01:34:05+00:00"
SECRETS = {"alice": "alice.first", "bob": "bob.only", "web": "web.x", "web-admin": "web-admin.x"}


def kept(*texts: str) -> list[Token]:
    return [Token(digest(text), MADE) for text in texts]


def made(access: str | None = None, **tokens: list[Token]) -> Policy:
    """A policy with alice and bob, and rules in YAML."""
    return Policy(tokens or {n: kept(SECRETS[n]) for n in ("alice", "bob")}, access, "access.yaml")


def shown(policy: Policy, token: str) -> Who:
    return policy.who(f"Bearer {token}")


# -- what is wrong in the files --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "named"),
    [
        ("rules: [{who: [], may: r}]", "rule 1: who: nobody is named"),
        ("rules: [{who: '', may: r}]", "rule 1: who: nobody is named"),
        ("rules: [{who: carol, may: r}]", "rule 1: 'carol' is neither an identity nor a role"),
        (
            "rules:\n- {who: alice, may: r}\n- {who: [alice, opreators], may: r}",
            "rule 2: 'opreators' is neither",
        ),
        ("manage: [carol]", "manage: 'carol' is neither"),
        ("peer: [carol]", "peer: 'carol' is neither"),
        ("monitor: [carol]", "monitor: 'carol' is neither"),
        ("manage: [anybody]", "manage: not for anybody"),
        ("peer: [anybody]", "peer: not for anybody"),
        ("manage: [alice]\nmanage: [bob]", "the key 'manage' stands here twice"),
        ("identities: {alice: {}, alice: {}}", "the key 'alice' stands here twice"),
        ("rules: [{who: alice, may: r, may: w}]", "the key 'may' stands here twice"),
        ("rule: []", "unknown field `rule`"),
        ("rules: [{who: alice, may: r, on_: a}]", "unknown field `on_`"),
        ("identities: {alice: {role: [x]}}", "unknown field `role`"),
        ("rules: [{who: alice}]", "missing required field `may`"),
        ("rules: [{may: r}]", "missing required field `who`"),
        ("rules: [{who: alice, may: rq}]", "rule 1: 'q' is nothing that a rule may allow"),
        ("rules: [{who: alice, may: R}]", "rule 1: 'R' is nothing"),
        ("rules: [{who: alice, may: r, on: a..b}]", "rule 1: malformed path 'a..b'"),
        ("rules: [{who: alice, may: r, on: _x}]", "rule 1: malformed path '_x'"),
        ("rules: [{who: alice, may: r, on: ''}]", "rule 1: malformed path ''"),
        ("rules: [{who: alice, may: [r]}]", "Expected `str`"),
        ("rules: {who: alice}", "Expected `array`"),
        ("identities: {alice: {roles: [bob]}}", "identity alice: the role bob is an identity"),
        ("identities: {alice: {roles: [anybody]}}", "'anybody' is no name"),
        ("identities: {alice: {roles: [a b]}}", "'a b' is no name"),
        ("identities: {known: {}}", "'known' is no name"),
        ("identities: {_x: {}}", "'_x' is no name"),
        ("identities: {a.b: {}}", "'a.b' is no name"),
        ("identities: {alice: {tega_ids: [a b]}}", "identity alice: 'a b' is no tega id"),
        ("identities: {alice: {tega_ids: ['']}}", "identity alice: '' is no tega id"),
        (
            "identities: {alice: {certificate: x.net}, bob: {certificate: x.net}}",
            "identity bob: the certificate x.net is of another identity",
        ),
        ("rules: [", "access.yaml: while parsing"),
        ("!!python/object/apply:os.getpid []", "could not determine a constructor"),
        ("just text", "Expected `object`"),
        ("? [a]\n: 1", "access.yaml: "),
    ],
)
def test_what_is_wrong_with_rules_is_named(access: str, named: str) -> None:
    with pytest.raises(Malformed) as error:
        made(access)
    assert error.value.message.startswith("access.yaml: ")
    assert named in error.value.message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("alice: [{sha256: abc, made: x}]", "alice: a sha256 has 64 hexadecimal digits"),
        (f"alice: [{{sha256: {'G' * 64}, made: x}}]", "64 hexadecimal digits"),
        (f"alice: [{{sha256: {'a' * 64}}}]", "missing required field `made`"),
        (f"alice: [{{sha256: {'a' * 64}, made: x, token: y}}]", "unknown field `token`"),
        (f"a/b: [{{sha256: {'a' * 64}, made: x}}]", "'a/b' is no name"),
        ("anybody: []", "'anybody' is no name"),
        ("alice: []\nalice: []", "stands here twice"),
        ("alice: x", "Expected `array`"),
        ("[]", "Expected `object`"),
        ("a: [", "tokens.yaml: while parsing"),
    ],
)
def test_what_is_wrong_with_tokens_is_named(text: str, named: str) -> None:
    with pytest.raises(Malformed) as error:
        read_tokens(text, "tokens.yaml")
    assert error.value.message.startswith("tokens.yaml: ")
    assert named in error.value.message


def test_scalars_are_texts() -> None:
    """Neither numbers nor what YAML once took for truth values: all may be names or paths."""
    digits = "1" * 64
    assert read_tokens(f"no: [{{sha256: {digits}, made: 2026-01-01}}]", "t") == {
        "no": [Token(digits, "2026-01-01")]
    }
    policy = made("identities: {12: {}, on: {}}\nrules: [{who: [12, on], on: 10, may: r}]")
    assert policy.names == ["12", "alice", "bob", "on"]
    assert [one.on for one in policy.rules] == ["10"]
    assert read_tokens("", "t") == {}
    assert made("").rules == ()


# -- tokens ----------------------------------------------------------------------------------------


def test_tokens() -> None:
    policy = made(None, alice=kept("alice.first", "alice.second"), bob=kept("bob.only"), gone=[])
    assert shown(policy, "alice.first").name == "alice"
    assert shown(policy, "alice.second") is shown(policy, "alice.first")
    assert policy.who("bearer bob.only").name == "bob"
    assert policy.who(None) is policy.anybody
    assert not policy.anybody.known
    wrong = [
        "alice.third", "alice.", "alice", "bob.first", "alice.only", "gone.x", "carol.first",
        "", ".", "alice.first.", "ALICE.first", "alice.first\x00", "\udcff.x", "anybody.x",
    ]  # fmt: skip
    for token in wrong:
        with pytest.raises(Unauthorized) as error:
            shown(policy, token)
        assert error.value.body() == {
            "error": {
                "code": "unauthorized",
                "message": "the token is not valid: it is misspelt, or was removed",
            }
        }
    for header in ("", "Basic YTpi", "alice.first", "Bearer", "Bearer\talice.first"):
        with pytest.raises(Unauthorized):
            policy.who(header)


def test_a_token_is_compared_in_constant_time_with_each_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = made(None, alice=kept("alice.a", "alice.b", "alice.c"), bob=kept("bob.only"))
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(policies.hmac, "compare_digest", counted)
    assert shown(policy, "alice.a").name == "alice"
    assert len(compared) == 3, "not only up to the first that fits"
    compared.clear()
    with pytest.raises(Unauthorized):
        shown(policy, "alice.z")
    assert [one for one, _ in compared] == [digest(f"alice.{x}") for x in "abc"]
    assert {other for _, other in compared} == {digest("alice.z")}
    # Nothing else decides: let it be wrong, and the answer is wrong.
    monkeypatch.setattr(policies.hmac, "compare_digest", lambda one, other: False)
    with pytest.raises(Unauthorized):
        shown(policy, "alice.a")


def test_no_object_shows_a_token() -> None:
    policy = made("rules: [{who: alice, may: r}]")
    who = shown(policy, SECRETS["alice"])
    for one in (policy, who, policy.rules, kept(SECRETS["alice"]), who.rights):
        assert SECRETS["alice"] not in repr(one)
        assert SECRETS["alice"].partition(".")[2] not in str(one)


def test_name_in() -> None:
    assert name_in("a-b_1.xyz") == "a-b_1"
    assert [name_in(text) for text in ("a", ".a", "-a.b", "a b.c", "x" * 65 + ".a")] == [None] * 5


# -- identities and roles --------------------------------------------------------------------------


def test_without_rules_whoever_is_known_may_do_everything() -> None:
    policy = made()
    alice = shown(policy, SECRETS["alice"])
    assert alice.rights is None
    assert (alice.manage, alice.monitor, alice.peer, alice.helpless) == (True, True, True, False)
    nobody = policy.anybody
    assert (nobody.manage, nobody.monitor, nobody.peer, nobody.helpless) == (
        False, False, False, True,
    )  # fmt: skip
    with pytest.raises(Unauthorized, match="takes a credential"):
        nobody.check("r", ("a",))


def test_roles_known_and_anybody() -> None:
    policy = made(
        """
        identities:
          alice: {roles: [ops, night]}
          agent:
        rules:
        - {who: night, on: a, may: ""}
        - {who: ops, on: "*", may: rw}
        - {who: agent, on: b, may: r}
        - {who: known, on: c, may: r}
        - {who: anybody, on: d, may: r}
        manage: [ops]
        monitor: [agent]
        peer: [known]
        """
    )
    alice, bob, agent = (policy.get(name) for name in ("alice", "bob", "agent"))
    assert alice is not None
    assert bob is not None
    assert agent is not None

    def reads(who: Who) -> str:
        return "".join(key for key in "abcde" if who.reads((key,)))

    assert [reads(who) for who in (alice, bob, agent, policy.anybody)] == ["bcde", "cd", "bcd", "d"]
    assert [alice.manage, bob.manage, agent.manage, policy.anybody.manage] == [1, 0, 0, 0]
    assert [alice.monitor, bob.monitor, agent.monitor, policy.anybody.monitor] == [1, 0, 1, 0]
    assert [alice.peer, bob.peer, agent.peer, policy.anybody.peer] == [1, 1, 1, 0]
    with pytest.raises(Forbidden, match="bob may not write all of c"):
        bob.check_write(("c",))
    with pytest.raises(Unauthorized, match="takes a credential"):
        policy.anybody.check_write(("d",))


def test_those_with_the_same_rules_share_one_object() -> None:
    policy = made("rules:\n- {who: alice, may: r}\n- {who: bob, may: r}\n- {who: known, may: w}")
    alice, bob = policy.get("alice"), policy.get("bob")
    assert alice is not None
    assert bob is not None
    assert alice.rights is bob.rights
    assert alice.rights is not policy.anybody.rights


def test_all_rights_are_no_rights() -> None:
    policy = made("rules: [{who: alice, may: rwxsp}, {who: bob, may: rwxs}]")
    alice, bob = policy.get("alice"), policy.get("bob")
    assert alice is not None
    assert bob is not None
    assert alice.rights is None
    assert bob.rights is not None
    assert not alice.manage, "that is another matter"


def test_w_counts_for_all_below() -> None:
    policy = made(
        "rules:\n- {who: alice, on: a.secret, may: ''}\n- {who: alice, on: 'a.*.x', may: rw}\n"
        "- {who: alice, on: a, may: rw}"
    )
    alice = policy.get("alice")
    assert alice is not None
    alice.check_write(parse("a.b"))
    alice.check("w", ("a",))
    for text in ("a", "a.secret", "a.secret.x", "b"):
        with pytest.raises(Forbidden, match=f"alice may not write all of {text}$"):
            alice.check_write(parse(text))


def test_certificates() -> None:
    policy = made("identities: {agent: {certificate: agent.example.net}}")
    assert policy.who(None, ["x", "agent.example.net"]).name == "agent"
    assert policy.who(None, ["x"]) is policy.anybody
    assert policy.who("Bearer bob.only", ["agent.example.net"]).name == "bob"
    with pytest.raises(Unauthorized):
        policy.who("Bearer bob.wrong", ["agent.example.net"])


# -- tega ids --------------------------------------------------------------------------------------


IDS = """
identities:
  alice: {tega_ids: [desk, "alice.*"]}
  bob:
  gw: {tega_ids: ["*"]}
peer: [gw]
"""


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        ("alice", ["alice", "desk", "alice.1", "alice.x.y"], ["alice-1", "bob", "free", "desk2"]),
        ("bob", ["bob", "bob-1", "bob-x.y"], ["bobby", "bob.1", "alice", "free"]),
        ("gw", ["gw", "alice", "bob", "free"], []),
        ("anybody", ["free", "anonymous", "bobby", "alice-1"], ["alice", "desk", "bob-1", "gw"]),
    ],
)
def test_whose_a_tega_id_is(name: str, own: list[str], others: list[str]) -> None:
    policy = made(IDS)
    who = policy.anybody if name == "anybody" else policy.get(name)
    assert who is not None
    for tega_id in own:
        assert who.goes_by(tega_id) == tega_id
    for tega_id in others:
        with pytest.raises(Unauthorized if name == "anybody" else Forbidden) as error:
            who.goes_by(tega_id)
        assert tega_id in error.value.message
        assert error.value.details == {"tega_id": tega_id}


def test_whom_a_server_speaks_for() -> None:
    policy = made(IDS)
    alice, gateway = policy.get("alice"), policy.get("gw")
    assert alice is not None
    assert gateway is not None
    # One that is nobody's may be of any session of that server.
    for tega_id in ("desk", "free", "alice-1"):
        assert alice.speaks_for(tega_id) == tega_id
    with pytest.raises(Forbidden, match="the tega id bob-1 is that of bob"):
        alice.speaks_for("bob-1")
    with pytest.raises(Forbidden, match="the tega id gw is that of gw"):
        alice.speaks_for("gw")
    assert gateway.speaks_for("bob") == "bob"


def test_the_tega_ids_of_one_are_not_those_of_another_whose_name_goes_on() -> None:
    policy = Policy({n: kept(SECRETS[n]) for n in ("web", "web-admin")})
    web, admin = policy.get("web"), policy.get("web-admin")
    assert web is not None
    assert admin is not None
    assert web.goes_by("web-1") == "web-1"
    assert admin.goes_by("web-admin-1") == "web-admin-1"
    for tega_id in ("web-admin", "web-admin-1"):
        with pytest.raises(Forbidden, match="web may not go by the tega id web-admin"):
            web.goes_by(tega_id)
        with pytest.raises(Forbidden, match="is that of web-admin"):
            web.speaks_for(tega_id)


def test_functions_of_others() -> None:
    policy = made(IDS)
    bob, gateway = policy.get("bob"), policy.get("gw")
    assert bob is not None
    assert gateway is not None

    def put(who: Who, value: Any, text: bytes | None = None) -> None:
        who.check_functions(repr(value).encode() if text is None else text, (value,))

    put(bob, {"a": ["%bob.f", "%bob-1.f(1, 2)", "100 %", "%", "%alice", "x %alice.f"]})
    put(gateway, "%alice.f")
    for value in ("%alice.f", ["%alice.f()"], {"a": {"b": [1, "%free.f"]}}, "%alice.x.f"):
        with pytest.raises(Forbidden, match="put a function of"):
            put(bob, value)
    with pytest.raises(Forbidden):
        put(bob, "%alice.f", b'"\\u0025alice.f"')
    with pytest.raises(Unauthorized):
        put(policy.anybody, "%alice.f")


