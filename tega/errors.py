"""Every way in which tega refuses, and the one table from code to class to HTTP status.

::

    TegaError
     +-- Malformed (ValueError)          400  what was given cannot be read
     |    +-- NotUnderstood                   ... no message of the protocol, or not one for now
     +-- Unauthorized                    401  who asks is not known, and nobody may do that unknown
     +-- Forbidden                       403  not allowed to whoever asks
     +-- NotFound (KeyError)             404  no such node
     |    +-- NoSuchVersion                   ... version of that node
     |    +-- NoSuchTransaction               ... open transaction
     |    +-- NoSuchFunction                  ... RPC
     |    +-- NoSuchCommand                   ... management command
     |    +-- NoPeer                          ... server to synchronise with
     +-- MethodNotAllowed                405
     +-- Refused (ValueError)            409  well formed, but not now
     |    +-- Collision                       the node has not the expected version (406 at commit)
     |    +-- LeafInTheWay                    a leaf stands where a container is needed
     |    +-- EphemeralConflict               an ephemeral node is in the way, or cannot be made
     |    +-- NoSession                       ephemeral nodes need a live session
     |    +-- LedElsewhere                    other servers lead the roots, and not all of them one
     |    +-- Diverged                        what a leader sends does not follow what is here
     +-- TooLarge                        413
     +-- UrlTooLong                      414
     +-- OverLimit                       429  more than a limit allows
     +-- CallFailed                      502  the function raised
     |    +-- OwnerGone                       its owner is not connected
     +-- CallTimeout (TimeoutError)      504  the function took too long
     +-- Unavailable (OSError)           503
     |    +-- ReadOnly                        the log cannot be written
     |    +-- OutcomeUnknown                  a commit failed on its way; it may still turn up
     |    +-- LeaderAway                      the server that leads the root is not connected
     |    +-- Closed                          the database is not open
     +-- LogError (OSError)                   the commit log does not start
     |    +-- Corrupt                         a record does not check
     |    +-- Locked                          another process has the directory
     +-- Internal                        500  a bug

An error is data: a ``code`` for programs, a message for people that says what was wrong with which
path or parameter and what to do, and details that travel in the JSON body.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TegaError(Exception):
    """Base of every refusal.

    :param message: one sentence or two: what, where, and what to do
    :param details: JSON values that go along in the error body (``path``, ``expected``, ...)
    :ivar limited_by: the name of the limit that it is for; most are not for one
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    limited_by: str = ""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        # KeyError would print the repr of its argument.
        return self.message

    def body(self) -> dict[str, Any]:
        """The JSON body of this refusal: ``{"error": {"code", "message", ...}}``."""
        return {"error": {"code": self.code, "message": self.message, **self.details}}


class Malformed(TegaError, ValueError):
    """What was given cannot be read: a path, JSON, a version, a pattern, a parameter."""

    code = "malformed"
    status = 400


class NotUnderstood(Malformed):
    """No message of the protocol, or one that may not come now or from this end."""

    code = "not_understood"


class Unauthorized(TegaError):
    """No valid credential came along, and without one that is not allowed."""

    code = "unauthorized"
    status = 401


class Forbidden(TegaError):
    """Not allowed to whoever asks."""

    code = "forbidden"
    status = 403


class NotFound(TegaError, KeyError):
    """There is no node at that path."""

    code = "not_found"
    status = 404


class NoSuchVersion(NotFound):
    """That version has aged out or was never made."""

    code = "no_such_version"


class NoSuchTransaction(NotFound):
    """That transaction was never begun, has ended, or has expired."""

    code = "no_such_transaction"


class NoSuchFunction(NotFound):
    """There is no function at that path."""

    code = "no_such_function"


class NoSuchCommand(NotFound):
    """There is no management command of that name."""

    code = "no_such_command"


class NoPeer(NotFound):
    """No other server is there to synchronise with."""

    code = "no_peer"


class MethodNotAllowed(TegaError):
    """The HTTP method is not offered at that URL."""

    code = "method_not_allowed"
    status = 405


class Refused(TegaError, ValueError):
    """Well formed, but the state of the database does not allow it."""

    code = "refused"
    status = 409


class Collision(Refused):
    """The node does not have the version that the operation expects."""

    code = "collision"


class LeafInTheWay(Refused):
    """A leaf stands where the path needs a container."""

    code = "leaf_in_the_way"


class EphemeralConflict(Refused):
    """An ephemeral node stands where the operation goes, or the other way round."""

    code = "ephemeral_conflict"


class NoSession(Refused):
    """An ephemeral node needs a tega id with a live session."""

    code = "no_session"


class LedElsewhere(Refused):
    """The roots of a transaction are led by several servers, or by one that cannot be asked."""

    code = "led_elsewhere"


class Diverged(Refused):
    """What the leader of a root sends does not follow what is here of it."""

    code = "diverged"


class TooLarge(TegaError):
    """The request body is over the limit."""

    code = "too_large"
    status = 413
    limited_by = "body"


class UrlTooLong(TegaError):
    """The URL is over the limit."""

    code = "url_too_long"
    status = 414
    limited_by = "url"


class OverLimit(TegaError):
    """More than a limit allows.

    :param limited_by: its name, as it is counted; empty where another server says it
    """

    code = "over_limit"
    status = 429

    def __init__(self, message: str, limited_by: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.limited_by = limited_by


class CallFailed(TegaError):
    """The function raised an exception, or its owner answered with what is no answer."""

    code = "call_failed"
    status = 502


class OwnerGone(CallFailed):
    """The owner of a function is not connected."""

    code = "owner_gone"


class CallTimeout(TegaError, TimeoutError):
    """The function did not answer in time."""

    code = "call_timeout"
    status = 504


class Unavailable(TegaError, OSError):
    """The database cannot do this at present."""

    code = "unavailable"
    status = 503


class ReadOnly(Unavailable):
    """The commit log cannot be written; reads go on."""

    code = "read_only"


class OutcomeUnknown(Unavailable):
    """A commit failed at the disk or on the way to a leader: it may still turn up."""

    code = "outcome_unknown"


class LeaderAway(Unavailable):
    """The server that leads a root is not connected, and nobody else may change the root."""

    code = "leader_away"


class Closed(Unavailable):
    """The database is not open."""

    code = "closed"


class LogError(TegaError, OSError):
    """The commit log cannot be opened."""

    code = "log"


class Corrupt(LogError):
    """A record of the commit log does not check."""

    code = "corrupt"


class Locked(LogError):
    """Another process has the directory."""

    code = "locked"


class Internal(TegaError):
    """A bug: the server has logged a traceback."""


def _descendants(cls: type[TegaError]) -> dict[str, type[TegaError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found |= _descendants(sub)
    return found


#: Code to class, for clients that turn a wire error back into an exception.
BY_CODE: dict[str, type[TegaError]] = _descendants(TegaError)
