"""A network namespace with a link that can be taken down, where this may be made (Linux, root)."""

from __future__ import annotations

import shutil
import subprocess
from types import TracebackType

import pytest


class Namespace:
    """A namespace with two links to this one: one to be taken down, and one to watch it over.

    :ivar here: address of the first link, of whoever is dialed from within
    :ivar watched: address within of the second one, which always works
    :ivar within: a command that runs another one in it
    """

    def __init__(self) -> None:
        for program in ("unshare", "nsenter", "ip"):
            if shutil.which(program) is None:
                pytest.skip(f"network namespaces: {program} is not installed")
        # It lasts as long as this process, which ends with its input.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline().strip()
        if said != "ready":
            self._end()
            pytest.skip(f"network namespaces: {said}")
        pid = self._holder.pid
        net = f"10.{pid // 256 % 256}.{pid % 256}"
        self.here, self.watched = f"{net}.1", f"{net}.6"
        self.within = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        try:
            self._add(f"tg{pid}up", "uplink", f"{self.here}/30", f"{net}.2/30")
            self._add(f"tg{pid}see", "seen", f"{net}.5/30", f"{self.watched}/30")
            _run(*self.within, "ip", "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            self._end()
            pytest.skip(f"network namespaces: {error.output.strip()}")

    def _add(self, outside: str, inside: str, here: str, there: str) -> None:
        pid = str(self._holder.pid)
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", pid)
        _run("ip", "addr", "add", here, "dev", outside)
        _run("ip", "link", "set", outside, "up")
        _run(*self.within, "ip", "addr", "add", there, "dev", inside)
        _run(*self.within, "ip", "link", "set", inside, "up")

    def set_link(self, state: str) -> None:
        """Take the first link ``down``, or ``up`` again."""
        _run(*self.within, "ip", "link", "set", "uplink", state)

    def _end(self) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait(10)
        self._holder.stdout.close()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()


def _run(*command: str) -> None:
    subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20
    )
