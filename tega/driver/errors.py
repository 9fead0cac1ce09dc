"""What the drivers raise when the server, or the driver itself, refuses.

::

    DriverError
     +-- CRUDException           a document or management call
     +-- TransactionException    begin, cand, cancel, commit
     +-- SubscriptionException   subscribe, unsubscribe, publish
          +-- SessionException   the session as a whole: it has ended for good

A server that cannot be reached, or whose answer is lost, is not a refusal: that raises Python's own
``ConnectionError``, ``TimeoutError`` or another ``OSError``; where one end does not take the
certificate of the other, ``ssl.SSLError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class DriverError(Exception):
    """A refusal.

    :param message: what was wrong and what to do
    :param status: the HTTP status, such as 409; None where the driver refused without asking
    :param reason: the phrase that goes with the status, such as ``Conflict``
    :param code: the refusal for programs, such as ``collision``
    :param details: what else the server told (``path``, ``expected``, ...)
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        reason: str = "",
        code: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, status, reason, code, details)
        self.message = message
        self.status = status
        self.reason = reason
        self.code = code
        self.details = dict(details or {})

    def __str__(self) -> str:
        if self.status is None:
            return self.message
        return f"{self.status} {self.reason}: {self.message}"


class CRUDException(DriverError):
    """A document or management call was refused."""


class TransactionException(DriverError):
    """A step of a transaction was refused."""


class SubscriptionException(DriverError):
    """A subscription or a publication was refused."""


class SessionException(SubscriptionException):
    """The session is over: it was refused, or taken over by another one with its tega id.

    Refused, also when it is to connect again, is who has no token or not the right one (401), or
    is not allowed to (403): the token will not be right by asking again.
    """
