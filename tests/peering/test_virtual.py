"""The virtual loop: time that jumps, errors that are seen, and the same again for the same seed."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from virtual import (
    Deadlock,
    NotDeterministic,
    Runaway,
    Simulation,
    Unhandled,
    run,
    trace_of,
)

# -- time -----------------------------------------------------------------------------------------


def test_time_jumps() -> None:
    async def scenario(simulation: Simulation) -> float:
        await asyncio.sleep(1000)
        await asyncio.sleep(3_000_000)
        return simulation.loop.time()

    before = time.monotonic()
    assert run(scenario) == 3_001_000
    assert time.monotonic() - before < 5


def test_a_timer_never_comes_early_however_late_it_is() -> None:
    async def scenario(simulation: Simulation) -> None:
        loop = simulation.loop
        for _ in range(200):
            due = loop.time() + simulation.random.random() * 10 ** simulation.random.randrange(9)
            await asyncio.sleep(due - loop.time())
            assert loop.time() >= due - 1e-6
            came: asyncio.Future[float] = loop.create_future()
            due = loop.time() + simulation.random.random()
            loop.call_at(due, lambda came=came: came.set_result(loop.time()))
            assert await came == due

    run(scenario)


def test_timers_of_one_moment_come_in_the_order_in_which_they_were_set() -> None:
    async def scenario(simulation: Simulation) -> list[int]:
        order: list[int] = []
        for number in range(500):
            timer = simulation.loop.call_at(7.0, order.append, number)
            if number % 3 == 0:
                timer.cancel()
        await asyncio.sleep(8)
        return order

    assert run(scenario) == [number for number in range(500) if number % 3]


def test_ready_callbacks_come_before_time_passes() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.loop.call_later(0.001, simulation.trace, "later")
        for _ in range(1000):
            await asyncio.sleep(0)
        simulation.trace("a thousand turns")
        await asyncio.sleep(1)

    assert trace_of(scenario, 0) == ["0.000000 a thousand turns", "0.001000 later"]


def test_timeouts_of_asyncio_work() -> None:
    async def scenario(simulation: Simulation) -> float:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        return simulation.loop.time()

    assert run(scenario) == 30


# -- ends -----------------------------------------------------------------------------------------


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def scenario(simulation: Simulation) -> None:
        await asyncio.create_task(waits_for_ever())

    with pytest.raises(Deadlock) as raised:
        run(scenario)
    text = str(raised.value)
    assert "task-1: test_a_deadlock_names_who_waits_and_where.<locals>.scenario" in text
    assert "waits_for_ever, in wait (locks.py:" in text


@pytest.mark.parametrize("pause", [0, 0.5])
def test_a_runaway_is_stopped(pause: float) -> None:
    async def scenario(simulation: Simulation) -> None:
        while True:
            await asyncio.sleep(pause)
            simulation.trace("on and on")

    with pytest.raises(Runaway, match=r"more than 1000 callbacks.*\n  task-1: "):
        run(scenario, limit=1000)


def test_after_a_runaway_too_tasks_may_clean_up() -> None:
    async def left(simulation: Simulation) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            simulation.trace("cleaned up")

    async def scenario(simulation: Simulation) -> None:
        simulation.loop.create_task(left(simulation))
        while True:
            await asyncio.sleep(0)
            simulation.trace("on and on")

    simulation = Simulation(limit=1000)
    with pytest.raises(Runaway):
        simulation.run(scenario)
    assert simulation.trace.lines[-1] == "1.000000 cleaned up"


def test_what_is_left_is_cancelled_in_order() -> None:
    async def left(simulation: Simulation, number: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            simulation.trace(f"{number} cleans up")

    async def scenario(simulation: Simulation) -> None:
        for number in range(3):
            simulation.loop.create_task(left(simulation, number))
        await asyncio.sleep(1)

    simulation = Simulation()
    simulation.run(scenario)
    assert simulation.trace.lines == [f"2.000000 {number} cleans up" for number in range(3)]
    assert simulation.loop.pending_tasks() == []


def test_a_task_that_ignores_its_end_is_reported() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    async def scenario(simulation: Simulation) -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(1)
        assert not task.done()

    with pytest.raises(Runaway, match="stubborn"):
        run(scenario, limit=1000)


def test_pending_tasks_and_timers_are_known() -> None:
    async def scenario(simulation: Simulation) -> None:
        loop = simulation.loop
        timer = loop.call_later(5, print)
        loop.call_later(4, print).cancel()
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(1)
        assert [one.when() for one in loop.pending_timers()] == [timer.when()]
        assert task in loop.pending_tasks()
        task.cancel()
        timer.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert loop.pending_timers() == []
        assert loop.pending_tasks() == [asyncio.current_task()]

    run(scenario)


# -- errors that nobody sees ----------------------------------------------------------------------


def test_the_error_of_the_scenario_is_raised() -> None:
    async def scenario(simulation: Simulation) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(scenario)


def test_a_task_that_died_unseen_fails_the_simulation() -> None:
    kept = []

    async def dies() -> None:
        raise ValueError("unseen")

    async def scenario(simulation: Simulation) -> None:
        kept.append(asyncio.create_task(dies()))
        asyncio.create_task(dies())  # noqa: RUF006 (nobody holds it)
        await asyncio.sleep(1)

    with pytest.raises(Unhandled) as raised:
        run(scenario)
    assert str(raised.value).count("ValueError: unseen") == 2


def test_an_error_in_a_callback_fails_the_simulation() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.loop.call_soon(int, "no number")
        await asyncio.sleep(1)

    with pytest.raises(Unhandled, match="no number"):
        run(scenario)


def test_an_error_of_a_future_that_nobody_has_asked_for_fails_the_simulation() -> None:
    async def scenario(simulation: Simulation) -> None:
        future = simulation.loop.create_future()
        future.set_exception(ValueError("in a circle"))
        circle = [future]
        circle.append(circle)  # type: ignore[arg-type]

    with pytest.raises(Unhandled, match="in a circle"):
        run(scenario)


def test_an_error_while_being_cancelled_fails_the_simulation() -> None:
    async def clumsy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("clumsy")

    async def scenario(simulation: Simulation) -> None:
        simulation.loop.create_task(clumsy())
        await asyncio.sleep(1)

    with pytest.raises(Unhandled, match="ValueError: clumsy"):
        run(scenario)


def test_garbage_is_collected_as_before_after_a_simulation() -> None:
    async def scenario(simulation: Simulation) -> None:
        assert not gc.isenabled()

    frozen = gc.get_freeze_count()
    run(scenario)
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


# -- what no seed decides -------------------------------------------------------------------------


def test_input_and_output_are_refused() -> None:
    async def scenario(simulation: Simulation) -> None:
        with pytest.raises(NotDeterministic, match="run_in_executor"):
            await asyncio.to_thread(print)
        with pytest.raises(NotDeterministic, match="create_connection"):
            await asyncio.open_connection("127.0.0.1", 1)
        with pytest.raises(NotDeterministic, match="create_server"):
            await asyncio.start_server(print, "127.0.0.1", 0)
        with pytest.raises(NotDeterministic, match="subprocess_exec"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(NotDeterministic, match="getaddrinfo"):
            await simulation.loop.getaddrinfo("localhost", 1)
        with pytest.raises(NotDeterministic, match="add_reader"):
            simulation.loop.add_reader(0, print)

    run(scenario)


def test_call_soon_threadsafe_is_for_this_thread() -> None:
    refused: list[Exception] = []

    async def scenario(simulation: Simulation) -> None:
        loop = simulation.loop
        done: asyncio.Future[str] = loop.create_future()
        loop.call_soon_threadsafe(done.set_result, "here")
        assert await done == "here"

        def elsewhere() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotDeterministic as error:
                refused.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    run(scenario)
    assert len(refused) == 1


def test_tasks_are_named_alike_in_each_run() -> None:
    async def scenario(simulation: Simulation) -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(2)]
        await asyncio.gather(*tasks)
        return [task.get_name() for task in tasks]

    assert run(scenario) == run(scenario) == ["task-2", "task-3"]
