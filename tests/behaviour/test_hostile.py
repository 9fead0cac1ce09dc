"""Clients that are up to no good: the server stays small, and serves everybody else."""

from __future__ import annotations

import json
import random
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from service import Service, check
from wsclient import BINARY, CLOSE, PING, Ended, WSClient, delete, frame, head, put

#: How much larger than at its start the server may be, bytes.
GROWTH = 60 << 20

#: Less than this counts as this: other processes may be at work too, seconds.
FLOOR = 0.05

#: What a test does to the server, it does for so long, seconds.
SPELL = 2.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    started = Service(
        tmp_path, "-t", "srv", "-l", "1", "--rpc-timeout", "1", "--max-subscriptions", "2000"
    )
    yield started
    status, _ = started.end()
    assert status == 0
    check(tmp_path, "srv")


def peak(service: Service) -> int:
    """The most memory that the server ever had, bytes."""
    for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise AssertionError("not Linux")


@contextmanager
def as_ever(service: Service) -> Iterator[None]:
    """What happens in here makes the server neither large nor slow for somebody else."""
    took: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        started = time.monotonic()
        other.put("other", len(took))
        took.append(time.monotonic() - started)

    def go_on() -> None:
        while not is_over.is_set() or len(took) < 20:
            ask()

    with WSClient(service.port, "other") as other:
        for _ in range(100):
            ask()
        quiet, size = statistics.median(took), peak(service)
        took.clear()
        asking = threading.Thread(target=go_on)
        asking.start()
        try:
            yield
        finally:
            is_over.set()
            asking.join()
        slow = statistics.median(took)
        assert slow < 10 * max(quiet, FLOOR), f"{1e3 * slow:.1f} ms instead of {1e3 * quiet:.1f} ms"
        assert max(took) < 5.0
        grown = peak(service) - size
        assert grown < GROWTH, f"grown by {grown >> 20} MiB"


def requests(number: int, body: Any, kind: str = "TX", path: str = "-") -> bytes:
    """Many requests, numbered on from a million, as their bytes."""
    text = json.dumps(body)
    return b"".join(
        frame(f"REQUEST {1_000_000 + n} {kind} h {path}\n{text}".encode()) for n in range(number)
    )


def drain(client: WSClient) -> threading.Thread:
    """Read and throw away all that comes."""

    def read() -> None:
        try:
            while client.socket.recv(1 << 16):
                pass
        except OSError:
            return

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    return reading


# -- what is sent without reading the answers -----------------------------------------------------

WIDE = {f"leaf{n}": "x" * 40 for n in range(10_000)}

#: What a client sends again and again without reading, and what was in the tree before.
FLOODS: dict[str, Callable[[], bytes]] = {
    "pings": lambda: frame(b"p" * 125, PING) * 1_000,
    "garbage": lambda: frame(b"x") * 1_000,
    "empty messages": lambda: frame(b"") * 1_000,
    "subscriptions": lambda: b"".join(
        frame(f"SUBSCRIBE a.k{n} local".encode()) for n in range(5_000)
    ),
    "subscriptions from the future": lambda: frame(b"SUBSCRIBE wide local False 999999") * 500,
    "pattern subscriptions": lambda: b"".join(
        frame(f"SUBSCRIBE .*{n}(a+)+$ local True".encode()) for n in range(5_000)
    ),
    "deep subscriptions": lambda: b"".join(
        frame(f"SUBSCRIBE r{n}.{'k.' * 100_000}k local".encode()) for n in range(10)
    ),
    "deep pattern subscriptions": lambda: b"".join(
        frame(f"SUBSCRIBE r{n}{'.*k' * 1_000} local True".replace(".*", r"\.").encode())
        for n in range(50)
    ),
    "reads of something long": lambda: requests(5_000, {"ops": [{"ope": "GET", "path": "wide"}]}),
    "puts": lambda: requests(5_000, {"ops": [put("h", "x" * 100)]}),
    "wrong requests": lambda: requests(5_000, {"ops": [{"ope": "NO"}]}),
    "calls of nothing": lambda: requests(5_000, {}, "RPC", "nothing"),
    "changes without answers": lambda: frame(
        b"NOTIFY\n" + json.dumps([put("h", "x" * 100)]).encode()
    ) * 500,
    "messages to itself": lambda: frame(b'PUBLISH h\n{"message":"%b"}' % (b"x" * 1_000)) * 100,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_from_a_client_that_reads_nothing(service: Service, kind: str) -> None:
    flood = FLOODS[kind]()
    with WSClient(service.port, "h", window=4096) as hostile:
        for part in range(4):
            hostile.put(f"wide.{part}", WIDE)
        hostile.subscribe("h")
        with as_ever(service):
            assert hostile.pour(flood, SPELL) > 0


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_from_a_client_that_reads_everything(service: Service, kind: str) -> None:
    flood = FLOODS[kind]()
    with WSClient(service.port, "h") as hostile:
        hostile.put("wide", {"a": 1})
        hostile.subscribe("h")
        reading = drain(hostile)
        with as_ever(service):
            hostile.pour(flood, SPELL)
        hostile.socket.shutdown(socket.SHUT_WR)
        reading.join(20)
        assert not reading.is_alive()


def test_it_goes_on_after_a_megabyte_of_refusals(service: Service) -> None:
    """A session that was not read for a while is read on, however fast the client was."""
    count = 20_000
    with WSClient(service.port, "h") as client:
        sending = threading.Thread(target=client.send_bytes, args=(frame(b"x") * count,))
        sending.start()
        for _ in range(count):
            client.expect("ERROR", "not_understood")
        sending.join()
        assert client.put("h", 1)["versions"] == {"h": 0}


def test_it_goes_on_after_thousands_of_reads_in_one_write(service: Service) -> None:
    count = 3_000
    with WSClient(service.port, "h") as client:
        client.put("h", "x" * 2_000)
        flood = requests(count, {"ops": [{"ope": "GET", "path": "h"}]})
        sending = threading.Thread(target=client.send_bytes, args=(flood,))
        sending.start()
        for number in range(count):
            client.expect("RESPONSE", str(1_000_000 + number))
        sending.join()


# -- what is not read -----------------------------------------------------------------------------


def test_a_subscriber_that_never_reads_while_others_write_much(service: Service) -> None:
    with WSClient(service.port, "h", window=4096) as hostile, WSClient(service.port, "w") as writer:
        hostile.subscribe("much")
        hostile.subscribe(r"much\..*", regex=True)
        with as_ever(service):
            until = time.monotonic() + SPELL
            while time.monotonic() < until:
                writer.tx(*[put(f"much.k{n}", "x" * 10_000) for n in range(10)])


def test_an_owner_that_never_reads_its_calls(service: Service) -> None:
    big = {"args": ["x" * 500_000]}
    with WSClient(service.port, "h", window=4096) as owner:
        owner.put("f", "%h.f", ephemeral=True)
        callers = [WSClient(service.port, f"caller{n}") for n in range(4)]
        with as_ever(service):
            for _ in range(40):
                owner.send_bytes(frame(b"", 0xA))
                for caller in callers:
                    caller.request("RPC", "f", big)
        for caller in callers:
            for number in range(1, 41):
                answer = caller.response(number)
                assert answer.words[-1] == "ERROR"
                assert answer.body["code"] in ("call_timeout", "over_limit"), answer
            caller.close()


def test_a_call_that_many_wait_for(service: Service) -> None:
    """A caller with more calls open than are allowed is read on as they are given up."""
    with WSClient(service.port, "h") as owner, WSClient(service.port, "caller") as caller:
        owner.put("f", "%h.f", ephemeral=True)
        with as_ever(service):
            numbers = [caller.request("RPC", "f", {}) for _ in range(3_000)]
            for number in numbers:
                assert caller.response(number).body["code"] in ("call_timeout", "over_limit")


# -- what is no frame -----------------------------------------------------------------------------


#: What breaks the protocol of frames, and the code that the connection is closed with.
BREACHES: dict[str, tuple[bytes, int]] = {
    "1 GiB announced": (head(1 << 30), 1009),
    "2**63 bytes announced": (head((1 << 63) - 1), 1009),
    "2**64 bytes announced": (head((1 << 64) - 1), 1009),
    "fragments without end": (
        frame(b"x" * 1_000, last=False) + frame(b"x" * 1_000, 0, last=False) * 2_000, 1009
    ),
    "empty fragments without end": (
        frame(b"", last=False) + frame(b"", 0, last=False) * 100_000, 1009
    ),
    "a continuation of nothing": (frame(b"x", 0), 1002),
    "a message within another": (frame(b"x", last=False) + frame(b"x"), 1002),
    "no mask": (frame(b"x", masked=False), 1002),
    "binary": (frame(b"x", BINARY), 1003),
    "an unknown opcode": (frame(b"x", 0x3), 1002),
    "an unknown control frame": (frame(b"x", 0xB), 1002),
    "a long ping": (frame(b"x" * 126, PING), 1002),
    "a fragment of a ping": (frame(b"x", PING, last=False), 1002),
    "reserved bits": (b"\xf1" + frame(b"x")[1:], 1002),
    "no UTF-8": (frame(b"\xff\xfe"), 1007),
    "half a character": (frame(b"PUT \xc3"), 1007),
}  # fmt: skip


@pytest.mark.parametrize("kind", BREACHES)
def test_what_breaks_the_protocol_ends_the_connection(service: Service, kind: str) -> None:
    data, code = BREACHES[kind]
    with WSClient(service.port, "h") as hostile, as_ever(service):
        hostile.put("h", 1, ephemeral=True)
        try:
            hostile.send_bytes(data)
        except ConnectionError:
            # It has hung up in the middle of this.
            assert len(data) > 100_000
        assert hostile.ended() in ((code,) if len(data) < 100_000 else (code, None))
        with WSClient(service.port) as again:
            again.begin("h")
            again.settle()
        assert service.ask("GET", "/h/")[0] == 404, "its nodes go with it"


def test_frames_that_stay_half(service: Service) -> None:
    halves = [b"\x81", b"\x81\xfe\x01", head(1 << 20) + b"x", frame(b"x" * 1_000, last=False)]
    clients = [WSClient(service.port, f"h{n}") for n in range(20)]
    with as_ever(service), WSClient(service.port, "dripping") as dripping:
        for number, client in enumerate(clients):
            client.send_bytes(halves[number % len(halves)])
        for byte in frame(b"x" * 2_000):
            dripping.send_bytes(bytes((byte,)))
        dripping.expect("ERROR", "not_understood")
    for client in clients:
        client.close()


def test_connections_that_never_get_to_a_session(service: Service) -> None:
    made = []
    with as_ever(service):
        for number in range(300):
            made.append(socket.create_connection(("127.0.0.1", service.port)))
            made[-1].sendall([b"GET /_pubsub HTTP/1.1\r\nHos", b"\0" * 100, b""][number % 3])
    for connection in made:
        connection.close()


def test_random_bytes(service: Service) -> None:
    chance = random.Random(1)
    with as_ever(service):
        for _ in range(200):
            with WSClient(service.port, "h") as hostile:
                hostile.send_bytes(chance.randbytes(chance.choice([1, 10, 1_000])))
                hostile.send_bytes(frame(b"", CLOSE))


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "\n", "\0", "SUBSCRIBE", "SUBSCRIBE  a local", "SUBSCRIBE a nowhere",
        "SUBSCRIBE a local Maybe", "SUBSCRIBE a local False x", "SUBSCRIBE a local False 1@",
        "SUBSCRIBE a local False -1", "SUBSCRIBE a local False " + "9" * 5_000,
        "SUBSCRIBE a..b local", "SUBSCRIBE _a local", "SUBSCRIBE ( local True",
        r"SUBSCRIBE (a)\1 local True", "SUBSCRIBE " + "a." * 5_000 + "a local",
        "SUBSCRIBE a{1000}{1000} local True",
        "SESSION h local", "SESSION other global", "SESSIONACK h\n{}", "PUBLISH a", "PUBLISH a\n1",
        'PUBLISH a\n{"message":NaN}', 'PUBLISH a\n{"other":1}', "MESSAGE a h\n{}", "NOTIFY",
        "NOTIFY\n{}", 'NOTIFY\n[{"ope":"PUT"}]', "NOTIFY\n[1]", "NOTIFY\n" + "[" * 100_000,
        'NOTIFY\n[{"ope":"PUT","path":"_a","instance":1}]',
        'NOTIFY\n[{"ope":"DELETE","path":"nothing"}]', "ROLLBACK nothing -1", "ROLLBACK a.b -1",
        "ROLLBACK a x", "ROLLBACK a " + "9" * 5_000, "REQUEST", "REQUEST x TX h -\n{}",
        "REQUEST 1 NO h -\n{}", "REQUEST 1 TX h -", "RESPONSE 7 RPC h\n1", "RESPONSE 1 TX h\n1",
        "RESPONSE 7 RPC h MISTAKE\n1", "ERROR code\n{}", "x" * 1_000_000, "日本 \U0001f600",
    ],
    ids=lambda text: repr(text[:40]),
)  # fmt: skip
def test_what_is_wrong_gets_an_error_and_the_connection_stays(
    shared: WSClient, text: str
) -> None:
    shared.send(text)
    told = shared.notices()
    assert [answer.command for answer in told] == ["ERROR"]
    assert told[0].words[1] != "internal"
    assert told[0].body["message"]


@pytest.mark.parametrize(
    "body",
    [
        "", "1", "[]", "{}", '{"ops":1}', '{"ops":[1]}', '{"ops":[],"more":1}', '{"ops":[{}]}',
        '{"ops":[],"txid":1}', '{"ops":[],"txid":""}', '{"ops":[{"ope":"GET"}]}',
        '{"ops":[{"ope":"GET","path":"a","version":"x"}]}', '{"ops":[{"ope":"PUT","path":"a"}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":1,"version":1.5}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":{"_x":1}}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":1,"instance":2}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":1e999}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":"\\ud800"}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":' + '{"a":' * 100 + "1" + "}" * 100 + "}]}",
        "[" * 200_000, '{"ops":' + "[" * 200_000,
        '{"ops":[{"ope":"GET","path":"(","regex_flag":true}]}',
        '{"ops":[{"ope":"DELETE","path":"nothing"}]}',
        '{"ops":[{"ope":"PUT","path":"a","instance":1,"version":7}]}',
    ],
    ids=lambda body: body[:40],
)
def test_a_wrong_transaction_is_answered_with_an_error(shared: WSClient, body: str) -> None:
    shared.send(f"REQUEST 99 TX {shared.tega_id} -\n{body}")
    answer = shared.receive()
    assert answer.words == ["RESPONSE", "99", "TX", shared.tega_id, "ERROR"]
    assert answer.body["code"] != "internal"
    assert answer.body["message"]
    shared.settle()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WSClient]:
    """A connection that all these use, as it must stay."""
    service = Service(tmp_path_factory.mktemp("shared"), "-t", "srv")
    with WSClient(service.port, "h") as client:
        yield client
    assert service.end()[0] == 0


# -- what takes long ------------------------------------------------------------------------------


def test_patterns_that_other_engines_choke_on(service: Service) -> None:
    patterns = ["(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){20}", "(a?){30}a{30}", "([a-z]+)*[0-9]$"]
    with WSClient(service.port, "h") as hostile, WSClient(service.port, "w") as writer:
        for number in range(900):
            pattern = patterns[number % len(patterns)]
            hostile.send(f"SUBSCRIBE {pattern}|z{number} local True")
        hostile.settle()
        assert hostile.notices() == []
        with as_ever(service):
            for number in range(100):
                key = "a" * 200 + f"b{number}!"
                writer.tx(put(f'"{key}"', 1), {"ope": "GET", "path": "(a+)+$", "regex_flag": True})
                writer.tx(delete(f'"{key}"'))


@pytest.mark.parametrize("regex", [False, True])
def test_subscriptions_as_many_and_as_deep_as_they_may_be(service: Service, regex: bool) -> None:
    dot = "\\." if regex else "."
    with WSClient(service.port, "h") as hostile, as_ever(service):
        for number in range(2_100):
            path = dot.join(f"level{number}x{depth}" for depth in range(60))
            hostile.send(f"SUBSCRIBE {path} local {regex}")
        hostile.settle()
        assert {told.words[1] for told in hostile.notices()} == {"over_limit"}


def test_a_put_of_many_children_under_many_patterns(service: Service) -> None:
    """Each child may match every pattern: nobody else may wait for all that."""
    with WSClient(service.port, "h", timeout=120) as hostile:
        for number in range(100):
            hostile.send(rf"SUBSCRIBE k\.[^{chr(0x4E00 + number)}]* local True")
        hostile.settle()
        with WSClient(service.port, "w", timeout=120) as writer, as_ever(service):
            writer.put("k", {f"k{n}": 1 for n in range(1_000)})
            writer.settle()
        hostile.settle()


def test_patterns_over_the_limit_of_one_with_many_subscriptions(service: Service) -> None:
    with WSClient(service.port, "h") as hostile:
        hostile.send(*[f"SUBSCRIBE a.k{n} local" for n in range(1_999)])
        hostile.settle()
        drain(hostile)
        flood = b"".join(frame(f"SUBSCRIBE q{n} local True".encode()) for n in range(3_000))
        with as_ever(service):
            hostile.pour(flood, SPELL)


def test_a_server_that_stood_still_does_not_take_its_clients_for_silent(tmp_path: Path) -> None:
    """A laptop's lid, a busy host: what the clients sent meanwhile is there to be read."""
    service = Service(tmp_path, "-t", "srv", "--ping-interval", "1", "--ping-timeout", "2")
    with WSClient(service.port, "c") as client:
        client.put("e", 1, ephemeral=True)
        service.process.send_signal(signal.SIGSTOP)
        assert not client.is_readable(3.5)
        service.process.send_signal(signal.SIGCONT)
        try:
            client.settle()
        except Ended as end:
            pytest.fail(f"cut off: {end}")
        assert service.ask("GET", "/e/") == (200, 1)
    assert service.end()[0] == 0
