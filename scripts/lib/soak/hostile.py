"""Clients that are up to no good."""

from __future__ import annotations

import socket
import time

from wsclient import KEY, PING, frame

from soak.clients import Client
from soak.world import Server, secure

#: Seconds that one may wait for an answer that need not come.
_PATIENCE = 1.0

_REQUESTS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0" * 200,
    b"GET /" + b"a/" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /shared/h/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    b"PUT /shared/h/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"GET /%ff%fe/?regex_flag=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /(a+)+$(/?regex_flag=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /_rpc?path=op-a.add HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[[[[[[[[[",
    b"PUT /shared/h/ HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"[" * 300_000,
    b"GET / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example.net\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
]  # fmt: skip

_MESSAGES = [
    b"", b"x", b"SUBSCRIBE shared local", b"SUBSCRIBE (a+)+$ local True", b"SUBSCRIBE ( local True",
    b"PUBLISH shared.h\n{}", b"NOTIFY\n" + b"[" * 100_000, b"REQUEST 1 TX h -\n{}",
    b"REQUEST 1 SYNC h -\n{}", b"ROLLBACK nothing -1", b"RESPONSE 1 RPC h\n1", b"\xff\xfe",
    b'REQUEST 2 TX h -\n{"ops":[{"ope":"GET","path":".*\\\\..*","regex_flag":true}]}',
]  # fmt: skip


class Hostile(Client):
    """Bad handshakes, bad requests, bad frames, guessed tokens, readers that do not read."""

    def act(self) -> None:
        server = self.chance.choice(self.world.all)
        ways = [self._no_tls, self._requests, self._guess, self._frames, self._slow]
        self.chance.choice(ways)(server)

    def _no_tls(self, server: Server) -> None:
        with socket.create_connection(server.address, timeout=_PATIENCE) as made:
            made.sendall(
                self.chance.choice([b"\x16\x03\x01\x40\x00", b"GET / HTTP/1.1\r\n\r\n"])
                + self.chance.randbytes(self.chance.choice([0, 10, 5_000]))
            )
            _read(made)

    def _requests(self, server: Server) -> None:
        with secure(server) as made:
            token = server.tokens[self.chance.choice(["writer", "guest"])].encode()
            for _ in range(self.chance.randrange(1, 4)):
                request = self.chance.choice(_REQUESTS)
                if self.chance.random() < 0.7:
                    request = request.replace(
                        b"Host: x", b"Host: x\r\nAuthorization: Bearer " + token, 1
                    )
                if self.chance.random() < 0.2:
                    request = request[: self.chance.randrange(len(request))]
                made.sendall(request)
            self._check(_read(made))

    def _guess(self, server: Server) -> None:
        with secure(server) as made:
            for _ in range(20):
                guess = f"admin.{self.chance.getrandbits(256):x}".encode()
                made.sendall(
                    b"GET /_roots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % guess
                )
            answers = _read(made, 20)
            self._check(answers)
            self.judge.check("no guessed token is taken", b" 200 OK" not in answers, answers[:200])

    def _frames(self, server: Server) -> None:
        with self._websocket(server) as made:
            made.sendall(frame(f"SESSION hostile-{self.name.split()[-1]} local".encode()))
            for _ in range(self.chance.randrange(1, 50)):
                data = frame(self.chance.choice(_MESSAGES), self.chance.choice([1, 1, 1, PING]))
                if self.chance.random() < 0.05:
                    data = self.chance.randbytes(50)
                made.sendall(data)
            self._check(_read(made))

    def _slow(self, server: Server) -> None:
        """Subscribes to all, and reads nothing for a while."""
        with self._websocket(server, window=4096) as made:
            made.sendall(
                frame(f"SESSION hostile-{self.name.split()[-1]} local".encode())
                + frame(b"SUBSCRIBE shared local")
                + frame(b"SUBSCRIBE shared\\..* local True")
                + b"".join(
                    frame(b'REQUEST %d TX h -\n{"ops":[{"ope":"GET","path":"shared"}]}' % n)
                    for n in range(1, 400)
                )
            )
            self.over.wait(self.chance.uniform(1, 5))

    def _websocket(self, server: Server, window: int | None = None) -> socket.socket:
        made = secure(server)
        if window is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        made.sendall(
            (
                "GET /_pubsub HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
                f"Authorization: Bearer {server.tokens['writer']}\r\n\r\n"
            ).encode()
        )
        return made

    def _check(self, answers: bytes) -> None:
        self.judge.check("no answer is a 500", b"HTTP/1.1 500" not in answers, answers[:200])


def _read(made: socket.socket, answers: int | None = None) -> bytes:
    """What comes within a while, or until so many answers have come."""
    made.settimeout(_PATIENCE)
    found = b""
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit and len(found) < 1 << 22:
        try:
            part = made.recv(1 << 16)
        except TimeoutError:
            break
        if not part:
            break
        found += part
        if answers is not None and found.count(b"HTTP/1.1 ") >= answers:
            break
    return found
