"""The REST interface as OpenAPI 3.1, made from the tables that the server itself works by.

URLs, methods, parameters and what a command needs come from the table of URLs; codes and statuses
of refusals from `tega.errors`; texts from docstrings. What is left to say stands here: what the
parameters mean, what is answered, and what may refuse.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from tega import __version__, errors
from tega.paths import MAX_KEY, MAX_TXID
from tega.web.commands import Command, Needs

Json: TypeAlias = dict[str, Any]
Refusals: TypeAlias = tuple[type[errors.TegaError], ...]


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(required: Iterable[str] = (), more: Any = False, **properties: Any) -> Json:
    made: Json = {"type": "object", "properties": properties, "additionalProperties": more}
    if required:
        made["required"] = [*required]
    return made


def _by_name(value: Json) -> Json:
    return {"type": "object", "additionalProperties": value}


def _list(value: Json) -> Json:
    return {"type": "array", "items": value}


_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_TXID: Final[Json] = _object(["txid"], txid=_TEXT)
_CHANGED: Final[Json] = _ref("Changed")
_OPEN: Final[Json] = _object()

_SCHEMAS: Final[Mapping[str, Json]] = {
    "Key": {
        "type": "string",
        "minLength": 1,
        "pattern": "^[^_]",
        "description": f"At most {MAX_KEY} bytes of UTF-8, not beginning with `_`.",
    },
    "Value": {
        "description": "A leaf, or a container: an object.",
        "anyOf": [
            {"type": ["null", "boolean", "number", "string", "array"]},
            {
                "type": "object",
                "propertyNames": _ref("Key"),
                "additionalProperties": _ref("Value"),
            },
        ],
    },
    "Changed": _object(
        ["seq", "versions"],
        seq={**_COUNT, "description": "Sequence number of the commit."},
        versions={**_by_name(_COUNT), "description": "The new version of each root changed."},
    ),
    "Error": _object(
        ["error"],
        error=_object(
            ["code", "message"],
            more=True,
            code={"type": "string", "enum": sorted(errors.BY_CODE)},
            message={
                **_TEXT, "description": "What was wrong with which path or parameter, for people."
            },
        ),
    ),
}  # fmt: skip


class Param(NamedTuple):
    """A parameter of a query."""

    schema: Json
    meaning: str


_NAME: Final[Json] = {"type": "string", "minLength": 1}
_TEGA_ID: Final[Json] = {
    "type": "string", "maxLength": MAX_KEY, "pattern": "^[A-Za-z0-9.-][A-Za-z0-9._-]*$"
}  # fmt: skip
_FLAG: Final[Json] = {"enum": ["True", "true", "1", "False", "false", "0"]}
_NUMBER: Final[Json] = {"type": "integer", "minimum": 1 - 10**18, "maximum": 10**18 - 1}

_PARAMS: Final[Mapping[str, Param]] = {
    "backto": Param(_NUMBER, "A version of the root, or from -1 on so many back."),
    "consistent": Param(_FLAG, "Ask the leaders of followed roots for what they have now."),
    "ephemeral": Param(_FLAG, "The node goes with the session of `tega_id`."),
    "internal": Param(_FLAG, "With versions and other attributes of each node."),
    "old_roots": Param(_FLAG, "The old versions too."),
    "path": Param(_NAME, "Of the function, with dots."),
    "regex_flag": Param(
        _FLAG, "The path is a pattern: a regular expression for each level, split at `\\\\.`."
    ),
    "root_oid": Param(_TEXT, "The name of a root."),
    "tega_id": Param(_TEGA_ID, "Who asks. It may be one of the identity's own only."),
    "txid": Param(_TEXT, "An open transaction. Operations in it answer with its id alone."),
    "version": Param(
        _NUMBER,
        "For a GET an old version, below 0 so many back. For a change the version that the node "
        "must have; -1 with PUT: there must be none.",
    ),
}


class Told(NamedTuple):
    """What an operation takes and answers, beside what the table of URLs says.

    :ivar answer: schema of the body with status 200
    :ivar refusals: why it may be refused, beside what any request may be refused for
    :ivar required: parameters that must be there
    :ivar body: schema of the request's body; None: it has none
    :ivar headers: of the answer, with their meaning
    :ivar content: type of the answer
    :ivar more: further statuses, each with its meaning, and a body as any refusal
    """

    answer: Json
    refusals: Refusals = ()
    required: tuple[str, ...] = ()
    body: Json | None = None
    headers: Mapping[str, str] = {}
    content: str = "application/json"
    more: Mapping[int, str] = {}


#: Why any request may be refused.
_ANY: Final[Refusals] = (
    errors.Malformed, errors.Unauthorized, errors.Forbidden, errors.TooLarge, errors.UrlTooLong,
    errors.OverLimit,
)  # fmt: skip
_CHANGE: Final[Refusals] = (errors.NotFound, errors.Refused, errors.Unavailable)

#: A part of an answer that is due only to who may look at the server's state.
_HEALTH: Final[Json] = _object(
    ["status"],
    status={"enum": ["ok", "degraded", "read_only"]},
    tega_id=_TEXT, life=_TEXT, seq=_COUNT, roots=_COUNT, reason=_TEXT,
    peers=_list(_object(
        ["role", "state", "tega_id"], more=True,
        role={"enum": ["global", "local"]}, state=_TEXT, tega_id={"type": ["string", "null"]},
    )),
)  # fmt: skip

_READ: Final = Told(
    {},
    (errors.NotFound, errors.Unavailable),
    headers={
        "Etag": "The node's version, or the sequence number of the database; none with a pattern.",
        "Tega-Stale": "The roots, as URLs, whose leaders are away: there may be newer versions.",
    },
)
_DOCUMENTS: Final[Mapping[str, Told]] = {
    "GET": _READ,
    "PUT": Told({"anyOf": [_CHANGED, _TXID]}, _CHANGE, body=_ref("Value")),
    "DELETE": Told({"anyOf": [_CHANGED, _TXID]}, _CHANGE),
}

_COMMANDS: Final[Mapping[str, Told]] = {
    "_applied": Told(_by_name(_COUNT), (errors.NotFound,), ("root_oid",)),
    "_begin": Told(_TXID),
    "_cancel": Told(_TXID, (errors.NotFound,), ("txid",)),
    "_cand": Told(
        _list(_object(["_oid"], more=True, _oid=_TEXT)), (errors.NotFound, errors.Refused),
        ("txid",),
    ),
    "_channels": Told(_by_name(_list(_TEXT))),
    "_clear": Told(_object(["life"], life=_TEXT), (errors.Unavailable,)),
    "_commit": Told(
        _CHANGED, _CHANGE, ("txid",), more={406: "A collision: the whole transaction is refused."}
    ),
    "_edges": Told(
        _list({"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}), (errors.NotFound,)
    ),
    "_forwarders": Told(_list(_TEXT)),
    "_global": Told(_list(_list(_TEXT))),
    "_health": Told(_HEALTH, more={503: "As with 200: the database is read-only."}),
    "_ids": Told(_list(_TEXT)),
    "_metrics": Told(_TEXT, content="text/plain"),
    "_old": Told(_list(_by_name(_list(_COUNT)))),
    "_openapi": Told(_object(["openapi"], more=True, openapi={"const": "3.1.0"})),
    "_plugins": Told(_by_name({"enum": ["local", "global"]})),
    "_ready": Told(
        _object(["status", "tega_id"], status={"const": "ready"}, tega_id=_TEXT),
        (errors.Unavailable,),
    ),
    "_release": Told(
        _CHANGED, (errors.NotFound, errors.Refused, errors.Unavailable), ("root_oid",)
    ),
    "_reload": Told(_by_name({"enum": ["local", "global"]})),
    "_rollback": Told(_CHANGED, _CHANGE, ("root_oid", "backto")),
    "_roots": Told(_by_name(_COUNT)),
    "_rpc": Told(
        _object(["result"], result={}),
        (
            errors.NotFound, errors.Refused, errors.CallFailed, errors.CallTimeout,
            errors.Unavailable,
        ),
        ("path",),
        body=_object(args=_list({}), kwargs=_by_name({})),
    ),
    "_ss": Told(_object(["seq"], seq=_COUNT), (errors.Unavailable,)),
    "_subscribers": Told(_by_name(_list(_TEXT))),
    "_sync": Told(_OPEN, (errors.NotFound, errors.Unavailable)),
}  # fmt: skip

_HEAD: Final = """\
JSON in and out, UTF-8. A path has one percent-encoded key a segment; generators that know no path
of several segments reach the level below a root. `/_pubsub` begins a WebSocket. What any request
may meet beside what is listed: 405 with `Allow`, 404 `no_such_command`, and 500 for a bug."""

_KEY_HEADER: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Sent again with the same key it gives the first answer, and changes nothing.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_TXID},
}


def describe(commands: Mapping[str, Command], documents: Mapping[str, Command]) -> Json:
    """The whole description.

    :param commands: by the names in their URLs
    :param documents: what is done with documents, by method
    """
    # Nothing of these has a meaning for the whole database.
    params = [p for p in documents["GET"].params if p not in ("version", "regex_flag")]
    whole = documents["GET"]._replace(params=tuple(params))
    paths: Json = {"/": _item("", "", {"GET": whole}, _DOCUMENTS)}
    for url in ("/{root}/", "/{root}/{path}/"):
        paths[url] = _item(url, "", documents, _DOCUMENTS)
    for name, command in sorted(commands.items()):
        methods = dict.fromkeys(command.methods, command)
        told = dict.fromkeys(command.methods, _COMMANDS[name])
        paths[f"/{name}"] = _item("", name, methods, told)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tega db", "version": __version__, "description": " ".join(_HEAD.split()),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(_SCHEMAS),
            "responses": _refused(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip


def _item(
    url: str, name: str, methods: Mapping[str, Command], told: Mapping[str, Told]
) -> Json:
    item: Json = {
        method.lower(): _operation(method, name, command, told[method], url)
        for method, command in methods.items()
    }
    places = {"root": "The name of a root.", "path": "Keys, with a slash between two."}
    found = [place for place in places if "{" + place + "}" in url]
    if found:
        item["parameters"] = [
            {
                "name": place, "in": "path", "required": True, "schema": _ref("Key"),
                "description": places[place],
            }
            for place in found
        ]  # fmt: skip
    return item


def _operation(method: str, name: str, command: Command, told: Told, url: str) -> Json:
    text, _, more = (inspect.getdoc(command.handler) or "").partition("\n")
    level = {"": "All", "/{root}/": "Root", "/{root}/{path}/": "Node"}[url]
    params: list[Json] = [
        {
            "name": param,
            "in": "query",
            "required": param in told.required,
            "description": _PARAMS[param].meaning,
            "schema": _PARAMS[param].schema,
        }
        for param in (*command.params, "tega_id")
    ]
    if _CHANGED in (told.answer, *told.answer.get("anyOf", ())):
        params.append(_KEY_HEADER)
    needs = command.needs
    made: Json = {
        "operationId": method.lower() + (name.strip("_").title() or level),
        "summary": text,
        "parameters": params,
        "security": [{}, {"token": []}],
        "responses": _responses(told),
    }
    note = {
        Needs.NOTHING: "",
        Needs.RIGHTS: "Needs rights on what it is about.",
        Needs.MONITOR: "Needs to be allowed to monitor the server.",
        Needs.MANAGE: "Needs to be allowed to manage the server.",
    }[needs]
    description = " ".join(" ".join(part.split()) for part in (more.split(":param")[0], note))
    if description.strip():
        made["description"] = description.strip()
    if told.body is not None:
        made["requestBody"] = {
            "required": name == "", "content": {"application/json": {"schema": told.body}}
        }  # fmt: skip
    return made


def _responses(told: Told) -> Json:
    good: Json = {"description": "Done.", "content": {told.content: {"schema": told.answer}}}
    if told.headers:
        good["headers"] = {
            name: {"description": meaning, "schema": _TEXT}
            for name, meaning in told.headers.items()
        }
    made: Json = {"200": good}
    for status in sorted({error.status for error in _ANY + told.refusals}):
        made[str(status)] = _ref(_component(status), "responses")
    for status, meaning in told.more.items():
        schema = _ref("Error") if status == 406 else told.answer
        made[str(status)] = {
            "description": meaning, "content": {"application/json": {"schema": schema}}
        }  # fmt: skip
    return made


def _component(status: int) -> str:
    return f"Refused{status}"


def _refused() -> Json:
    """A refusal for each status that there is, with the codes that have it."""
    codes: dict[int, list[str]] = {}
    for code, error in sorted(errors.BY_CODE.items()):
        if not issubclass(error, errors.LogError) and error.status != 500:
            codes.setdefault(error.status, []).append(code)
    made = {}
    for status, known in sorted(codes.items()):
        schema = {
            "allOf": [
                _ref("Error"),
                {"properties": {"error": {"properties": {"code": {"enum": known}}}}},
            ]
        }
        made[_component(status)] = {
            "description": " or ".join(f"`{code}`" for code in known),
            "content": {"application/json": {"schema": schema}},
        }
    return made
