"""Verifying, showing and repairing a log directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from logbuilder import LogBuilder, QuickDisk, assert_same, recovered, two_segments

from tega.errors import Corrupt, Locked, LogError
from tega.log import lock, record, segments, snapshot
from tega.log.repair import Plan, repair
from tega.log.show import Shown, show
from tega.log.verify import Checked, Finding, spans, tega_ids, verify
from tega.paths import parse


def found(directory: Path, tega_id: str = "me") -> list[Finding]:
    """Everything that does not check."""
    return [finding for checked in verify(directory, tega_id) for finding in checked.findings]


def kinds(directory: Path, tega_id: str = "me") -> list[tuple[str, str]]:
    return [(finding.name, finding.kind) for finding in found(directory, tega_id)]


def shown(directory: Path, tega_id: str = "me") -> list[int | None]:
    return [item.seq for item in show(directory, tega_id) if isinstance(item, Shown)]


def mend(directory: Path, tega_id: str = "me") -> Plan:
    """Repair, after which everything checks, and nothing that was there is gone."""
    before = [path.read_bytes() for path in directory.glob("log.*") if path.suffix != ".new"]
    plan = repair(directory, tega_id, disk=QuickDisk())
    after = [path.read_bytes() for path in directory.glob("log.*")]
    for content in before:
        assert content in after
        after.remove(content)
    assert [finding for finding in found(directory, tega_id) if finding.kind != "note"] == []
    assert repair(directory, tega_id, disk=QuickDisk()).empty
    return plan


def commits_in(path: Path) -> list[record.Logged]:
    return list(segments.commits(path.read_bytes()))


def offset_of(path: Path, seq: int) -> int:
    """Where a commit begins."""
    (found,) = [c.start for c in commits_in(path) if c.seq == seq and not c.extras.snapshot]
    return found


def change(path: Path, offset: int, flip: int = 0x01) -> None:
    """Damage one byte; doing it again mends it."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ flip]))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


# -- what checks ------------------------------------------------------------------------------


def test_a_log_that_checks(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    first, second = verify(tmp_path, "me")
    assert first == Checked(
        "log.me.0", built.path(0).stat().st_size, snapshot=0, commits=6, first=1, last=6
    )
    assert second == Checked(
        "log.me.1", built.path(1).stat().st_size, snapshot=5, commits=2, first=6, last=7
    )
    assert first.ok
    assert tega_ids(tmp_path) == ["me"]
    plan = mend(tmp_path)
    assert (plan.empty, plan.made) == (True, [])


def test_progress(tmp_path: Path) -> None:
    two_segments(tmp_path)
    said = []
    verify(tmp_path, "me", lambda *numbers: said.append(numbers))
    size = sum([path.stat().st_size for path in tmp_path.glob("log.*")])
    assert said == [(10, size, size)]


def test_show_gives_each_commit_once(tmp_path: Path) -> None:
    two_segments(tmp_path)
    assert shown(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    commits = [item for item in show(tmp_path, "me") if isinstance(item, Shown)]
    assert commits[0] == Shown(
        1, "2026-11-21T01:00:01.000000Z", "cli-1", {"a": 0}, [("PUT", parse("a.b0"))], "tx0"
    )
    assert commits[3].rolled_back == ("a", 1)
    assert commits[3].versions == {"a": 3}
    assert commits[6].changes == [("DELETE", parse("a.x.y"))]


def test_show_goes_on_in_another_life(tmp_path: Path) -> None:
    built = LogBuilder(tmp_path)
    built.put("a", 1)
    fresh = built.path(0).read_bytes()
    built.clear("second")
    built.put("b", 1)
    built.log.close()
    assert shown(tmp_path) == [1]
    built.path(0).write_bytes(fresh)
    assert shown(tmp_path) == [1, 1]


def test_no_log(tmp_path: Path) -> None:
    two_segments(tmp_path)
    for look in (verify, lambda *args: list(show(*args)), repair):
        with pytest.raises(LogError, match="no log of tega id other; tega ids there: me"):
            look(tmp_path, "other")
        with pytest.raises(FileNotFoundError):
            look(tmp_path / "missing", "me")


def test_other_tega_ids_and_other_files_are_left_alone(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    other = two_segments(tmp_path, "me.1")
    (tmp_path / "log.me.1.torn").touch()
    (tmp_path / "log.me.x").touch()
    (tmp_path / "log.me.007.torn").touch()
    change(built.path(1), 40)
    assert kinds(tmp_path) == [("log.me.1", "corrupt")]
    assert kinds(tmp_path, "me.1") == []
    mend(tmp_path)
    assert_same(recovered(tmp_path), built.state)
    assert_same(recovered(tmp_path, "me.1"), other.state)


# -- what does not ----------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [0x01, 0x10, 0xFF])
def test_every_byte_of_a_segment(tmp_path: Path, flip: int) -> None:
    """Whatever byte is damaged: a place is named, and every commit before it is kept."""
    built = LogBuilder(tmp_path)
    for number in range(3):
        built.put("a.b", number)
    built.log.close()
    path = built.path(0)
    data = path.read_bytes()
    start, *commits = segments.commits(data)
    done = []
    for offset in range(len(data)):
        change(path, offset, flip)
        (finding,) = found(tmp_path)
        hit = next(logged for logged in [start, *commits] if offset < logged.end)
        assert finding.kind == "corrupt"
        assert finding.offset in (hit.start, data.rindex(b"\n@", 0, hit.end) + 1)
        assert finding.line == data[: finding.offset].count(b"\n") + 1
        # To do it takes a while: once for each commit that is hit.
        wanted = hit not in done
        plan = repair(tmp_path, "me", lambda plan, wanted=wanted: wanted, QuickDisk())
        # A damaged snapshot was that of an empty database.
        kept = 3 if hit is start else hit.seq - 1
        assert plan.kept == kept
        assert plan.lost == ([] if hit is start else [hit.seq])
        assert plan.set_aside == list(range(kept + 2, 4))
        text = [p if isinstance(p, bytes) else p.data[p.start : p.end] for p in plan.rewrites[0][1]]
        if hit is not start:
            assert b"".join(text) == data[: hit.start]
        if wanted:
            done.append(hit)
            assert path.read_bytes() == b"".join(text)
            assert_same(recovered(tmp_path), built.states[kept])
            path.write_bytes(data)
        else:
            change(path, offset, flip)
    assert len(done) == 4


def test_every_size_of_a_segment(tmp_path: Path) -> None:
    """Wherever a crash cuts the last commit off: it is torn, and what was before is kept."""
    built = LogBuilder(tmp_path)
    for number in range(3):
        built.put("a.b", number)
    built.log.close()
    data = built.path(0).read_bytes()
    last = offset_of(built.path(0), 3)
    for size in range(last + 1, len(data)):
        built.path(0).write_bytes(data[:size])
        (finding,) = found(tmp_path)
        assert (finding.kind, finding.offset) == ("torn", last)
        assert shown(tmp_path) == [1, 2]
        plan = mend(tmp_path)
        assert (plan.kept, plan.lost, plan.set_aside) == (2, [3], [])
        assert [path.read_bytes() for path in plan.made] == [
            data[:size], data[last:size], data[:last],
        ]
        for path in plan.made:
            path.unlink()


def test_what_was_repaired_is_kept_beside(tmp_path: Path) -> None:
    built = LogBuilder(tmp_path)
    for number in range(4):
        built.put("a", number)
    built.log.close()
    path = built.path(0)
    path.chmod(0o604)
    change(path, offset_of(path, 3) + 20)
    damaged = path.read_bytes()
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost, plan.set_aside) == (2, [3], [4])
    copy, rest, made = plan.made
    assert made == path
    assert copy.read_bytes() == damaged
    assert path.read_bytes() + rest.read_bytes() == damaged
    assert copy.name.startswith("log.me.0.damaged-20")
    assert rest.name.startswith("log.me.0.rest-20")
    assert {file.stat().st_mode & 0o777 for file in plan.made} == {0o604}
    (reason,) = plan.reasons
    assert reason.startswith("log.me.0: corrupt: line 9, byte offset ")
    assert reason.endswith("the checksum differs; commits that check follow: 4")


def test_a_commit_that_is_there_twice_is_not_lost(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    for path in (built.path(0), built.path(1)):
        good = path.read_bytes()
        change(path, offset_of(path, 6) + 20)
        assert kinds(tmp_path) == [(path.name, "corrupt")]
        plan = mend(tmp_path)
        assert (plan.kept, plan.lost, plan.set_aside) == (7, [], [])
        assert path.read_bytes() == good
        assert_same(recovered(tmp_path), built.state)


@pytest.mark.parametrize("more", [True, False])
def test_a_damaged_newest_snapshot(tmp_path: Path, more: bool) -> None:
    built = two_segments(tmp_path)
    if not more:
        cut(built.path(1), commits_in(built.path(1))[0].end)
    change(built.path(1), 50)
    with pytest.raises(Corrupt):
        recovered(tmp_path)
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost, plan.set_aside) == (7 if more else 6, [], [])
    assert_same(recovered(tmp_path), built.states[7 if more else 6])
    assert shown(tmp_path) == list(range(1, 8 if more else 7))


def test_a_newest_segment_of_which_nothing_is_left(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    for content in (b"", b"\0" * 900, b"hello\n"):
        built.path(1).write_bytes(content)
        assert kinds(tmp_path) == [("log.me.1", "corrupt")]
        mend(tmp_path)
        assert_same(recovered(tmp_path), built.states[6])
        for path in tmp_path.glob("log.me.1.*"):
            path.unlink()


def test_damage_in_a_snapshot_and_after_it(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    size = built.path(1).stat().st_size
    change(built.path(1), 50)
    change(built.path(1), size - 30)
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost, plan.set_aside) == (6, [7], [])
    assert_same(recovered(tmp_path), built.states[6])


def test_an_older_segment_that_cannot_be_mended_gets_out_of_the_way(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    change(built.path(0), offset_of(built.path(0), 2) + 20)
    assert kinds(tmp_path) == [("log.me.0", "corrupt")]
    assert_same(recovered(tmp_path), built.state)
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost, plan.moved) == (7, [], [built.path(0)])
    assert [path.name[:15] for path in plan.made] == ["log.me.0.aside-"]
    assert_same(recovered(tmp_path), built.state)


def test_a_missing_segment(tmp_path: Path) -> None:
    built = LogBuilder(tmp_path)
    for number in range(4):
        built.put("a", number)
        built.snapshot()
    built.log.close()
    built.path(3).unlink()
    assert kinds(tmp_path) == [("log.me.3", "missing")]
    with pytest.raises(Corrupt, match=r"log\.me\.3 is missing"):
        recovered(tmp_path)
    assert "missing" in [f.kind for f in show(tmp_path, "me") if isinstance(f, Finding)]
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost, plan.moved) == (4, [], [built.path(2)])
    assert_same(recovered(tmp_path), built.state)


def test_a_missing_successor(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    built.path(1).unlink()
    assert kinds(tmp_path) == [("log.me.0", "missing")]
    with pytest.raises(Corrupt, match=r"log\.me\.1 is missing"):
        recovered(tmp_path)
    plan = mend(tmp_path)
    assert plan.reasons == ["log.me.0: it goes on in log.me.1, which is not there"]
    assert plan.kept == 6
    assert_same(recovered(tmp_path), built.states[6])


def test_a_missing_commit(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    path = built.path(1)
    data, sixth, seventh = path.read_bytes(), offset_of(path, 6), offset_of(path, 7)
    path.write_bytes(data[:sixth] + data[seventh:])
    (finding,) = found(tmp_path)
    assert (finding.kind, finding.offset) == ("corrupt", sixth)
    assert finding.reason.startswith("sequence number 7 after 5")
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost) == (7, [])
    assert path.read_bytes() == data


def test_commits_that_are_only_in_the_segment_before(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    cut(built.path(1), offset_of(built.path(1), 6))
    assert [str(finding) for finding in found(tmp_path)] == [
        "log.me.1: sequence: the commits 6 of log.me.0 are missing here"
    ]
    plan = mend(tmp_path)
    assert (plan.kept, plan.lost) == (6, [])
    assert_same(recovered(tmp_path), built.states[6])


def test_commits_that_are_missing_between_segments(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    path = built.path(0)
    closing = path.read_bytes()[-len("> log.me.1\n") :]
    cut(path, offset_of(path, 4))
    path.write_bytes(path.read_bytes() + closing)
    assert [str(finding) for finding in found(tmp_path)] == [
        "log.me.1: sequence: log.me.0 ends without the commits 4 to 5"
    ]
    assert mend(tmp_path).moved == [path]


def test_a_segment_of_another_life(tmp_path: Path) -> None:
    """A crash cut a clear short: the next start finishes it."""
    built = LogBuilder(tmp_path)
    built.put("a", 1)
    fresh = built.path(0).read_bytes()
    built.clear("second")
    built.put("b", 1)
    built.log.close()
    built.path(0).write_bytes(fresh)
    assert kinds(tmp_path) == [("log.me.0", "note"), ("log.me.1", "life")]
    assert mend(tmp_path).moved == [built.path(0)]
    built.path(0).write_bytes(fresh)
    assert_same(recovered(tmp_path), built.state)
    assert kinds(tmp_path) == []


def test_a_commit_of_another_life(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    path = built.path(1)
    other = LogBuilder(tmp_path / "other", life="other")
    other.put("a", 1)
    other.log.close()
    stranger = commits_in(other.path(0))[1]
    path.write_bytes(path.read_bytes() + other.path(0).read_bytes()[stranger.start :])
    (finding,) = found(tmp_path)
    assert finding.kind == "corrupt"


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (b'"b1":{"_value":1', b'"b1":{"_value":9', "a.b1 in version 1"),
        (b'"b1":{"_value":1', b'"b1":{"_value":1.0', "a.b1 in version 1"),
        (b'"_value":1,"_version":1', b'"_value":1,"_version":0', "a.b1 in version 1"),
        (b'"b0":0', b'"b0":0,"more":1', "a.more in version 0"),
        (b'"instance":["list",{"_any":null}]', b'"deleted":true', "c in version 0"),
        (
            b'"path":"c","tega_id":"me","version":0',
            b'"path":"c","tega_id":"me","version":1',
            "c has version 0 there and 1 here",
        ),
        (b'"path":"c"', b'"path":"d"', "root c is only in one"),
        (b'["tx0",1,', b'["tx0",2,', "the transaction ids"),
        (b'"version":0,"chain":"', b'"version":0,"chain":"0', "the hash of c"),
    ],
)
def test_a_snapshot_that_differs_from_the_replay(
    tmp_path: Path, old: bytes, new: bytes, where: str
) -> None:
    built = two_segments(tmp_path)
    path = built.path(1)
    data = path.read_bytes()
    end = commits_in(path)[0].end
    text = data[: end - 9].replace(old, new, 1)
    assert old in data[:end]
    path.write_bytes(text + b"%08x\n" % record.crc32(text) + data[end:])
    (finding,) = [finding for finding in found(tmp_path) if finding.kind == "snapshot"]
    assert finding.reason == f"differs from what log.me.0 adds up to: {where}"


def test_a_snapshot_may_hold_fewer_versions(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    path = built.path(1)
    data = path.read_bytes()
    text: list[bytes] = []
    first = commits_in(path)[0]
    for _ in snapshot.write(snapshot.read(first, 1), "me", first.time, text.append):
        pass
    path.write_bytes(b"".join(text) + data[first.end :])
    assert found(tmp_path) == []


@pytest.mark.parametrize("size", range(len("> log.me.1\n")))
def test_a_crash_before_the_closing_line_is_whole(tmp_path: Path, size: int) -> None:
    built = two_segments(tmp_path)
    path = built.path(0)
    cut(path, path.stat().st_size - len("> log.me.1\n") + size)
    (first, second) = verify(tmp_path, "me")
    assert [finding.kind for finding in first.findings] == ["note"]
    assert (first.ok, second.findings) == (True, [])
    assert_same(recovered(tmp_path), built.state)
    mend(tmp_path)


def test_a_closing_line_that_names_another(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    path = built.path(0)
    path.write_bytes(path.read_bytes().replace(b"> log.me.1", b"> log.me.2"))
    assert kinds(tmp_path) == [("log.me.0", "sequence")]


# -- who may, and what if --------------------------------------------------------------------


def test_a_running_server(tmp_path: Path) -> None:
    built = LogBuilder(tmp_path)
    built.put("a", 1)
    built.put("a", 2)
    assert found(tmp_path) == []
    with pytest.raises(Locked, match=f"by process {os.getpid()}"):
        repair(tmp_path, "me")
    # Half of the next commit is on its way to the file.
    with built.path(0).open("r+b") as file:
        file.seek(len(segments.data_of(built.path(0))))
        file.write(b"? 3\n{")
    assert [(f.kind, f.reason) for f in found(tmp_path)] == [
        ("note", f"process {os.getpid()} may be writing here")
    ]
    left = tmp_path / "killed"
    left.mkdir()
    shutil.copy(built.path(0), left)
    assert kinds(left) == [("log.me.0", "torn")]
    built.log.close()
    assert kinds(tmp_path) == []


def test_the_lock(tmp_path: Path) -> None:
    assert lock.holder(tmp_path, "me") is None
    fd = lock.acquire(tmp_path, "me")
    assert lock.holder(tmp_path, "me") == str(os.getpid())
    with pytest.raises(Locked, match="choose another directory or tega id"):
        lock.acquire(tmp_path, "me")
    os.close(lock.acquire(tmp_path, "other"))
    os.close(fd)
    assert lock.holder(tmp_path, "me") is None
    os.close(lock.acquire(tmp_path, "me"))


def test_nothing_is_done_without_consent(tmp_path: Path) -> None:
    built = two_segments(tmp_path)
    change(built.path(1), 50)
    before = {path: path.read_bytes() for path in tmp_path.glob("log.*")}
    asked: list[Plan] = []

    def refuse(plan: Plan) -> bool:
        asked.append(plan)
        return False

    plan = repair(tmp_path, "me", refuse, QuickDisk())
    assert asked == [plan]
    assert (plan.empty, plan.made) == (False, [])
    assert {path: path.read_bytes() for path in tmp_path.glob("log.*")} == before


class FullDisk(QuickDisk):
    """Fails at the nth write or rename."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._count()
        super().write(fd, data, offset)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)


def test_a_disk_that_fails_in_the_middle(tmp_path: Path) -> None:
    """Whenever that is: repairing again gives the same."""
    for steps in range(100):
        directory = tmp_path / str(steps)
        built = two_segments(directory)
        change(built.path(1), built.path(1).stat().st_size - 20)
        change(built.path(0), offset_of(built.path(0), 6) + 20)
        try:
            repair(directory, "me", disk=FullDisk(steps))
        except OSError:
            plan = mend(directory)
            assert plan.kept in (6, None)
            assert_same(recovered(directory), built.states[6])
        else:
            assert steps > 5
            return
    raise AssertionError("it never came to an end")


def test_nothing_to_build_on(tmp_path: Path) -> None:
    path = tmp_path / "log.me.0"
    path.write_bytes(b"? 9\nhello\n")
    with pytest.raises(Corrupt, match="no snapshot that checks"):
        repair(tmp_path, "me", disk=QuickDisk())
    built = two_segments(tmp_path / "more")
    built.path(0).unlink()
    change(built.path(1), 50)
    with pytest.raises(Corrupt, match="no snapshot that checks"):
        repair(tmp_path / "more", "me", disk=QuickDisk())


damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "nul", "drop", "double", "missing"]),
        st.integers(0, 2),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def three_segments(tmp_path_factory: pytest.TempPathFactory) -> LogBuilder:
    built = LogBuilder(tmp_path_factory.mktemp("three"))
    for number in range(3):
        for key in "xyz":
            built.put(f"a.{key}", {"n": number})
        if number < 2:
            built.snapshot(lambda: built.put("meanwhile", 1))
    built.log.close()
    return built


@settings(max_examples=200, deadline=None)
@given(damage=damages)
def test_whatever_happens_to_it(
    three_segments: LogBuilder,
    damage: list[tuple[str, int, float, int]],
) -> None:
    """What repair says is so: what it keeps is there, and a start goes on from it."""
    files = {n: three_segments.path(n).read_bytes() for n in range(3)}
    for kind, number, where, size in damage:
        data = files.get(number, b"")
        at = int(where * len(data))
        damaged = {
            "flip": data[:at] + bytes([data[at] ^ size]) + data[at + 1 :] if data else b"",
            "cut": data[:at],
            "nul": data[:at] + bytes(min(size, len(data) - at)) + data[at + size :],
            "drop": data[:at] + data[at + size :],
            "double": data[: at + size] + data[at:],
        }
        if kind == "missing":
            files.pop(number, None)
        elif number in files:
            files[number] = damaged[kind]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for number, data in files.items():
            (directory / f"log.me.{number}").write_bytes(data)
        if not files:
            return
        try:
            plan = mend(directory)
        except Corrupt as error:
            hopeless = error
            event("nothing to build on")
        else:
            hopeless = None
            event("mended" if plan.made else "checks")
        if hopeless is not None:
            assert "no snapshot that checks" in hopeless.message
            return
        assert plan.kept is not None
        assert_same(recovered(directory), three_segments.states[plan.kept])
        assert not {*plan.lost} & {*plan.set_aside}
        assert min([*plan.lost, *plan.set_aside], default=plan.kept + 1) == plan.kept + 1


# -- 2017 -------------------------------------------------------------------------------------

OLD = """?
{'ope': 'PUT', 'path': 'a.b', 'tega_id': 'cli-1', 'instance': 1}
@2016-02-01
?
{'ope': 'PUT', 'path': 'a.c', 'tega_id': 'cli-2', 'instance': 2}
@2016-02-02
-1 cli-3 a
"""


def old_log(directory: Path) -> LogBuilder:
    """Two segments of 2017, and one of today."""
    (directory / "log.me.0").write_text(OLD)
    (directory / "log.me.1").write_text("?\n" + OLD.split("\n")[1] + "\n" + OLD)
    built = LogBuilder(directory)
    built.put("new", 1)
    built.log.close()
    return built


def test_a_log_of_2017_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "log.me.0").write_text(OLD)
    (tmp_path / "log.me.1").write_text(OLD + "?\n{'ope")
    first, second = verify(tmp_path, "me")
    assert (first.of_2017, first.commits, first.first, first.last) == (True, 3, 1, 3)
    assert (second.commits, second.first, second.last) == (3, 4, 6)
    assert [(f.kind, f.line) for f in second.findings] == [("note", 9), ("note", 8)]
    commits = [item for item in show(tmp_path, "me") if isinstance(item, Shown)]
    assert commits[1] == Shown(2, "2016-02-02", "cli-2", {"a": 1}, [("PUT", ("a", "c"))])
    assert commits[2] == Shown(3, "", "cli-3", {"a": 0}, [], rolled_back=("a", 1))
    assert repair(tmp_path, "me").empty


def test_a_log_of_2017_and_what_follows(tmp_path: Path) -> None:
    built = old_log(tmp_path)
    results = verify(tmp_path, "me")
    assert [(c.of_2017, c.commits, c.first, c.last) for c in results] == [
        (True, 3, 1, 3), (True, 3, 4, 6), (False, 1, 7, 7),
    ]
    assert all(checked.ok for checked in results)
    assert shown(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    built.path(0).unlink()
    assert all(checked.ok for checked in verify(tmp_path, "me"))
    assert shown(tmp_path) == [None, None, None, 7]


def test_a_snapshot_that_differs_from_the_log_of_2017(tmp_path: Path) -> None:
    old_log(tmp_path)
    path = tmp_path / "log.me.0"
    path.write_text(path.read_text().replace("'instance': 1", "'instance': 3"))
    assert kinds(tmp_path)[-1] == ("log.me.2", "snapshot")


def test_a_bad_line_of_2017(tmp_path: Path) -> None:
    path = tmp_path / "log.me.0"
    path.write_text(OLD + "what\n")
    (finding,) = found(tmp_path)
    assert (finding.kind, finding.line, finding.offset) == ("corrupt", 8, len(OLD))
    items = list(show(tmp_path, "me"))
    assert (len(items), items[-1]) == (4, finding)
    with pytest.raises(Corrupt, match="mend that line by hand"):
        repair(tmp_path, "me")


@pytest.mark.parametrize("more", [True, False])
def test_a_damaged_segment_after_2017(tmp_path: Path, more: bool) -> None:
    built = old_log(tmp_path)
    if not more:
        cut(built.path(2), commits_in(built.path(2))[0].end)
    change(built.path(2), 50)
    repair(tmp_path, "me", disk=QuickDisk())
    state = recovered(tmp_path)
    assert state.seq == (7 if more else 6)
    assert state.roots["a"].version == 1
    assert all(checked.ok for checked in verify(tmp_path, "me"))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([4], "4"), ([1, 2, 3], "1 to 3"), ([1, 3, 4, 9], "1, 3 to 4, 9")],
)
def test_spans(numbers: list[int], text: str) -> None:
    assert spans(numbers) == text
