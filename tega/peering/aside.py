"""Where roots go that are replaced by what their leader has: nothing is dropped in silence."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tega import strictjson
from tega.log.file import timestamp
from tega.store import encode
from tega.store.ephemeral import lasting
from tega.store.history import Root
from tega.store.node import ABSENT

log = logging.getLogger(__name__)

#: Files of one root that are kept.
_KEPT: Final = 8


class Aside:
    """Files in a directory, one a root that was replaced."""

    def __init__(self, directory: Path, tega_id: str) -> None:
        self._directory = directory
        self._tega_id = tega_id

    def __call__(self, root: Root, why: str) -> str:
        """Keep a root's newest content.

        The file holds ``{"root", "version", "chain", "time", "why", "instance"}``.

        :returns: its path
        :raises OSError: where that cannot be written
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        time = timestamp()
        content = lasting(root.content)
        head = strictjson.dumps(
            {"root": root.name, "version": root.version, "chain": root.chain, "time": time,
             "why": why}
        )  # fmt: skip
        value = b"null" if content is ABSENT else encode.text(content)
        name = f"{self._prefix(root.name)}{root.version}.{time}.json"
        path = self._directory / name.replace(":", "")
        with path.open("xb") as file:
            file.write(head[:-1] + b',"instance":' + value + b"}\n")
            file.flush()
            os.fsync(file.fileno())
        self._forget(root.name)
        return str(path)

    def _prefix(self, name: str) -> str:
        return f"{quote(name, safe='')[:120]}.{self._tega_id}."

    def _forget(self, name: str) -> None:
        """Keep the newest few of a root: a box that is away for long comes back to this often."""
        prefix = self._prefix(name)
        files = [one for one in self._directory.iterdir() if one.name.startswith(prefix)]
        files.sort(key=lambda one: one.stat().st_mtime_ns)
        for one in files[:-_KEPT]:
            log.info("%s is removed: %d newer ones of %s are there", one, _KEPT, name)
            one.unlink()
