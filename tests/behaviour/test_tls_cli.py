"""``tega-cli`` over TLS and with a token: one-shot commands, the prompt, and what cannot be."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from certificates import Authority, flags
from service import ROOT, Service
from terminal import PATIENCE, cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from guarded import SECRET, TOKEN, Guarded
from scripted import on_loop

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Service]:
    started = Service(
        tmp_path_factory.mktemp("var"), "-t", "srv", *flags(authority.issue(HOST)),
        "--tls-client-ca", str(authority.file),
    )  # fmt: skip
    yield started
    assert started.end()[0] == 0


def command(port: int, *words: str) -> list[str]:
    return [sys.executable, "-m", "tega.cli.main", "-p", str(port), *words]


def run(
    port: int, *words: str, typed: str | None = None, **variables: str
) -> tuple[int, str, str]:
    """Run a command: status, output, messages."""
    done = subprocess.run(
        command(port, *words), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE,
        input=typed or "", env={**os.environ, **variables}, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_one_shot_commands(service: Service, authority: Authority) -> None:
    tls = ["--ca", str(authority.file)]
    assert run(service.port, *tls, "put", "r.x", "1") == (0, "", "")
    assert run(service.port, "get", "r", *tls) == (0, "{x: 1}\n", "")
    assert run(service.port, *tls, "wait", "r", "0") == (0, "", "")
    assert run(service.port, *tls, "pub", "c", "1") == (0, "", "")
    pair = authority.issue("client.example")
    shown = ["--cert", str(pair.cert), "--key", str(pair.key)]
    assert run(service.port, *tls, *shown, "get", "r.x")[:2] == (0, "1\n")
    # An authority is as good as said by the system.
    assert run(service.port, "--tls", "get", "r", SSL_CERT_FILE=str(authority.file))[0] == 0


def test_watch(service: Service, authority: Authority) -> None:
    tls = ["--ca", str(authority.file)]
    watching = subprocess.Popen(
        command(service.port, *tls, "watch", "watched", "-o", "json"), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert watching.stdout is not None
    other = ["-t", "other", *tls]
    # It watches once it hears of something.
    line = ""
    os.set_blocking(watching.stdout.fileno(), False)
    for number in range(200):
        assert run(service.port, *other, "put", "watched.x", str(number))[0] == 0
        line = watching.stdout.readline()
        if line:
            break
    assert json.loads(line)["path"] == "watched.x"
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=PATIENCE)[1] == ""
    assert watching.returncode == 0


@pytest.mark.parametrize("session", [[], ["-s"]])
def test_the_prompt_and_its_completion(
    session: list[str], service: Service, authority: Authority, tmp_path: Path
) -> None:
    tls = ["--ca", str(authority.file)]
    assert run(service.port, *tls, "put", "completed.inside", "1")[0] == 0
    with cli(service.port, tmp_path, *session, *tls) as terminal:
        terminal.wait_for(r"\[tega: 0\]$")
        terminal.type("get compl\t.ins\t\n")
        terminal.wait_for(r"get completed\.inside\n1\n\n\[tega: 1\]$")
        terminal.type("q\n")
        assert terminal.wait_for_end() == 0


def test_a_certificate_that_is_not_trusted(service: Service) -> None:
    for words in (["get", "r"], ["watch", "r"], ["pub", "c", "1"], ["wait", "r", "0"]):
        status, out, messages = run(service.port, "--tls", *words)
        assert (status, out) == (3, "")
        assert re.fullmatch(
            rf"cannot connect to a tega server at 127\.0\.0\.1:{service.port}: nobody who is "
            r"trusted here has signed its certificate \(.*\): give the file of its authority as "
            r"ca\n",
            messages,
        )
    for session in ([], ["-s"]):
        status, out, messages = run(service.port, "--tls", *session, typed="roots\n")
        assert "nobody who is trusted here" in out
        assert "Traceback" not in messages


def test_without_tls_it_says_what_to_do(service: Service) -> None:
    for words in (["get", "r"], ["watch", "r"], ["pub", "c", "1"]):
        status, _, messages = run(service.port, *words)
        assert status == 1
        assert "this server speaks TLS here: connect with https, --tls or tls=True" in messages


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ca", "/nowhere.pem"], "/nowhere.pem cannot be read: No such file or directory"),
        (["--cert", "/nowhere.pem"], "/nowhere.pem cannot be read: No such file or directory"),
        (["--key", "/nowhere.pem"], "--key is for no certificate: give --cert too"),
        (["--token-file", "/nowhere"], "/nowhere cannot be read: No such file or directory"),
        (["--token-file", __file__], "the token is not right: it is NAME.SECRET"),
    ],
)
def test_bad_usage(words: list[str], says: str) -> None:
    for more in (["get", "a"], ["watch", "a"], []):
        status, out, messages = run(1, *words, *more)
        assert (status, out) == (2, "")
        assert says in messages
        assert "Traceback" not in messages


def test_a_wrong_variable_is_not_shown() -> None:
    status, _, messages = run(1, "get", "a", TEGA_TOKEN=f"agent {SECRET}")
    assert status == 2
    assert SECRET not in messages


def asking(server: Guarded) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """Runs a command of a server on this event loop."""

    def ask(
        *words: str, typed: str | None = None, **variables: str
    ) -> Awaitable[tuple[int, str, str]]:
        return asyncio.to_thread(run, server.port, *words, typed=typed, **variables)

    return ask


@on_loop
async def test_every_command_shows_the_token() -> None:
    token = {"TEGA_TOKEN": TOKEN}
    async with Guarded().running() as server:
        ask = asking(server)
        assert (await ask("put", "a", "1", **token))[0] == 0
        assert (await ask("pub", "c", "1", **token))[0] == 0
        status, out, messages = await ask("-s", typed="roots\n", **token)
        assert status == 0
        assert "--- session ready ---" in out
        assert SECRET not in out + messages
        assert set(server.shown) == {f"Bearer {TOKEN}"}
        assert len(server.shown) == 4


@pytest.mark.parametrize("variable", [None, "agent.wrong"])
@on_loop
async def test_a_file_goes_before_the_variable(variable: str | None, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    variables = {} if variable is None else {"TEGA_TOKEN": variable}
    async with Guarded().running() as server:
        ask = asking(server)
        assert (await ask("--token-file", str(file), "put", "a", "1", **variables))[0] == 0
        assert (await ask("id", "--token-file", str(file), **variables))[1].startswith("agent-")
        assert server.shown == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("variables", [{}, {"TEGA_TOKEN": "agent.wrong"}])
@on_loop
async def test_a_refused_token_is_status_1(variables: dict[str, str]) -> None:
    async with Guarded().running() as server:
        ask = asking(server)
        for words in (["get", "a"], ["watch", "a"], ["pub", "c", "1"]):
            assert await ask(*words, **variables) == (
                1, "", "401 Unauthorized\nno token, or a wrong one: see tega-server\n"
            )  # fmt: skip
        out = (await ask("-s", typed="sub a\n", **variables))[1]
        assert "no token, or a wrong one: see tega-server" in out
