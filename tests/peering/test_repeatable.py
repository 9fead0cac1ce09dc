"""Simulations run again: what must be the same, and what is found that is not."""

from __future__ import annotations

import asyncio

import pytest
from repeatable import Unrepeatable, check_repeatable
from virtual import Scenario, Simulation


class Thing:
    """Hashed by its address."""

    def __init__(self, number: int) -> None:
        self.number = number


async def racing(simulation: Simulation) -> None:
    """Tasks that wait at random."""

    async def runner(number: int) -> None:
        for step in range(20):
            await asyncio.sleep(simulation.random.random())
            simulation.trace(f"{number} at {step}")

    await asyncio.gather(*map(runner, range(10)))


async def ordered_by_address(simulation: Simulation) -> None:
    things = {Thing(number) for number in range(50)}
    simulation.trace(" ".join(str(thing.number) for thing in things))


async def ordered_by_hash_of_text(simulation: Simulation) -> None:
    simulation.trace(" ".join({str(number) for number in range(50)}))


def test_the_same_seed_gives_the_same_trace_and_others_do_not() -> None:
    check_repeatable(racing, [1, 2, 3])
    digests = set()
    for seed in range(20):
        simulation = Simulation(seed)
        simulation.run(racing)
        digests.add(simulation.trace.digest)
    assert len(digests) == 20


@pytest.mark.parametrize(
    ("scenario", "where"),
    [(ordered_by_address, "interpreter"), (ordered_by_hash_of_text, "another interpreter")],
)
def test_what_is_ordered_by_chance_is_found(scenario: Scenario[None], where: str) -> None:
    with pytest.raises(Unrepeatable, match=f"seed 5, in .*{where}, line 1, after"):
        check_repeatable(scenario, [5])
