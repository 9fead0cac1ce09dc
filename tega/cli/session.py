"""The session at the prompt: read a line, do it, show the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tega import paths
from tega.cli import commands, grammar, yamltext
from tega.cli.completion import Lister
from tega.cli.grammar import VERBS
from tega.cli.printing import conversation, refusal
from tega.cli.prompt import Prompt
from tega.driver import Driver
from tega.driver.errors import DriverError
from tega.errors import Malformed
from tega.paths import Path

BANNER = "tega CLI (q: quit, h:help)"


def interact(driver: Driver, prompt: Prompt) -> bool:
    """Read commands and run them, until ``q`` or the end of what is typed.

    What goes wrong with a command is shown; the session goes on.

    :returns: whether it ended between two commands, not within a value
    """
    print(BANNER)
    count = 0
    while True:
        try:
            line = prompt.read(f"[tega: {count}] ")
            if not line.strip():
                continue
            count += 1
            shown = _answer(line, driver, prompt)
        except _Quit:
            return True
        except EOFError:
            print()
            return True
        except _EndsInValue:
            print("the end came before the empty line that ends a value: nothing was put")
            return False
        except KeyboardInterrupt:
            print()
            continue
        print(shown, end="", flush=True)


class _Quit(Exception):
    """That was the command."""


class _EndsInValue(Exception):
    """There are no more lines, in the midst of a value."""


def _answer(line: str, driver: Driver, prompt: Prompt) -> str:
    """Do what a line says; what to show for it."""
    try:
        command = grammar.parse(line)
        if command.name == "q":
            raise _Quit
        if VERBS[command.name].takes_value:
            try:
                text = prompt.read_value()
            except EOFError:
                raise _EndsInValue from None
            command = replace(command, value=yamltext.loads(text))
        try:
            return conversation(commands.run(command, driver))
        except KeyboardInterrupt:
            return "\ninterrupted: if the server has got the command, it does it all the same\n"
    except (Malformed, DriverError, OSError) as error:
        return refusal(error) + "\n"


def keys_at(driver: Driver) -> Lister:
    """A lister for completion.

    :param driver: one with a short timeout
    """

    def keys(path: Path) -> Mapping[str, bool]:
        try:
            if not path:
                return dict.fromkeys(driver.roots()[2], True)
            found = driver.get(paths.dotted(path), python_dict=True)
        except (DriverError, OSError):
            # A Tab must not write into the line being typed. The command tells what is wrong.
            return {}
        if not isinstance(found, dict):
            return {}
        return {key: isinstance(child, dict) for key, child in found.items()}

    return keys
