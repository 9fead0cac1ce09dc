"""What a session has put that goes when its connection ends, so that it can be put again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from tega import paths
from tega.paths import Path

#: An operation as a TX has it: a PUT or a DELETE, with its path.
Operation: TypeAlias = dict[str, Any]


class Ephemerals:
    """The operations that make a session's ephemeral nodes, in order.

    A PUT takes the place of all earlier operations at or below its path; so does a DELETE, which
    itself is kept only where it takes something out of a node put before.
    """

    def __init__(self, operations: dict[Path, Operation] | None = None) -> None:
        self._operations: dict[Path, Operation] = {}
        #: How many operations stand below a path.
        self._below: dict[Path, int] = {}
        for path, operation in (operations or {}).items():
            self._add(path, operation)

    def __len__(self) -> int:
        return len(self._operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def copy(self) -> Ephemerals:
        """One of its own with the same operations."""
        return Ephemerals(self._operations)

    def apply(self, operation: Operation) -> None:
        """Take note of an operation that was done."""
        lasting_put = operation["ope"] == "PUT" and not operation.get("ephemeral")
        if lasting_put or (operation["ope"] == "DELETE" and not self._operations):
            return
        path = paths.parse(operation["path"])
        self._drop(path)
        if operation["ope"] == "PUT":
            # What it expected of the version has been met; it will be another one.
            self._add(path, {name: operation[name] for name in operation if name != "version"})
        elif any(path[:depth] in self._operations for depth in range(1, len(path))):
            self._add(path, {"ope": "DELETE", "path": operation["path"]})

    def _add(self, path: Path, operation: Operation) -> None:
        self._operations[path] = operation
        for depth in range(1, len(path)):
            self._below[path[:depth]] = self._below.get(path[:depth], 0) + 1

    def _drop(self, path: Path) -> None:
        """Forget what stands at a path or below."""
        over = [path] if path in self._operations else []
        if path in self._below:
            over += [other for other in self._operations if other[: len(path)] == path]
        for other in dict.fromkeys(over):
            del self._operations[other]
            for depth in range(1, len(other)):
                left = self._below[other[:depth]] - 1
                if left:
                    self._below[other[:depth]] = left
                else:
                    del self._below[other[:depth]]
