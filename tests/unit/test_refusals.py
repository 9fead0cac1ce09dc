"""Refusals: counted all, and logged a few a second."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tega.errors import Collision, Forbidden, OverLimit, TooLarge
from tega.metrics import Meters
from tega.web.refusals import Refusals, Throttle


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_so_many_of_a_kind_are_admitted_in_a_while() -> None:
    clock = Clock()
    throttle = Throttle(3, 1.0, clock)
    assert [throttle.admits("a") for _ in range(5)] == [True] * 3 + [False] * 2
    clock.now += 0.99
    assert not throttle.admits("a")
    clock.now += 0.01
    assert [throttle.admits("a") for _ in range(4)] == [True] * 3 + [False]
    assert throttle.left_out() == {"a": 4}
    assert throttle.left_out() == {}


def test_kinds_do_not_take_room_from_each_other() -> None:
    throttle = Throttle(1, 1.0, Clock())
    assert throttle.admits("a")
    assert not throttle.admits("a")
    assert throttle.admits("b")
    assert throttle.left_out() == {"a": 1}


def test_a_steady_stream_is_admitted_at_its_rate() -> None:
    clock = Clock()
    throttle = Throttle(10, 1.0, clock)
    admitted = 0
    for _ in range(10_000):
        admitted += throttle.admits("a")
        clock.now += 1 / 512
    assert admitted == 10 * (10_000 // 512 + 1)
    assert throttle.left_out() == {"a": 10_000 - admitted}


def test_only_access_and_limits_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse() -> Meters:
        meters = Meters()
        refusals = Refusals(meters)
        refusals.refused(Forbidden("not yours"), "eve", "192.0.2.7", "GET /a/")
        refusals.refused(Collision("too late"), "eve", "192.0.2.7", "PUT /a/")
        refusals.refused(TooLarge("too much"), "eve", "192.0.2.7", "PUT /a/")
        refusals.refused(OverLimit("too many", "subscriptions"), "eve", "192.0.2.7", "SUBSCRIBE")
        refusals.refused(OverLimit("elsewhere"), "eve", "192.0.2.7", "RPC a")
        refusals.close()
        return meters

    meters = asyncio.run(refuse())
    assert [record.getMessage() for record in caplog.records] == [
        "forbidden: eve at 192.0.2.7: GET /a/: not yours",
        "too_large: eve at 192.0.2.7: PUT /a/: too much",
        "over_limit: eve at 192.0.2.7: SUBSCRIBE: too many",
        "over_limit: eve at 192.0.2.7: RPC a: elsewhere",
    ]
    assert {record.name for record in caplog.records} == {"tega.refusals"}
    assert {code: count for code, count in meters.refusals.items() if count} == {
        "forbidden": 1, "collision": 1, "too_large": 1, "over_limit": 2,
    }
    assert {name: count for name, count in meters.limits.items() if count} == {
        "body": 1, "subscriptions": 1,
    }


def test_what_is_left_out_is_told_a_while_later(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def refuse() -> None:
        told = asyncio.Event()
        refusals = Refusals(Meters())
        for _ in range(1000):
            refusals.refused(Forbidden("no"), "eve", "192.0.2.7", "GET /a/")
        assert len(caplog.records) == 10
        asyncio.get_running_loop().call_later(1.2, told.set)
        await told.wait()
        refusals.close()

    asyncio.run(refuse())
    assert len(caplog.records) == 11
    assert caplog.records[-1].getMessage() == "forbidden: 990 more"


def test_what_is_left_out_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse() -> None:
        refusals = Refusals(Meters())
        for _ in range(12):
            refusals.refused(Forbidden("no"), "eve", "192.0.2.7", "GET /a/")
        refusals.close()

    asyncio.run(refuse())
    assert caplog.records[-1].getMessage() == "forbidden: 2 more"


def test_what_a_client_sends_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse() -> None:
        refusals = Refusals(Meters())
        refusals.refused(Forbidden("w" * 10_000), "e" * 10_000, "192.0.2.7", "G" * 10_000)
        refusals.close()

    asyncio.run(refuse())
    assert len(caplog.records[0].getMessage()) < 700
