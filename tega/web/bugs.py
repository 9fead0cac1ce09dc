"""Bugs: the log has the traceback, the client a reference to it."""

from __future__ import annotations

import logging
import uuid

from tega.errors import Internal

log = logging.getLogger(__name__)


def internal(bug: Exception, where: str) -> Internal:
    """Log what should never be raised.

    :param where: it was
    :returns: what to tell whoever asked
    """
    reference = uuid.uuid4().hex[:8]
    log.error("bug, reference %s, in %s", reference, where, exc_info=bug)
    return Internal(f"internal error, reference {reference} in the server's log")
