"""Ordinary use, as in `test_scenarios`, through the program of each language."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_scenarios
from adapters import Adapter, _plain_roots, _Served
from programs import PROGRAMS, Program
from service import check

globals().update(
    {name: one for name, one in vars(test_scenarios).items() if name.startswith("test_")}
)


class ByLines(_Served):
    """A face over a server process, through a program of lines."""

    program: Program

    def __init__(self, directory: Path, language: str) -> None:
        super().__init__(directory)
        self._language = language

    def start(self) -> None:
        super().start()
        self.program = Program(self._language)
        self.program.do("open", client="c", address=f"127.0.0.1:{self.service.port}")

    def stop(self) -> None:
        self.program.do("close", client="c")
        self.program.end()
        super().stop()

    def _do(self, do: str, **members: Any) -> Any:
        return self.program.do(do, client="c", **members)

    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None:
        self._do("put", path=path, value=value, version=version, txid=txid)

    def get(self, path: str, version: int | None = None) -> Any:
        return self._do("get", path=path, version=version)

    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        found = self._do("match", path=pattern)
        return {path: (one["groups"], one["instance"]) for path, one in found.items()}

    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None:
        self._do("delete", path=path, version=version, txid=txid)

    def begin(self) -> str:
        return str(self._do("begin"))

    def candidate(self, txid: str) -> dict[str, Any]:
        return _plain_roots(list(self._do("candidate", txid=txid).values()))

    def cancel(self, txid: str) -> None:
        self._do("cancel", txid=txid)

    def commit(self, txid: str) -> None:
        self._do("commit", txid=txid)

    def rollback(self, root: str, backto: int) -> None:
        self._do("rollback", root=root, backto=backto)

    def roots(self) -> dict[str, int]:
        return dict(self._do("roots"))

    def old(self) -> dict[str, list[int]]:
        return dict(self._do("old"))

    def snapshot(self) -> None:
        self._do("snapshot")


@pytest.fixture(params=list(PROGRAMS))
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapter]:
    PROGRAMS[request.param]()
    adapter = ByLines(tmp_path, request.param)
    adapter.start()
    try:
        yield adapter
    finally:
        adapter.stop()
    check(tmp_path, "one")
