"""``wait``: until servers have applied a version of a root. Meanwhile a terminal shows who has not.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tega import paths
from tega.cli.grammar import Command
from tega.cli.yamltext import printable
from tega.driver import CRUDException, Driver
from tega.driver.errors import DriverError
from tega.errors import Malformed, NotFound

#: Seconds until it is given up, unless told otherwise.
_TIMEOUT: Final = 60.0

#: Seconds between two looks: the first, and the longest after a while.
_FIRST: Final = 0.05
_LONGEST: Final = 1.0


class Lagging(DriverError):
    """The time is up, and not everybody has it."""


def wait(driver: Driver, command: Command) -> None:
    """Return when everybody has it.

    :raises Malformed: for options that contradict each other
    :raises Lagging: naming those that had not got it in time, each with what it has
    """
    options = command.options
    version, timeout = command.number, options.get("timeout", _TIMEOUT)
    assert version is not None
    if version < 0:
        raise Malformed(f"VERSION {version}: give one that counts from 0")
    if "on" in options and "all" in options:
        raise Malformed("give --on or --all, not both: these servers, or every one")
    until = time.monotonic() + timeout
    pause = _FIRST
    with _progress(driver) as show:
        while behind := _behind(_applied(driver, command.target), command):
            left = until - time.monotonic()
            if left <= 0:
                root = paths.dotted((command.target,))
                lines = [f"version {version} of {root} is not everywhere after {timeout:g} s:"]
                raise Lagging("\n".join(lines + [f"{who}: {has}" for who, has in behind.items()]))
            show("waiting for " + ", ".join([f"{who} ({has})" for who, has in behind.items()]))
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, _LONGEST)


def _applied(driver: Driver, root: str) -> Mapping[str, int]:
    """How far each server is; nobody is anywhere where the one that is asked has no such root."""
    try:
        found: dict[str, int] = driver.applied(root)[2]
    except CRUDException as error:
        if error.code != NotFound.code:
            raise
        return {}
    return found


def _behind(applied: Mapping[str, int], command: Command) -> dict[str, str]:
    """Who has not got it, and what they have."""
    version = command.number or 0
    behind = {
        who: f"version {applied[who]}" if who in applied else "not there"
        for who in command.options.get("on", sorted(applied))
        if applied.get(who, -1) < version
    }
    if not applied and "on" not in command.options:
        behind["every server"] = "no such root"
    elif "all" in command.options and len(applied) < 2:
        behind["another server"] = "not there"
    return behind


@contextmanager
def _progress(driver: Driver) -> Iterator[Callable[[str], None]]:
    """Shows a line on a terminal, in place of the one before; none is left at the end."""
    shown = False

    def show(line: str) -> None:
        nonlocal shown
        # With a session, what arrives is written to the terminal too, and would go into this.
        if sys.stderr.isatty() and driver.subscriber is None:
            shown = True
            sys.stderr.write(f"\r{printable(line)[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
