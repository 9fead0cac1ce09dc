"""Processes in a simulation: what ends with a crash, and what does not."""

from __future__ import annotations

import asyncio

from virtual import Process, Simulation, run, trace_of


def test_nothing_of_a_killed_process_runs_again() -> None:
    said: list[str] = []

    async def child(event: asyncio.Event) -> None:
        await event.wait()
        said.append("child woke")

    async def server(event: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        children = [asyncio.create_task(child(event))]
        loop.call_later(5, said.append, "timer")
        try:
            await asyncio.sleep(1)
            said.append("running")
            await asyncio.sleep(10)
        finally:
            said.append(f"finally of {len(children)}")

    async def scenario(simulation: Simulation) -> None:
        process = Process(simulation.loop, "a")
        event = asyncio.Event()
        task = process.start(server(event))
        await asyncio.sleep(2)
        assert said == ["running"]
        event.set()
        process.run(simulation.loop.call_soon, said.append, "soon")
        process.kill()
        await asyncio.sleep(100)
        assert not process.alive
        assert said == ["running"]
        assert not task.done()
        assert simulation.loop.pending_timers() == []
        assert simulation.loop.pending_tasks() == [asyncio.current_task()]

    run(scenario)


def test_what_others_finish_does_not_wake_the_dead() -> None:
    async def scenario(simulation: Simulation) -> None:
        process = Process(simulation.loop, "a")
        future = simulation.loop.create_future()
        process.run(future.add_done_callback, lambda future: simulation.trace("woken"))
        process.kill()
        future.set_result(None)
        await asyncio.sleep(10)

    assert trace_of(scenario, 0) == []


def test_another_process_lives_on() -> None:
    async def server(simulation: Simulation, name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            simulation.trace(name)

    async def scenario(simulation: Simulation) -> None:
        one, two = (Process(simulation.loop, name) for name in "ab")
        one.start(server(simulation, "a"))
        living = two.start(server(simulation, "b"))
        await asyncio.sleep(1.5)
        one.kill()
        again = Process(simulation.loop, "a").start(server(simulation, "a again"))
        await asyncio.gather(living, again)

    assert [line.split(" ", 1)[1] for line in trace_of(scenario, 0)] == [
        "a", "b", "b", "a again", "b", "a again", "a again",
    ]  # fmt: skip


def test_a_process_may_kill_itself() -> None:
    async def server(process: Process, simulation: Simulation) -> None:
        process.kill()
        simulation.trace("goes on until it waits")
        await asyncio.sleep(0)
        simulation.trace("and no further")

    async def scenario(simulation: Simulation) -> None:
        process = Process(simulation.loop, "a")
        process.start(server(process, simulation))
        await asyncio.sleep(10)

    assert trace_of(scenario, 0) == ["0.000000 goes on until it waits"]


def test_what_a_process_leaves_unseen_when_it_is_killed_is_no_error() -> None:
    async def dies() -> None:
        raise ValueError("before anybody looks")

    async def server() -> None:
        task = asyncio.create_task(dies())
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(3, future.set_exception, ValueError("on the way"))
        try:
            await asyncio.sleep(5)
            await asyncio.gather(task, future)
        finally:
            raise ValueError("too late")

    async def scenario(simulation: Simulation) -> None:
        process = Process(simulation.loop, "a")
        process.start(server())
        await asyncio.sleep(4)
        process.kill()

    run(scenario)
