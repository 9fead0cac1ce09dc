"""The REST interface is as it is described: schemathesis makes requests of the description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from service import Service

from tega.access.keeper import add_token
from tega.web.app import COMMANDS, DOCUMENTS
from tega.web.openapi import describe

schemathesis = pytest.importorskip("schemathesis", reason="not there for Python 3.10")
checks = pytest.importorskip("schemathesis.checks")

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = describe(COMMANDS, DOCUMENTS)

checks.load_all_checks()
schema = schemathesis.openapi.from_dict(DESCRIPTION)

#: What is checked of each answer. Not that what fits the schema is taken: no schema can say how a
#: path with dots is written, or which operations fit together.
CHECKED = checks.CHECKS.get_by_names(
    [
        "not_a_server_error", "status_code_conformance", "content_type_conformance",
        "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    ]
)  # fmt: skip

few = settings(
    max_examples=10, derandomize=True, deadline=None, database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    plugins = str(ROOT / "plugins/global")
    started = Service(tmp_path_factory.mktemp("open"), "-t", "srv", "-e", plugins)
    started.ask("PUT", "/a/b/", {"c": 1})
    yield started
    assert started.end()[0] == 0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """With rules; and the token of one who may only read some of it."""
    directory = tmp_path_factory.mktemp("guarded")
    token = add_token(directory / "tokens.yaml", "reader")
    (directory / "access.yaml").write_text("rules:\n- {who: reader, on: a, may: r}\n")
    started = Service(directory, "-t", "srv")
    yield started, token
    assert started.end()[0] == 0


def called(case: Any, service: Service, **headers: str) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{service.port}", headers=headers or None, checks=CHECKED
    )


@schema.parametrize()
@few
def test_without_access_control(case: Any, service: Service) -> None:
    called(case, service)


@schema.parametrize()
@few
def test_with_a_token(case: Any, guarded: tuple[Service, str]) -> None:
    service, token = guarded
    called(case, service, Authorization=f"Bearer {token}")


@schema.parametrize()
@few
def test_without_a_token(case: Any, guarded: tuple[Service, str]) -> None:
    called(case, guarded[0])


#: Each operation done well, in this order: method, path of the description, what goes into the
#: path, query, body.
DONE: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = [
    ("PUT", "/{root}/", {"root": "d"}, {}, {"a": {"b": [1, None, 2.5, "x"]}}),
    ("PUT", "/{root}/{path}/", {"root": "d", "path": "c"}, {"version": "-1"}, None),
    ("GET", "/{root}/", {"root": "d"}, {"internal": "True"}, None),
    ("GET", "/{root}/", {"root": "d"}, {"version": "-1", "consistent": "1"}, None),
    ("GET", "/{root}/", {"root": r"d\..*"}, {"regex_flag": "1", "internal": "1"}, None),
    ("GET", "/{root}/{path}/", {"root": "d", "path": "c"}, {}, None),
    ("GET", "/", {}, {"internal": "1"}, None),
    ("DELETE", "/{root}/{path}/", {"root": "d", "path": "c"}, {"tega_id": "me"}, None),
    ("POST", "/_begin", {}, {}, None),
    ("PUT", "/{root}/", {"root": "t"}, {"txid": "TXID"}, 1),
    ("DELETE", "/{root}/", {"root": "d"}, {"txid": "TXID"}, None),
    ("POST", "/_cand", {}, {"txid": "TXID"}, None),
    ("POST", "/_commit", {}, {"txid": "TXID"}, None),
    ("POST", "/_begin", {}, {}, None),
    ("POST", "/_cancel", {}, {"txid": "TXID"}, None),
    ("POST", "/_rollback", {}, {"root_oid": "d", "backto": "0"}, None),
    # What was done before may have cleared what the plugins put.
    ("POST", "/_reload", {}, {}, None),
    ("POST", "/_rpc", {}, {"path": "operational-global.time"}, {"args": [], "kwargs": {}}),
    ("POST", "/_rpc", {}, {"path": "operational-global.time"}, None),
    *[
        ("GET", f"/{name}", {}, {"root_oid": "d"} if name == "_applied" else {}, None)
        for name, command in COMMANDS.items() if "GET" in command.methods
    ],
    ("GET", "/_edges", {}, {"root_oid": "d", "old_roots": "1"}, None),
    ("POST", "/_ss", {}, {}, None),
    ("DELETE", "/{root}/", {"root": "d"}, {}, None),
    ("POST", "/_clear", {}, {}, None),
]  # fmt: skip

#: These take two servers: see tests/peering.
OF_PEERS = {("POST", "/_sync"), ("POST", "/_release")}


def test_what_is_done_is_answered_as_described(service: Service) -> None:
    txid = ""
    for method, path, places, query, body in DONE:
        words = {} if body is None and method != "PUT" else {"body": body}
        case = schema[path][method].Case(
            path_parameters=places, media_type="application/json" if words else None,
            query={name: txid if text == "TXID" else text for name, text in query.items()},
            **words,
        )  # fmt: skip
        answer = case.call_and_validate(
            base_url=f"http://127.0.0.1:{service.port}", checks=CHECKED
        )
        assert answer.status_code == 200, (method, path, answer.text)
        if path == "/_begin":
            txid = answer.json()["txid"]


def test_all_that_is_described_is_done_above() -> None:
    described = {
        (method.upper(), path)
        for path, item in DESCRIPTION["paths"].items() for method in item if method != "parameters"
    }
    assert described - {one[:2] for one in DONE} == OF_PEERS


@pytest.mark.parametrize("name", COMMANDS)
def test_other_methods_are_refused(service: Service, name: str) -> None:
    for method in {"GET", "PUT", "POST", "DELETE", "PATCH"} - set(COMMANDS[name].methods):
        status, body = service.ask(method, f"/{name}")
        assert (status, body["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("name", COMMANDS)
def test_other_parameters_are_refused(service: Service, name: str) -> None:
    status, body = service.ask(COMMANDS[name].methods[0], f"/{name}?unheard=of")
    assert (status, body["error"]["code"]) == (400, "malformed")
    assert all(param in body["error"]["message"] for param in COMMANDS[name].params)
    status, body = service.ask(COMMANDS[name].methods[0], f"/{name}?tega_id=_no")
    assert (status, body["error"]["code"]) == (400, "malformed")


def test_the_document_is_what_is_served(service: Service) -> None:
    served = service.ask("GET", "/_openapi")
    assert served == (200, DESCRIPTION)
    written = json.loads((ROOT / "doc/openapi.json").read_text())
    assert written == DESCRIPTION, "run scripts/docs"
