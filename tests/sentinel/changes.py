"""A stream of changes of which each is made once, whatever happens to etcd meanwhile."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from typing import Any

from etcdserver import Etcd, code
from processes import PATIENCE
from things import PREFIX, thing


class Stream(threading.Thread):
    """Changes things: each thing once.

    A third of them is put, a third is put anew and a third is deleted, in a random order. So no two
    changes concern one row, none can be taken together with another one, and a sink that applies
    each event exactly once writes exactly `expected`.

    Each change is made on the condition that it was not made yet, and tried until that is known:
    etcd may be killed meanwhile.

    :param count: how many changes
    :param seconds: how long they take together, at least
    """

    def __init__(self, etcd: Etcd, seed: int, count: int, seconds: float) -> None:
        super().__init__(daemon=True)
        third = count // 3
        self._etcd = etcd
        self._pause = seconds / count
        self._over = threading.Event()
        self._changes: list[tuple[str, str, str | None]] = []
        self.failure: BaseException | None = None
        self.done = 0
        names: dict[str, list[str]] = {
            op: [f"{op}-{number}" for number in range(third)]
            for op in ("insert", "update", "delete")
        }
        for name in names["update"] + names["delete"]:
            etcd.put(f"{PREFIX}s/{name}", thing(name, 1))
        for op, made in names.items():
            self._changes += [(op, name, None if op == "delete" else thing(name, 2))
                              for name in made]
        random.Random(seed).shuffle(self._changes)
        #: By kind and row: how often a trigger must fire.
        self.expected = Counter((op, name) for op, name, _ in self._changes)

    def run(self) -> None:
        try:
            for op, name, value in self._changes:
                self._change(op, f"{PREFIX}s/{name}", name, value)
                self.done += 1
                if self._over.wait(self._pause):
                    return
        except BaseException as failure:
            self.failure = failure

    def _change(self, op: str, key: str, name: str, value: str | None) -> None:
        before: dict[str, Any] = {"key": code(key), "result": "EQUAL"}
        if op == "insert":
            before |= {"target": "CREATE", "create_revision": "0"}
        else:
            before |= {"target": "VALUE", "value": code(thing(name, 1))}
        operation = (
            {"request_delete_range": {"key": code(key)}} if value is None
            else {"request_put": {"key": code(key), "value": code(value)}}
        )  # fmt: skip
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                self._etcd.ask("kv/txn", {"compare": [before], "success": [operation]})
                return
            except (OSError, http.client.HTTPException, AssertionError):
                # What became of it is not known.
                assert time.monotonic() < limit
                time.sleep(0.05)

    def finish(self) -> None:
        """Wait until all changes are made."""
        self.join(PATIENCE * 2)
        assert not self.is_alive(), f"{self.done} of {len(self._changes)} changes are made"
        assert self.failure is None, self.failure

    def stop(self) -> None:
        """Make no more changes."""
        self._over.set()
        self.join(PATIENCE)
