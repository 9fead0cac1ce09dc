"""A WebSocket client on a bare socket: frames are made by hand, so that they can be wrong."""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

#: A key that any handshake may use (RFC 6455, section 1.3), and what answers it.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def frame(payload: bytes, opcode: int = TEXT, last: bool = True, masked: bool = True) -> bytes:
    """A frame as a client sends it; the mask of zeros leaves the payload as it is."""
    return head(len(payload), opcode, last, masked) + payload


def head(size: int, opcode: int = TEXT, last: bool = True, masked: bool = True) -> bytes:
    """What stands before a payload of some size."""
    first, bit = opcode | (0x80 if last else 0), 0x80 if masked else 0
    if size < 126:
        made = bytes((first, bit | size))
    elif size < 1 << 16:
        made = struct.pack("!BBH", first, bit | 126, size)
    else:
        made = struct.pack("!BBQ", first, bit | 127, size)
    return made + bytes(4 if masked else 0)


class Message(NamedTuple):
    """What the server said: the words of the first line, and the JSON that follows."""

    words: list[str]
    body: Any

    @property
    def command(self) -> str:
        return self.words[0]


class Ended(Exception):
    """The server has ended the connection.

    :ivar code: its close code; None where it just hung up
    """

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class WSClient:
    """One connection.

    :param tega_id: begins a session under this id; without one none begins
    :param window: bytes that the kernel takes in before this end reads them
    :param tls: where the server speaks that
    :ivar ack: the body of SESSIONACK
    """

    def __init__(
        self,
        port: int,
        tega_id: str | None = None,
        window: int | None = None,
        timeout: float = 20.0,
        tls: ssl.SSLContext | None = None,
        **headers: str,
    ) -> None:
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.tega_id = tega_id or ""
        self.ack: dict[str, Any] = {}
        self._taken = b""
        self._fragments = b""
        self._kept: deque[Message] = deque()
        self._asked = 0
        self.status = self._shake_hands(headers)
        if tega_id is not None:
            self.ack = self.begin(tega_id)

    def _shake_hands(self, headers: dict[str, str]) -> int:
        given = {
            "Host": "127.0.0.1", "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        lines = ["GET /_pubsub HTTP/1.1", *[f"{name}: {value}" for name, value in given.items()]]
        self.send_bytes("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._taken:
            self._take()
        answer, self._taken = self._taken.split(b"\r\n\r\n", 1)
        status = int(answer.split()[1])
        assert status != 101 or ACCEPT.encode() in answer
        return status

    def begin(self, tega_id: str, scope: str = "local") -> dict[str, Any]:
        """Begin a session."""
        self.tega_id = tega_id
        self.send(f"SESSION {tega_id} {scope}")
        answer = self.receive()
        assert answer.command == "SESSIONACK", answer
        body: dict[str, Any] = answer.body
        return body

    # -- what goes out --------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, *texts: str) -> None:
        """Send messages, in one write."""
        self.send_bytes(b"".join([frame(text.encode()) for text in texts]))

    def pour(self, data: bytes, seconds: float) -> int:
        """Send the same again and again without reading, until the server takes no more of it.

        :param seconds: give up after so long
        :returns: how many bytes it took
        """
        self.socket.setblocking(False)
        until, sent, position, mute = time.monotonic() + seconds, 0, 0, 0
        view = memoryview(data)
        while time.monotonic() < until and mute < 5:
            if not select.select([], [self.socket], [], 0.2)[1]:
                mute += 1
                continue
            mute = 0
            try:
                count = self.socket.send(view[position:])
            except (BlockingIOError, ConnectionError):
                mute += 1
                continue
            sent, position = sent + count, (position + count) % len(data)
        self.socket.settimeout(20)
        return sent

    # -- what comes -----------------------------------------------------------------------------

    def _take(self) -> None:
        try:
            chunk = self.socket.recv(1 << 16)
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise Ended(None)
        self._taken += chunk

    def frame(self) -> tuple[int, bool, bytes]:
        """The next frame: opcode, whether it is the last of its message, payload."""
        while True:
            taken = self._taken
            if len(taken) >= 2:
                size, at = taken[1], 2
                assert not size & 0x80, "a server does not mask"
                if size >= 126:
                    at += 2 if size == 126 else 8
                    size = int.from_bytes(taken[2:at], "big")
                if len(taken) >= at and len(taken) >= at + size:
                    self._taken = taken[at + size :]
                    return taken[0] & 0x0F, bool(taken[0] & 0x80), taken[at : at + size]
            self._take()

    def text(self) -> str:
        """The next message as it is; pings are answered meanwhile.

        :raises Ended: where the connection has ended
        """
        while True:
            opcode, last, payload = self.frame()
            if opcode == CLOSE:
                (code,) = struct.unpack("!H", payload[:2]) if payload else (None,)
                raise Ended(code, payload[2:].decode())
            if opcode == PING:
                self.send_bytes(frame(payload, PONG))
            elif opcode != PONG:
                self._fragments += payload
                if last:
                    whole, self._fragments = self._fragments, b""
                    return whole.decode()

    def is_readable(self, seconds: float) -> bool:
        """Whether anything comes within so long."""
        if self._kept or self._taken:
            return True
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        return bool(select.select([self.socket], [], [], seconds)[0])

    def receive(self) -> Message:
        """The next message."""
        if self._kept:
            return self._kept.popleft()
        first, newline, body = self.text().partition("\n")
        return Message(first.split(" "), json.loads(body) if newline else None)

    def wait_for(self, wanted: Callable[[Message], bool]) -> Message:
        """The next message of some kind; what comes before it is kept for `receive`."""
        before: list[Message] = []
        try:
            while True:
                found = self.receive()
                if wanted(found):
                    return found
                before.append(found)
        finally:
            self._kept.extendleft(reversed(before))

    def expect(self, *words: str) -> Any:
        """The body of the next message, which begins with these words."""
        found = self.receive()
        assert tuple(found.words[: len(words)]) == words, found
        return found.body

    def ended(self) -> int | None:
        """Read to the end of the connection, and give its close code."""
        try:
            while True:
                self.text()
        except Ended as end:
            return end.code

    # -- exchanges ------------------------------------------------------------------------------

    def request(self, kind: str, path: str, body: Any) -> int:
        """Send a REQUEST; its number."""
        self._asked += 1
        self.send(f"REQUEST {self._asked} {kind} {self.tega_id} {path}\n{json.dumps(body)}")
        return self._asked

    def response(self, number: int) -> Message:
        """The RESPONSE of a number; notices and the like are kept."""
        return self.wait_for(lambda m: m.command == "RESPONSE" and m.words[1] == str(number))

    def tx(self, *ops: dict[str, Any], txid: str | None = None) -> Any:
        """Commit, and the body of the answer: the result, or the error."""
        body: dict[str, Any] = {"ops": ops} if txid is None else {"ops": ops, "txid": txid}
        return self.response(self.request("TX", "-", body)).body

    def put(self, path: str, instance: Any, ephemeral: bool = False) -> Any:
        return self.tx(put(path, instance, ephemeral))

    def settle(self) -> None:
        """Wait until all that was sent before has been taken."""
        self.tx()

    def subscribe(self, path: str, regex: bool = False, since: str | int | None = None) -> None:
        """Subscribe, and wait until that holds."""
        more = "" if since is None else f" {since}"
        self.send(f"SUBSCRIBE {path} local {regex}{more}")
        self.settle()

    def notices(self) -> list[Message]:
        """All that is here to be read."""
        self.settle()
        found, self._kept = list(self._kept), deque()
        return found

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    def __enter__(self) -> WSClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def put(path: str, instance: Any, ephemeral: bool = False) -> dict[str, Any]:
    made = {"ope": "PUT", "path": path, "instance": instance}
    return {**made, "ephemeral": True} if ephemeral else made


def delete(path: str) -> dict[str, Any]:
    return {"ope": "DELETE", "path": path}
