"""etcd as a sink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aetcd import rpc

from tega.sentinel.access import Access
from tega.sentinel.address import Address
from tega.sentinel.etcd import Etcd, EtcdError, pages
from tega.sentinel.sink import SinkError
from tega.sentinel.source import Entry
from tega.sentinel.tree.mirror import GONE, OWN, EtcdNames, Put
from tega.sentinel.tree.sink import Refused, TreeSink


class EtcdSink(TreeSink):
    """Keys of an etcd server. The checkpoint is the key ``tega-sentinel/NAME``."""

    def __init__(
        self, source: Address, sink: Address, access: Access, checkpoint: str, interval: float
    ) -> None:
        super().__init__(source, sink, EtcdNames(source, sink), checkpoint, interval)
        self._prefix = sink.prefix
        self._etcd = Etcd(sink, access)
        self._own = f"{OWN}/{checkpoint}".encode()
        # Of the checkpoint, as it was read or written last; 0: there is none.
        self._revision = 0

    async def connect(self) -> None:
        with _errors():
            await self._etcd.open()

    async def close(self) -> None:
        await self._etcd.close()

    async def read_checkpoint(self) -> bytes | None:
        with _errors():
            answer = await self._etcd.range(self._own, b"")
        if not answer.kvs:
            self._revision = 0
            return None
        self._revision = answer.kvs[0].mod_revision
        held: bytes = answer.kvs[0].value
        return held

    async def read(self) -> dict[Any, Any]:
        there: dict[Any, Any] = {}
        with _errors():
            # At one revision: that of the first answer.
            head = await self._etcd.range(self._own, b"", count_only=True)
            async for page in pages(self._etcd, self._prefix, head.header.revision):
                there |= {kv.key: kv.value for kv in page}
        own = f"{OWN}/".encode()
        return {key: value for key, value in there.items() if not key.startswith(own)}

    def differing(
        self, there: dict[Any, Any], wanted: dict[Any, tuple[Any, Entry]]
    ) -> tuple[list[Any], list[Any]]:
        surplus = [key for key in there if key not in wanted]
        return surplus, [key for key, (value, _) in wanted.items() if there.get(key) != value]

    def named(self, place: Any) -> bytes:
        return bytes(place)

    async def commit(self, puts: Sequence[Put], checkpoint: bytes) -> bool:
        compare = rpc.Compare(
            key=self._own,
            target=rpc.Compare.MOD,
            result=rpc.Compare.EQUAL,
            mod_revision=self._revision,
        )
        # A key that is put twice in one transaction is refused: only its last value counts.
        last = {put.place: put.value for put in puts}
        operations = [
            rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
            if value is GONE
            else rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))
            for key, value in [*last.items(), (self._own, checkpoint)]
        ]
        with _errors():
            try:
                done = await self._etcd.transact([compare], operations)
            except EtcdError as error:
                if error.refused:
                    raise Refused(str(error)) from None
                raise
        if done is not None:
            self._revision = done
        return done is not None


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of the client, as a sink raises them."""
    try:
        yield
    except EtcdError as error:
        raise SinkError(str(error)) from None
