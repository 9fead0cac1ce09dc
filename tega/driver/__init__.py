"""Drivers: tega for Python programs."""

from tega.driver.driver import Driver
from tega.driver.errors import CRUDException, SubscriptionException, TransactionException

__all__ = ["CRUDException", "Driver", "SubscriptionException", "TransactionException"]
