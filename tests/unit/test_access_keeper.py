"""The files with tokens and rules: read again when they change, and made by commands."""

from __future__ import annotations

import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tega.access.keeper import Keeper, add_token, list_tokens, remove_tokens
from tega.access.policy import digest
from tega.access.who import UNLIMITED, Who
from tega.errors import Malformed, NotFound, Unauthorized

ROOT = Path(__file__).resolve().parents[2]

RULES = "rules:\n- {who: alice, on: a, may: r}\n- {who: known, on: b, may: r}\n"


class Files:
    """The two files in a directory, and a keeper of them."""

    def __init__(self, directory: Path) -> None:
        self.tokens = directory / "tokens.yaml"
        self.access = directory / "access.yaml"

    def keeper(self) -> Keeper:
        return Keeper(self.tokens, self.access)

    def add(self, name: str) -> str:
        return add_token(self.tokens, name)

    def rules(self, text: str) -> None:
        """Other rules; as an editor does it, that writes a new file."""
        draft = self.access.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(self.access)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shown(keeper: Keeper, token: str) -> Who:
    return keeper.who(f"Bearer {token}")


def test_without_files_there_is_no_access_control(files: Files) -> None:
    keeper = files.keeper()
    assert not keeper.on
    assert keeper.who(None) is keeper.who("Bearer nonsense") is UNLIMITED
    assert keeper.again(UNLIMITED, "") is UNLIMITED


def test_either_file_is_enough(files: Files) -> None:
    token = files.add("alice")
    assert shown(files.keeper(), token).rights is None
    files.tokens.unlink()
    files.rules("rules: [{who: anybody, on: a, may: r}]")
    keeper = files.keeper()
    assert keeper.on
    assert keeper.who(None).reads(("a",))
    assert not keeper.who(None).reads(("b",))


def test_a_file_that_is_named_has_to_be_there(files: Files) -> None:
    with pytest.raises(Malformed, match=r"access\.yaml: there is no such file"):
        Keeper(files.tokens, files.access, named=True)


def test_wrong_files_do_not_start(files: Files) -> None:
    files.rules("rules: [{who: nobody-here, may: r}]")
    with pytest.raises(Malformed, match="nobody-here"):
        files.keeper()
    files.access.unlink()
    files.access.mkdir()
    with pytest.raises(Malformed, match=r"access\.yaml"):
        files.keeper()
    files.access.rmdir()
    files.tokens.write_bytes(b"\xff")
    with pytest.raises(Malformed, match=r"tokens\.yaml"):
        files.keeper()


def test_both_files_are_read_again(files: Files) -> None:
    alice = files.add("alice")
    files.rules(RULES)
    keeper = files.keeper()
    changes: list[int] = []
    keeper.changed = lambda: changes.append(1)
    keeper.look()
    assert not changes, "nothing has changed"
    bob = files.add("bob")
    with pytest.raises(Unauthorized):
        shown(keeper, bob)
    keeper.look()
    assert shown(keeper, bob).reads(("b",))
    before = shown(keeper, alice)
    assert before.reads(("a",))
    files.rules("rules: [{who: known, on: c, may: r}]")
    keeper.look()
    assert not shown(keeper, alice).reads(("a",))
    assert shown(keeper, alice).reads(("c",))
    assert keeper.again(before, digest(alice)) is shown(keeper, alice)
    assert len(changes) == 2


def test_a_first_file_turns_access_control_on(files: Files) -> None:
    keeper = files.keeper()
    token = files.add("alice")
    keeper.look()
    assert keeper.on
    assert shown(keeper, token).name == "alice"
    # Whoever came before has shown nothing.
    nobody = keeper.again(UNLIMITED, "")
    assert nobody is keeper.who(None)
    assert nobody.helpless


def test_a_removed_token_is_not_valid_any_more_and_others_of_the_same_name_are(
    files: Files,
) -> None:
    first, second = files.add("alice"), files.add("alice")
    keeper = files.keeper()
    who = shown(keeper, first)
    lines = files.tokens.read_text().split("- ")
    files.tokens.write_text("".join([lines[0], "- ", lines[2]]))
    keeper.look()
    with pytest.raises(Unauthorized):
        shown(keeper, first)
    assert keeper.again(who, digest(first)) is None, "nor may its sessions go on"
    assert keeper.again(who, digest(second)) is shown(keeper, second)
    assert remove_tokens(files.tokens, "alice") == 1
    keeper.look()
    with pytest.raises(Unauthorized):
        shown(keeper, second)
    assert keeper.again(who, digest(second)) is None


def test_a_token_removed_beside_broken_rules_is_gone_at_once(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = files.add("alice"), files.add("bob")
    files.rules(RULES)
    keeper = files.keeper()
    remove_tokens(files.tokens, "alice")
    files.rules("rules: [{who: misspelt, may: rw}]")
    keeper.look()
    with pytest.raises(Unauthorized):
        shown(keeper, alice)
    assert shown(keeper, bob).reads(("b",)), "the rules are as they were"
    assert not shown(keeper, bob).reads(("a",))
    assert "the access rules stay as they were" in caplog.text
    assert "misspelt" in caplog.text


def test_broken_files_leave_all_as_it_was(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    alice = files.add("alice")
    files.rules(RULES)
    keeper = files.keeper()
    changes: list[int] = []
    keeper.changed = lambda: changes.append(1)
    for file, text in ((files.access, "rules: ["), (files.tokens, "alice: x")):
        right = file.read_text()
        file.write_text(text)
        keeper.look()
        assert shown(keeper, alice).reads(("a",))
        assert file.name in caplog.text
        caplog.clear()
        file.write_text(right)
        keeper.look()
    # Rules that name one whose last entry is gone are wrong, and the token is gone all the same.
    files.tokens.write_text("")
    keeper.look()
    with pytest.raises(Unauthorized):
        shown(keeper, alice)
    assert changes


def test_a_policy_that_can_be_had_in_no_way_lets_nobody_in(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens are gone that the rules name, which stay: they count for the others."""
    alice, bob = files.add("alice"), files.add("bob")
    files.rules(RULES)
    keeper = files.keeper()
    text = files.tokens.read_text()
    files.tokens.write_text(text[: text.index("alice")] + text[text.index("bob") :])
    assert list(list_tokens(files.tokens)) == ["bob"]
    keeper.look()
    with pytest.raises(Unauthorized):
        shown(keeper, alice)
    assert not shown(keeper, bob).reads(("a",))
    assert "alice" in caplog.text


def test_vanished_files_open_no_door(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    alice = files.add("alice")
    files.rules(RULES)
    keeper = files.keeper()
    files.access.unlink()
    keeper.look()
    assert shown(keeper, alice).reads(("a",))
    assert not shown(keeper, alice).reads(("z",)), "the rules are as they were"
    assert "access.yaml is gone" in caplog.text
    files.tokens.unlink()
    keeper.look()
    assert "tokens.yaml is gone" in caplog.text
    assert keeper.on
    with pytest.raises(Unauthorized):
        shown(keeper, alice)
    assert keeper.who(None).helpless


def test_a_directory_that_cannot_be_looked_into_is_an_error_and_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    files = Files(directory)
    alice = files.add("alice")
    keeper = files.keeper()
    directory.rename(tmp_path / "moved")
    directory.write_text("no directory")
    keeper.look()
    assert caplog.records[-1].levelno == logging.ERROR
    assert shown(keeper, alice).name == "alice"
    directory.unlink()
    (tmp_path / "moved").rename(directory)
    remove_tokens(files.tokens, "alice")
    keeper.look()
    with pytest.raises(Unauthorized):
        shown(keeper, alice)


# -- the commands ----------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_only_and_holds_no_token(files: Files) -> None:
    old = os.umask(0)
    try:
        made = [files.add(name) for name in ("alice", "bob", "alice")]
    finally:
        os.umask(old)
    assert stat.S_IMODE(files.tokens.stat().st_mode) == 0o600
    assert os.listdir(files.tokens.parent) == ["tokens.yaml"]
    assert len(set(made)) == 3
    text = files.tokens.read_text()
    for token in made:
        assert re.fullmatch(r"(alice|bob)\.[A-Za-z0-9_-]{43}", token)
        assert token.partition(".")[2] not in text
        assert digest(token) in text
    assert {name: len(tokens) for name, tokens in list_tokens(files.tokens).items()} == {
        "alice": 2, "bob": 1,
    }  # fmt: skip
    with pytest.raises(Malformed, match="'anybody' is no name"):
        files.add("anybody")
    with pytest.raises(NotFound, match="there is no 'carol'; there are alice, bob"):
        remove_tokens(files.tokens, "carol")


def command(directory: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of ``tega-server WORDS``."""
    ran = subprocess.run(
        [sys.executable, "-m", "tega.server", *words],
        cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


def test_token_commands(tmp_path: Path) -> None:
    status, token, errors = command(tmp_path, "token", "add", "alice")
    assert (status, errors) == (0, "")
    assert re.fullmatch(r"alice\.[\w-]{43}\n", token), "nothing else, so that it can be piped"
    file = tmp_path / "var" / "tokens.yaml"
    assert digest(token.strip()) in file.read_text()
    elsewhere = ["-d", "other", "--tokens", str(tmp_path / "t.yaml")]
    assert command(tmp_path, "token", "add", "bob", *elsewhere)[0] == 0
    assert not (tmp_path / "other").exists()
    status, listed, _ = command(tmp_path, "token", "list")
    assert status == 0
    assert re.fullmatch(r"alice: made \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\n", listed)
    assert command(tmp_path, "token", "remove", "alice")[:2] == (
        0, "1 removed: alice has no token now\n",
    )  # fmt: skip
    assert command(tmp_path, "token", "list")[:2] == (0, "alice: no token\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["token", "add"], "add: whose? Give the name of an identity"),
        (["token", "add", "a b"], "'a b' is no name"),
        (["token", "remove", "carol"], "there is no 'carol'"),
        (["token", "make", "x"], "invalid choice: 'make'"),
        (["may", "x", "q", "a"], "'q': it is one of r (read)"),
    ],
)
def test_wrong_usage_is_said_on_stderr(tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "access.yaml").write_text("identities: {x: {}}")
    status, out, errors = command(tmp_path, *words, "-d", ".")
    assert (status, out) == (2, "")
    assert says in errors


ACCESS = """
identities: {alice: {roles: [ops]}}
rules:
- {who: ops, on: secrets, may: ""}
- {who: [ops, known], on: inv.*.key, may: r}
- {who: ops, on: "*", may: rw}
- {who: anybody, on: pub, may: r}
manage: [ops]
monitor: [bob]
"""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("alice r inv.ne1", 0, "yes: rule 3: ops on * may rw"),
        ("alice r inv.ne1.key.x", 0, "yes: rule 2: ops, known on inv.*.key may r"),
        ("alice w inv.ne1.key", 1, "no: rule 2: ops, known on inv.*.key may r"),
        ("alice w inv.ne1.a", 0, "yes: rule 3: ops on * may rw"),
        ("alice w inv.ne1", 1, "no: rule 3: ops on * may rw; but what is below inv.ne1 goes with "
         "it, and there rule 2: ops, known on inv.*.key may r"),
        ("alice r secrets.x", 1, "no: rule 1: ops on secrets may nothing"),
        ("alice x inv", 1, "no: rule 3: ops on * may rw"),
        ("bob r secrets", 1, "no: no rule for bob covers it"),
        ("bob r inv.a.key", 0, "yes: rule 2: ops, known on inv.*.key may r"),
        ("bob r pub", 0, "yes: rule 4: anybody on pub may r"),
        ("anybody r pub.x", 0, "yes: rule 4: anybody on pub may r"),
        ("anybody w pub", 1, "no: rule 4: anybody on pub may r"),
        ("alice manage", 0, "yes: see manage in access.yaml"),
        ("bob manage", 1, "no: see manage in access.yaml"),
        ("bob monitor", 0, "yes: see monitor in access.yaml"),
        ("alice monitor", 0, "yes: see monitor in access.yaml"),
        ("alice peer", 1, "no: see peer in access.yaml"),
        ("anybody monitor", 1, "no: see monitor in access.yaml"),
        ("carol r a", 2, "there is no identity 'carol'; there are alice, bob, anybody"),
        ("carol manage", 2, "there is no identity 'carol'"),
        ("alice r", 2, "where? Give a path"),
        ("alice rw a", 2, "'rw': it is one of"),
        ("alice r a..b", 2, "malformed path 'a..b'"),
    ],
)  # fmt: skip
def test_may(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, status: int, says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from tega.access import command as commands

    monkeypatch.chdir(tmp_path)
    (tmp_path / "access.yaml").write_text(ACCESS)
    add_token(tmp_path / "tokens.yaml", "bob")
    assert commands.run(["may", *words.split(), "-d", "."]) == status
    out, errors = capsys.readouterr()
    assert says in (errors if status == 2 else out)
    if status != 2:
        assert out == f"{says}\n"


def test_may_as_a_process(tmp_path: Path) -> None:
    assert command(tmp_path, "may", "alice", "r", "a")[:2] == (
        0, "yes: there is no access control, for there are neither tokens nor rules\n",
    )  # fmt: skip
    assert command(tmp_path, "token", "add", "alice")[0] == 0
    assert command(tmp_path, "may", "alice", "w", "a")[:2] == (
        0, "yes: there are no rules, so that alice, who is known, may do everything\n",
    )  # fmt: skip
    assert command(tmp_path, "may", "anybody", "r", "a")[:2] == (
        1, "no: no rule for anybody covers it\n",
    )  # fmt: skip
    (tmp_path / "rules.yaml").write_text(ACCESS.replace("[bob]", "[]"))
    words = ["may", "alice", "w", "inv", "--access", "rules.yaml"]
    status, out, _ = command(tmp_path, *words)
    assert (status, out[:20]) == (1, "no: rule 3: ops on *")
    assert command(tmp_path, "may", "alice", "r", "a", "--access", "none.yaml")[0] == 2
