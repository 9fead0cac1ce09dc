"""Servers in trouble, many times over: whatever happens, all is well after it."""

from __future__ import annotations

import pytest
from repeatable import check_repeatable
from simworld import World
from virtual import Simulation, run


async def scenario(simulation: Simulation) -> None:
    await World(simulation, chain=simulation.seed % 3 == 0).live()


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_servers_in_trouble(first: int) -> None:
    for seed in range(first, first + 10):
        run(scenario, seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(200, 10_000, 100))
def test_servers_in_trouble_for_long(first: int) -> None:
    for seed in range(first, first + 100):
        run(scenario, seed)


def test_a_seed_reproduces_its_run() -> None:
    check_repeatable(scenario, [1, 3, 6, 9])
