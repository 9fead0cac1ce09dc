"""The table of URLs: which handler answers what."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Final

from tega import strictjson
from tega.errors import MethodNotAllowed, NoSuchCommand
from tega.web import documents, management
from tega.web import metrics as prometheus
from tega.web.commands import Command, Needs
from tega.web.context import Context, client_id
from tega.web.door import check_page
from tega.web.http import Call, Response, error_response
from tega.web.later import Answer
from tega.web.openapi import describe

_GET: Final = ("GET",)
_POST: Final = ("POST",)

#: What is done with documents, by HTTP method.
DOCUMENTS: Final[Mapping[str, Command]] = {
    "GET": Command(
        Needs.RIGHTS, documents.get, _GET,
        ("version", "internal", "regex_flag", "consistent", "txid"),
    ),
    "PUT": Command(Needs.RIGHTS, documents.put, ("PUT",), ("version", "ephemeral", "txid")),
    "DELETE": Command(Needs.RIGHTS, documents.delete, ("DELETE",), ("version", "txid")),
}  # fmt: skip


def openapi(context: Context, call: Call) -> Answer:
    """This interface, described as OpenAPI 3.1."""
    return Response(_described())


@functools.cache
def _described() -> bytes:
    return strictjson.dumps(describe(COMMANDS, DOCUMENTS))


COMMANDS: Final[Mapping[str, Command]] = {
    "_applied": Command(Needs.RIGHTS, management.applied, _GET, ("root_oid",)),
    "_begin": Command(Needs.RIGHTS, management.begin, _POST),
    "_cancel": Command(Needs.RIGHTS, management.cancel, _POST, ("txid",)),
    "_cand": Command(Needs.RIGHTS, management.cand, _POST, ("txid",)),
    "_channels": Command(Needs.MONITOR, management.channels, _GET),
    "_clear": Command(Needs.MANAGE, management.clear, _POST),
    "_commit": Command(Needs.RIGHTS, management.commit, _POST, ("txid",)),
    "_edges": Command(Needs.RIGHTS, management.edges_of, _GET, ("root_oid", "old_roots")),
    "_forwarders": Command(Needs.MONITOR, management.forwarders, _GET),
    "_global": Command(Needs.MONITOR, management.global_channels, _GET),
    "_health": Command(Needs.NOTHING, management.health, _GET),
    "_ids": Command(Needs.MONITOR, management.ids, _GET),
    "_metrics": Command(Needs.MONITOR, prometheus.metrics, _GET),
    "_openapi": Command(Needs.NOTHING, openapi, _GET),
    "_old": Command(Needs.RIGHTS, management.old, _GET),
    "_plugins": Command(Needs.MONITOR, management.plugins, _GET),
    "_release": Command(Needs.MANAGE, management.release, _POST, ("root_oid",)),
    "_ready": Command(Needs.NOTHING, management.ready, _GET),
    "_reload": Command(Needs.MANAGE, management.reload, ("GET", "POST")),
    "_rollback": Command(Needs.RIGHTS, management.rollback, _POST, ("root_oid", "backto")),
    "_roots": Command(Needs.RIGHTS, management.roots, _GET),
    "_rpc": Command(Needs.RIGHTS, management.rpc, _POST, ("path",)),
    "_ss": Command(Needs.MANAGE, management.snapshot, _POST),
    "_subscribers": Command(Needs.MONITOR, management.subscribers, _GET),
    "_sync": Command(Needs.MONITOR, management.sync, _POST),
}


class App:
    """Answers every call, from the tables above."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, call: Call) -> Answer:
        """Find the handler and call it.

        :raises TegaError: where there is none, or it refuses
        """
        if not call.path.startswith("/_"):
            if call.who.helpless:
                raise call.who.refused("use this server")
            found = DOCUMENTS.get(call.method)
            if found is None:
                return _not_allowed(call, DOCUMENTS)
        else:
            found = _command(call)
            if call.method not in found.methods:
                return _not_allowed(call, found.methods)
            if call.method == "GET" and "POST" in found.methods:
                check_page(call.headers)
        call.allow(*found.params, "tega_id")
        if call.optional("tega_id") is not None:
            client_id(call)
        return found.handler(self._context, call)


def _command(call: Call) -> Command:
    name = call.path[1:].removesuffix("/")
    command = COMMANDS.get(name)
    who = call.who
    if command is None:
        if who.helpless:
            raise who.refused("ask for anything")
        raise NoSuchCommand(
            f"no command /{name[:64]}: names that start with '_' are commands, not data. There are "
            + ", ".join(f"/{known}" for known in COMMANDS)
        )
    needs = command.needs
    if needs is not Needs.NOTHING and (
        who.helpless
        or (needs is Needs.MANAGE and not who.manage)
        or (needs is Needs.MONITOR and not who.monitor)
    ):
        raise who.refused(f"use /{name}")
    return command


def _not_allowed(call: Call, methods: Iterable[str]) -> Response:
    allowed = ", ".join(sorted(methods))
    error = MethodNotAllowed(
        f"{call.method[:32]} is not offered at {call.path[:128]}; these are: {allowed}",
        allow=sorted(methods),
    )
    return error_response(error, headers={"Allow": allowed})
