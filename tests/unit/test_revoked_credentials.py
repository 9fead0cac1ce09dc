"""A credential that is taken away is valid no more for whoever has shown it, and for them alone."""

from __future__ import annotations

from pathlib import Path

from tega.access.keeper import Keeper, add_token, remove_tokens

RULES = "identities: {agent: {certificate: agent.example.net}}\nrules: [{who: agent, may: r}]\n"


def keeper(directory: Path) -> Keeper:
    return Keeper(directory / "tokens.yaml", directory / "access.yaml")


def test_a_token_that_is_removed(tmp_path: Path) -> None:
    tokens, access = tmp_path / "tokens.yaml", tmp_path / "access.yaml"
    first = add_token(tokens, "agent")
    before = tokens.read_text()
    second = add_token(tokens, "agent")
    access.write_text(RULES)
    kept = keeper(tmp_path)
    shows = [kept.who(f"Bearer {token}") for token in (first, second)]
    certified, anybody = kept.who(None, ["agent.example.net"]), kept.who(None)
    assert [who.name for who in (*shows, certified)] == 3 * ["agent"]

    tokens.write_text(before)  # the second one is removed by hand
    kept.look()
    again = [kept.again(who) for who in (*shows, certified, anybody)]
    assert [who and who.name for who in again] == ["agent", None, "agent", "anybody"]

    assert remove_tokens(tokens, "agent") == 1
    kept.look()
    again = [kept.again(who) for who in (*shows, certified)]
    assert [who and who.name for who in again] == [None, None, "agent"]


def test_a_certificate_that_is_named_no_more(tmp_path: Path) -> None:
    token = add_token(tmp_path / "tokens.yaml", "agent")
    (tmp_path / "access.yaml").write_text(RULES)
    kept = keeper(tmp_path)
    certified, shows = kept.who(None, ["agent.example.net"]), kept.who(f"Bearer {token}")
    (tmp_path / "access.yaml").write_text(RULES.replace("agent.example", "other.example"))
    kept.look()
    assert kept.again(certified) is None
    still = kept.again(shows)
    assert still is not None
    assert still.name == "agent"
