"""Drivers: tega for Python programs."""

from typing import TYPE_CHECKING, Any

from tega.driver.credentials import Tls
from tega.driver.driver import Driver
from tega.driver.errors import (
    CRUDException,
    SessionException,
    SubscriptionException,
    TransactionException,
)

if TYPE_CHECKING:
    from tega.driver.async_driver import AsyncDriver, Change, Message

__all__ = [
    "AsyncDriver", "CRUDException", "Change", "Driver", "Message", "SessionException",
    "SubscriptionException", "Tls", "TransactionException",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # It stands on asyncio and Tornado, which take as long to import as all the rest.
    if name in ("AsyncDriver", "Change", "Message"):
        from tega.driver import async_driver

        return getattr(async_driver, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
