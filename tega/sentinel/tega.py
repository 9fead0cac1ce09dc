"""A connection to a tega server, as source and sink both use it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tega.driver.async_driver import AsyncDriver
from tega.driver.credentials import Credentials, Tls, read_token
from tega.driver.errors import DriverError
from tega.errors import Malformed
from tega.sentinel.access import Access
from tega.sentinel.address import Address

#: Most seconds for an answer.
_PATIENCE: Final = 20.0

#: What the tega id begins with, where it is not that of a token's identity.
_KIND: Final = "tega-sentinel"


class Tega:
    """A connection.

    :param address: the scheme ``tegas`` means TLS
    """

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        self._access = access
        self._driver: AsyncDriver | None = None

    async def open(self) -> AsyncDriver:
        """Connect, anew where it was connected.

        :raises OSError, DriverError: where that fails, or the server refuses
        """
        await self.close()
        address, shown = self._address, self._access
        try:
            token = shown.token
            if shown.token_file is not None:
                # It may have been renewed, as certificates may.
                token = read_token(shown.token_file)
            tls = Tls(shown.ca, shown.cert, shown.key) if address.secure else None
            credentials = Credentials.of(token, tls)
            driver = AsyncDriver(
                address.host, address.port, credentials.new_tega_id(_KIND),
                timeout=_PATIENCE, token=token, tls=credentials.tls,
            )  # fmt: skip
        except Malformed as error:
            raise ConnectionError(error.message) from None
        self._driver = driver
        await driver.connect()
        return driver

    async def close(self) -> None:
        """Disconnect."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    @property
    def driver(self) -> AsyncDriver:
        """Asks the server.

        :raises ConnectionError: where it was not opened
        """
        if self._driver is None:
            raise ConnectionError("not connected")
        return self._driver

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment; the driver makes a lost one anew."""
        return self._driver is not None and self._driver.connected


@contextmanager
def errors(kind: type[OSError]) -> Iterator[None]:
    """Errors of the driver, as source or sink raise them."""
    try:
        yield
    except (DriverError, OSError, asyncio.TimeoutError) as error:
        if isinstance(error, kind):
            raise
        raise kind(str(error) or type(error).__name__) from None
