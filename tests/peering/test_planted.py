"""The simulation finds bugs: each of these is planted alone, and does not live long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from simworld import World
from virtual import Simulation, run

from tega.errors import OutcomeUnknown
from tega.peering import codec, writes
from tega.peering.guests import Guests
from tega.peering.link import Link
from tega.peering.peers import Peers
from tega.peering.source import Source
from tega.store.commit import Delete
from tega.store.staging import Draft
from tega.web.later import Later

#: So many seeds may pass until a bug is found.
SEEDS = 60

Patch = Callable[[type | Any, str, Any], None]


async def scenario(simulation: Simulation) -> None:
    await World(simulation, chain=simulation.seed % 3 == 0).live()


def requests_are_taken_twice(patch: Patch) -> None:
    taken = Link._request

    def twice(self: Link, message: Any) -> None:
        self._last_taken = -1
        taken(self, message)

    patch(Link, "_request", twice)


def nobody_is_told_of_the_end_of_sessions(patch: Patch) -> None:
    patch(Guests, "ended", lambda self, tega_id: None)
    patch(Guests, "held_at", lambda self, peer: sorted(self._there.get(peer, ())))


def ephemeral_nodes_are_not_laid_after_catching_up(patch: Patch) -> None:
    patch(Source, "_lay", lambda self, name, state: None)


def a_clear_is_kept_to_oneself(patch: Patch) -> None:
    patch(Peers, "_cleared", lambda self: None)


def transaction_ids_are_lost_on_the_way(patch: Patch) -> None:
    written = codec.request_body

    def without(request: Any) -> bytes:
        return written(request).replace(b'"txid":"', b'"_txid":"')

    patch(codec, "request_body", without)


def what_is_unknown_counts_as_done(patch: Patch) -> None:
    ask = writes.Writes._ask

    def optimistic(self: Any, link: Any, request: Any) -> Later:
        answer = Later()

        def answered(asked: Later) -> None:
            try:
                answer.resolve(asked.result())
            except OutcomeUnknown:
                answer.resolve(self._database.state.ids)
            except Exception as error:
                answer.resolve(error=error)

        ask(self, link, request).then(answered)
        return answer

    patch(writes.Writes, "_ask", optimistic)


def messages_go_back_where_they_came_from(patch: Patch) -> None:
    def heard(self: Peers, link: Link, publication: Any) -> None:
        self.hub.tell(publication, None, elsewhere=True)
        if self.up is not None and link is not self.up:
            self.up.tell(publication)

    patch(Peers, "heard", heard)


def a_follower_ends_sessions_in_trees_of_others(patch: Patch) -> None:
    def lapse(self: Draft) -> None:
        for path in sorted(self.ephemerals.get(self.tega_id, ())):
            self.apply(Delete(path))

    patch(Draft, "lapse", lapse)


@pytest.mark.parametrize(
    "plant",
    [
        requests_are_taken_twice,
        nobody_is_told_of_the_end_of_sessions,
        ephemeral_nodes_are_not_laid_after_catching_up,
        a_clear_is_kept_to_oneself,
        transaction_ids_are_lost_on_the_way,
        what_is_unknown_counts_as_done,
        messages_go_back_where_they_came_from,
        a_follower_ends_sessions_in_trees_of_others,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_bug_is_found(
    plant: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch.setattr)
    for seed in range(1, SEEDS + 1):
        try:
            run(scenario, seed, limit=100_000)
        except (AssertionError, AttributeError):
            return
    pytest.fail(f"{SEEDS} seeds did not find it")


def test_there_is_enough_going_on() -> None:
    """So that a world in which nothing happens is no good news."""
    told: Counter[str] = Counter()
    happened: Counter[str] = Counter()

    async def counted(simulation: Simulation) -> None:
        world = World(simulation, chain=simulation.seed % 3 == 0)
        await world.live()
        told.update(write.told for write in world.writes.values())
        happened["calls"] += len(world.answered)
        happened["messages"] += sum(len(ear.told) for ear in world.ears)
        for line in simulation.trace.lines:
            words = line.split()
            happened[words[1]] += 1
            happened.update({"root": "PEER root" in line, "overlay": "PEER overlay" in line})

    for seed in range(1, 11):
        run(counted, seed)
    assert told["done"] > 1_000
    assert told["unknown"] > 50
    assert told["refused"] > 500
    assert happened["calls"] > 200
    assert happened["messages"] > 500
    for what in ("crash", "cut", "blackhole", "orphan", "clear", "snapshot"):
        assert happened[what] > 3, what
    assert happened["root"] > 50
    assert happened["overlay"] > 100
