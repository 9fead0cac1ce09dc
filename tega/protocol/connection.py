"""What may come when: the states of one end of a connection.

Either end is a `Connection`. It is told of every message that is sent and received, says whether
it may be, and knows which requests are still to be answered. There are three states:

::

    client    NEW --SESSION sent--> GREETED --SESSIONACK received--> OPEN
    server    NEW --SESSION received--> GREETED --SESSIONACK sent--> OPEN

ERROR may come from the server in every state. Everything else waits for OPEN; a client need not
wait for the acknowledgement with what it sends, as messages are taken in order.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from tega.errors import NotUnderstood
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
    Subscribe,
    Unsubscribe,
    parse,
)


class Role(Enum):
    """Which end this is."""

    CLIENT = "client"
    SERVER = "server"


class StateOfConnection(Enum):
    """How far the two ends have come."""

    NEW = "new"
    GREETED = "greeted"
    OPEN = "open"

    # There is one of each. The hash of an Enum runs in Python, and this is asked for each message.
    __hash__ = object.__hash__


_NEW, _GREETED, _OPEN = StateOfConnection

_FROM_CLIENT: Final[dict[type, StateOfConnection]] = dict.fromkeys(
    (Subscribe, Unsubscribe, Publish, Notify, Rollback, Request, Response, Peer), _OPEN
)
_FROM_SERVER: Final[dict[type, StateOfConnection]] = dict.fromkeys(
    (PubSubMessage, Notify, Rollback, Request, Response, Error, Peer), _OPEN
)

#: From the client: the state that a message leads to, by the state in which it comes.
_CLIENT_SENDS: Final[dict[StateOfConnection, dict[type, StateOfConnection]]] = {
    _NEW: {Session: _GREETED},
    _GREETED: dict.fromkeys(_FROM_CLIENT, _GREETED),
    _OPEN: _FROM_CLIENT,
}

#: From the server.
_SERVER_SENDS: Final[dict[StateOfConnection, dict[type, StateOfConnection]]] = {
    _NEW: {Error: _NEW},
    _GREETED: {SessionAck: _OPEN, Error: _NEW},
    _OPEN: _FROM_SERVER,
}


class Connection:
    """One end of a connection.

    :ivar state: how far the two ends have come
    """

    __slots__ = ("_asked", "_receives", "_sends", "_was_asked", "role", "state")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = _NEW
        client = role is Role.CLIENT
        self._sends = _CLIENT_SENDS if client else _SERVER_SENDS
        self._receives = _SERVER_SENDS if client else _CLIENT_SENDS
        self._asked: dict[int, str] = {}
        self._was_asked: dict[int, str] = {}

    @property
    def asked(self) -> int:
        """How many requests of this end the other one has still to answer."""
        return len(self._asked)

    @property
    def was_asked(self) -> int:
        """How many requests of the other end this one has still to answer."""
        return len(self._was_asked)

    def receive(self, text: str) -> Message:
        """Read a message from the other end.

        :raises Malformed: for a message that is known, naming what is wrong with it
        :raises NotUnderstood: for what is no message, or may not come now
        """
        message = parse(text)
        state = self._receives[self.state].get(type(message))
        if state is None:
            raise self._refusal(message)
        if isinstance(message, Request):
            if message.seq_no in self._was_asked:
                raise NotUnderstood(
                    f"REQUEST {message.seq_no}: the one before of that number has no answer yet"
                )
            self._was_asked[message.seq_no] = message.type
        elif isinstance(message, Response):
            if self._asked.get(message.seq_no) != message.type:
                raise NotUnderstood(
                    f"RESPONSE {message.seq_no} {message.type}: nothing like that was asked, or "
                    "the answer comes too late"
                )
            del self._asked[message.seq_no]
        self.state = state
        return message

    def send(self, message: Message) -> str:
        """The text of a message to the other end.

        :raises NotUnderstood: where it may not be sent now
        """
        state = self._sends[self.state].get(type(message))
        if state is None:
            raise self._refusal(message)
        if isinstance(message, Request):
            if message.seq_no in self._asked:
                raise NotUnderstood(
                    f"REQUEST {message.seq_no}: the one before of that number has no answer yet"
                )
            self._asked[message.seq_no] = message.type
        elif isinstance(message, Response):
            if self._was_asked.get(message.seq_no) != message.type:
                raise NotUnderstood(
                    f"RESPONSE {message.seq_no} {message.type}: nothing like that was asked, or it "
                    "is answered"
                )
            del self._was_asked[message.seq_no]
        self.state = state
        text: str = message.text()
        return text

    def answered(self, seq_no: int) -> None:
        """The other end's request of that number has its answer, sent by other means.

        :raises NotUnderstood: where nothing open has that number
        """
        if self._was_asked.pop(seq_no, None) is None:
            raise NotUnderstood(f"RESPONSE {seq_no}: that was not asked, or is answered")

    def give_up(self, seq_no: int) -> None:
        """Wait no longer for the answer to a request of this end."""
        self._asked.pop(seq_no, None)

    def _refusal(self, message: Message) -> NotUnderstood:
        command = message.command
        if self.state is _NEW and type(message) is not SessionAck:
            why = "the first message is SESSION"
        elif type(message) is Session:
            why = "the session has begun already"
        else:
            why = f"not from a {self._other()} in state {self.state.value}"
        return NotUnderstood(f"{command}: {why}")

    def _other(self) -> str:
        return "server" if self.role is Role.CLIENT else "client"
