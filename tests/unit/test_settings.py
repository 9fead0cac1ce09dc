"""Settings of a server with a global one: what belongs together, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tega.errors import Malformed
from tega.settings import load

SHARED = ["-C", "config-a", "ip-a", "-O", "operational-a"]


def test_alone_by_default() -> None:
    settings = load([], {})
    assert (settings.ghost, settings.gport, settings.proxy) == (None, None, None)
    assert (settings.config, settings.operational) == ((), ())


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (["-H", "global.example", "-P", "9000"], ("global.example", 9000)),
        (["-P", "9000"], ("127.0.0.1", 9000)),
        (["-H", "::1"], ("::1", 8739)),
        (["--ghost", "10.0.0.1", "--gport", "1"], ("10.0.0.1", 1)),
    ],
)
def test_half_of_an_address_will_do(flags: list[str], where: tuple[str, int]) -> None:
    settings = load([*flags, *SHARED], {})
    assert (settings.ghost, settings.gport) == where
    assert settings.config == ("config-a", "ip-a")
    assert settings.operational == ("operational-a",)


def test_the_halves_may_come_from_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("ghost: global.example\nconfig: [config-a, 'a:b']\n")
    variables = {"TEGA_SETTINGS": str(file), "TEGA_OPERATIONAL": "o-a:o-b", "TEGA_GPORT": "7"}
    settings = load([], variables)
    assert (settings.ghost, settings.gport) == ("global.example", 7)
    assert (settings.config, settings.operational) == (("config-a", "a:b"), ("o-a", "o-b"))


def test_a_root_is_one_key_and_counts_once() -> None:
    settings = load(["-P", "1", "-C", '"a.b"', "b", '"b"', "b"], {})
    assert settings.config == ("a.b", "b")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-C", "config-a"], r"setting config: .*share config-a with: give -P"),
        (["-O", '"a.b"'], r'setting operational: .*share "a\.b" with: give -P'),
        (["-P", "1", "-C", "a", "b", "-O", "c", "b"], "root b is in both config and operational"),
        (["-P", "1", "-C", "a.b"], r"setting config \(--config\): 'a\.b' is wrong .*of 2"),
        (["-P", "1", "-O", "_a"], "setting operational .*reserved key '_a'"),
        (["-P", "0"], "setting gport .*'0'.*1 to 65535"),
        (["-H", "a..b"], "setting ghost .*'a..b'.*host name"),
        (["-H", "http://a"], "setting ghost .*host name"),
        (["-H", ""], "setting ghost .*host name"),
    ],
)
def test_what_cannot_be(flags: list[str], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        load(flags, {})


@pytest.mark.parametrize("url", ["http://h:3128", "http://u:p%40@[::1]:1/", "http://u@10.0.0.1:1"])
def test_a_proxy(url: str) -> None:
    assert load(["--proxy", url], {}).proxy == url


@pytest.mark.parametrize(
    "url",
    ["h:3128", "http://h", "https://h:1", "http://h:x", "http://h:0", "http://:1", "http://h:1/x",
     "http://h:1?x", "http://[::1:1", ""],
)  # fmt: skip
def test_a_wrong_proxy(url: str) -> None:
    with pytest.raises(Malformed, match=r"setting proxy .*http://HOST:PORT"):
        load(["--proxy", url], {})


def test_a_password_is_not_shown() -> None:
    with pytest.raises(Malformed) as caught:
        load([], {"TEGA_PROXY": "https://user:secret@h:1"})
    assert "secret" not in str(caught.value)
    assert "variable TEGA_PROXY" in str(caught.value)


# TLS


def test_what_is_for_the_global_server() -> None:
    settings = load(["-P", "1", "--gtls"], {})
    assert (settings.gtls, settings.gca, settings.gtoken_file) == (True, None, None)
    assert load(["-P", "1"], {}).gtls is False
    for more in (["--gca", "a.pem"], ["--gcert", "a.pem"], ["--gcert", "a.pem", "--gkey", "k"]):
        assert load(["-P", "1", *more], {}).gtls is True
    settings = load(["-P", "1"], {"TEGA_GTOKEN_FILE": "token"})
    assert (settings.gtls, settings.gtoken_file) == (False, Path("token"))


@pytest.mark.parametrize(
    ("flags", "variable", "line", "found"),
    [
        ([], None, None, False),
        ([], None, "gtls: true", True),
        ([], None, "gtls: false", False),
        ([], "false", "gtls: true", False),
        ([], "True", "gtls: false", True),
        (["--gtls"], "false", "gtls: false", True),
        ([], "false", "gca: a.pem", False),
    ],
)
def test_a_flag(
    flags: list[str], variable: str | None, line: str | None, found: bool, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"gport: 1\n{line or ''}\n")
    variables = {} if variable is None else {"TEGA_GTLS": variable}
    assert load(["--settings", str(file), *flags], variables).gtls is found


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tls-cert", "a"], "setting tls-cert: .*give --tls-key too"),
        (["--tls-key", "a"], "setting tls-key: .*give --tls-cert too"),
        (["--tls-client-ca", "a"], "setting tls-client-ca: .*give --tls-cert too"),
        (["-P", "1", "--gkey", "a"], "setting gkey: .*give --gcert too"),
        (["--gtls"], "setting gtls: there is no global server"),
        (["--gca", "a"], "setting gtls: there is no global server"),
        (["--gtoken-file", "a"], "setting gtoken-file: there is no global server"),
        (["--gtls", "yes"], "unrecognized arguments: yes"),
    ],
)
def test_what_of_tls_cannot_be(flags: list[str], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        load(flags, {})
