"""A client of etcd v3: the few calls that are needed, on gRPC's own asyncio.

The messages are those of the package ``aetcd``. Its client is not used: its watch hides where a
revision ends and how far the server is, and its reads know neither revisions nor pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from tega.sentinel.access import Access
from tega.sentinel.address import Address

log = logging.getLogger(__name__)

#: Most seconds for a call.
_PATIENCE = 10.0

#: A connection that is silent for so long is tried; one that does not answer for so long is gone.
_KEEPALIVE = 10_000

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", _KEEPALIVE),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that is back is to be found at once: who waits before trying again is the caller.
    ("grpc.use_local_subchannel_pool", 1),
]


class EtcdError(OSError):
    """A call failed.

    :ivar compacted: whether because the revision is not there any more, or not yet
    :ivar refused: whether because of what was to be written
    """

    def __init__(self, message: str, compacted: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.compacted = compacted
        self.refused = refused


class Etcd:
    """A connection.

    :param address: the scheme ``etcds`` means TLS
    """

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        self._access = access
        self._channel: grpc.aio.Channel | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()

    async def open(self) -> None:
        """Connect, anew where it was connected.

        :raises EtcdError: where that fails
        """
        await self.close()
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        target = f"{host}:{self._address.port}"
        if self._address.secure:
            shown = self._access
            try:
                # They may have been renewed.
                credentials = grpc.ssl_channel_credentials(
                    _content(shown.ca), _content(shown.key or shown.cert), _content(shown.cert)
                )
            except OSError as error:
                raise EtcdError(f"a certificate cannot be read: {error}") from None
            self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        await self._authenticate()

    async def close(self) -> None:
        """Disconnect."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def range(
        self,
        first: bytes,
        end: bytes,
        revision: int = 0,
        limit: int = 0,
        count_only: bool = False,
    ) -> Any:
        """The keys from one on, up to another, as they are at a revision; 0: the newest.

        :raises EtcdError: where that fails
        """
        request = rpc.RangeRequest(
            key=first, range_end=end, revision=revision, limit=limit, count_only=count_only
        )
        return await self._call(rpc.KVStub(self._opened()).Range, request)

    async def transact(self, compare: list[Any], operations: list[Any]) -> int | None:
        """Do some operations together, if what is compared holds.

        :returns: the revision that it made; None where it did not hold
        :raises EtcdError: where it is not known whether it was done
        """
        request = rpc.TxnRequest(compare=compare, success=operations)
        answer = await self._call(rpc.KVStub(self._opened()).Txn, request)
        return int(answer.header.revision) if answer.succeeded else None

    async def watch(self, first: bytes, end: bytes, revision: int) -> AsyncIterator[Any]:
        """The answers to a watch of a range of keys, from a revision on.

        :raises EtcdError: where it ends
        """
        create = rpc.WatchCreateRequest(
            key=first,
            range_end=end,
            start_revision=revision,
            # The server says now and then how far it is, and cuts up what is too large for it.
            progress_notify=True,
            fragment=True,
        )
        stream = rpc.WatchStub(self._opened()).Watch(metadata=self._metadata)
        try:
            await stream.write(rpc.WatchRequest(create_request=create))
            while True:
                answer = await stream.read()
                if answer is grpc.aio.EOF:
                    raise EtcdError("the server has ended the watch")
                if answer.canceled:
                    raise EtcdError(
                        f"the watch was refused: {answer.cancel_reason or 'compacted'}",
                        answer.compact_revision > 0,
                    )
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        except asyncio.InvalidStateError as error:
            raise EtcdError(f"the watch has ended: {error}") from None
        finally:
            stream.cancel()

    def _opened(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise EtcdError("not connected")
        return self._channel

    async def _authenticate(self) -> None:
        self._metadata = ()
        if self._access.user is None:
            return
        request = rpc.AuthenticateRequest(
            name=self._access.user, password=self._access.password or ""
        )
        try:
            answer = await rpc.AuthStub(self._opened()).Authenticate(request, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        self._metadata = (("token", answer.token),)

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        for again in (True, False):
            try:
                return await method(request, timeout=_PATIENCE, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                # A token is good for some minutes only.
                expired = error.code() == grpc.StatusCode.UNAUTHENTICATED
                if not (again and expired and self._access.user is not None):
                    raise self._error(error) from None
                await self._authenticate()
        raise AssertionError("returned or raised above")

    def _error(self, error: grpc.aio.AioRpcError) -> EtcdError:
        code, details = error.code(), " ".join((error.details() or error.code().name).split())
        large = "too large" in details or "larger than max" in details
        refused = code == grpc.StatusCode.INVALID_ARGUMENT or (
            code == grpc.StatusCode.RESOURCE_EXHAUSTED and large
        )
        if code == grpc.StatusCode.UNAVAILABLE and self._address.secure:
            # What gRPC says of TLS that fails tells nobody what to do.
            details += (
                " (with TLS: does it speak that there, have the authorities in ca signed its "
                "certificate, and does it take the one in cert?)"
            )
        return EtcdError(details, code == grpc.StatusCode.OUT_OF_RANGE, refused)


def after(prefix: bytes) -> bytes:
    """The end of the range of all keys with a prefix; for an empty one, that of all keys."""
    shortened = prefix.rstrip(b"\xff")
    if not shortened:
        return b"\0"
    return shortened[:-1] + bytes([shortened[-1] + 1])


async def pages(
    etcd: Etcd, prefix: bytes, revision: int, size: int = 4 << 20
) -> AsyncIterator[list[Any]]:
    """All keys with a prefix at a revision, in order, in pages of about so many bytes.

    :raises EtcdError: where that fails
    """
    first, limit = prefix or b"\0", 64
    while True:
        answer = await etcd.range(first, after(prefix), revision, limit)
        if answer.kvs:
            yield list(answer.kvs)
        if not answer.more:
            return
        first = answer.kvs[-1].key + b"\0"
        limit = max(1, min(1000, 2 * limit, limit * size // max(1, answer.ByteSize())))


def _content(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


