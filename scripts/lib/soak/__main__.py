"""``scripts/soak``: run, and print a report."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from realservers import logs_agree, until

from soak.clients import Client, Commands, Pairs, Readers, Writer, begin, finish
from soak.hostile import Hostile
from soak.judge import Judge
from soak.sessions import Sessions
from soak.world import TAKEN, World, descriptors
from tega.cli import logtool

#: Seconds between two looks at the servers.
_LOOK = 2.0

#: Descriptors that a server at rest may have beside those that it began with.
_SPARE = 8


def main() -> int:
    """Entry point.

    :returns: the exit status: 1 where something did not hold
    """
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is left to chance")
    parser.add_argument("--report", type=Path, help="write the report there, not to stdout")
    given = parser.parse_args()
    # What the clients' connections go through is in the report.
    logging.disable(logging.CRITICAL)
    judge = Judge()
    with tempfile.TemporaryDirectory(prefix="tega-soak-") as directory:
        _soak(Path(directory), judge, given.minutes * 60, given.seed)
    report = judge.report(given.seed)
    if given.report is None:
        sys.stdout.write(report)
    else:
        given.report.write_text(report)
    return 1 if judge.broken else 0


def _soak(directory: Path, judge: Judge, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    world = World(directory, judge, chance)
    try:
        world.begin()
        _run(world, directory, seconds, seed)
        _look_back(world)
    finally:
        world.drop()


def _run(world: World, directory: Path, seconds: float, seed: int) -> None:
    judge, over, calm = world.judge, threading.Event(), threading.Event()
    places = [
        (world.g, "shared"), (world.a, "shared"), (world.b, "shared"), (world.a, "op-a"),
        (world.b, "op-b"), (world.g, "op-a"),
    ]  # fmt: skip
    writers = [
        Writer(server, root, world, f"writer {number}", over, seed, 0.05)
        for number, (server, root) in enumerate(places)
    ]
    others: list[Client] = [
        Pairs(world, "transaction 1", over, seed, 0.3),
        Readers(world, "reader 1", over, seed, 0.2),
        Commands(directory, world, "command 1", over, seed, 8),
        *[Hostile(world, f"hostile {number}", over, seed, 0.3) for number in range(3)],
    ]
    sessions = Sessions(world, writers, over, seed)
    sessions.begin()
    clients: list[Client] = [*writers, *others]
    begin(clients)
    striking = threading.Thread(
        target=world.strike, args=(max(1.0, min(20.0, seconds / 20)), calm), daemon=True
    )
    striking.start()
    _wait(world, seconds)
    calm.set()
    striking.join(4 * TAKEN)
    over.set()
    finish(clients, 120, judge)
    sessions.finish()
    for writer in writers:
        writer.check()


def _wait(world: World, seconds: float) -> None:
    """Let time pass, and look at the servers meanwhile."""
    until_then = time.monotonic() + seconds
    shows = sys.stderr.isatty()
    while (left := until_then - time.monotonic()) > 0:
        world.look()
        if shows:
            judge = world.judge
            sys.stderr.write(
                f"\r{left / 60:5.1f} minutes left, {judge.total} operations, "
                f"{sum(judge.faults.values())} faults, {len(judge.broken)} broken "
            )
            sys.stderr.flush()
        time.sleep(min(_LOOK, max(0.0, left)))
    if shows:
        sys.stderr.write("\n")


def _look_back(world: World) -> None:
    """What must hold once all is over."""
    judge = world.judge
    followed = [
        ("shared", world.g, world.locals), ("op-a", world.a, [world.g]),
        ("op-b", world.b, [world.g]),
    ]  # fmt: skip
    for root, leader, followers in followed:
        for follower in followers:
            same = _comes(
                lambda follower=follower, leader=leader, root=root: (
                    follower.tree(root) == leader.tree(root)
                )
            )
            judge.check("followers equal their leader", same, (root, follower.tega_id))
    for server, resting in zip(world.all, world.resting, strict=True):
        for name, own in (("a", world.a), ("b", world.b)):
            gone = server not in (own, world.g) or _comes(
                lambda server=server, name=name: not server.get(f"/op-{name}/live/")
            )
            judge.check("what is ephemeral goes with its session", gone, server.tega_id)
        closed = _comes(
            lambda server=server, resting=resting: descriptors(server.pid) <= resting + _SPARE
        )
        judge.check(
            "descriptors are given back", closed,
            f"{server.tega_id}: {descriptors(server.pid)}, at first {resting}",
        )
    world.look()
    judge.weigh()
    world.end()
    for server in world.all:
        said = server.said
        judge.check("no server reports a bug", "Traceback" not in said and " bug" not in said, said)
        with redirect_stdout(StringIO()) as shown:
            verified = logtool.main(["verify", str(server.files)]) == 0
        judge.check("tega-log verify finds nothing wrong", verified, shown.getvalue())
        secrets = [token for token in server.tokens.values() if token.partition(".")[2] in said]
        judge.check("no token is in any log", not secrets)
    for root, leader, followers in followed:
        try:
            logs_agree(root, leader, *followers)
        except AssertionError as error:
            judge.check("the logs of all servers agree", False, error)
        else:
            judge.check("the logs of all servers agree", True)


def _comes(holds: Callable[[], bool]) -> bool:
    try:
        until(holds, TAKEN)
    except AssertionError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
