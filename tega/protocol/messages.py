"""Messages: what each one says, and how it is written.

A message is one text: a command and its parameters, separated by single spaces, and for some a
newline and one JSON document. `parse` reads one and checks it; `text` of a message writes it.
Bodies are kept as the JSON text that they are: whoever needs the value reads it, and who only
passes it on does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast

import msgspec

from tega import strictjson
from tega.errors import Malformed, NotUnderstood
from tega.paths import check_key, check_tega_id, dotted, split_pattern, wire
from tega.paths import parse as parse_path

#: What a REQUEST may ask for; the last two are for servers among themselves.
REQUEST_TYPES: Final = ("RPC", "TX", "SYNC", "REFER")

#: What servers tell each other, beside requests and channels.
PEER_KINDS: Final = (
    "above", "applied", "commit", "functions", "left", "message", "overlay", "root",
)  # fmt: skip

#: Most digits of a number: a sequence number of requests or commits.
_MAX_DIGITS: Final = 18

Scope: TypeAlias = Literal["local", "global"]


class Since(msgspec.Struct, frozen=True, gc=False):
    """Where to go on: the last sequence number seen, and the life of the database it is of."""

    seq: int
    life: str | None = None

    def __str__(self) -> str:
        return str(self.seq) if self.life is None else f"{self.seq}@{self.life}"


class _Base(msgspec.Struct, frozen=True, gc=False):
    command: ClassVar[str]

    def text(self) -> str:
        """The message as it is sent."""
        raise NotImplementedError

    def as_data(self) -> dict[str, Any]:
        """The message as a JSON object: its command, and its parameters by name."""
        data: dict[str, Any] = {"command": self.command}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bytes):
                value = strictjson.loads(value)
            elif isinstance(value, Since):
                value = str(value)
            data[name] = value
        return data


class Session(_Base, frozen=True, gc=False):
    """A client's first message: who it is."""

    command = "SESSION"
    tega_id: str
    scope: Scope = "local"

    def text(self) -> str:
        return f"SESSION {self.tega_id} {self.scope}"


class SessionAck(_Base, frozen=True, gc=False):
    """The server's answer: its own id, the life of its database and its newest commit."""

    command = "SESSIONACK"
    tega_id: str
    life: str
    seq: int

    def text(self) -> str:
        body = strictjson.dumps({"life": self.life, "seq": self.seq}).decode()
        return f"SESSIONACK {self.tega_id}\n{body}"


class Subscribe(_Base, frozen=True, gc=False):
    """Hear of changes at, below and above a path, and of messages on the channel of that name.

    :ivar path: dotted, or with `regex` one pattern a level, split at ``\\.``
    :ivar since: get first what has changed since then
    """

    command = "SUBSCRIBE"
    path: str
    scope: Scope = "local"
    regex: bool = False
    since: Since | None = None

    def text(self) -> str:
        since = "" if self.since is None else f" {self.since}"
        return f"SUBSCRIBE {_channel(self.path, self.regex)} {self.scope} {self.regex}{since}"


class Unsubscribe(_Base, frozen=True, gc=False):
    """Hear of it no more; without a path: of nothing."""

    command = "UNSUBSCRIBE"
    path: str | None = None
    regex: bool = False

    def text(self) -> str:
        if self.path is None:
            return "UNSUBSCRIBE"
        return f"UNSUBSCRIBE {_channel(self.path, self.regex)} {self.regex}"


class Publish(_Base, frozen=True, gc=False):
    """Tell every other subscriber of a channel. `body` is ``{"message": any}``."""

    command = "PUBLISH"
    channel: str
    body: bytes

    def text(self) -> str:
        return f"PUBLISH {_escaped(self.channel)}\n{self.body.decode()}"


class PubSubMessage(_Base, frozen=True, gc=False):
    """What somebody has published. `body` is ``{"message": any}``."""

    command = "MESSAGE"
    channel: str
    tega_id: str
    body: bytes

    def text(self) -> str:
        return f"MESSAGE {_escaped(self.channel)} {self.tega_id}\n{self.body.decode()}"


class Notify(_Base, frozen=True, gc=False):
    """The changes of one transaction: made, or from a client to be made. A JSON list."""

    command = "NOTIFY"
    body: bytes

    def text(self) -> str:
        return f"NOTIFY\n{self.body.decode()}"


class Rollback(_Base, frozen=True, gc=False):
    """Roll a root back to a version, or, negative, by so many."""

    command = "ROLLBACK"
    root: str
    backto: int

    def text(self) -> str:
        return f"ROLLBACK {wire((self.root,))} {self.backto}"


class Request(_Base, frozen=True, gc=False):
    """Something to be answered by a `Response` with the same `seq_no`.

    :ivar type: RPC, TX, SYNC or REFER
    :ivar tega_id: who asks
    :ivar path: of a function; ``-`` where it is not used
    """

    command = "REQUEST"
    seq_no: int
    type: str
    tega_id: str
    path: str
    body: bytes

    def text(self) -> str:
        return (
            f"REQUEST {self.seq_no} {self.type} {self.tega_id} {_escaped(self.path)}\n"
            f"{self.body.decode()}"
        )


class Response(_Base, frozen=True, gc=False):
    """The answer: the bare result, or with `error` ``{"code", "message", ...}``.

    :ivar tega_id: who asked
    """

    command = "RESPONSE"
    seq_no: int
    type: str
    tega_id: str
    error: bool
    body: bytes

    def text(self) -> str:
        error = " ERROR" if self.error else ""
        return f"RESPONSE {self.seq_no} {self.type} {self.tega_id}{error}\n{self.body.decode()}"


class Error(_Base, frozen=True, gc=False):
    """What went wrong with something that has no answer. `body` is ``{"message", ...}``."""

    command = "ERROR"
    code: str
    body: bytes

    def text(self) -> str:
        return f"ERROR {self.code}\n{self.body.decode()}"


class Peer(_Base, frozen=True, gc=False):
    """What servers tell each other of the trees that they lead and follow. `body` is an object."""

    command = "PEER"
    kind: str
    body: bytes

    def text(self) -> str:
        return f"PEER {self.kind}\n{self.body.decode()}"


Message: TypeAlias = (
    Session | SessionAck | Subscribe | Unsubscribe | Publish | PubSubMessage | Notify | Rollback
    | Request | Response | Error | Peer
)  # fmt: skip


def parse(text: str) -> Message:
    """Read a message.

    :param text: of one WebSocket text frame
    :raises Malformed: for a message that is known, naming what is wrong with it
    :raises NotUnderstood: for what is no message at all
    """
    head, newline, body = text.partition("\n")
    if head.endswith("\r"):
        head = head[:-1]
    words = head.split(" ")
    reader = _READERS.get(words[0])
    if reader is None:
        raise NotUnderstood(
            f"unknown message {words[0][:32]!r}: a message begins with "
            + ", ".join(_READERS)
        )
    least, most, has_body, read = reader
    if not least < len(words) <= most + 1:
        raise Malformed(f"{_shown(head)}: {words[0]} takes {_USAGE[words[0]]}")
    if "" in words:
        raise Malformed(f"{_shown(head)}: parameters are separated by one space")
    if has_body:
        if not newline:
            raise Malformed(f"{_shown(head)}: a JSON body must follow on the next line")
    elif newline:
        raise Malformed(f"{_shown(head)}: {words[0]} takes no body")
    return read(words, body.encode() if has_body else b"")


def is_message(text: str) -> bool:
    """Whether a text begins as a message does, however wrong the rest of it may be."""
    return text.partition("\n")[0].partition(" ")[0].removesuffix("\r") in _READERS


def _shown(head: str) -> str:
    return repr(head if len(head) <= 120 else head[:120] + "...")


def _escaped(parameter: str) -> str:
    """A dotted path as a parameter, which holds no space."""
    return parameter.replace(" ", "\\u0020")


def _channel(path: str, regex: bool) -> str:
    return path.replace(" ", "\\x20") if regex else _escaped(path)


def _number(word: str, what: str, negative: bool = False) -> int:
    digits = word[1:] if negative and word.startswith("-") else word
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise Malformed(f"{what} {word[:32]!r} is not a number")
    return int(word)


def _choice(word: str, what: str, *choices: str) -> str:
    if word not in choices:
        raise Malformed(f"{what} {word[:32]!r}: it is " + " or ".join(choices))
    return word


def _scope(word: str) -> Scope:
    return cast(Scope, _choice(word, "scope", "local", "global"))


def _flag(word: str) -> bool:
    return _choice(word, "regex flag", "True", "False") == "True"


def _checked_channel(word: str, regex: bool) -> str:
    if regex:
        split_pattern(word)
        return word
    return dotted(parse_path(word))


def _session(words: list[str], body: bytes) -> Message:
    return Session(check_tega_id(words[1]), _scope(words[2]))


def _session_ack(words: list[str], body: bytes) -> Message:
    given = _body(body, "SESSIONACK")
    life, seq = given.get("life"), given.get("seq")
    if type(life) is not str or type(seq) is not int:
        raise Malformed('SESSIONACK: the body is {"life": text, "seq": number}')
    return SessionAck(check_tega_id(words[1]), life, seq)


def _subscribe(words: list[str], body: bytes) -> Message:
    regex = len(words) > 3 and _flag(words[3])
    since = _since(words[4]) if len(words) > 4 else None
    return Subscribe(_checked_channel(words[1], regex), _scope(words[2]), regex, since)


def _since(word: str) -> Since:
    seq, at, life = word.partition("@")
    if at and not life:
        raise Malformed(f"from {word[:64]!r}: a sequence number, or one and a life: 17@9af3")
    return Since(_number(seq, "from"), life or None)


def _unsubscribe(words: list[str], body: bytes) -> Message:
    if len(words) == 1:
        return Unsubscribe()
    regex = len(words) > 2 and _flag(words[2])
    return Unsubscribe(_checked_channel(words[1], regex), regex)


def _publish(words: list[str], body: bytes) -> Message:
    _message_in(body, "PUBLISH")
    return Publish(dotted(parse_path(words[1])), body)


def _message(words: list[str], body: bytes) -> Message:
    _message_in(body, "MESSAGE")
    return PubSubMessage(dotted(parse_path(words[1])), check_tega_id(words[2]), body)


def _message_in(body: bytes, command: str) -> None:
    if set(_body(body, command)) != {"message"}:
        raise Malformed(f'{command}: the body is {{"message": any JSON value}}')


def _notify(words: list[str], body: bytes) -> Message:
    return Notify(body)


def _rollback(words: list[str], body: bytes) -> Message:
    root = parse_path(words[1])
    if len(root) != 1:
        raise Malformed(f"ROLLBACK {words[1][:64]!r}: it takes the name of a root")
    check_key(root[0])
    return Rollback(root[0], _number(words[2], "backto", negative=True))


def _request(words: list[str], body: bytes) -> Message:
    return Request(
        _number(words[1], "seq_no"),
        words[2] if words[2] in REQUEST_TYPES else _choice(words[2], "type", *REQUEST_TYPES),
        check_tega_id(words[3]),
        words[4],
        body,
    )


def _response(words: list[str], body: bytes) -> Message:
    if len(words) > 4:
        _choice(words[4], "the last word of a RESPONSE", "ERROR")
    return Response(
        _number(words[1], "seq_no"),
        words[2] if words[2] in REQUEST_TYPES else _choice(words[2], "type", *REQUEST_TYPES),
        check_tega_id(words[3]),
        len(words) > 4,
        body,
    )


def _error(words: list[str], body: bytes) -> Message:
    _body(body, "ERROR")
    return Error(words[1], body)


def _peer(words: list[str], body: bytes) -> Message:
    return Peer(_choice(words[1], "kind", *PEER_KINDS), body)


def _body(body: bytes, command: str) -> dict[str, Any]:
    value = strictjson.loads(body)
    if type(value) is not dict:
        raise Malformed(f"{command}: the body is a JSON object")
    return value


#: Command: fewest and most parameters, whether a body follows, and what reads it.
_READERS: Final[dict[str, tuple[int, int, bool, Callable[[list[str], bytes], Message]]]] = {
    "SESSION": (2, 2, False, _session),
    "SESSIONACK": (1, 1, True, _session_ack),
    "SUBSCRIBE": (2, 4, False, _subscribe),
    "UNSUBSCRIBE": (0, 2, False, _unsubscribe),
    "PUBLISH": (1, 1, True, _publish),
    "MESSAGE": (2, 2, True, _message),
    "NOTIFY": (0, 0, True, _notify),
    "ROLLBACK": (2, 2, False, _rollback),
    "REQUEST": (4, 4, True, _request),
    "RESPONSE": (3, 4, True, _response),
    "ERROR": (1, 1, True, _error),
    "PEER": (1, 1, True, _peer),
}

#: What each takes, for errors.
_USAGE: Final = {
    "SESSION": "a tega id and a scope",
    "SESSIONACK": "a tega id",
    "SUBSCRIBE": "a path, a scope, and may take a regex flag and where to go on from",
    "UNSUBSCRIBE": "nothing, or a path and a regex flag",
    "PUBLISH": "a channel",
    "MESSAGE": "a channel and a tega id",
    "NOTIFY": "no parameters",
    "ROLLBACK": "a root and what to roll it back to",
    "REQUEST": "a number, a type, a tega id and a path ('-' where it is not used)",
    "RESPONSE": "a number, a type, a tega id, and may take ERROR",
    "ERROR": "a code",
    "PEER": "a kind",
}
