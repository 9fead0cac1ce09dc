"""The benchmark harness: its arithmetic, its framing, and that every workload runs (tiny)."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))

from tegabench import chart, cli, machine, table, values, wswire
from tegabench.bench import Bench, Sizes
from tegabench.client import BadReply, Conversation, Subscriber, drive
from tegabench.crowd import Crowd, Tally
from tegabench.ends import End, side_by_side
from tegabench.httpwire import Drain, Replies
from tegabench.process import BenchError, Cores, free_port, in_child, sync_count
from tegabench.result import Contestant, Result, Sample, Workload, in_series, only
from tegabench.systems import mosquitto, nats, ovsdb, redis, zookeeper
from tegabench.systems.bare import Bare, log_lines
from tegabench.systems.bare_ws import Echo, Fan
from tegabench.systems.base import KEYS, committed, expected
from tegabench.systems.etcd_grpc import Call, Watch
from tegabench.systems.tega_ws import Session, TegaWs, transaction
from tegabench.workloads import FAMILIES
from tegabench.workloads.embedded import Sqlite, append_and_sync, put_in_turn
from tegabench.workloads.memory import nested_dict
from tegabench.workloads.notify import judge
from tegabench.workloads.rates import check, run


def contestant(title: str, role: str, *measured: float) -> Contestant:
    """One that measures these values in turn."""
    samples = iter([Sample(value) for value in measured])
    return Contestant(title, role, lambda: next(samples))


def result(workload: Workload, tmp_path: Path, runs: int = 3) -> Result:
    return Bench(tmp_path, Sizes(runs=runs), quiet=True).run(workload)


def puts(tmp_path: Path, **change: object) -> Result:
    """A workload measured three times: medians 5000 and 100 for the limit, 80 for tega."""
    fields = {
        "title": "put",
        "unit": "op/s",
        "contestants": [
            contestant("handler", "limit", 5000, 9000, 4000),
            contestant("sync", "limit", 100, 90, 110),
            contestant("tega", "tega", 70, 80, 1000),
            contestant("etcd", "peer", 40, 20, 60),
            contestant("SQLite", "peer", 160, 160, 160),
        ],
        "limit_title": "handler and sync in series",
        "limit": lambda rates: in_series(rates["handler"], rates["sync"]),
    }
    return result(Workload(**{**fields, **change}), tmp_path)


class TestArithmetic:
    def test_medians(self, tmp_path: Path) -> None:
        found = puts(tmp_path)
        assert (found.value("handler"), found.value("sync"), found.tega) == (5000, 100, 80)

    def test_steps_in_series_add_their_times(self) -> None:
        assert in_series(100, 100) == pytest.approx(50)
        assert in_series(4800, 6800) == pytest.approx(2814, abs=1)

    def test_the_limit_is_made_of_its_parts(self, tmp_path: Path) -> None:
        assert puts(tmp_path).limit == pytest.approx(1 / (1 / 5000 + 1 / 100))

    def test_no_limit_where_a_part_is_missing(self, tmp_path: Path) -> None:
        found = puts(tmp_path)
        del found.samples["sync"]
        assert found.limit is None
        assert found.ratio(found.limit) is None

    def test_a_ratio_over_one_is_ahead_whatever_the_unit(self, tmp_path: Path) -> None:
        assert puts(tmp_path).ratio(40) == 2
        assert puts(tmp_path, higher_is_better=False).ratio(40) == 0.5

    def test_only_takes_one_limit(self) -> None:
        assert only({"handler": 7}) == 7
        with pytest.raises(ValueError, match="too many"):
            only({"handler": 7, "sync": 8})

    def test_runs_are_interleaved(self, tmp_path: Path) -> None:
        order: list[str] = []

        def measures(title: str) -> Contestant:
            return Contestant(title, "peer", lambda: order.append(title) or Sample(1))

        result(Workload("put", "op/s", [measures("a"), measures("b")]), tmp_path)
        assert order == ["a", "b"] * 3

    def test_a_contestant_that_fails_is_told_and_the_others_go_on(self, tmp_path: Path) -> None:
        def fails() -> Sample:
            raise BenchError("no leader")

        bench = Bench(tmp_path, quiet=True)
        broken = Contestant("etcd", "peer", fails)
        found = bench.run(Workload("put", "op/s", [broken, contestant("tega", "tega", 1, 2, 3)]))
        assert bench.failed
        assert found.tega == 2
        assert "no leader" in found.failures["etcd"]
        assert "| failed |" in table.summary([found], ["etcd"])

    def test_a_busy_client_is_told(self, tmp_path: Path) -> None:
        busy = Contestant("tega", "tega", lambda: Sample(5, client_cpu=0.95))
        found = result(Workload("get", "op/s", [busy]), tmp_path)
        assert found.client_bound("tega")
        assert "| ≥ 5 |" in table.summary([found], [])

    def test_a_client_that_is_measured_too_may_be_busy(self, tmp_path: Path) -> None:
        busy = Contestant("tega", "tega", lambda: Sample(5, client_cpu=0.95))
        found = result(Workload("call", "op/s", [busy], client_counts=True), tmp_path)
        assert not found.client_bound("tega")


class TestTable:
    def test_summary(self, tmp_path: Path) -> None:
        assert table.summary([puts(tmp_path)], ["etcd", "Redis"]) == (
            "| workload | unit | limit | tega | tega : limit | etcd | others |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
            "| put | op/s | 98 | 80 | 0.82 | 40 (2.0) | SQLite 160 (0.50) |\n"
        )

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (None, "—"),
            (0, "0"),
            (0.12345, "0.123"),
            (1.5, "1.5"),
            (99.96, "100"),
            (6543.2, "6 540"),
            (686739.0, "687 000"),
        ],
    )
    def test_figures(self, value: float | None, shown: str) -> None:
        assert table.figure(value) == shown

    @pytest.mark.parametrize(
        ("ratio", "shown"),
        [(None, "—"), (0.934, "0.93"), (0.996, "1.0"), (1.44, "1.4"), (9.96, "10"), (48, "48")],
    )
    def test_factors(self, ratio: float | None, shown: str) -> None:
        assert table.factor(ratio) == shown

    def test_the_report_says_everything(self, tmp_path: Path) -> None:
        facts = machine.facts(tmp_path, Cores())
        text = table.document(facts, [puts(tmp_path)], ["etcd"], ["OVSDB left out"], 3)
        for part in ("| Python |", "handler and sync in series", "- OVSDB left out", "70 to 1 000"):
            assert part in text

    def test_the_chart_shows_ratios(self, tmp_path: Path) -> None:
        found = chart.ratios(puts(tmp_path))
        assert found == {"limit": pytest.approx(0.816), "etcd": 2, "SQLite": 0.5}


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw\ntmpfs {tmp_path} tmpfs rw\n/dev/b /b xfs rw\n")
    assert machine.file_system(tmp_path, mounts) == "tmpfs"
    assert machine.file_system(Path("/"), mounts) == "ext4"


class TestValues:
    def test_documents_differ_and_have_one_size(self) -> None:
        tags = [values.tag(g, c, n) for g in (1, 2) for c in (0, 63) for n in (0, 10**9)]
        documents = [values.document(tag) for tag in tags]
        assert len(set(documents)) == 8
        assert {len(document) for document in documents} == {values.SIZE}
        assert [values.tag_of(document) for document in documents] == tags

    def test_what_keys_hold_after_some_puts(self) -> None:
        held = expected("put", connection=2, generation=7, done=KEYS + 3)
        assert held[2] == values.tag(7, 2, KEYS + 2)
        assert held[3] == values.tag(7, 2, 3)
        assert len(held) == KEYS

    def test_what_keys_hold_after_transactions(self) -> None:
        assert expected("tx", 0, 1, done=5) == dict.fromkeys(range(10), values.tag(1, 0, 4))
        assert expected("tx", 0, 1, done=0) == {}

    def test_what_leaves_hold_after_commits(self) -> None:
        assert committed(130, wide=True) == list(range(130))
        assert committed(130, wide=False)[:3] == [128, 129, 66]


REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"


def server_frame(size: int, kind: int = 0x81) -> bytes:
    """A WebSocket frame as a server sends it."""
    if size < 126:
        head = struct.pack(">BB", kind, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", kind, 126, size)
    else:
        head = struct.pack(">BBQ", kind, 127, size)
    return head + bytes(size)


def counting(take: Callable[[bytes], list[bytes]]) -> Callable[[bytes], int]:
    return lambda data: len(take(data))


def zookeeper_reply(error: int = 0) -> bytes:
    return struct.pack(">iiqi", 18, 1, 1, error) + b"ab"


class TestFraming:
    @pytest.mark.parametrize(
        ("count", "stream", "replies"),
        [
            (Replies().count, (REPLY + CHUNKED) * 2, 4),
            (redis.Fixed(b"+OK\r\n").count, b"+OK\r\n" * 3, 3),
            (redis.Fixed(b"$2\r\nab\r\n", 4).count, b"$2\r\nxy\r\n$2\r\nzz\r\n", 2),
            (zookeeper.Replies().count, zookeeper_reply() * 3, 3),
            (ovsdb.Replies().count, b'{"id":1,"error":null,"result":[{"count":1},{}]}' * 2, 2),
            (wswire.Frames().count, b"".join(map(server_frame, (0, 125, 126, 300))), 4),
            (redis.Lines(b":").count, b":100\r\n" * 3, 3),
            (counting(nats.Frames().take), b"+OK\r\nPING\r\n+OK\r\n", 2),
            (counting(nats.Frames().take), b"MSG a 1 4\r\n\r\n\r\n\r\n" * 3, 3),
            (mosquitto.Packets(0x30).count, b"\x30\x03\0\1a" + b"\x30\x80\x01" + bytes(128), 2),
        ],
    )
    def test_any_chunking(
        self, count: Callable[[bytes], int], stream: bytes, replies: int
    ) -> None:
        assert count(stream) == replies
        assert sum([count(stream[i : i + 1]) for i in range(len(stream))]) == replies

    @pytest.mark.parametrize(
        ("count", "reply"),
        [
            (Replies().count, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
            (redis.Fixed(b"+OK\r\n").count, b"-LOADING\r\n"),
            (zookeeper.Replies().count, zookeeper_reply(error=-101)),
            (ovsdb.Replies().count, b'{"id":1,"error":null,"result":[{},{"error":"timed out"}]}'),
            (ovsdb.Replies().count, b'{"id":1,"error":"unknown database","result":null}'),
            (wswire.Frames().count, server_frame(2, kind=0x88)),
            (redis.Lines(b":").count, b"-ERR\r\n"),
            (nats.Frames().take, b"-ERR 'Slow Consumer'\r\n"),
            (mosquitto.Packets(0x30).count, b"\x40\x02\0\1"),
        ],
    )
    def test_a_refusal_is_no_answer(self, count: Callable[[bytes], int], reply: bytes) -> None:
        with pytest.raises(BadReply):
            count(reply)

    def test_bodies(self) -> None:
        assert Replies().bodies(REPLY + CHUNKED) == [b"{}", b"{}"]

    @pytest.mark.parametrize("reply", [REPLY, CHUNKED])
    def test_a_large_reply_is_followed_to_its_end(self, reply: bytes) -> None:
        drain = Drain()
        ends = [drain.take(reply[i : i + 1]) for i in range(len(reply))]
        assert ends == [False] * (len(reply) - 1) + [True]
        assert drain.size == len(reply)

    @pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
    def test_what_the_websocket_client_sends(self, size: int) -> None:
        sent = wswire.frame(bytes(size))
        assert sent[0] == 0x81
        assert sent[1] & 0x80, "clients mask"
        assert sent[:1] + bytes([sent[1] & 0x7F]) + sent[2:] == server_frame(size)[
            : len(sent) - size - 4
        ] + bytes(size + 4)

    def test_a_large_message(self) -> None:
        assert wswire.Frames().take(server_frame(70_000)) == [bytes(70_000)]

    def test_pings_are_answered_and_not_counted(self) -> None:
        frames = wswire.Frames()
        assert frames.count(b"\x89\x01!" + server_frame(1)) == 1
        assert frames.answer() == wswire.frame(b"!", 0x8A)
        assert frames.answer() == b""

    def test_grpc_watch(self) -> None:
        watch = Watch(("127.0.0.1", 0), b"/bench/")
        # A header with a message in it, a watch id, and two events: one message in two frames.
        message = b"\x0a\x02\x08\x5a\x10\x01" + b"\x5a\x82\x01" + bytes(130) + b"\x5a\0"
        message = struct.pack(">BI", 0, len(message)) + message
        stream = b"".join(
            struct.pack(">I", len(part))[1:] + b"\0\0\0\0\0\1" + part
            for part in (message[:70], message[70:])
        )
        assert sum(watch.feed(stream[i : i + 1])[0] for i in range(len(stream))) == 2

    def test_grpc(self) -> None:
        call = Call(("127.0.0.1", 0), b"KV/Put", lambda serial: bytes(200))
        assert b"/etcdserverpb.KV/Put" in call.begin(1)
        ping = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
        data, trailers = b"\0\0\x01\0\0\0\0\0\x01x", b"\0\0\0\x01\x05\0\0\0\x01"
        assert call.feed(ping + data[:4]) == (0, ping[:4] + b"\x01" + ping[5:])
        assert call.feed(data[4:] + trailers) == (1, b"")
        with pytest.raises(BadReply):
            call.feed(trailers)


def test_syncs_are_read_from_the_report_of_strace() -> None:
    report = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 97.10    0.020100         100       201         1 fdatasync\n"
        "  2.90    0.000600         300         2           fsync\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.020700         101       203         1 total\n"
    )
    assert sync_count(report) == 203


class Forgetful(Bare):
    """Acknowledges every write and keeps none."""

    def tags(self, connection: int) -> list[bytes]:
        return [values.tag(0, 0, 0)] * KEYS


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Sizes(runs=1, seconds=5), peers=[], quiet=True)


class TestFloors:
    """The floors, a few operations each, over real sockets and files."""

    @pytest.mark.parametrize("in_flight", [1, 64])
    @pytest.mark.parametrize(
        ("floor", "kind"), [(Bare, "get"), (Bare, "put"), (Echo, "put"), (Echo, "tx")]
    )
    def test_bare_handlers(
        self, bench: Bench, floor: type[Bare], kind: str, in_flight: int
    ) -> None:
        with bench.servers():
            system = bench.start(floor)
            assert system is not None
            timing, server, _ = run(bench, system, kind, in_flight, most=in_flight * 2)
        assert timing.operations >= in_flight * 2
        assert len(timing.latencies) == timing.operations
        assert timing.rate > 0
        assert server >= 0

    def test_a_limit_of_operations_is_kept(self, bench: Bench) -> None:
        with bench.servers():
            system = bench.start(Bare)
            assert system is not None
            conversations = system.conversations("put", 3, 1)
            for limit, conversation in enumerate(conversations):
                conversation.limit = limit
            assert drive(conversations, 5).operations == 3
        assert [conversation.done for conversation in conversations] == [0, 1, 2]

    def test_a_lost_write_is_found(self, bench: Bench) -> None:
        with bench.servers():
            system = bench.start(Forgetful)
            assert system is not None
            conversations: list[Conversation] = system.conversations("put", 1, 1)
            drive(conversations, 5, most=3)
            with pytest.raises(BenchError, match="an acknowledged write is lost"):
                check(system, "put", conversations, 1, None)

    def test_nobody_listens(self) -> None:
        with pytest.raises(OSError, match="refused"):
            drive(Bare(Path(), None).conversations("get", 1, 1), 1)

    def test_append_and_sync(self, tmp_path: Path) -> None:
        sample = append_and_sync(tmp_path, 0.01)
        assert (tmp_path / "log").stat().st_size >= 200
        assert sample.value > 0

    def test_embedded_store(self, tmp_path: Path) -> None:
        sample = put_in_turn(Sqlite, tmp_path, 0.01, generation=1)
        assert sample.checked >= 1

    def test_nested_dict_in_a_process_of_its_own(self, tmp_path: Path) -> None:
        grown = in_child(None, nested_dict, 100_000, tmp_path)
        assert 30 < grown < 1000

    def test_bare_replay(self, bench: Bench) -> None:
        with bench.servers():
            system = bench.make(Bare)
            assert system is not None
            system.log = bench.place("log") / "log"
            system.log.write_bytes(log_lines(130, wide=False))
            assert system.start() > 0
            output = (system.directory / "output.txt").read_text()
        assert output == "64 paths replayed\n"

    def test_a_server_that_does_not_start_says_why(self, bench: Bench) -> None:
        class Broken(Bare):
            def command(self) -> list[str]:
                return [sys.executable, "-c", f"import sys; sys.exit('no port {free_port()}')"]

        assert bench.start(Broken) is None
        assert bench.failed
        assert "no port" in bench.notes[0]


class Told(Subscriber):
    """Counts the bytes that it is told; one named "x" is refused."""

    def __init__(self, fan: Fan) -> None:
        self._listener = fan.subscriber(0)

    def connect(self) -> socket.socket:
        return self._listener.connect()

    def feed(self, data: bytes) -> tuple[int, bytes]:
        if b"x" in data:
            raise BadReply(data)
        return self._listener.feed(data)


class TestCrowd:
    """Subscribers in a process of their own."""

    @pytest.fixture
    def fan(self, bench: Bench) -> Iterator[Fan]:
        with bench.servers():
            server = bench.start(Fan)
            assert server is not None
            yield server

    def test_every_one_is_told_of_everything_in_order(self, fan: Fan) -> None:
        writers = fan.announcements(64, generation=3)
        with Crowd([fan.subscriber(number) for number in range(5)], sample=2) as crowd:
            timing = drive(writers, 5, most=200)
            tally = crowd.tally(timing.operations)
        assert list(tally.counts) == [timing.operations] * 5
        assert tally.last > timing.began
        assert len(tally.streams) == 2
        judge(fan, tally, writers, generation=3)

    def test_one_notification_too_many(self, fan: Fan) -> None:
        with Crowd([fan.subscriber(0)]) as crowd:
            operations = drive(fan.announcements(1, 1), 5, most=3).operations
            # Once all have come: else the last one may be on its way when the crowd is asked.
            crowd.tally(operations)
            with pytest.raises(BenchError, match=f"should have got {operations - 1} "):
                crowd.tally(operations - 1)

    def test_a_wrong_notification_is_told(self, fan: Fan) -> None:
        with Crowd([Told(fan)]) as crowd:
            with wswire.connect(fan.address, "/_fan") as sock:
                wswire.ask(sock, b"x" * 200)
            with pytest.raises(BenchError, match="bad reply"):
                crowd.tally(1)

    def test_nobody_to_subscribe_to(self, fan: Fan) -> None:
        fan.stop()
        with pytest.raises(BenchError, match="ConnectionRefusedError"), Crowd([Told(fan)]):
            pass


class TestJudge:
    """What a subscriber of tega got."""

    def stream(self, *told: tuple[int, int, int]) -> bytes:
        """Of sequence numbers, each with a connection and a serial."""
        return b"".join(
            b'NOTIFY\n[{"seq":%d,"instance":%s}]'
            % (seq, values.document(values.tag(7, connection, serial)))
            for seq, connection, serial in told
        )

    def judge(self, stream: bytes) -> None:
        server = TegaWs(Path(), None)
        writers = server.announcements(2, generation=7)
        for writer in writers:
            writer.done = 2
        judge(server, Tally([4], 0, 0, [stream]), writers, generation=7)

    def test_all_of_it(self) -> None:
        self.judge(self.stream((11, 0, 0), (12, 1, 0), (13, 1, 1), (14, 0, 1)))

    @pytest.mark.parametrize(
        "told",
        [
            [(11, 0, 0), (12, 1, 0), (13, 1, 1)],
            [(11, 0, 0), (12, 1, 0), (13, 1, 1), (14, 0, 1), (15, 0, 1)],
            [(11, 0, 1), (12, 1, 0), (13, 1, 1), (14, 0, 0)],
        ],
    )
    def test_missed_twice_or_turned_round(self, told: list[tuple[int, int, int]]) -> None:
        with pytest.raises(BenchError, match="missed a write or got it twice"):
            self.judge(self.stream(*told))

    def test_not_in_the_order_of_commits(self) -> None:
        told = (11, 0, 0), (13, 1, 0), (12, 1, 1), (14, 0, 1)
        with pytest.raises(BenchError, match="out of order"):
            self.judge(self.stream(*told))


class TestTegaOverWebSocket:
    def test_a_refusal_is_no_answer(self) -> None:
        conversation = TegaWs(Path(), None).conversation("put", 0, 1)
        answer = b'RESPONSE 0 TX writer ERROR\n{"code":"collision"}'
        with pytest.raises(BadReply, match="collision"):
            conversation.feed(bytes((0x81, len(answer))) + answer)

    def test_only_notifications_are_counted(self) -> None:
        session = Session(("127.0.0.1", 0), "s", [("bench", False)])
        notify, behind = b"NOTIFY\n[]", b"ERROR behind\n{}"
        assert session.feed(bytes((0x81, len(notify))) + notify) == (1, b"")
        with pytest.raises(BadReply, match="behind"):
            session.feed(bytes((0x81, len(behind))) + behind)

    def test_requests_hold_what_is_looked_up_later(self) -> None:
        one = transaction("put", 3, 9)(KEYS + 2)
        ten = transaction("tx", 3, 9)(5)
        assert one[8:].startswith(b'REQUEST %d TX writer-9-3 -\n{"ops":[{"ope":"PUT"' % (KEYS + 2))
        operations = json.loads(ten.partition(b"\n")[2])["ops"]
        assert [op["path"] for op in operations] == [f"bench.c3.k{key}" for key in range(10)]
        assert {op["instance"]["tag"].encode() for op in operations} == {values.tag(9, 3, 5)}


class Sums(End):
    """Knows the answers itself; after so many calls they are wrong."""

    def __init__(self, right: int) -> None:
        self._right = right

    async def open(self, address: tuple[str, int], name: str) -> None: ...

    async def serve(self) -> None: ...

    async def close(self) -> None: ...

    async def call(self, a: int, b: int) -> int:
        await asyncio.sleep(0)
        self._right -= 1
        return a + b if self._right >= 0 else -1


class TestCalls:
    @pytest.mark.parametrize("in_flight", [1, 64])
    def test_calls_are_counted(self, in_flight: int) -> None:
        timing = asyncio.run(side_by_side(Sums(1_000_000), in_flight, 0.01))
        assert timing.operations >= in_flight
        assert len(timing.latencies) == timing.operations
        assert timing.latencies[0] > 0

    def test_a_wrong_answer_is_found(self) -> None:
        with pytest.raises(BenchError, match="make -1, says the other end"):
            asyncio.run(side_by_side(Sums(5), 2, 5))

    def test_what_is_not_installed_is_said(self) -> None:
        class Absent(Sums):
            needs = ("tegabench", "absent", "pip install nothing")

        assert Absent.missing() == (
            "absent of tegabench cannot be imported: pip install nothing"
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_runs(name: str, tmp_path: Path) -> None:
    sizes = Sizes(
        runs=1,
        seconds=0.02,
        leaves=2000,
        siblings=200,
        commits=130,
        versions=10,
        subscribers=3,
        subscriptions=20,
        sessions=20,
        locals=6,
        mirrored=200,
    )
    bench = Bench(tmp_path, sizes, peers=[], quiet=True)
    results = cli.measure(bench, [name])
    assert [note for note in bench.notes if "failed" in note] == []
    assert results
    for found in results:
        assert found.tega is not None
        assert found.samples.keys() == {c.title for c in found.workload.contestants}


def test_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "stall" in listed
    assert "ZooKeeper" in listed


def test_the_log_of_the_floor_is_json_lines() -> None:
    lines = log_lines(3, wide=True).splitlines()
    assert [json.loads(line)["instance"] for line in lines] == [0, 1, 2]
