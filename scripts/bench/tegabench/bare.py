"""The bare limit: Tornado handlers that do nothing but HTTP, or nothing but WebSocket.

Run as ``python -m tegabench.bare PORT [LOG]``. With a log (a JSON object a line) it first reads
that into a dict, which is the least that a restart can take.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path
from typing import Any

import tornado.ioloop
import tornado.web
import tornado.websocket

from tegabench import values

_DOCUMENT = values.document(values.tag(0, 0, 0))


class Handler(tornado.web.RequestHandler):
    """Answers a 200-byte document; a put reads the body and answers a small one."""

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(_DOCUMENT)

    def put(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(b'{"seq":%d,"versions":{"bench":1}}' % len(self.request.body))


class Echo(tornado.websocket.WebSocketHandler):
    """Sends back what comes."""

    def open(self) -> None:
        self.set_nodelay(True)

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class Fan(tornado.websocket.WebSocketHandler):
    """Tells every one who said "listen" what the others say; answers, and keeps nothing.

    What was said in one turn of the loop is framed once and goes out in one write to each.
    """

    def initialize(self, listeners: set[Fan], said: list[bytes]) -> None:
        self._listeners = listeners
        self._said = said

    def open(self) -> None:
        self.set_nodelay(True)

    def on_message(self, message: str | bytes) -> None:
        if message == "listen":
            self._listeners.add(self)
        else:
            if not self._said:
                tornado.ioloop.IOLoop.current().add_callback(self._tell)
            body = message.encode() if isinstance(message, str) else message
            self._said.append(struct.pack(">BBH", 0x81, 126, len(body)) + body)
        self.write_message("done")

    def _tell(self) -> None:
        data = b"".join(self._said)
        self._said.clear()
        for listener in self._listeners:
            connection = listener.ws_connection
            # One that is leaving has none any more.
            if connection is not None and connection.stream is not None:
                connection.stream.write(data)

    def on_close(self) -> None:
        self._listeners.discard(self)


def replay(log: Path) -> dict[str, object]:
    """The newest value of each path in a log of ``{"path": P, "instance": I}`` lines."""
    import msgspec

    decode = msgspec.json.Decoder().decode
    state: dict[str, object] = {}
    with log.open("rb") as lines:
        for line in lines:
            record = decode(line)
            state[record["path"]] = record["instance"]
    return state


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    shared: dict[str, object] = {"listeners": set(), "said": []}
    routes: list[Any] = [
        (r"/_echo", Echo),
        (r"/_fan", Fan, shared),
        (r"/.*", Handler),
    ]
    tornado.web.Application(routes).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


def main() -> None:
    """The program."""
    state = replay(Path(sys.argv[2])) if len(sys.argv) > 2 else {}
    print(f"{len(state)} paths replayed", flush=True)
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
