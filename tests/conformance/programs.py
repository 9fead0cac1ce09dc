"""The programs of lines: one for each language that has a driver. README.md says what they do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from adapters import Refusal
from service import ROOT

#: The release that driver/go.mod asks for.
OLDEST_GO = [1, 22]

HERE = Path(__file__).resolve().parent


def python_end() -> list[str]:
    return [sys.executable, str(HERE / "pythonend.py")]


@cache
def go_end() -> list[str]:
    return [build_go("./internal/conformance")]


def find_go() -> str:
    """The path of Go; the test is skipped where it is missing or too old."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: sudo scripts/setup-system")
    found = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True)
    version = [int(part) for part in re.findall(r"\d+", found.stdout)[:2]]
    if version < OLDEST_GO:
        pytest.skip(f"{found.stdout.strip()} is too old for the Go driver")
    return go


def build_go(package: str, *flags: str, **environment: str) -> str:
    """The path of a program of the Go driver, built."""
    go = find_go()
    made = Path(tempfile.mkdtemp(prefix="tega-go-")) / "program"
    done = subprocess.run(
        [go, "build", *flags, "-o", str(made), package],
        cwd=ROOT / "driver", env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(made)


#: What starts the program, by language.
PROGRAMS: dict[str, Callable[[], list[str]]] = {"python": python_end, "go": go_end}


class Refused(Refusal):
    """What a program says instead of doing it.

    :param code: the refusal for programs
    """

    def __init__(self, status: int | None, code: str, message: str) -> None:
        super().__init__(status, message)
        self.code = code


class Program:
    """A program of lines that runs."""

    def __init__(self, language: str) -> None:
        self._process = subprocess.Popen(
            PROGRAMS[language](), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Let it end in order; nothing where it has."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        _, said = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, said

    def kill(self) -> None:
        """Let it end at once."""
        self._process.kill()
        self._process.communicate(timeout=30)

    def tell(self, do: str, **members: Any) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        given = {name: value for name, value in members.items() if value is not None}
        if "value" in members:
            given["value"] = members["value"]
        self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What became of the oldest order that was not answered yet.

        :raises Refused: where it is refused
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        given = json.loads(line)
        if "refused" in given:
            why = given["refused"]
            raise Refused(why["status"], why["code"], why["message"])
        assert "done" in given, given
        return given["done"]

    def do(self, do: str, **members: Any) -> Any:
        """Give an order, and wait for what becomes of it."""
        self.tell(do, **members)
        return self.answer()
