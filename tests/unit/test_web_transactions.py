"""Open transactions: their ids, their use, their end."""

from __future__ import annotations

import pytest

from tega.access.policy import Policy
from tega.access.who import UNLIMITED
from tega.errors import NoSuchTransaction, OverLimit
from tega.store.commit import make_put
from tega.web.transactions import Transactions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_left_alone_expires_and_using_it_renews_it() -> None:
    clock = Clock()
    transactions = Transactions(600.0, 10, clock)
    used, left = transactions.begin("me", UNLIMITED), transactions.begin("me", UNLIMITED)
    clock.now = 599.0
    transactions.use(used, UNLIMITED).operations.append(make_put(("r",), 1))
    clock.now = 600.0
    with pytest.raises(NoSuchTransaction, match="600 s"):
        transactions.use(left, UNLIMITED)
    clock.now = 1198.0
    assert len(transactions.end(used, None, UNLIMITED).operations) == 1


def test_the_end_is_the_end() -> None:
    transactions = Transactions(600.0, 10)
    txid = transactions.begin("me", UNLIMITED)
    # Its own id makes sending it again safe.
    assert transactions.end(txid, None, UNLIMITED).txid == txid
    with pytest.raises(NoSuchTransaction):
        transactions.use(txid, UNLIMITED)
    assert transactions.end(transactions.begin("me", UNLIMITED), "key", UNLIMITED).txid == "key"


def test_those_left_alone_take_no_memory() -> None:
    clock = Clock()
    transactions = Transactions(600.0, 1000, clock)
    for _ in range(1000):
        transactions.begin("me", UNLIMITED)
    clock.now = 600.0
    transactions.begin("me", UNLIMITED)
    assert len(transactions._open) == 1


def test_only_who_has_begun_one_may_use_it() -> None:
    policy = Policy({"ann": [], "bob": []})
    ann, bob = policy.get("ann"), policy.get("bob")
    assert ann is not None
    assert bob is not None
    transactions = Transactions(600.0, 10)
    txid = transactions.begin("ann", ann)
    with pytest.raises(NoSuchTransaction):
        transactions.use(txid, bob)
    assert transactions.use(txid, ann).tega_id == "ann"


def test_there_is_a_limit_which_expiry_makes_room_in() -> None:
    clock = Clock()
    transactions = Transactions(600.0, 2, clock)
    transactions.begin("me", UNLIMITED)
    transactions.begin("me", UNLIMITED)
    with pytest.raises(OverLimit, match="2 transactions are open"):
        transactions.begin("me", UNLIMITED)
    clock.now = 600.0
    transactions.begin("me", UNLIMITED)
