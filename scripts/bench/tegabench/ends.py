"""Python at both ends of a remote call: one process offers a sum, another asks for many.

Run as ``python -m tegabench.ends SERVER PORT`` it offers the sum, and says so.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from tegabench.client import Timing
from tegabench.httpwire import Address
from tegabench.process import BenchError

#: What the serving end prints once it can be called.
SERVING = "serving"

#: Calls are made uncounted first, until caches and pools are there, for this share of the time.
WARMING = 0.2

#: Seconds that a call may take.
_PATIENCE = 30.0


async def add(a: int, b: int) -> int:
    """What is called: a coroutine, as NATS takes nothing else."""
    return a + b


class End(ABC):
    """A program connected to a server."""

    #: The attribute that it takes of a module, and how to get that.
    needs: ClassVar[tuple[str, str, str]]

    @abstractmethod
    async def open(self, address: Address, name: str) -> None:
        """Connect, under a name that nobody else has."""

    @abstractmethod
    async def serve(self) -> None:
        """Offer :func:`add`; it can be called once this returns."""

    @abstractmethod
    async def call(self, a: int, b: int) -> Any:
        """Ask the other end for the sum."""

    @abstractmethod
    async def close(self) -> None:
        """Leave."""

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run here and what to install; None when it can."""
        module, attribute, remedy = cls.needs
        try:
            getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            return f"{attribute} of {module} cannot be imported: {remedy}"
        return None


class TegaEnd(End):
    """tega's own driver."""

    needs = ("tega.driver", "AsyncDriver", "pip install -e .")

    async def open(self, address: Address, name: str) -> None:
        driver: Any = importlib.import_module("tega.driver").AsyncDriver(*address, name)
        self._driver = await driver.__aenter__()

    async def serve(self) -> None:
        await self._driver.serve("bench.add", add)

    async def call(self, a: int, b: int) -> Any:
        return await self._driver.rpc("bench.add", a, b)

    async def close(self) -> None:
        await self._driver.__aexit__(None, None, None)


class NatsEnd(End):
    """The Python client of NATS, with the same JSON as payload."""

    needs = ("nats", "connect", "pip install nats-py")

    async def open(self, address: Address, name: str) -> None:
        nats: Any = importlib.import_module("nats")
        json: Any = importlib.import_module("msgspec.json")
        self._encode, self._decode = json.Encoder().encode, json.Decoder().decode
        self._client = await nats.connect(f"nats://{address[0]}:{address[1]}", name=name)

    async def serve(self) -> None:
        async def answer(message: Any) -> None:
            call = self._decode(message.data)
            await message.respond(self._encode(await add(*call["args"], **call["kwargs"])))

        await self._client.subscribe("bench.add", cb=answer)
        await self._client.flush()

    async def call(self, a: int, b: int) -> Any:
        body = self._encode({"args": [a, b], "kwargs": {}})
        answer = await self._client.request("bench.add", body, timeout=_PATIENCE)
        return self._decode(answer.data)

    async def close(self) -> None:
        await self._client.close()


ENDS: Mapping[str, type[End]] = {"tega": TegaEnd, "nats": NatsEnd}


def call(server: str, address: Address, name: str, in_flight: int, seconds: float) -> Timing:
    """Connect, and call for a while with so many calls under way.

    :raises BenchError: where an answer is wrong
    """

    async def connected() -> Timing:
        end = ENDS[server]()
        await end.open(address, name)
        try:
            await side_by_side(end, in_flight, seconds * WARMING)
            return await side_by_side(end, in_flight, seconds)
        finally:
            await end.close()

    return asyncio.run(connected())


async def side_by_side(end: End, in_flight: int, seconds: float) -> Timing:
    """So many calls at a time, each begun when the one before it has its answer.

    :raises BenchError: where an answer is wrong
    """
    clock = time.perf_counter
    latencies: list[float] = []
    serials = itertools.count()
    cpu, start = time.process_time(), clock()
    stop = start + seconds

    async def one_after_another(number: int) -> None:
        before = clock()
        while before < stop:
            serial = next(serials)
            answer = await end.call(serial, number)
            if answer != serial + number:
                raise BenchError(f"{serial} and {number} make {answer!r}, says the other end")
            after = clock()
            latencies.append(after - before)
            before = after

    await asyncio.gather(*[one_after_another(number) for number in range(in_flight)])
    wall = clock() - start
    latencies.sort()
    share = (time.process_time() - cpu) / wall
    return Timing(len(latencies), wall, latencies, share, start)


async def serve(server: str, address: Address) -> None:
    """Offer the sum until the process is ended."""
    end = ENDS[server]()
    await end.open(address, "serving-end")
    await end.serve()
    print(SERVING, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], ("127.0.0.1", int(sys.argv[2]))))
