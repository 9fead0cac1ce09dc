"""One face over every interface, so that the same scenario runs through all of them."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from service import ROOT, Service, check

from tega import idb, paths
from tega.driver import AsyncDriver, CRUDException, Driver, TransactionException
from tega.errors import TegaError
from tega.leaf import Node

#: Old versions that every database here keeps.
MAXLEN = 3

#: A root that a candidate would delete.
DELETED = "<deleted>"


class Reply(NamedTuple):
    """An answer of a server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return str(self.json["error"]["code"])


def send(
    port: int,
    method: str,
    url: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own; pieces go out chunked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, url, body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


class Refusal(Exception):
    """What an interface says instead of doing it.

    :param status: as the error table has it; 409 for a collision at a commit too
    """

    def __init__(self, status: int | None, message: str) -> None:
        super().__init__(message)
        self.status = 409 if status == 406 else status


class Adapter(ABC):
    """A database behind one interface; refusals are raised as `Refusal`.

    Paths are dotted, values are plain JSON.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def start(self) -> None:
        """Open what the directory holds."""

    @abstractmethod
    def stop(self) -> None:
        """Close it."""

    @abstractmethod
    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None: ...

    @abstractmethod
    def get(self, path: str, version: int | None = None) -> Any: ...

    @abstractmethod
    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        """What a regex path finds: by path the groups and the value."""

    @abstractmethod
    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None: ...

    @abstractmethod
    def begin(self) -> str: ...

    @abstractmethod
    def candidate(self, txid: str) -> dict[str, Any]:
        """By root its value, or `DELETED`."""

    @abstractmethod
    def cancel(self, txid: str) -> None: ...

    @abstractmethod
    def commit(self, txid: str) -> None: ...

    @abstractmethod
    def rollback(self, root: str, backto: int) -> None: ...

    @abstractmethod
    def roots(self) -> dict[str, int]: ...

    @abstractmethod
    def old(self) -> dict[str, list[int]]: ...

    @abstractmethod
    def snapshot(self) -> None: ...


class _Served(Adapter):
    """A face over a server process."""

    service: Service

    def start(self) -> None:
        self.service = Service(self.directory, "-t", "one", "-l", str(MAXLEN))
        assert self.service.port, "it did not start"

    def stop(self) -> None:
        assert self.service.end()[0] == 0


class Rest(_Served):
    def _ask(self, method: str, url: str, body: bytes | None = None, **query: Any) -> Any:
        given = urlencode({name: value for name, value in query.items() if value is not None})
        reply = send(self.service.port, method, f"{url}?{given}", body)
        if reply.status >= 300:
            raise Refusal(reply.status, reply.json["error"]["message"])
        return reply.json

    def _url(self, path: str) -> str:
        try:
            return paths.to_url(paths.parse(path))
        except TegaError as error:
            raise Refusal(error.status, error.message) from None

    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None:
        body = json.dumps(value).encode()
        self._ask("PUT", self._url(path), body, version=version, txid=txid)

    def get(self, path: str, version: int | None = None) -> Any:
        return self._ask("GET", self._url(path), version=version)

    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        found = self._ask("GET", paths.to_url((pattern,)), regex_flag=True)
        return {path: (one["groups"], one["instance"]) for path, one in found.items()}

    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None:
        self._ask("DELETE", self._url(path), version=version, txid=txid)

    def begin(self) -> str:
        txid: str = self._ask("POST", "/_begin")["txid"]
        return txid

    def candidate(self, txid: str) -> dict[str, Any]:
        return _plain_roots(self._ask("POST", "/_cand", txid=txid))

    def cancel(self, txid: str) -> None:
        self._ask("POST", "/_cancel", txid=txid)

    def commit(self, txid: str) -> None:
        self._ask("POST", "/_commit", txid=txid)

    def rollback(self, root: str, backto: int) -> None:
        self._ask("POST", "/_rollback", root_oid=root, backto=backto)

    def roots(self) -> dict[str, int]:
        return dict(self._ask("GET", "/_roots"))

    def old(self) -> dict[str, list[int]]:
        return _joined(self._ask("GET", "/_old"))

    def snapshot(self) -> None:
        self._ask("POST", "/_ss")


class ByDriver(_Served):
    driver: Driver

    def start(self) -> None:
        super().start()
        self.driver = Driver("127.0.0.1", self.service.port)

    def stop(self) -> None:
        self.driver.close()
        super().stop()

    @contextmanager
    def _driver(self, txid: str | None = None) -> Iterator[Driver]:
        """A driver, which is in a transaction where one is given."""
        if txid is not None and self.driver.txid is None:
            self.driver.join(txid)
        driver = self.driver
        if txid is None and driver.txid is not None:
            driver = Driver("127.0.0.1", self.service.port)
        try:
            yield driver
        except (CRUDException, TransactionException) as error:
            raise Refusal(error.status, error.message) from error
        finally:
            if driver is not self.driver:
                driver.close()

    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None:
        with self._driver(txid) as driver:
            driver.put(value, version, path=path)

    def get(self, path: str, version: int | None = None) -> Any:
        with self._driver() as driver:
            return driver.get(path, version, python_dict=True)

    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        with self._driver() as driver:
            found = driver.get(pattern, python_dict=True, regex_flag=True)
        return {path: (one["groups"], one["instance"]) for path, one in found.items()}

    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None:
        with self._driver(txid) as driver:
            driver.delete(path, version)

    def begin(self) -> str:
        with self._driver() as driver:
            return driver.begin()

    def candidate(self, txid: str) -> dict[str, Any]:
        with self._driver(txid) as driver:
            return _plain_roots(driver.cand(internal=True))

    def cancel(self, txid: str) -> None:
        with self._driver(txid) as driver:
            assert driver.cancel() == txid

    def commit(self, txid: str) -> None:
        with self._driver(txid) as driver:
            assert driver.commit() == txid

    def rollback(self, root: str, backto: int) -> None:
        with self._driver() as driver:
            driver.rollback(root, backto)

    def roots(self) -> dict[str, int]:
        with self._driver() as driver:
            return dict(driver.roots()[2])

    def old(self) -> dict[str, list[int]]:
        with self._driver() as driver:
            return _joined(driver.old()[2])

    def snapshot(self) -> None:
        with self._driver() as driver:
            assert driver.ss()[:2] == (200, "OK")


class ByAsyncDriver(_Served):
    """Its event loop runs in a thread, as long as the server does."""

    driver: AsyncDriver

    def start(self) -> None:
        super().start()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        # One for each open transaction.
        self.within: dict[str, AsyncDriver] = {}
        self.driver = AsyncDriver("127.0.0.1", self.service.port)
        self._do(self.driver.connect())

    def stop(self) -> None:
        self._do(self.driver.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        super().stop()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)
        except (CRUDException, TransactionException) as error:
            raise Refusal(error.status, error.message) from error

    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None:
        driver = self.driver if txid is None else self.within[txid]
        self._do(driver.put(value, version, path=path))

    def get(self, path: str, version: int | None = None) -> Any:
        return self._do(self.driver.get(path, version, python_dict=True))

    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        found = self._do(self.driver.get(pattern, python_dict=True, regex_flag=True))
        return {path: (one["groups"], one["instance"]) for path, one in found.items()}

    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None:
        driver = self.driver if txid is None else self.within[txid]
        self._do(driver.delete(path, version))

    def begin(self) -> str:
        driver = AsyncDriver("127.0.0.1", self.service.port)
        txid: str = self._do(driver.begin())
        self.within[txid] = driver
        return txid

    def candidate(self, txid: str) -> dict[str, Any]:
        return _plain_roots(self._do(self.within[txid].cand(internal=True)))

    def cancel(self, txid: str) -> None:
        assert self._do(self.within.pop(txid).cancel()) == txid

    def commit(self, txid: str) -> None:
        assert self._do(self.within.pop(txid).commit()) == txid

    def rollback(self, root: str, backto: int) -> None:
        self._do(self.driver.rollback(root, backto))

    def roots(self) -> dict[str, int]:
        return dict(self._do(self.driver.roots())[2])

    def old(self) -> dict[str, list[int]]:
        return _joined(self._do(self.driver.old())[2])

    def snapshot(self) -> None:
        assert self._do(self.driver.ss())[:2] == (200, "OK")


class Cli(_Served):
    """``tega-cli``, one process a command."""

    def _run(self, *arguments: str, value: Any = ...) -> Any:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tega.cli.main", "-p", str(self.service.port)),
                *("-o", "json", *arguments),
            ],
            input="" if value is ... else json.dumps(value),
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            assert done.stderr == ""
            return json.loads(done.stdout) if done.stdout else None
        assert done.stdout == ""
        assert done.returncode in (1, 2)
        # Refused by the server with its status; or as bad usage, without asking it.
        first = done.stderr.split()[0]
        raise Refusal(int(first) if done.returncode == 1 else 400, done.stderr)

    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None:
        self._run("put", path, *_flags(version=version, txid=txid), value=value)

    def get(self, path: str, version: int | None = None) -> Any:
        return self._run("get", path, *_flags(version=version))

    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        found = self._run("getr", pattern)
        return {path: (one["groups"], one["instance"]) for path, one in found.items()}

    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None:
        self._run("del", path, *_flags(version=version, txid=txid))

    def begin(self) -> str:
        txid: str = self._run("begin")
        return txid

    def candidate(self, txid: str) -> dict[str, Any]:
        found = self._run("cand", "--txid", txid)
        return {n: DELETED if value == {"_deleted": True} else value for n, value in found.items()}

    def cancel(self, txid: str) -> None:
        self._run("cancel", "--txid", txid)

    def commit(self, txid: str) -> None:
        self._run("commit", "--txid", txid)

    def rollback(self, root: str, backto: int) -> None:
        self._run("rollback", root, str(backto))

    def roots(self) -> dict[str, int]:
        return dict(self._run("roots"))

    def old(self) -> dict[str, list[int]]:
        return _joined(self._run("old"))

    def snapshot(self) -> None:
        self._run("ss")


class Embedded(Adapter):
    """`tega.idb`, in this process."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._open: dict[str, idb.Tx] = {}

    def start(self) -> None:
        idb.start(self.directory, "one", MAXLEN)

    def stop(self) -> None:
        idb.stop()

    @contextmanager
    def _tx(self, txid: str | None) -> Iterator[idb.Tx]:
        with _told():
            if txid is not None:
                yield self._open[txid]
                return
            with idb.tx() as tx:
                yield tx

    def put(
        self, path: str, value: Any, version: int | None = None, txid: str | None = None
    ) -> None:
        with self._tx(txid) as tx:
            tx.put(value, path=path, version=version)

    def get(self, path: str, version: int | None = None) -> Any:
        with _told():
            return _plain(idb.get(path, version))

    def match(self, pattern: str) -> dict[str, tuple[Any, Any]]:
        with _told():
            found = idb.get(pattern, regex_flag=True)
        return {path: (one.groups, _plain(one.instance)) for path, one in found.items()}

    def delete(self, path: str, version: int | None = None, txid: str | None = None) -> None:
        with self._tx(txid) as tx:
            tx.delete(path, version=version)

    def begin(self) -> str:
        tx = idb.tx()
        self._open[tx.txid] = tx
        return tx.txid

    def candidate(self, txid: str) -> dict[str, Any]:
        with self._tx(txid) as tx:
            found = tx.get_candidate()
        return {name: DELETED if one is None else _plain(one) for name, one in found.items()}

    def cancel(self, txid: str) -> None:
        self._open.pop(txid).cancel()

    def commit(self, txid: str) -> None:
        with self._tx(txid) as tx:
            tx.commit()

    def rollback(self, root: str, backto: int) -> None:
        with _told():
            idb.rollback("one", root, backto)

    def roots(self) -> dict[str, int]:
        return idb.roots()

    def old(self) -> dict[str, list[int]]:
        return _joined(idb.old())

    def snapshot(self) -> None:
        idb.save_snapshot("one")


#: Every interface, by name.
ADAPTERS: dict[str, type[Adapter]] = {
    "rest": Rest,
    "driver": ByDriver,
    "async driver": ByAsyncDriver,
    "cli": Cli,
    "idb": Embedded,
}


@contextmanager
def opened(name: str, directory: Path) -> Iterator[Adapter]:
    """A database behind an interface; at the end its log must verify."""
    adapter = ADAPTERS[name](directory)
    adapter.start()
    try:
        yield adapter
    finally:
        adapter.stop()
    check(directory, "one")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except TegaError as error:
        raise Refusal(error.status, error.message) from error


def _plain(value: Any) -> Any:
    return json.loads(value.dumps_()) if isinstance(value, Node) else value


def _plain_roots(trees: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        tree["_oid"]: DELETED if tree.get("_deleted") else _without_attributes(tree)
        for tree in trees
    }


def _without_attributes(tree: dict[str, Any]) -> Any:
    if "_value" in tree:
        return tree["_value"]
    return {
        name: _without_attributes(child)
        for name, child in tree.items()
        if not name.startswith("_")
    }


def _joined(old: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    return {name: versions for one in old for name, versions in one.items()}


def _flags(**given: Any) -> list[str]:
    return [f"--{name}={value}" for name, value in given.items() if value is not None]
