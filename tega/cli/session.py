"""The session at the prompt: read a line, do it, show the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tega import paths
from tega.cli import commands, grammar, yamltext
from tega.cli.board import Output
from tega.cli.grammar import VERBS, Verb
from tega.cli.printing import conversation, refusal
from tega.cli.prompt import Prompt
from tega.driver import Driver, SubscriptionException
from tega.driver.errors import DriverError
from tega.errors import Malformed
from tega.paths import Path

BANNER = "tega CLI (q: quit, h:help)"


def interact(driver: Driver, prompt: Prompt) -> bool:
    """Read commands and run them, until ``q`` or the end of what is typed.

    What goes wrong with a command is shown; the session goes on.

    :param driver: with a `Live` subscriber there is a session with the server meanwhile
    :returns: whether it ended between two commands, not within a value
    """
    print(BANNER, flush=True)
    live = driver.subscriber
    if live is None:
        return _converse(driver, prompt)
    with prompt.listening(), live.session(driver):
        return _converse(driver, prompt)


def _converse(driver: Driver, prompt: Prompt) -> bool:
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
        verb = VERBS[command.name]
        if verb.live:
            _expect_session(verb, driver)
        if verb.takes_value:
            try:
                text = prompt.read_value()
            except EOFError:
                raise _EndsInValue from None
            command = replace(command, value=yamltext.loads(text))
        try:
            with prompt.board.at(Output()):
                return conversation(commands.run(command, driver))
        except KeyboardInterrupt:
            return "\ninterrupted: if the server has got the command, it does it all the same\n"
    except (Malformed, DriverError, OSError) as error:
        return refusal(error) + "\n"


def _expect_session(verb: Verb, driver: Driver) -> None:
    """Refuse what needs a session where there is none.

    :raises SubscriptionException: saying so
    """
    if driver.subscriber is None:
        raise SubscriptionException(f"{verb.name} needs a session: start tega-cli with -s")
    if driver.subscriber.failure is not None:
        raise SubscriptionException(
            f"the session is over ({driver.subscriber.failure}): start tega-cli with -s again"
        )


class Asked:
    """What there is to complete with, asked from a server.

    A Tab must not write into the line being typed: what goes wrong is for the command to tell.

    :param driver: one with a short timeout
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def keys(self, path: Path) -> Mapping[str, bool]:
        """See `tega.cli.completion.Lister`."""
        try:
            if not path:
                return dict.fromkeys(self._driver.roots()[2], True)
            found = self._driver.get(paths.dotted(path), python_dict=True)
        except (DriverError, OSError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {key: isinstance(child, dict) for key, child in found.items()}

    def channels(self) -> list[str]:
        """See `tega.cli.completion.Lister`."""
        try:
            return list(self._driver.channels()[2])
        except (DriverError, OSError):
            return []
