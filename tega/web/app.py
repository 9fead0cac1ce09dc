"""The table of URLs: which handler answers what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from tega.errors import MethodNotAllowed, NoSuchCommand
from tega.web import documents, management
from tega.web import metrics as prometheus
from tega.web.context import Context
from tega.web.http import Answer, Call, Response, error_response

Endpoint: TypeAlias = Callable[[Context, Call], Answer]
Methods: TypeAlias = Mapping[str, Endpoint]

DOCUMENTS: Final[Methods] = {
    "GET": documents.get,
    "PUT": documents.put,
    "DELETE": documents.delete,
}

COMMANDS: Final[Mapping[str, Methods]] = {
    "_applied": {"GET": management.applied},
    "_begin": {"POST": management.begin},
    "_cancel": {"POST": management.cancel},
    "_cand": {"POST": management.cand},
    "_channels": {"GET": management.channels},
    "_clear": {"POST": management.clear},
    "_commit": {"POST": management.commit},
    "_edges": {"GET": management.edges_of},
    "_forwarders": {"GET": management.forwarders},
    "_global": {"GET": management.global_channels},
    "_health": {"GET": management.health},
    "_ids": {"GET": management.ids},
    "_metrics": {"GET": prometheus.metrics},
    "_old": {"GET": management.old},
    "_plugins": {"GET": management.plugins},
    "_release": {"POST": management.release},
    "_ready": {"GET": management.ready},
    "_reload": {"GET": management.reload, "POST": management.reload},
    "_rollback": {"POST": management.rollback},
    "_roots": {"GET": management.roots},
    "_rpc": {"POST": management.rpc},
    "_ss": {"POST": management.snapshot},
    "_subscribers": {"GET": management.subscribers},
    "_sync": {"POST": management.sync},
}


class App:
    """Answers every call, from the tables above."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, call: Call) -> Answer:
        """Find the handler and call it.

        :raises TegaError: where there is none, or it refuses
        """
        methods = DOCUMENTS if not call.path.startswith("/_") else _command(call.path)
        endpoint = methods.get(call.method)
        if endpoint is None:
            return _not_allowed(call, methods)
        return endpoint(self._context, call)


def _command(path: str) -> Methods:
    name = path[1:].removesuffix("/")
    methods = COMMANDS.get(name)
    if methods is None:
        raise NoSuchCommand(
            f"no command /{name[:64]}: names that start with '_' are commands, not data. There are "
            + ", ".join(f"/{known}" for known in COMMANDS)
        )
    return methods


def _not_allowed(call: Call, methods: Methods) -> Response:
    allowed = ", ".join(sorted(methods))
    error = MethodNotAllowed(
        f"{call.method[:32]} is not offered at {call.path[:128]}; these are: {allowed}",
        allow=sorted(methods),
    )
    return error_response(error, headers={"Allow": allowed})
