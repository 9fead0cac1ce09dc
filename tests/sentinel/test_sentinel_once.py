"""No event is applied twice, and none is skipped: triggers in the database count every write.

What is counted: each thing is changed once (see `Stream`), so that no two events concern one row.
Taking several events of one row together, which is allowed within one transaction, cannot happen
here; so the triggers must fire exactly once for each event: no write less, and none more, also none
that leaves a row as it is.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from changes import Stream
from databases import SERVERS, on
from mirrors import Mirror
from processes import PATIENCE


def counted(mirror: Mirror, stream: Stream) -> None:
    """Whether just what was done in the source was done in the table."""
    found = Counter(mirror.audited())
    assert found - stream.expected == Counter(), "applied twice, or made up"
    assert stream.expected - found == Counter(), "skipped"


def play(
    mirror: Mirror, seed: int, seconds: float, disturb: Callable[[random.Random], None]
) -> None:
    """Change things for a while, and disturb something again and again meanwhile."""
    dice = random.Random(seed)
    stream = Stream(mirror.etcd, seed, 300, seconds)
    mirror.prepare()
    mirror.sentinel.start()
    stream.start()
    try:
        disturbed = 0
        limit = time.monotonic() + seconds + PATIENCE
        while stream.is_alive() and time.monotonic() < limit:
            disturb(dice)
            disturbed += 1
        stream.finish()
    finally:
        stream.stop()
    assert disturbed >= 3
    if not mirror.sentinel.alive:
        mirror.sentinel.start()
    mirror.check()
    counted(mirror, stream)


@on("postgresql")
def test_a_stream(mirror: Mirror) -> None:
    """Nothing happens to anybody; full passes go on all the time."""
    mirror.sentinel.arguments += ["--interval", "0.2"]
    play(mirror, 1, 2, lambda dice: time.sleep(0.2))


@on("mariadb")
@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.long)])
def test_the_sentinel_is_killed_again_and_again(mirror: Mirror, seed: int) -> None:
    mirror.sentinel.arguments += ["--interval", "0.3"]

    def disturb(dice: random.Random) -> None:
        if not mirror.sentinel.alive:
            mirror.sentinel.launch()
        # Sometimes while it begins, sometimes while it follows.
        time.sleep(dice.choice([dice.uniform(0.3, 0.9), dice.uniform(0.9, 2.5)]))
        mirror.sentinel.kill()

    play(mirror, seed, 6, disturb)


def test_the_database_is_killed_again_and_again(server_mirror: Mirror) -> None:
    server = server_mirror.database.server
    assert server is not None

    def disturb(dice: random.Random) -> None:
        time.sleep(dice.uniform(0.1, 0.8))
        server.kill()
        time.sleep(dice.uniform(0, 0.5))
        server.start()

    play(server_mirror, 21, 5, disturb)


@on("postgresql", of=SERVERS)
def test_the_database_stands_still_again_and_again(mirror: Mirror) -> None:
    server = mirror.database.server
    assert server is not None

    def disturb(dice: random.Random) -> None:
        time.sleep(dice.uniform(0.1, 0.4))
        server.pause()
        time.sleep(dice.uniform(0.1, 0.8))
        server.resume()

    play(mirror, 31, 3, disturb)


def test_etcd_is_killed_again_and_again(one_mirror: Mirror) -> None:
    mirror = one_mirror
    def disturb(dice: random.Random) -> None:
        time.sleep(dice.uniform(0.1, 1.0))
        mirror.etcd.kill()
        time.sleep(dice.uniform(0, 0.3))
        mirror.etcd.start()

    play(mirror, 41, 4, disturb)


@on("postgresql")
def test_everybody_is_killed_and_the_history_forgotten(mirror: Mirror) -> None:
    """Where the history is gone, a listing shows the same one event for each thing."""
    server = mirror.database.server
    mirror.sentinel.arguments += ["--interval", "0.5"]

    def disturb(dice: random.Random) -> None:
        who = dice.choice(["sentinel", "database", "etcd", "history", "history"])
        if not mirror.sentinel.alive:
            mirror.sentinel.launch()
        time.sleep(dice.uniform(0, 0.8))
        if who == "sentinel":
            mirror.sentinel.kill()
        elif who == "database" and server is not None:
            server.restart()
        elif who == "etcd":
            mirror.etcd.restart()
        elif who == "history":
            mirror.sentinel.kill()
            time.sleep(dice.uniform(0, 0.3))
            mirror.etcd.compact()

    play(mirror, 51, 6, disturb)
