"""One command for scripts: data on standard output, messages on standard error."""

from __future__ import annotations

import sys
from dataclasses import replace

from tega.cli import commands, yamltext
from tega.cli.arguments import Options
from tega.cli.commands import NO_DATA
from tega.cli.printing import Format, output, refusal
from tega.driver import Driver
from tega.driver.errors import DriverError
from tega.errors import Malformed

DONE, REFUSED, USAGE, NO_CONNECTION = range(4)


def run(options: Options, driver: Driver) -> int:
    """Run the command of the program's arguments.

    :returns: the exit status
    :raises OSError: where standard output cannot be written
    """
    command, verb = options.command, options.verb
    assert command is not None
    assert verb is not None
    try:
        if verb.takes_value:
            command = replace(command, value=_value(options))
        if verb.asks and not options.yes and not _agreed(verb.name):
            return _failed("nothing was done", REFUSED)
        if options.txid is not None:
            driver.join(options.txid)
        answer = commands.run(command, driver)
    except Malformed as error:
        return _failed(refusal(error), USAGE)
    except DriverError as error:
        return _failed(refusal(error), REFUSED)
    except OSError as error:
        return _failed(refusal(error), NO_CONNECTION)
    if answer.data is not NO_DATA:
        text = output(answer.data, Format(options.form), sys.stdout.isatty())
        sys.stdout.write(text)
    return DONE


def _failed(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _value(options: Options) -> object:
    """The value, from the arguments or from standard input.

    :raises Malformed: where there is none, or it cannot be read
    """
    if options.value is not None:
        return yamltext.loads(options.value)
    if sys.stdin.isatty():
        raise Malformed(
            "no value: give it after the path, tega-cli put a.b 1, or on standard input, "
            "echo 'c: 1' | tega-cli put a.b"
        )
    return yamltext.loads(sys.stdin.buffer.read().decode(errors="surrogateescape"))


def _agreed(name: str) -> bool:
    """Whether whoever sits at the terminal wants it; a script that has none does."""
    if not sys.stdin.isatty():
        return True
    print(f"{name} deletes everything, history too. Go on? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
