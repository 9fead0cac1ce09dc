"""The HTTP side of the lean client: prebuilt requests, replies framed by their length."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

from tegabench.client import BadReply, Conversation

Address = tuple[str, int]

#: Gives the bytes of the n-th operation.
Ask = Callable[[int], bytes]


def connector(address: Address) -> Callable[[], socket.socket]:
    """A function that opens a TCP connection there."""
    return lambda: socket.create_connection(address, 10)


def head(method: str, target: str, length: int | None = None) -> bytes:
    """The head of a request; with a length, a JSON body of so many bytes must follow."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bench"]
    if length is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request(method: str, target: str, body: bytes | None = None) -> bytes:
    """A whole request."""
    return head(method, target, None if body is None else len(body)) + (body or b"")


class Replies:
    """Frames replies on a kept-alive connection; anything but 200 is refused."""

    def __init__(self) -> None:
        self._buffer = b""

    def count(self, data: bytes) -> int:
        """How many whole replies these bytes end."""
        buffer = self._buffer + data if self._buffer else data
        at = count = 0
        while (end := _end(buffer, at)) is not None:
            at = end
            count += 1
        self._buffer = buffer[at:]
        return count

    def bodies(self, data: bytes) -> list[bytes]:
        """The bodies of the replies that these bytes end."""
        buffer = self._buffer + data
        at = 0
        found = []
        while (end := _end(buffer, at)) is not None:
            start = buffer.find(_BLANK, at) + 4
            if b"chunked" in buffer[at:start]:
                found.append(b"".join([buffer[i:j] for i, j in _chunks(buffer, start) or ()]))
            else:
                found.append(buffer[start:end])
            at = end
        self._buffer = buffer[at:]
        return found


_BLANK = b"\r\n\r\n"


def _end(buffer: bytes, at: int) -> int | None:
    """Where the reply that starts at ``at`` ends; None while it is not whole."""
    body = buffer.find(_BLANK, at) + 4
    if body < 4:
        return None
    if not buffer.startswith(b"HTTP/1.1 200", at):
        raise BadReply(buffer[at:])
    # "Content-Length: " in any case of its letters.
    length = buffer.find(b"ength: ", at, body)
    if length < 0:
        if buffer.find(b"chunked", at, body) < 0:
            raise BadReply(buffer[at:])
        chunks = _chunks(buffer, body)
        return None if chunks is None else chunks[-1][1] + 2
    end = body + int(buffer[length + 7 : buffer.find(b"\r", length)])
    return end if end <= len(buffer) else None


def _chunks(buffer: bytes, at: int) -> list[tuple[int, int]] | None:
    """From where to where the chunks of a body go, the empty one at its end too; None while it
    is not whole."""
    found = []
    while (line := buffer.find(b"\r\n", at)) >= 0:
        start = line + 2
        end = start + int(buffer[at:line], 16)
        if end + 2 > len(buffer):
            return None
        found.append((start, end))
        if start == end:
            return found
        at = end + 2
    return None


class Steps(Conversation):
    """Operations of several round trips, where a step may need the reply before it.

    :param steps: gives, for the n-th operation, a function from the bodies of the replies so far
        to the next request, or to None when the operation has ended
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        steps: Callable[[int], Callable[[list[bytes]], bytes | None]],
    ) -> None:
        self._steps = steps
        self._replies = Replies()
        super().__init__(connect, self._first, self._replies.count)

    def _first(self, serial: int) -> bytes:
        self._bodies: list[bytes] = []
        self._next = self._steps(serial)
        return self._next([]) or b""

    def feed(self, data: bytes) -> tuple[int, bytes]:
        bodies = self._replies.bodies(data)
        if not bodies:
            return 0, b""
        self._bodies += bodies
        following = self._next(self._bodies)
        if following is not None:
            return 0, following
        self.done += 1
        return 1, b""


def call(address: Address, method: str, target: str, body: bytes | None = None) -> bytes:
    """One request outside the measurement.

    :returns: the body of the answer
    :raises BadReply: for any status but 200
    """
    connection = http.client.HTTPConnection(*address, timeout=120)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise BadReply(f"{method} {target}: {response.status} ".encode() + answer)
        return answer
    finally:
        connection.close()


def call_json(address: Address, method: str, target: str, body: Any = None) -> Any:
    """The same with JSON both ways."""
    data = None if body is None else json.dumps(body).encode()
    return json.loads(call(address, method, target, data))


class Drain:
    """Follows one large reply, announced by its length or in chunks, without keeping it."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        #: Bytes of the reply, its head included.
        self.size = 0

    def take(self, data: bytes) -> bool:
        """Whether these bytes end the reply."""
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self.size += len(data)
        self._tail = (self._tail + data[-5:])[-5:]
        if _BLANK not in self._head:
            self._head += data
        head, blank, _ = self._head.partition(_BLANK)
        if not blank:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise BadReply(self._head)
        if b"chunked" in head:
            return self._tail == b"0\r\n\r\n"
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        return self.size >= len(head) + len(_BLANK) + length
