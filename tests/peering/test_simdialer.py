"""The dialer of the product on a simulated network: it comes back after every fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from nets import PING, Net, on_net
from repeatable import check_repeatable
from simdialer import SimDialer
from virtual import Process, Simulation
from wires import REFUSED, RESET, SILENT, UNANSWERED


def dialer(net: Net, name: str = "a") -> SimDialer:
    """A dialer to g."""
    return SimDialer(
        net.network, name, "g", f"id-{name}", net.connect, net.simulation.random, PING
    )


async def until(net: Net, condition: Callable[[], bool]) -> None:
    while not condition():
        await net.wait(0.01)


def test_what_a_dialer_shows() -> None:
    async def work(net: Net) -> None:
        one = dialer(net)
        assert (one.state, one.reason, one.peer, one.address) == ("waiting", None, None, "g")
        one.start()
        await until(net, lambda: one.state == "connected")
        assert (one.reason, one.peer) == (None, "global")
        assert one.since == pytest.approx(0.2)
        await net.wait(100)
        net.network.cut("a", "g")
        await until(net, lambda: one.state == "waiting")
        assert one.reason == RESET
        assert one.since == pytest.approx(100.3, abs=0.02)
        await until(net, lambda: one.state == "connected")
        assert net.loop.time() < 101.1
        await one.stop()
        assert (one.state, one.reason) == ("waiting", "stopped")
        # Whoever read it knows that it is over, and nothing comes after that.
        assert len(net.connected[-1].ends) == 1
        await net.wait(10)
        assert len(net.accepted[-1].ends) == 1
        net.check_quiet()

    on_net(work, latency=(0.1, 0.1))


def test_pauses_grow_to_half_a_minute_and_begin_anew() -> None:
    async def work(net: Net) -> None:
        tries: list[float] = []

        def count(line: str) -> None:
            if line.endswith(f">a#{len(tries) + 1} closed: {REFUSED}"):
                tries.append(net.loop.time())

        net.network.trace = count
        net.network.refuse("a", "g")
        one = dialer(net)
        one.start()
        await net.wait(3600)
        assert one.reason == REFUSED
        pauses = [then - now for now, then in itertools.pairwise(tries)]
        assert pauses[0] <= 0.5 + 0.01
        assert max(pauses) <= 30 + 0.01
        assert 10 < sum(pauses[20:]) / len(pauses[20:]) < 30
        net.network.heal()
        one.kick()
        await net.wait(0.1)
        assert one.state == "connected"
        await net.wait(60)
        net.network.cut("a", "g")
        await net.wait(0.1)
        await until(net, lambda: one.state == "connected")
        assert net.loop.time() - one.since < 0.1
        assert one.since <= 3660.1 + 0.7
        await one.stop()

    on_net(work, latency=(0.001, 0.001))


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_back_after_each_fault(seed: int) -> None:
    async def work(net: Net) -> None:
        one = dialer(net)
        one.start()
        faults: list[tuple[Callable[[], None], str]] = [
            (lambda: net.network.cut("a", "g"), RESET),
            (lambda: net.network.blackhole("a", "g"), SILENT),
            (lambda: net.network.orphan("a", "g"), "connection lost"),
            (lambda: net.network.crash("g", told=True), RESET),
            (lambda: net.network.crash("g", told=False), SILENT),
        ]
        for number, (fault, reason) in enumerate(faults, 1):
            await until(net, lambda: one.state == "connected")
            assert len(net.connected) == number
            fault()
            await until(net, lambda: one.state != "connected")
            assert net.connected[-1].end[1] == one.reason == reason
            net.network.heal()
            net.listen()
        await until(net, lambda: one.state == "connected")
        await one.stop()
        await net.wait(3 * PING)
        net.check_quiet()

    on_net(work, seed)


def test_a_dialer_that_gets_no_answer_tries_again() -> None:
    async def work(net: Net) -> None:
        net.network.blackhole("g", "a", both=False)
        one = dialer(net)
        one.start()
        await until(net, lambda: one.reason is not None)
        assert one.reason == UNANSWERED
        assert net.loop.time() == pytest.approx(10, abs=0.02)
        net.network.heal()
        await until(net, lambda: one.state == "connected")
        await one.stop()

    on_net(work)


@pytest.mark.parametrize("after", [0.05, 0.15, 0.2, 0.25, 5.0])
def test_stopped_at_any_time_it_leaves_nothing(after: float) -> None:
    async def work(net: Net) -> None:
        one = dialer(net)
        one.start()
        await net.wait(after)
        await one.stop()
        assert [len(ear.ends) for ear in net.connected] == [1] * (after >= 0.2)
        await net.wait(1)
        assert [len(ear.ends) for ear in net.accepted] == [1]
        net.check_quiet()

    on_net(work, latency=(0.1, 0.1))


def test_a_dialer_dies_with_its_process() -> None:
    async def work(net: Net) -> None:
        process = Process(net.loop, "a")
        one = process.run(dialer, net)
        process.run(one.start)
        await until(net, lambda: one.state == "connected")
        process.kill()
        net.network.crash("a", told=True)
        await net.wait(100)
        assert net.connected[0].ends == []
        assert net.accepted[0].end[1] == RESET
        assert len(net.connected) == 1
        net.check_quiet()
        again = Process(net.loop, "a").run(dialer, net)
        again.start()
        await until(net, lambda: again.state == "connected")
        await again.stop()

    on_net(work)


async def restless(simulation: Simulation) -> None:
    """Three dialers in trouble, of which one crashes now and then."""
    net = Net(simulation)
    names = ["a", "b", "c"]
    processes: dict[str, Process] = {}
    dialers: dict[str, SimDialer] = {}

    def boot(name: str) -> None:
        processes[name] = Process(simulation.loop, name)
        dialers[name] = processes[name].run(dialer, net, name)
        processes[name].run(dialers[name].start)

    def reboot() -> None:
        processes["c"].kill()
        net.network.crash("c")
        boot("c")

    for name in names:
        boot(name)
    await net.network.trouble([(name, "g") for name in names], 300, 5, [reboot])
    await net.wait(60)
    for name in names:
        assert dialers[name].state == "connected"
        await dialers[name].stop()
    await net.wait(60)
    net.check_quiet()


def test_after_all_trouble_all_are_connected_and_it_is_the_same_again() -> None:
    check_repeatable(restless, range(10))
