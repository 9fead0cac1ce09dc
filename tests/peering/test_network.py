"""The simulated network when nothing is amiss: what arrives, when, and how connections end."""

from __future__ import annotations

import pytest
from nets import Ear, Net, on_net
from virtual import Simulation, Unhandled, run
from wires import REFUSED, UNANSWERED

from tega.errors import Malformed, NotUnderstood
from tega.peering.wire import Wire
from tega.protocol import Message, Notify, PubSubMessage, Request, Response

# -- what arrives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_all_arrives_in_order_after_delays(seed: int) -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        assert (near.peer, far.peer) == ("global", "id-a")
        said: dict[int, float] = {}
        for number in range(200):
            said[number] = net.loop.time()
            near.say(number)
            far.say(number)
            await net.wait(net.simulation.random.random())
        await net.wait(3)
        for ear in (near, far):
            assert ear.numbers == list(range(200))
            delays = [at - said[number] for at, number in ear.heard]
            assert min(delays) >= 0.0009
            assert max(delays) <= 2.0001
            assert max(delays) / min(delays) > 5
            assert ear.drains > 0
            assert ear.wire.backlog == 0
        near.wire.close("enough")
        await net.wait(3)
        net.check_quiet()

    on_net(work, seed)


def test_the_backlog_is_what_has_not_arrived() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        await net.wait(1)
        drains = near.drains
        net.network.slow("a", "g", 100)
        for _ in range(10):
            near.wire.send(Notify(b" " * 92 + b"1"))
        assert near.wire.backlog == 1000
        await net.wait(5.5)
        assert near.wire.backlog == 500
        assert near.drains == drains
        await net.wait(100)
        assert near.wire.backlog == 0
        assert near.drains == drains + 1
        assert len(far.heard) == 10
        # No pings were missed.
        assert not near.ends

    on_net(work, latency=(0.1, 0.1))


def test_after_a_slow_time_the_backlog_goes_fast() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        net.network.slow("a", "g", 1)
        near.say(*range(100, 200))
        await net.wait(20)
        assert len(far.heard) == 1
        net.network.heal("a", "g")
        near.say(200)
        await net.wait(0.11)
        assert far.numbers == list(range(100, 201))

    on_net(work, latency=(0.1, 0.1))


def test_who_sends_on_is_told_only_in_the_end_that_all_has_arrived() -> None:
    class Chatty(Net):
        def heard(self, number: int) -> None:
            if number < 5:
                self.loop.call_soon(self.connected[0].say, number + 1)

        def accept(self, wire: Wire, tega_id: str) -> Ear:
            ear = super().accept(wire, tega_id)
            ear.on_number = self.heard
            return ear

    async def scenario(simulation: Simulation) -> None:
        net = Chatty(simulation)
        near, far = await net.pair()
        await net.wait(3)
        drains = near.drains
        near.say(1)
        await net.wait(20)
        assert far.numbers == [1, 2, 3, 4, 5]
        assert near.drains == drains + 1

    run(scenario)


def test_what_is_not_in_order_for_the_protocol_is_refused_to_the_sender() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        with pytest.raises(NotUnderstood, match="MESSAGE"):
            near.wire.send(PubSubMessage("a", "id", b'{"message": 1}'))
        with pytest.raises(NotUnderstood, match="nothing like that was asked"):
            far.wire.send(Response(1, "RPC", "id", False, b"1"))
        assert near.wire.backlog == far.wire.backlog == 0

    on_net(work, latency=(0.1, 0.1))


def test_what_cannot_be_read_fails_the_simulation() -> None:
    async def work(net: Net) -> None:
        near, _ = await net.pair()
        near.wire.send(Request(1, "RPC", "no id", "-", b"1"))
        await net.wait(3)

    with pytest.raises(Unhandled, match="Malformed"):
        on_net(work)


def test_a_receiver_that_refuses_closes_the_connection() -> None:
    class Picky(Ear):
        def receive(self, message: Message) -> None:
            raise Malformed("not this")

    class PickyNet(Net):
        def ear(self, wire: Wire, peer: str) -> Ear:
            return Picky(wire, self.loop.time, peer)

    async def scenario(simulation: Simulation) -> None:
        net = PickyNet(simulation)
        near, far = await net.pair()
        near.say(1)
        await net.wait(10)
        assert far.end[1] == near.end[1] == "not this"
        assert net.network.refusals == ["a>g#1: not this"]

    run(scenario)


def test_messages_that_may_come_twice_do_now_and_then() -> None:
    def even(message: Message) -> bool:
        return isinstance(message, Notify) and int(message.body) % 2 == 0

    async def work(net: Net) -> None:
        near, far = await net.pair()
        near.say(*range(200))
        await net.wait(10)
        assert list(dict.fromkeys(far.numbers)) == list(range(200))
        assert far.numbers == sorted(far.numbers)
        twice = {number for number in far.numbers if far.numbers.count(number) == 2}
        assert all(number % 2 == 0 for number in twice)
        assert 20 < len(twice) < 80
        assert near.wire.backlog == 0

    on_net(work, duplicable=even, duplicates=0.5)


# -- ends -----------------------------------------------------------------------------------------


def test_a_close_lets_through_what_was_sent_before_it() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        near.say(1, 2, 3)
        far.say(4)
        near.wire.close("done")
        near.wire.close("done again")
        near.say(5)
        assert near.ends == []
        await net.wait(10)
        assert far.numbers == [1, 2, 3]
        assert near.numbers == []
        assert near.end[1] == far.end[1] == "done"
        net.check_quiet()

    on_net(work)


def test_a_receiver_may_close_while_it_is_being_made() -> None:
    class Unwilling(Net):
        def accept(self, wire: Wire, tega_id: str) -> Ear:
            wire.close("not you")
            return super().accept(wire, tega_id)

    async def scenario(simulation: Simulation) -> None:
        net = Unwilling(simulation)
        end = net.dial()
        assert await end.over() == "not you"
        assert net.accepted[0].end[1] == net.connected[0].end[1] == "not you"
        net.check_quiet()

    run(scenario)


def test_a_quiet_connection_lives() -> None:
    async def work(net: Net) -> None:
        near, far = await net.pair()
        await net.wait(100_000)
        near.say(1)
        await net.wait(3)
        assert far.numbers == [1]

    on_net(work)


def test_dialing_is_in_vain_where_nobody_listens_or_is_refused_or_answers() -> None:
    async def work(net: Net) -> None:
        network = net.network
        network.refuse("a", "g")
        assert await net.dial().over() == REFUSED
        assert net.loop.time() == pytest.approx(0.1)
        network.heal("a", "g")
        network.ignore("g")
        assert await net.dial().over() == REFUSED
        assert net.loop.time() == pytest.approx(0.3)
        net.listen()
        network.blackhole("a", "g")
        assert await net.dial().over() == UNANSWERED
        assert net.loop.time() == pytest.approx(10.3)
        network.heal()
        await net.wait(1)
        assert net.connected == []
        # The first message came through the hole after all, and then the end.
        for ear in net.accepted:
            assert ear.end[1] == UNANSWERED
        net.check_quiet()

    on_net(work, latency=(0.1, 0.1))
