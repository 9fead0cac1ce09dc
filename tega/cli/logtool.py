"""``tega-log``: looking at the commit log of a server, and mending it by hand.

It works on the files: ``verify`` and ``show`` while a server runs or without one, ``repair`` only
without. Data goes to stdout, messages to stderr.

Exit status: 0 fine, 1 something does not check, 2 usage, 3 the log cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tega.errors import Malformed
from tega.log.base import Progress
from tega.log.repair import Plan, repair
from tega.log.show import Shown, show
from tega.log.verify import Checked, Finding, spans, tega_ids, verify
from tega.paths import Path as NodePath
from tega.paths import check_tega_id, dotted, parse

#: A time in ISO 8601, or its beginning, from the month on.
_TIME = re.compile(r"\d{4}-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?)?)?Z?")

FINE, FINDINGS, USAGE, UNREADABLE = range(4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tega-log``.

    :returns: the exit status
    """
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. What is left to flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _say(str(error))
        return UNREADABLE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tega-log",
        description="Look at the commit log of tega-server, and mend it.",
        epilog="Exit status: 0 fine, 1 something does not check, 2 usage, 3 cannot be read.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _command(commands, "verify", "check every commit and snapshot")
    command.set_defaults(run=_verify)

    command = _command(commands, "show", "print the commits, a line each, oldest first")
    command.add_argument(
        "--who", metavar="ID", help="only what this tega id committed, wherever it did"
    )
    command.add_argument(
        "--path", type=_path, metavar="PATH", help="only what touched PATH, above or below it too"
    )
    moment = "a sequence number, or a time in UTC: 2026-11-21, 2026-11-21T05:49, ..."
    command.add_argument(
        "--since", type=_moment, metavar="WHEN", help=f"only from then on: {moment}"
    )
    command.add_argument(
        "--until", type=_moment, metavar="WHEN", help=f"only up to then, that included: {moment}"
    )
    command.add_argument("-n", type=_number, metavar="N", help="only the last N of those")
    command.add_argument(
        "-o", choices=("text", "json"), default="text", dest="form",
        help="lines for people, or a JSON object a line",
    )
    command.set_defaults(run=_show)

    command = _command(commands, "repair", "set aside what does not check; no server may run")
    command.add_argument("--yes", action="store_true", help="do it without asking")
    command.set_defaults(run=_repair)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{name}: {text}.")
    command.add_argument("directory", type=Path, metavar="DIR", help="directory of the log")
    which = "which log; repair needs it where there are several"
    command.add_argument(
        "-t", "--tegaid", type=_tega_id, metavar="ID", help=which if name == "repair" else
        "which log; without it, all that are there"
    )
    return command


def _path(text: str) -> NodePath:
    try:
        return parse(text)
    except Malformed as error:
        raise argparse.ArgumentTypeError(_visible(error.message)) from None


def _tega_id(text: str) -> str:
    try:
        return check_tega_id(text)
    except Malformed as error:
        raise argparse.ArgumentTypeError(_visible(error.message)) from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"{_visible(text)!r} is no number from 0 up")
    return int(text)


def _moment(text: str) -> int | str:
    """A sequence number; or a time, or the beginning of one, as commits have it."""
    if _TIME.fullmatch(text):
        return text.removesuffix("Z")
    try:
        return _number(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{_visible(text)!r} is no number from 0 up, and no time such as 2026-11-21T05:49"
        ) from None


def _logs(options: argparse.Namespace) -> list[str]:
    """The tega ids asked for."""
    if options.tegaid is not None:
        return [options.tegaid]
    found = tega_ids(options.directory)
    if not found:
        raise FileNotFoundError(f"{options.directory} has no log")
    return found


# -- verify -----------------------------------------------------------------------------------


def _verify(options: argparse.Namespace) -> int:
    status = FINE
    for tega_id in _logs(options):
        for checked in verify(options.directory, tega_id, _progress(sys.stderr)):
            _print(_summary(checked))
            for finding in checked.findings:
                _print(f"  {finding}")
            if not checked.ok:
                status = FINDINGS
    if status == FINDINGS:
        _say("look at what was found; 'tega-log repair' keeps what checks and sets aside the rest")
    return status


def _summary(checked: Checked) -> str:
    parts = []
    if checked.of_2017:
        parts.append("2017's format")
    if checked.snapshot is not None:
        parts.append(f"snapshot at {checked.snapshot}")
    commits = "1 commit" if checked.commits == 1 else f"{checked.commits} commits"
    if checked.first:
        commits += f", {spans(range(checked.first, checked.last + 1))}"
    parts += [commits, f"{checked.size} bytes"]
    return f"{checked.name}: {'ok' if checked.ok else 'NOT OK'}: {', '.join(parts)}"


# -- show -------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    status = FINE
    logs = _logs(options)
    for tega_id in logs:
        as_json = options.form == "json"
        if len(logs) > 1 and not as_json:
            _print(f"# {tega_id}")
        findings: list[Finding] = []
        # With -n nothing is printed before the end.
        progress = None if options.n is None else _progress(sys.stderr)
        shown = show(options.directory, tega_id, progress)
        commits = _wanted(_commits(shown, findings), options)
        for commit in commits if options.n is None else deque(commits, options.n):
            _print(_object(tega_id, commit) if as_json else _line(commit))
        for finding in findings:
            _say(str(finding))
            if finding.kind != "note":
                status = FINDINGS
    return status


def _commits(shown: Iterable[Shown | Finding], findings: list[Finding]) -> Iterator[Shown]:
    for item in shown:
        if isinstance(item, Finding):
            findings.append(item)
        else:
            yield item


def _wanted(commits: Iterable[Shown], options: argparse.Namespace) -> Iterator[Shown]:
    for commit in commits:
        if options.who is not None and commit.tega_id != options.who:
            continue
        if options.since is not None and _compare(commit, options.since) < 0:
            continue
        if options.until is not None and _compare(commit, options.until) > 0:
            continue
        if options.path is None or _touches(commit, options.path):
            yield commit


def _compare(commit: Shown, moment: int | str) -> int:
    """Below 0 where a commit was before a moment, above 0 where after; what is part of it is 0."""
    if isinstance(moment, int):
        return (commit.seq or 0) - moment
    time = commit.time[: len(moment)]
    return (time > moment) - (time < moment)


def _touches(commit: Shown, path: NodePath) -> bool:
    if commit.rolled_back is not None and commit.rolled_back[0] == path[0] and not commit.changes:
        return True
    return any(
        at[: len(path)] == path or path[: len(at)] == at for _, at in commit.changes
    )


def _line(commit: Shown) -> str:
    """Sequence number, time, who, the roots with their versions before and after, what was done
    where, and for what another server leads, its tega id and sequence number."""
    versions = [
        f"{dotted((name,))}@{version}" if before is None else
        f"{dotted((name,))}@{before}->{version}"
        for name, (before, version) in commit.made().items()
    ]
    done = [f"{ope} {dotted(path)}" for ope, path in commit.changes]
    if commit.rolled_back is not None:
        root, back = commit.rolled_back
        done.insert(0, f"ROLLBACK {dotted((root,))} -{back}")
    fields = [
        "-" if commit.seq is None else str(commit.seq),
        commit.time or "-",
        commit.tega_id or "-",
        ",".join(versions) or "-",
        ", ".join(done) or "-",
    ]
    if commit.txid is not None:
        fields.append(f"txid={commit.txid}")
    fields += sorted({f"leader={leader}/{seq}" for _, leader, seq in commit.leaders})
    return "  ".join(fields)


def _object(tega_id: str, commit: Shown) -> str:
    """The same as a JSON object."""
    told: dict[str, Any] = {
        "log": tega_id,
        "seq": commit.seq,
        "time": commit.time or None,
        "tega_id": commit.tega_id or None,
        "txid": commit.txid,
        "versions": {
            dotted((name,)): {"from": before, "to": version}
            for name, (before, version) in commit.made().items()
        },
        "changes": [{"ope": ope, "path": dotted(path)} for ope, path in commit.changes],
    }
    if commit.rolled_back is not None:
        root, back = commit.rolled_back
        told["rollback"] = {"root": dotted((root,)), "versions": back}
    if commit.leaders:
        told["leaders"] = {
            dotted((name,)): {"tega_id": leader, "seq": seq}
            for name, leader, seq in commit.leaders
        }
    return json.dumps(told)


# -- repair -----------------------------------------------------------------------------------


def _repair(options: argparse.Namespace) -> int:
    logs = _logs(options)
    if len(logs) > 1:
        _say(f"{options.directory} has several logs: choose one with -t: {', '.join(logs)}")
        return USAGE

    def agree(plan: Plan) -> bool:
        for line in _would(plan):
            _print(line)
        if options.yes:
            return True
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            _say("nothing was done: say --yes to do this")
            return False
        return input("Do this? [y/N] ").strip().lower() in ("y", "yes")

    plan = repair(options.directory, logs[0], agree, progress=_progress(sys.stderr))
    if plan.empty:
        _print("everything that a start needs checks: nothing to do")
        return FINE
    for path in plan.made:
        _print(f"wrote {path.name}")
    return FINE if plan.made else FINDINGS


def _would(plan: Plan) -> Iterator[str]:
    yield from plan.reasons
    for rewrite in plan.rewrites:
        name = rewrite.segment.path.name
        size = sum([end - start for start, end in rewrite.rest])
        yield (
            f"{name}: kept as {name}.damaged-TIME, then written anew with what checks; "
            f"{size} bytes that are not kept go to {name}.rest-TIME"
        )
    for path in plan.moved:
        yield f"{path.name}: renamed to {path.name}.aside-TIME"
    if plan.kept is not None:
        yield f"commits kept: up to {plan.kept}"
        yield f"commits lost: {spans(plan.lost) or 'none'}"
        yield f"commits that check, but are set aside: {spans(plan.set_aside) or 'none'}"


# -- printing ---------------------------------------------------------------------------------


def _print(line: str) -> None:
    sys.stdout.write(_visible(line) + "\n")


def _say(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"tega-log: {_visible(line)}\n")


def _visible(line: str) -> str:
    """A line as a terminal may have it: what is not printable escaped."""
    if line.isprintable():
        return line
    return "".join([c if c.isprintable() else json.dumps(c)[1:-1] for c in line])


def _progress(out: TextIO) -> Progress | None:
    """Progress on a terminal, from the second second on."""
    if not out.isatty():
        return None
    started = shown = time.monotonic()

    def report(commits: int, done: int, size: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - started < 1 or (now - shown < 0.2 and done < size):
            return
        shown = now
        rate = commits / (now - started)
        out.write(f"\r{commits} commits, {100 * done // max(size, 1)} %, {rate:.0f}/s ")
        out.write("\n" if done == size else "")
        out.flush()

    return report


if __name__ == "__main__":
    sys.exit(main())
