"""The bare limit: a Tornado handler that does nothing but HTTP.

Run as ``python -m tegabench.bare PORT [LOG]``. With a log (a JSON object a line) it first reads
that into a dict, which is the least that a restart can take.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import tornado.web

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
    tornado.web.Application([(r"/.*", Handler)]).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


def main() -> None:
    """The program."""
    state = replay(Path(sys.argv[2])) if len(sys.argv) > 2 else {}
    print(f"{len(state)} paths replayed", flush=True)
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
