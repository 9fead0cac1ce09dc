"""Sessions of servers, spoken by hand: what only they may say, and two of them with one tega id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, check
from wsclient import Ended, WSClient


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("peers")
    started = Service(directory, "-t", "srv")
    yield started
    assert started.end()[0] == 0
    check(directory, "srv")


def server(service: Service, tega_id: str) -> WSClient:
    """A local server with that id, connected."""
    client = WSClient(service.port)
    client.begin(tega_id, "global")
    client.send(f"REQUEST 1 SYNC {tega_id} -\n{{}}")
    answer = client.receive()
    assert answer.words == ["RESPONSE", "1", "SYNC", tega_id]
    assert answer.body == {"above": ["srv"], "have": {}, "refused": {}, "sessions": []}
    return client


def test_a_client_is_no_server(service: Service) -> None:
    with WSClient(service.port, "client") as client:
        client.send("PEER applied\n{}")
        assert client.receive().words == ["ERROR", "not_understood"]
        client.send("REQUEST 1 SYNC client -\n{}")
        answer = client.receive()
        assert answer.words[-1] == "ERROR"
        assert answer.body["code"] == "no_peer"


@pytest.mark.parametrize(
    "text",
    ['PEER applied\n{"a":{"x":"1"}}', "PEER commit\n{}", 'PEER root\n{"root":"a"}', "PEER left\n1"],
)
def test_a_server_that_says_what_cannot_be_is_hung_up_on(service: Service, text: str) -> None:
    with server(service, "odd") as client:
        client.send(text)
        with pytest.raises(Ended) as ended:
            client.receive()
        assert ended.value.code == 4003


def test_a_request_that_cannot_be_is_answered(service: Service) -> None:
    with server(service, "asks") as client:
        client.send("REQUEST 2 REFER asks -\n{}")
        assert client.receive().body["code"] == "not_understood"
        client.send('REQUEST 3 SYNC asks -\n{"lead":{"_x":"asks"}}')
        assert client.receive().body["code"] == "malformed"
        client.send('REQUEST 4 TX asks -\n{"ops":[{"ope":"GET"}]}')
        assert client.receive().body["code"] == "malformed"
        client.send('REQUEST 5 TX asks -\n{"ops":[],"txid":null}')
        assert client.receive().words == ["RESPONSE", "5", "TX", "asks"]


def test_the_id_of_a_server_is_kept_for_the_one_that_answers(service: Service) -> None:
    with server(service, "twin") as first, WSClient(service.port) as second:
        second.send("SESSION twin local")
        second.send("SUBSCRIBE a local")
        # It answers pings while it waits for the next message.
        assert first.receive().words == ["ERROR", "refused"]
        said = second.receive()
        assert said.words == ["ERROR", "refused"]
        assert "two servers have the tega id twin" in said.body["message"]
        with pytest.raises(Ended):
            second.receive()
        assert service.ask("GET", "/_subscribers")[1].get("twin") is None


def test_a_server_that_does_not_answer_gives_up_its_id(service: Service) -> None:
    with server(service, "gone"), WSClient(service.port) as second:
        # The first one reads no more, and so answers no ping.
        second.send("SESSION gone local")
        second.send("SUBSCRIBE a local")
        second.send('REQUEST 1 TX gone -\n{"ops":[]}')
        assert second.receive().words == ["SESSIONACK", "srv"]
        assert second.receive().words == ["RESPONSE", "1", "TX", "gone"]
        assert service.ask("GET", "/_subscribers")[1]["gone"] == ["a"]


def test_a_directory_is_as_it_was(tmp_path: Path, service: Service) -> None:
    """What servers claim is in the log, and in the way of nothing else."""
    with server(service, "leads") as client:
        client.send('REQUEST 2 SYNC leads -\n{"lead":{"theirs":"leads"}}')
        assert client.receive().body["have"] == {"theirs": None}
    status, error = service.ask("PUT", "/theirs/", 1)
    assert status == 503
    assert error["error"]["leader"] == "leads"
    assert service.ask("POST", "/_release?root_oid=theirs")[0] == 200
    assert service.ask("PUT", "/theirs/", 1)[0] == 200
