"""The faults of the simulated network: what is lost, and who hears of it when."""

from __future__ import annotations

from collections import Counter

import pytest
from nets import PING, Net, on_net
from repeatable import check_repeatable
from virtual import Process, Simulation, trace_of
from wires import REFUSED, RESET, SILENT

from tega.protocol import Notify

# -- faults ---------------------------------------------------------------------------------------


def test_behind_a_cut_messages_are_lost_from_somewhere_on() -> None:
    arrived = set()

    async def work(net: Net) -> None:
        near, far = await net.pair()
        near.say(*range(10))
        far.say(*range(10))
        net.network.cut("a", "g")
        near.say(10)
        assert not near.ends
        assert not far.ends
        await net.wait(10)
        for ear in (near, far):
            assert ear.numbers == list(range(len(ear.heard)))
            assert len(ear.heard) <= 10
            at, reason = ear.end
            assert reason == RESET
            assert all(when <= at for when, _ in ear.heard)
            arrived.add(len(ear.heard))
        net.check_quiet()

    for seed in range(30):
        on_net(work, seed)
    # None of them, some, and all.
    assert {0, 10} < arrived


@pytest.mark.parametrize("both", [True, False])
def test_in_a_hole_nobody_is_told_until_the_pings_are_missed(both: bool) -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        await net.wait(5)
        start = net.loop.time()
        near.say(1)
        far.say(2)
        net.network.blackhole("a", "g", both)
        await net.wait(PING - 0.1)
        assert far.numbers == []
        assert near.numbers == ([] if both else [2])
        assert not near.ends
        assert not far.ends
        await net.wait(PING)
        at, reason = far.end
        assert reason == SILENT
        assert PING <= at - start <= 1.25 * PING
        # Where it is heard, it says why.
        assert near.end[1] == SILENT
        if not both:
            assert 0 < near.end[0] - at <= 2
        net.network.heal()
        await net.wait(5)
        assert far.numbers == []
        net.check_quiet()

    on_net(work)


def test_what_was_held_up_in_a_hole_arrives_if_it_is_healed_in_time() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        near.say(1, 2)
        net.network.blackhole("a", "g")
        near.say(3)
        await net.wait(PING - 1)
        assert far.numbers == []
        net.network.heal("a")
        near.say(4)
        await net.wait(100)
        assert far.numbers == [1, 2, 3, 4]
        assert not near.ends
        assert not far.ends

    on_net(work)


def test_an_orphan_hears_nothing_while_a_new_connection_comes() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        start = net.loop.time()
        net.network.orphan("a", "g")
        again, far_again = await net.pair()
        assert near.end[1] == "connection lost"
        assert not far.ends
        far.say(1)
        again.say(2)
        await net.wait(3 * PING)
        assert near.numbers == []
        assert far_again.numbers == [2]
        assert far.end[1] == SILENT
        assert far.end[0] - start >= PING
        assert not far_again.ends

    on_net(work)


def test_whatever_arrives_is_a_sign_of_life() -> None:
    last = 0.0

    async def work(net: Net) -> None:
        nonlocal last
        near, far = await net.pair()
        net.network.slow("a", "g", 1)
        near.say(*range(5, 10))
        net.network.orphan("a", "g")
        start = net.loop.time()
        await net.wait(10 * PING)
        heard = far.heard[-1][0] if far.heard else start
        assert PING <= far.end[0] - heard <= 1.25 * PING
        last = max(last, heard - start)

    for seed in range(20):
        on_net(work, seed)
    assert last > 5


@pytest.mark.parametrize("told", [True, False])
def test_a_crash_is_not_told_to_the_crashed(told: bool) -> None:
    async def work(net: Net) -> None:
        pairs = [await net.pair("a"), await net.pair("b")]
        process = Process(net.loop, "a")
        process.run(net.loop.call_later, 1, net.simulation.trace, "never")
        start = net.loop.time()
        for near, far in pairs:
            near.say(1, 2, 3)
            far.say(1, 2, 3)
        process.kill()
        net.network.crash("g", told)
        assert await net.dial("c").over() == REFUSED
        await net.wait(2 * PING)
        for near, far in pairs:
            assert far.ends == []
            assert far.numbers == []
            assert near.end[1] == (RESET if told else SILENT)
            assert (near.end[0] - start < 5) is told
            assert near.numbers == [1, 2, 3][: len(near.heard)]
        net.check_quiet()
        net.listen()
        near, far = await net.pair("a")
        near.say(4)
        await net.wait(3)
        assert far.numbers == [4]

    on_net(work)


def test_who_listens_is_called_in_its_process() -> None:
    """So that whatever it begins ends with that."""

    async def work(net: Net) -> None:
        begun: list[object] = []
        process = Process(net.loop, "g")
        process.run(net.listen)
        near, far = await net.pair()
        far.on_number = lambda number: begun.append(net.loop.call_later(50, print))
        near.say(1)
        await net.wait(3)
        assert len(net.loop.pending_timers()) == 1
        process.kill()
        assert net.loop.pending_timers() == []

    on_net(work)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_crash_can_be_planned_for_each_message(number: int) -> None:
    """SESSION, SESSIONACK, and six more."""

    async def work(net: Net) -> None:
        net.network.plan[number] = lambda: net.network.crash("g", told=True)
        end = net.dial()
        while not net.connected and not end.is_over:
            await net.wait(0.01)
        for near in net.connected:
            near.say(1, 2, 3, 4, 5, 6)
        assert await end.over() == RESET
        assert net.network.plan == {}
        assert [ear.numbers for ear in net.accepted] == [list(range(1, number - 2))] * (number > 1)
        net.check_quiet()

    on_net(work, latency=(0.1, 0.1))


@pytest.mark.parametrize("number", range(1, 9))
def test_a_cut_can_be_planned_for_each_message(number: int) -> None:
    arrived = set()

    async def work(net: Net) -> None:
        near, far = await net.pair()
        net.network.plan[net.network.delivered + number] = lambda: net.network.cut("a", "g")
        near.say(1, 2, 3, 4, 5, 6, 7, 8)
        await net.wait(10)
        assert len(far.heard) >= number - 1
        assert far.end[1] == near.end[1] == RESET
        arrived.add(len(far.heard))

    for seed in range(50):
        on_net(work, seed)
    assert min(arrived) == number - 1
    assert max(arrived) == 8


# -- all together ---------------------------------------------------------------------------------


async def stormy(simulation: Simulation) -> None:
    """Two locals that talk with their global one, and dial anew whenever they have to."""
    net = Net(simulation, duplicable=lambda message: isinstance(message, Notify))

    def restart() -> None:
        net.network.crash("g")
        net.listen()

    pairs = [("a", "g"), ("b", "g")]
    storm = simulation.loop.create_task(net.network.trouble(pairs, 200, 5, [restart]))

    async def talk(name: str) -> None:
        number = 0
        while not storm.done():
            end = net.dial(name)
            while end.open and not storm.done():
                if end.receiver is not None:
                    end.send(Notify(str(number).encode()))
                    number += 1
                await net.wait(0.05)
            end.close("the storm is over")
            await end.over()

    talks = [simulation.loop.create_task(talk(name)) for name in "ab"]
    for task in (storm, *talks):
        await task
    await net.wait(2 * PING)
    net.check_quiet()
    assert net.network.refusals == []
    for ear in (*net.accepted, *net.connected):
        assert len(ear.ends) <= 1
        assert ear.numbers == sorted(ear.numbers)
        once = list(dict.fromkeys(ear.numbers))
        assert once == list(range(once[0], once[0] + len(once))) if once else True


def test_a_storm_is_the_same_again() -> None:
    check_repeatable(stormy, [1, 2])
    traces = [trace_of(stormy, seed) for seed in range(10)]
    assert len({tuple(trace) for trace in traces}) == 10
    happened = Counter(line.split(" ")[1] for trace in traces for line in trace)
    assert {"cut", "refuse", "blackhole", "slow", "heal", "orphan", "crash"} <= set(happened)
    assert sum(map(len, traces)) / len(traces) > 2000
