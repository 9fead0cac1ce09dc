"""``tega-log``: what it prints, what it asks, and its exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from logbuilder import LogBuilder, assert_same, recovered, two_segments

from tega.cli import logtool
from tega.database import Database, new_life
from tega.log.file import FileLog
from tega.log.memory import MemoryLog
from tega.paths import parse
from tega.store.commit import Adoption, Follow, Replicated, Transaction, make_put
from tega.store.history import Lead

RUN = [sys.executable, "-m", "tega.cli.logtool"]


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    """The exit status, the lines on stdout, and what is on stderr."""
    status = logtool.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def damage(path: Path, offset: int = -30) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# -- verify -----------------------------------------------------------------------------------


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = two_segments(tmp_path)
    sizes = [built.path(number).stat().st_size for number in (0, 1)]
    lines = [
        f"log.me.0: ok: snapshot at 0, 6 commits, 1 to 6, {sizes[0]} bytes",
        f"log.me.1: ok: snapshot at 5, 2 commits, 6 to 7, {sizes[1]} bytes",
    ]
    assert run(capsys, "verify", tmp_path) == (0, lines, "")
    damage(built.path(1))
    status, out, err = run(capsys, "verify", tmp_path, "-t", "me")
    assert status == 1
    assert out[0] == lines[0]
    assert out[1] == f"log.me.1: NOT OK: snapshot at 5, 1 commit, 6, {sizes[1]} bytes"
    assert out[2].startswith("  log.me.1: corrupt: line 11, byte offset ")
    assert out[2].endswith(": the checksum differs")
    assert "'tega-log repair' keeps what checks" in err


def test_verify_looks_at_every_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_segments(tmp_path, "a")
    built = two_segments(tmp_path, "b")
    damage(built.path(0))
    status, out, _ = run(capsys, "verify", tmp_path)
    assert status == 1
    assert [line.split(":")[0] for line in out if line[0] != " "] == [
        "log.a.0", "log.a.1", "log.b.0", "log.b.1",
    ]
    assert run(capsys, "verify", tmp_path, "-t", "a")[0] == 0


def test_verify_a_log_of_2017(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.me.0").write_text(
        "?\n{'ope': 'PUT', 'path': 'a', 'tega_id': 'x', 'instance': 1}\n@2016\n?\n"
    )
    status, out, _ = run(capsys, "verify", tmp_path)
    assert (status, out) == (0, [
        "log.me.0: ok: 2017's format, 1 commit, 1, 69 bytes",
        "  log.me.0: note: line 4, byte offset 67: a transaction without an end, 0 records, "
        "left out",
    ])


def test_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_segments(tmp_path)
    times = iter([0.0, 1.5])
    monkeypatch.setattr(logtool.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert logtool.main(["verify", str(tmp_path)]) == 0
    assert sys.stderr.getvalue() == "\r10 commits, 100 %, 7/s \n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    times = iter([0.0, 0.5])
    assert logtool.main(["verify", str(tmp_path)]) == 0
    assert sys.stderr.getvalue() == ""


# -- show -------------------------------------------------------------------------------------


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_segments(tmp_path)
    at = "2026-11-21T01:00:0"
    assert run(capsys, "show", tmp_path) == (0, [
        f"1  {at}1.000000Z  cli-1  a@0  PUT a.b0  txid=tx0",
        f"2  {at}2.000000Z  cli-1  a@0->1  PUT a.b1  txid=tx1",
        f"3  {at}3.000000Z  cli-1  a@1->2  PUT a.b2  txid=tx2",
        f"4  {at}4.000000Z  cli-1  a@2->3  ROLLBACK a -1, DELETE a.b2",
        f"5  {at}5.000000Z  cli-1  c@0  PUT c",
        f"6  {at}6.000000Z  cli-1  a@3->4  PUT a.x",
        f"7  {at}7.000000Z  cli-1  a@4->5  DELETE a.x.y",
    ], "")


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        (["-n", "2"], "67"),
        (["-n", "0"], ""),
        (["--since", "6"], "67"),
        (["--since", "0"], "1234567"),
        (["--since", "8"], ""),
        (["--until", "2"], "12"),
        (["--since", "2", "--until", "3"], "23"),
        (["--since", "2026-11-21T01:00:06"], "67"),
        (["--since", "2026-11-21T01:00:06.000000Z"], "67"),
        (["--since", "2026-11-21T01:00:06.000001Z"], "7"),
        (["--until", "2026-11-21T01:00:02"], "12"),
        (["--since", "2026-11", "--until", "2026-11-21"], "1234567"),
        (["--since", "2026-12"], ""),
        (["--until", "2026-11-20"], ""),
        (["--since", "2026-11-21T01:00:03Z", "--until", "5", "--path", "a"], "34"),
        (["--who", "cli-2"], ""),
        (["--who", "cli-1", "-n", "1"], "7"),
        (["--path", "c"], "5"),
        (["--path", "a"], "123467"),
        (["--path", "a.x"], "67"),
        (["--path", "a.x.y.deeper"], "67"),
        (["--path", "a.b"], ""),
        (["--path", "a.b2", "--since", "4"], "4"),
    ],
)
def test_show_a_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], seqs: str
) -> None:
    two_segments(tmp_path)
    status, out, _ = run(capsys, "show", tmp_path, *options)
    assert (status, [line.split("  ")[0] for line in out]) == (0, list(seqs))


@pytest.mark.parametrize("moment", ["-1", "x", "2026-13x", "21.11.2026", "2026-11-21 01:00", ""])
def test_what_is_no_moment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        logtool.main(["show", str(tmp_path), f"--until={moment}"])
    assert ended.value.code == 2
    assert "no time such as 2026-11-21T05:49" in capsys.readouterr().err


def test_show_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_segments(tmp_path)
    status, out, err = run(capsys, "show", tmp_path, "-o", "json")
    assert (status, err) == (0, "")
    told = [json.loads(line) for line in out]
    assert [one["seq"] for one in told] == [1, 2, 3, 4, 5, 6, 7]
    assert told[0] == {
        "log": "me", "seq": 1, "time": "2026-11-21T01:00:01.000000Z", "tega_id": "cli-1",
        "txid": "tx0", "versions": {"a": {"from": None, "to": 0}},
        "changes": [{"ope": "PUT", "path": "a.b0"}],
    }
    assert told[3]["rollback"] == {"root": "a", "versions": 1}
    assert told[3]["versions"] == {"a": {"from": 2, "to": 3}}
    assert told[3]["changes"] == [{"ope": "DELETE", "path": "a.b2"}]
    assert told[3]["txid"] is None


def test_json_names_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_segments(tmp_path, "a")
    two_segments(tmp_path, "b")
    _, out, _ = run(capsys, "show", tmp_path, "-o", "json", "-n", "1")
    assert [(json.loads(line)["log"], json.loads(line)["seq"]) for line in out] == [
        ("a", 7), ("b", 7),
    ]


def test_show_what_another_server_leads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = "2026-11-21T02:00:00.000000Z"
    with (
        Database(MemoryLog(new_life), "up", clock=lambda: at) as leader,
        Database(FileLog(tmp_path, "me", new_life), "me") as follower,
    ):
        leader.commit(Transaction((make_put(parse("a"), 1),), "cli-9"))
        leader.commit(Transaction((make_put(parse("a"), 2),), "cli-9"))
        follower.commit(Transaction((make_put(parse("a"), 0),), "cli-1"))
        follower.commit(Follow("a", Lead("up"), "me"))
        state = leader.state
        lead = Lead("up", state.life, state.seq)
        follower.commit(Adoption("a", lead, state.roots["a"], "up"))
        change = make_put(parse("a"), 5)
        pending = leader.submit(Transaction((change,), "ops"))
        leader.flush()
        made = pending.commit
        assert made is not None
        follower.commit(
            Replicated(
                "up", made.seq, made.time, "ops", None, dict(made.versions), dict(made.chains),
                (change,),
            )
        )
        follower.commit(Follow("a", None, "me"))
    status, out, _ = run(capsys, "show", tmp_path)
    assert status == 0
    assert [line.split("  ")[0] + " " + " ".join(line.split("  ")[2:]) for line in out] == [
        "1 cli-1 a@0 PUT a",
        "2 me - FOLLOW a leader=up/0",
        "3 up a@1 SS a leader=up/2",
        "4 ops a@1->2 PUT a leader=up/3",
        "5 me - LEAD a",
    ]
    assert at in out[3], "the time of its leader"
    _, out, _ = run(capsys, "show", tmp_path, "-o", "json", "--who", "ops")
    (told,) = [json.loads(line) for line in out]
    assert told["leaders"] == {"a": {"tega_id": "up", "seq": 3}}
    _, out, _ = run(capsys, "show", tmp_path, "-o", "json", "--path", "a.b.c")
    assert [json.loads(line)["seq"] for line in out] == [1, 2, 3, 4, 5]


def test_to_show_takes_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = LogBuilder(tmp_path)
    for number in range(40):
        built.put(f"big.c{number}", {f"leaf{n}": f"value {n}" for n in range(2000)})
    built.snapshot()
    built.put("small", 1)
    built.log.close()
    snapshot = built.path(1).stat().st_size
    assert snapshot > 1_500_000
    tracemalloc.start()
    try:
        status, out, _ = run(capsys, "show", tmp_path, "-t", "me")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (status, len(out)) == (0, 41)
    # That of the largest commit, and no snapshot.
    assert most < snapshot / 2, most


def test_show_beside_a_server_that_writes(tmp_path: Path) -> None:
    commit_log = FileLog(tmp_path, "me", new_life, snapshot_size=4000, keep=1)
    with Database(commit_log, "me") as database:
        ended = threading.Event()

        def write() -> None:
            number = 0
            while not ended.is_set():
                change = make_put(parse("a.b"), number)
                database.commit(Transaction((change,), "cli-1"))
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(4):
                done = subprocess.run(
                    [*RUN, "show", str(tmp_path), "-o", "json"],
                    capture_output=True, text=True, check=False,
                )
                assert done.returncode == 0, done.stderr
                seqs = [json.loads(line)["seq"] for line in done.stdout.splitlines()]
                assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
                # What is written, be it synced or not.
                assert seqs[-1] <= database.staged.seq
        finally:
            ended.set()
            writer.join()


def test_escape_sequences_are_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = LogBuilder(tmp_path)
    built.put(r'"\u001b[2J"."x\ny"', 1)
    built.log.close()
    (tmp_path / "log.old.0").write_text(
        "?\n{'ope': 'PUT', 'path': 'a', 'tega_id': '\\x1b[31m', 'instance': 1}\n@\x1b[2J\n"
    )
    status, out, _ = run(capsys, "show", tmp_path)
    assert status == 0
    assert out == [
        "# me",
        r'1  2026-11-21T01:00:01.000000Z  cli-1  "\u001b[2J"@0  PUT "\u001b[2J"."x\ny"',
        "# old",
        r"1  \u001b[2J  \u001b[31m  a@0  PUT a",
    ]


def test_show_what_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = two_segments(tmp_path)
    damage(built.path(1))
    status, out, err = run(capsys, "show", tmp_path)
    assert (status, [line[0] for line in out]) == (1, list("123456"))
    assert err.startswith("tega-log: log.me.1: corrupt: line 11, byte offset ")


def test_show_is_silent_when_its_reader_has_enough(tmp_path: Path) -> None:
    built = LogBuilder(tmp_path)
    for number in range(30):
        built.put("a", number, txid="x" * 200)
    built.log.close()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as gone:
        done = subprocess.run(
            [*RUN, "show", str(tmp_path)], stdout=gone, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


# -- repair -----------------------------------------------------------------------------------


def test_repair_says_what_it_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = two_segments(tmp_path)
    assert run(capsys, "repair", tmp_path) == (
        0, ["everything that a start needs checks: nothing to do"], "",
    )
    damage(built.path(1))
    data = built.path(1).read_bytes()
    status, out, err = run(capsys, "repair", tmp_path)
    assert (status, err) == (1, "tega-log: nothing was done: say --yes to do this\n")
    assert built.path(1).read_bytes() == data
    (reason, what, *costs) = out
    assert reason.startswith("log.me.1: corrupt: line 11, byte offset ")
    assert what.startswith("log.me.1: kept as log.me.1.damaged-TIME, then written anew with what ")
    assert costs == [
        "commits kept: up to 6",
        "commits lost: 7",
        "commits that check, but are set aside: none",
    ]
    status, again, _ = run(capsys, "repair", tmp_path, "--yes")
    assert status == 0
    assert again[: len(out)] == out
    made = [line.removeprefix("wrote ") for line in again[len(out) :]]
    assert len(made) == 3
    assert (tmp_path / made[0]).read_bytes() == data
    assert made[2] == "log.me.1"
    assert_same(recovered(tmp_path), built.states[6])


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_repair_asks_on_a_terminal(tmp_path: Path, answer: bytes, status: int) -> None:
    built = two_segments(tmp_path)
    damage(built.path(1))
    data = built.path(1).read_bytes()
    ours, theirs = os.openpty()
    os.write(ours, answer)
    with subprocess.Popen(
        [*RUN, "repair", str(tmp_path)], stdin=theirs, stdout=theirs, stderr=theirs
    ) as tool:
        assert tool.wait() == status
    said = os.read(ours, 1 << 16)
    os.close(ours)
    os.close(theirs)
    assert b"Do this? [y/N]" in said
    assert (built.path(1).read_bytes() == data) is (status == 1)


def test_repair_moves_what_leads_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = two_segments(tmp_path)
    damage(built.path(0), 300)
    status, out, _ = run(capsys, "repair", tmp_path, "--yes")
    assert status == 0
    assert out[0] == "log.me.1: what comes before it does not lead up to it"
    assert out[1] == "log.me.0: renamed to log.me.0.aside-TIME"
    assert out[-1].startswith("wrote log.me.0.aside-2")
    assert_same(recovered(tmp_path), built.state)


def test_repair_does_nothing_while_a_server_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = LogBuilder(tmp_path)
    built.put("a", 1)
    status, _, err = run(capsys, "repair", tmp_path, "--yes")
    assert status == 3
    assert f"is in use for tega id me by process {os.getpid()}" in err
    built.log.close()


def test_repair_needs_to_know_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_segments(tmp_path, "a")
    two_segments(tmp_path, "b")
    status, out, err = run(capsys, "repair", tmp_path, "--yes")
    assert (status, out) == (2, [])
    assert err == f"tega-log: {tmp_path} has several logs: choose one with -t: a, b\n"
    assert run(capsys, "repair", tmp_path, "-t", "b")[0] == 0


# -- usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["delete", "x"],
        ["verify"],
        ["verify", "x", "y"],
        ["verify", "x", "--yes"],
        ["verify", "x", "-t", "_a"],
        ["show", "x", "-n", "-1"],
        ["show", "x", "--since", "last"],
        ["show", "x", "--path", "a..b"],
        ["show", "x", "--path", "\x1b[2J._"],
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        logtool.main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: tega-log")
    assert "\x1b" not in err


@pytest.mark.parametrize("command", ["verify", "show", "repair"])
def test_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    status, out, err = run(capsys, command, tmp_path / "missing")
    assert (status, out) == (3, [])
    assert "No such file or directory" in err
    assert run(capsys, command, tmp_path) == (3, [], f"tega-log: {tmp_path} has no log\n")
    two_segments(tmp_path)
    status, out, err = run(capsys, command, tmp_path, "-t", "other")
    assert (status, out) == (3, [])
    assert err == (
        f"tega-log: {tmp_path} has no log of tega id other; tega ids there: me\n"
    )


def test_help_says_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in [
        (["--help"], ["verify", "show", "repair", "Exit status: 0 fine, 1"]),
        (["show", "--help"], ["--who", "--path", "--since", "-n", "--tegaid"]),
        (["repair", "--help"], ["--yes", "no server may run"]),
    ]:
        with pytest.raises(SystemExit) as caught:
            logtool.main(arguments)
        assert caught.value.code == 0
        out, _ = capsys.readouterr()
        assert all(word in out for word in words)
