"""Transactions that clients have open between requests."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable

from tega.access.who import Who
from tega.errors import NoSuchTransaction, OverLimit
from tega.store.commit import Operation, Transaction


class Open:
    """One open transaction."""

    __slots__ = ("operations", "owner", "tega_id", "used")

    def __init__(self, tega_id: str, owner: str, used: float) -> None:
        self.tega_id = tega_id
        self.owner = owner
        self.used = used
        self.operations: list[Operation] = []


class Transactions:
    """The open transactions by id; one left alone for `expiry` seconds is gone.

    :param most: how many may be open
    :param clock: gives seconds, never going back
    """

    def __init__(
        self, expiry: float, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expiry = expiry
        self._most = most
        self._clock = clock
        # In order of their last use.
        self._open: OrderedDict[str, Open] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._open)

    def begin(self, tega_id: str, who: Who) -> str:
        """Open one.

        :returns: its id
        :raises OverLimit: where too many are open
        """
        self._expire()
        if len(self._open) >= self._most:
            raise OverLimit(
                f"{self._most} transactions are open, the limit: commit or cancel some, or try "
                "again later",
                "transactions",
                limit=self._most,
            )
        txid = uuid.uuid4().hex
        self._open[txid] = Open(tega_id, who.name, self._clock())
        return txid

    def use(self, txid: str, who: Who) -> Open:
        """An open transaction; using it renews it.

        :raises NoSuchTransaction: where it was never begun, has ended or has expired, or is of
            somebody else
        """
        self._expire()
        found = self._open.get(txid)
        if found is None or found.owner != who.name:
            raise NoSuchTransaction(
                f"no open transaction {txid[:64]!r}: it was never begun, has ended, or was left "
                f"alone for {self._expiry:g} s. Begin a new one",
                txid=txid[:64],
            )
        found.used = self._clock()
        self._open.move_to_end(txid)
        return found

    def end(self, txid: str, key: str | None, who: Who) -> Transaction:
        """Close one, and give it as a request.

        :param key: the client's own transaction id, instead of this one
        :raises NoSuchTransaction: as `use`
        """
        found = self.use(txid, who)
        del self._open[txid]
        return Transaction(tuple(found.operations), found.tega_id, key or txid)

    def _expire(self) -> None:
        now = self._clock()
        while self._open:
            txid, oldest = next(iter(self._open.items()))
            if now - oldest.used < self._expiry:
                return
            del self._open[txid]
