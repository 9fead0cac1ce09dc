"""The WebSocket protocol without any I/O: messages, and what may come when.

`doc/message-format.md` has the grammar, `doc/message-sequence.md` the order of messages. Bytes and
meanings that any driver can be tried with are in `tests/vectors`.
"""

from tega.protocol.connection import Connection, Role, StateOfConnection
from tega.protocol.messages import (
    Error,
    Message,
    Notify,
    Peer,
    Publish,
    PubSubMessage,
    Request,
    Response,
    Rollback,
    Session,
    SessionAck,
    Since,
    Subscribe,
    Unsubscribe,
    is_message,
    parse,
)

__all__ = [
    "Connection", "Error", "Message", "Notify", "Peer", "PubSubMessage", "Publish", "Request",
    "Response", "Role", "Rollback", "Session", "SessionAck", "Since", "StateOfConnection",
    "Subscribe", "Unsubscribe", "is_message", "parse",
]  # fmt: skip
