"""A small server that wants a token, and notes what it is shown."""

from __future__ import annotations

import json
from typing import Any

from scripted import Peer, Scripted
from tornado.web import RequestHandler

from tega.errors import Forbidden

TOKEN = "agent.c2VjcmV0-_"
SECRET = TOKEN.partition(".")[2]


class Guarded(Scripted):
    """The server.

    :ivar token: the one that is right; None: none is
    :ivar forbids: whether it refuses that one too
    :ivar shown: the header of each request and handshake
    """

    def __init__(self) -> None:
        super().__init__()
        self.token: str | None = TOKEN
        self.forbids = False
        self.shown: list[str | None] = []

    def handlers(self) -> list[Any]:
        return [
            ("/_pubsub", _Guard, {"scripted": self}),
            ("/.*", _Documents, {"guarded": self}),
        ]

    def check(self, handler: RequestHandler) -> None:
        """Refuse who has no right to it, as a server does."""
        shown = handler.request.headers.get("Authorization")
        self.shown.append(shown)
        if self.token is None or shown != f"Bearer {self.token}":
            handler.set_status(401)
            handler.set_header("WWW-Authenticate", "Bearer")
            error = {"code": "unauthorized", "message": "no token, or a wrong one: see tega-server"}
            handler.finish(json.dumps({"error": error}))
        elif self.forbids:
            handler.set_status(403)
            handler.finish(json.dumps(Forbidden("agent may not do this").body()))


class _Guard(Peer):
    def prepare(self) -> None:
        assert isinstance(self.scripted, Guarded)
        self.scripted.check(self)


class _Documents(RequestHandler):
    def initialize(self, guarded: Guarded) -> None:
        self.guarded = guarded

    def prepare(self) -> None:
        self.guarded.check(self)

    def get(self) -> None:
        self.finish("{}")

    def put(self) -> None:
        self.finish('{"seq":1,"versions":{}}')

    def post(self) -> None:
        self.finish('{"txid":"t1"}')

    delete = put
