"""``/_metrics`` of real servers, read by Prometheus' own parser."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adapters import send
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from service import ROOT, Service, check
from wsclient import Ended, WSClient

PATIENCE = 20.0


class Scraped:
    """What a server told once."""

    def __init__(self, port: int) -> None:
        reply = send(port, "GET", "/_metrics")
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(reply.body.decode())
        }
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """A number; 0 where there is none yet."""
        return self.samples.get((name, *sorted(labels.items())), 0.0)


def wait_for(port: int, what: Callable[[Scraped], bool]) -> Scraped:
    """Scrape until something is so."""
    until = time.monotonic() + PATIENCE
    while not what(scraped := Scraped(port)):
        assert time.monotonic() < until, scraped.samples
        time.sleep(0.02)
    return scraped


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    started = Service(tmp_path, "-t", "srv", "--max-subscriptions", "2")
    yield started
    assert started.end()[0] == 0
    check(tmp_path, "srv")


def documented() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Of each metric of the document its type, labels and meaning."""
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (\w+) \| (.*?) \| (.*) \|$",
        (ROOT / "doc/metrics.md").read_text(), re.MULTILINE,
    )
    return {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in rows
    }


def test_the_document_has_every_family_and_no_other(service: Service) -> None:
    found = {}
    for family in Scraped(service.port).families.values():
        # The parser leaves out what all counters end with.
        name = family.name + "_total" * (family.type == "counter")
        found[name] = (family.type, family.documentation)
    table = documented()
    assert found == {name: (kind, text) for name, (kind, _, text) in table.items()}


def test_labels_are_those_of_the_document(service: Service) -> None:
    use_everything(service)
    table = documented()
    seen = set()
    for family in Scraped(service.port).families.values():
        name = family.name + "_total" * (family.type == "counter")
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(table[name][1]), sample
            seen.add(name)
    # No peer is here, and nothing is stale.
    assert table.keys() - seen == {"tega_peer_lag_versions"}


def test_names_are_as_prometheus_wants_them(service: Service) -> None:
    for name, (kind, labels, text) in documented().items():
        assert (kind == "counter") is name.endswith("_total")
        assert text
        if name.startswith("tega_"):
            assert not set(labels) & {"path", "key", "tega_id", "session"} or name == "tega_info"
        if kind == "histogram":
            assert name.endswith(("_seconds", "_commits"))


def use_everything(service: Service) -> None:
    """Three puts, a get, a delete, a refusal of each kind, a session with all that it can do."""
    for number in range(3):
        assert service.ask("PUT", f"/r/x{number}/", number)[0] == 200
    assert service.ask("GET", "/r/")[0] == 200
    assert service.ask("DELETE", "/r/x0/")[0] == 200
    assert service.ask("GET", "/nothing/")[0] == 404
    assert service.ask("POST", "/_rpc?path=r.f")[0] == 404
    assert service.ask("PATCH", "/r/")[0] == 405
    assert service.ask("POST", "/_ss")[0] == 200
    assert service.ask("POST", "/_begin")[0] == 200
    with WSClient(service.port, "one") as one, WSClient(service.port, "two") as two:
        one.send("SUBSCRIBE r local False", "SUBSCRIBE news local False")
        one.send("SUBSCRIBE third local False")
        assert one.receive().words == ["ERROR", "over_limit"]
        two.send('REQUEST 1 TX two -\n{"ops":[{"ope":"PUT","path":"r.y","instance":1}]}')
        assert two.receive().command == "RESPONSE"
        assert one.receive().command == "NOTIFY"
        two.send('PUBLISH news\n{"message":1}')
        assert one.receive().command == "MESSAGE"
        two.send("ROLLBACK r -1")
        assert one.receive().command == "NOTIFY"
        two.send('NOTIFY\n[{"ope":"PUT","path":"r.z","instance":1}]')
        assert one.receive().command == "NOTIFY"
        two.send("REQUEST 2 RPC two r.none\n{}")
        assert two.receive().words[-1] == "ERROR"


def test_counts_are_right(service: Service) -> None:
    before = Scraped(service.port)
    assert before("tega_commits_total") == 0
    use_everything(service)
    now = wait_for(service.port, lambda scraped: scraped("tega_websockets") == 0)
    expected = {
        ("GET", "200"): 1, ("GET", "404"): 1, ("PUT", "200"): 3, ("DELETE", "200"): 1,
        ("POST", "200"): 2, ("POST", "404"): 1, ("other", "405"): 1, ("GET", "101"): 2,
    }  # fmt: skip
    counts = {
        (verb, status): now("tega_http_requests_total", verb=verb, status=status)
        for verb, status in expected
    }
    # The scrapes are GETs too, each but the one that tells.
    scrapes = counts["GET", "200"] - 1
    assert scrapes >= 1
    assert counts == {**expected, ("GET", "200"): 1 + scrapes}
    # _rpc, _ss, _begin, and twice _pubsub.
    kinds = {"get": 2, "put": 3, "delete": 1, "command": 5 + scrapes, "other": 1}
    for kind, count in kinds.items():
        assert now("tega_http_request_seconds_count", kind=kind) == count, kind
    # Three puts, a delete, a TX, a rollback, a NOTIFY.
    assert now("tega_commits_total") == now("tega_commit_seconds_count") == 7
    assert now("tega_sequence_number") == 7
    assert now("tega_log_sync_commits_sum") == 7
    assert now("tega_log_sync_seconds_count") == now("tega_log_sync_commits_count") > 0
    assert now("tega_roots") == 1
    assert now("tega_snapshots_total", outcome="done") == 1
    assert now("tega_snapshots_total", outcome="failed") == 0
    assert now("tega_log_segments") == before("tega_log_segments") + 1 == 2
    assert abs(now("tega_snapshot_timestamp_seconds") - time.time()) < 60
    assert now("tega_transactions_open") == 1
    refused = {"not_found": 1, "method_not_allowed": 1, "over_limit": 1, "no_such_function": 2}
    for code, count in refused.items():
        assert now("tega_refusals_total", code=code) == count, code
    assert sum(now.samples[k] for k in now.samples if k[0] == "tega_refusals_total") == 5
    assert now("tega_limit_hits_total", limit="subscriptions") == 1
    commands = {"SESSION": 2, "SUBSCRIBE": 3, "REQUEST": 2, "PUBLISH": 1, "ROLLBACK": 1}
    for command, count in commands.items():
        assert now("tega_session_messages_total", command=command) == count, command
    for kind in ("TX", "NOTIFY", "ROLLBACK"):
        assert now("tega_session_request_seconds_count", kind=kind) == 1, kind
    assert now("tega_notices_sent_total") == 3
    assert now("tega_messages_sent_total") == 1
    assert now("tega_calls_total", outcome="no_such_function") == 2
    assert now("tega_connections_total") >= 2 + 10
    assert now("tega_http_connections") == 1


def test_who_watches_is_counted_while_they_do(service: Service) -> None:
    with WSClient(service.port, "one") as one, WSClient(service.port):
        one.send("SUBSCRIBE a local False", "SUBSCRIBE b local False")
        now = wait_for(service.port, lambda scraped: scraped("tega_subscriptions") == 2)
        assert now("tega_watchers") == now("tega_sessions") == 1
        assert now("tega_websockets") == 2
        assert now("tega_http_connections") == 1
    now = wait_for(service.port, lambda scraped: scraped("tega_websockets") == 0)
    assert now("tega_watchers") == now("tega_subscriptions") == now("tega_sessions") == 0


def test_a_slow_watcher_shows(service: Service) -> None:
    with WSClient(service.port, "slow", window=4096) as slow, WSClient(service.port, "w") as writer:
        slow.send("SUBSCRIBE r local False")
        wait_for(service.port, lambda scraped: scraped("tega_subscriptions") == 1)
        text = "x" * 500_000
        body = json.dumps({"ops": [{"ope": "PUT", "path": "r", "instance": text}]})
        for number in range(40):
            writer.send(f"REQUEST {number} TX w -\n{body}")
            assert writer.receive().command == "RESPONSE"
        now = Scraped(service.port)
        assert now("tega_watchers_behind") == now("tega_watchers_fell_behind_total") == 1
        assert 0 < now("tega_watcher_lag_commits") <= 40
        assert now("tega_outbox_bytes") > 1 << 20


def test_calls_are_counted_by_outcome(service: Service) -> None:
    with WSClient(service.port, "owner") as owner:
        put = {"ope": "PUT", "path": "f", "instance": "%owner.f", "ephemeral": True}
        owner.send(f"REQUEST 1 TX owner -\n{json.dumps({'ops': [put]})}")
        assert owner.receive().words == ["RESPONSE", "1", "TX", "owner"]
        with WSClient(service.port, "caller") as caller:
            for number in (1, 2):
                caller.send(f"REQUEST {number} RPC caller f\n{{}}")
                asked = owner.receive()
                error = " ERROR" if number == 2 else ""
                answer = '{"message":"no"}' if number == 2 else "1"
                owner.send(f"RESPONSE {asked.words[1]} RPC caller{error}\n{answer}")
                assert (caller.receive().words[-1] == "ERROR") is (number == 2)
    now = Scraped(service.port)
    assert now("tega_calls_total", outcome="done") == 1
    assert now("tega_calls_total", outcome="call_failed") == 1
    assert now("tega_call_seconds_count") == 2
    assert now("tega_session_request_seconds_count", kind="RPC") == 2


def test_histograms_are_consistent(service: Service) -> None:
    use_everything(service)
    checked = 0
    for family in Scraped(service.port).families.values():
        if family.type != "histogram":
            continue
        series: dict[Any, list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                labels = dict(sample.labels)
                bound = float(labels.pop("le"))
                series.setdefault(tuple(sorted(labels.items())), []).append((bound, sample.value))
        told = {(s.name, *sorted(s.labels.items())): s.value for s in family.samples}
        for labels, buckets in series.items():
            bounds, counts = zip(*buckets, strict=True)
            assert list(bounds) == sorted(bounds)
            assert bounds[-1] == float("inf")
            assert list(counts) == sorted(counts)
            count = told[(f"{family.name}_count", *labels)]
            total = told[(f"{family.name}_sum", *labels)]
            assert counts[-1] == count
            assert (total > 0) is (count > 0)
            # No value is above its bound, nor below the one before.
            each = [n - before for n, before in zip(counts, (0, *counts), strict=False)]
            lower = sum(n * b for n, b in zip(each, (0, *bounds[:-1]), strict=True))
            assert lower <= total * 1.000001
            if counts[-1] == counts[-2]:
                upper = sum(n * b for n, b in zip(each, bounds, strict=True) if n)
                assert total <= upper * 1.000001
            checked += 1
    assert checked > 10


def test_a_read_only_database_is_told_of(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    service = Service(tmp_path, "-t", "a", before=limit)
    assert service.ask("PUT", "/r/", "kept")[0] == 200
    assert Scraped(service.port)("tega_read_only") == 0
    assert service.ask("GET", "/_ready") == (200, {"status": "ready", "tega_id": "a"})
    assert service.ask("PUT", "/r/", "x" * 30_000)[0] == 503
    assert service.ask("PUT", "/r/", 1)[0] == 503
    now = Scraped(service.port)
    assert now("tega_read_only") == 1
    assert now("tega_refusals_total", code="outcome_unknown") == 1
    assert now("tega_refusals_total", code="read_only") == 1
    assert now("tega_commits_total") == now("tega_commit_seconds_count") == 1
    status, refused = service.ask("GET", "/_ready")
    assert (status, refused["error"]["code"]) == (503, "read_only")
    assert "Mend the disk" in refused["error"]["message"]
    assert service.end()[0] == 0


def test_a_thousand_scrapes_leave_nothing(service: Service) -> None:
    use_everything(service)
    pid = service.process.pid

    def held() -> tuple[int, int]:
        status = Path(f"/proc/{pid}/status").read_text()
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        return int(resident), len(os.listdir(f"/proc/{pid}/fd"))

    for _ in range(100):
        Scraped(service.port)
    families, before = Scraped(service.port).samples.keys(), held()
    for _ in range(1000):
        assert send(service.port, "GET", "/_metrics").status == 200
    assert Scraped(service.port).samples.keys() == families
    after = held()
    assert after[1] <= before[1] + 1
    assert after[0] - before[0] < 2048, "kB"


def test_what_clients_make_up_is_no_label(service: Service) -> None:
    before = Scraped(service.port).samples.keys()
    for number in range(50):
        send(service.port, f"VERB{number}", f"/k{number}/")
        send(service.port, "GET", f"/_command{number}?tega_id=c{number}")
        with WSClient(service.port, f"client{number}") as client:
            client.send(f"NONSENSE{number}")
            assert client.receive().command == "ERROR"
    # One verb and its statuses, one command of a session.
    assert len(Scraped(service.port).samples.keys() - before) <= 5


def test_an_event_loop_that_is_held_up_shows(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/slow.py").write_text(
        "import time\nfrom tega.subscriber import PlugIn\n\n\n"
        "class Slow(PlugIn):\n    def initialize(self):\n        self.subscribe('go')\n\n"
        "    def on_notify(self, changes):\n        time.sleep(0.4)\n"
    )
    service = Service(tmp_path / "var", "-t", "a", "-e", str(tmp_path))
    assert Scraped(service.port)("tega_event_loop_lag_seconds") < 0.3
    assert service.ask("PUT", "/go/", 1)[0] == 200
    now = wait_for(service.port, lambda now: now("tega_event_loop_lag_seconds") > 0.3)
    assert now("tega_event_loop_lag_seconds") < 5
    assert service.end()[0] == 0


def test_peers_are_told_of(tmp_path: Path) -> None:
    above = Service(tmp_path / "g", "-t", "g")
    assert Scraped(above.port)("tega_peer_expected") == 0
    below = Service(
        tmp_path / "l", "-t", "l", "-P", str(above.port), "-C", "config", "-O", "op",
        "--ping-interval", "0.3", "--ping-timeout", "1",
    )  # fmt: skip
    now = wait_for(below.port, lambda now: now("tega_peers", role="global") == 1)
    assert now("tega_peer_expected") == 1
    for number in range(5):
        assert above.ask("PUT", "/config/", number)[0] == 200
        assert below.ask("PUT", "/op/", number)[0] == 200

    def caught_up(now: Scraped) -> bool:
        lag = [value for key, value in now.samples.items() if key[0] == "tega_peer_lag_versions"]
        return len(lag) == 2 and not any(lag)

    wait_for(above.port, caught_up)
    now = wait_for(below.port, caught_up)
    assert ("tega_peer_lag_versions", ("follower", "here"), ("peer", "g")) in now.samples
    assert Scraped(above.port)("tega_peers", role="local") == 1
    assert above.end()[0] == 0
    now = wait_for(below.port, lambda now: now("tega_roots_stale") == 1)
    assert now("tega_peers", role="global") == 0
    # It can be used all the same.
    assert below.ask("GET", "/_ready")[0] == 200
    assert below.ask("GET", "/_health")[1]["status"] == "degraded"
    assert below.ask("PUT", "/op/", "still")[0] == 200
    assert below.end()[0] == 0


def test_a_message_that_is_too_large_is_a_limit_hit(tmp_path: Path) -> None:
    service = Service(tmp_path, "-t", "a", "--max-body", "1000")
    with WSClient(service.port, "eve") as client:
        client.send("PUBLISH a\n" + "x" * 100_000)
        with pytest.raises(Ended):
            client.receive()
    assert send(service.port, "PUT", "/a/", b'"' + b"x" * 2000 + b'"').status == 413
    assert send(service.port, "GET", "/" + "x" * 100_000).status == 414
    now = Scraped(service.port)
    assert now("tega_limit_hits_total", limit="body") == 2
    assert now("tega_limit_hits_total", limit="url") == 1
    assert now("tega_refusals_total", code="too_large") == 2
    status, messages = service.end()
    assert status == 0
    refused = [line for line in messages.splitlines() if " tega.refusals: " in line]
    assert len(refused) == 3
    assert "too_large: eve at 127.0.0.1: a message: " in refused[0]
    assert "too_large: anonymous at 127.0.0.1: PUT /a/: " in refused[1]
    assert "url_too_long: anonymous at 127.0.0.1: GET /xxx" in refused[2]
