"""The Python end: does with `AsyncDriver` what lines tell; README.md has them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from tega.driver import AsyncDriver, Change, CRUDException, Message
from tega.driver.errors import DriverError
from tega.errors import TegaError
from tega.subscriber import SCOPE

#: Seconds that anything may take.
PATIENCE = 60


def echo(*args: Any, **kwargs: Any) -> Any:
    return {"args": args, "kwargs": kwargs}


def add(a: int, b: int) -> int:
    return a + b


def null() -> None:
    return None


def fail() -> None:
    raise ValueError("it cannot be done")


def refuse() -> None:
    raise CRUDException("nothing at r", 404, "Not Found", "not_found")


async def wait() -> None:
    await asyncio.Event().wait()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "echo": echo, "add": add, "null": null, "fail": fail, "refuse": refuse, "wait": wait,
}  # fmt: skip


class End:
    """All that this program has."""

    def __init__(self) -> None:
        self._clients: dict[str, AsyncDriver] = {}
        #: One for each transaction that is open: a driver has one at a time.
        self._within: dict[str, AsyncDriver] = {}
        self._streams: dict[str, Any] = {}

    async def answer(self, line: str) -> dict[str, Any]:
        order = json.loads(line)
        try:
            do = getattr(self, f"do_{order.pop('do')}")
            if (name := order.pop("client", None)) is not None and do != self.do_open:
                order["client"] = self._clients[name]
            elif name is not None:
                order["name"] = name
            return {"done": await asyncio.wait_for(do(**order), PATIENCE)}
        except (DriverError, TegaError) as error:
            status = error.status
            return {"refused": {"code": error.code, "status": status, "message": error.message}}
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def do_open(
        self, name: str, address: str, tega_id: str | None = None, token: str | None = None
    ) -> None:
        host, _, port = address.rpartition(":")
        client = AsyncDriver(host, int(port), tega_id, token=token)
        await client.connect()
        self._clients[name] = client

    async def do_close(self, client: AsyncDriver) -> None:
        await client.close()

    async def do_put(
        self,
        client: AsyncDriver,
        path: str,
        value: Any,
        version: int | None = None,
        ephemeral: bool = False,
        txid: str | None = None,
    ) -> Any:
        if txid is not None:
            await self._within[txid].put(value, version, ephemeral, path=path)
            return None
        return await client.put(value, version, ephemeral, path=path)

    async def do_delete(
        self, client: AsyncDriver, path: str, version: int | None = None, txid: str | None = None
    ) -> Any:
        if txid is not None:
            await self._within[txid].delete(path, version)
            return None
        return await client.delete(path, version)

    async def do_get(
        self, client: AsyncDriver, path: str, version: int | None = None, consistent: bool = False
    ) -> Any:
        return await client.get(path, version, python_dict=True, consistent=consistent)

    async def do_match(self, client: AsyncDriver, path: str, consistent: bool = False) -> Any:
        return await client.get(
            path, python_dict=True, regex_flag=True, consistent=consistent
        )

    async def do_tx(self, client: AsyncDriver, txid: str, ops: list[dict[str, Any]]) -> Any:
        # This driver chooses the ids of its transactions by itself.
        async with client.tx() as t:
            for op in ops:
                given = dict(op)
                do = given.pop("do")
                if do == "put":
                    t.put(given.pop("value"), **given)
                elif do == "delete":
                    t.delete(**given)
                else:
                    t.get(**given, python_dict=True)
        assert t.result is not None
        found = [{"code": one.code} if isinstance(one, CRUDException) else one for one in t.results]
        return {**t.result, "found": found}

    async def do_begin(self, client: AsyncDriver) -> str:
        made = AsyncDriver(client.host, client.port, client.tega_id)
        txid = await made.begin()
        self._within[txid] = made
        return txid

    async def do_candidate(self, client: AsyncDriver, txid: str) -> Any:
        return {tree["_oid"]: tree for tree in await self._within[txid].cand(internal=True)}

    async def do_commit(self, client: AsyncDriver, txid: str) -> None:
        await self._within[txid].commit()

    async def do_cancel(self, client: AsyncDriver, txid: str) -> None:
        await self._within[txid].cancel()

    async def do_rollback(self, client: AsyncDriver, root: str, backto: int) -> Any:
        return (await client.rollback(root, backto))[2]

    async def do_roots(self, client: AsyncDriver) -> Any:
        return (await client.roots())[2]

    async def do_old(self, client: AsyncDriver) -> Any:
        return {root: old for one in (await client.old())[2] for root, old in one.items()}

    async def do_snapshot(self, client: AsyncDriver) -> None:
        await client.ss()

    async def do_subscribe(
        self,
        client: AsyncDriver,
        stream: str,
        path: str,
        regex: bool = False,
        scope: str = "local",
        **since: str,
    ) -> None:
        made = client.watch(path, since.get("from"), regex_flag=regex, scope=SCOPE(scope))
        self._streams[stream] = await made.__aenter__()

    async def do_listen(
        self,
        client: AsyncDriver,
        stream: str,
        path: str,
        regex: bool = False,
        scope: str = "local",
    ) -> None:
        made = client.messages(path, regex_flag=regex, scope=SCOPE(scope))
        self._streams[stream] = await made.__aenter__()

    async def do_next(self, stream: str) -> Any:
        one: Change | Message = await self._streams[stream].__anext__()
        given = one._asdict()
        given.pop("backto", None)
        return given

    async def do_stop(self, stream: str) -> None:
        await self._streams.pop(stream).aclose()

    async def do_publish(self, client: AsyncDriver, path: str, value: Any) -> None:
        await client.publish(path, value)

    async def do_serve(self, client: AsyncDriver, path: str, function: str) -> None:
        await client.serve(path, FUNCTIONS[function])

    async def do_unserve(self, client: AsyncDriver, path: str) -> None:
        await client.unserve(path)

    async def do_call(
        self,
        client: AsyncDriver,
        path: str,
        args: list[Any],
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return await client.rpc(path, *args, **(kwargs or {}))


async def main() -> None:
    end = End()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await end.answer(line)), flush=True)
    await end.close()


if __name__ == "__main__":
    asyncio.run(main())
