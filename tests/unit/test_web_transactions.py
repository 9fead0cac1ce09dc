"""Open transactions: their ids, their use, their end."""

from __future__ import annotations

import pytest

from tega.errors import NoSuchTransaction
from tega.store.commit import make_put
from tega.web.transactions import Transactions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_left_alone_expires_and_using_it_renews_it() -> None:
    clock = Clock()
    transactions = Transactions(600.0, clock)
    used, left = transactions.begin("me"), transactions.begin("me")
    clock.now = 599.0
    transactions.use(used).operations.append(make_put(("r",), 1))
    clock.now = 600.0
    with pytest.raises(NoSuchTransaction, match="600 s"):
        transactions.use(left)
    clock.now = 1198.0
    assert len(transactions.end(used, None).operations) == 1


def test_the_end_is_the_end() -> None:
    transactions = Transactions(600.0)
    txid = transactions.begin("me")
    assert transactions.end(txid, None).txid == txid, "its own id makes sending it again safe"
    with pytest.raises(NoSuchTransaction):
        transactions.use(txid)
    assert transactions.end(transactions.begin("me"), "key").txid == "key"


def test_those_left_alone_take_no_memory() -> None:
    clock = Clock()
    transactions = Transactions(600.0, clock)
    for _ in range(1000):
        transactions.begin("me")
    clock.now = 600.0
    transactions.begin("me")
    assert len(transactions._open) == 1
