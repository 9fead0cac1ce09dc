"""One command for scripts: data on standard output, messages on standard error."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from contextlib import closing
from dataclasses import replace

from tega.cli import commands, yamltext
from tega.cli.access import Access
from tega.cli.arguments import Options
from tega.cli.commands import NO_DATA
from tega.cli.grammar import Command
from tega.cli.printing import Format, change_line, output, refusal
from tega.driver.errors import DriverError
from tega.errors import Malformed

DONE, REFUSED, USAGE, NO_CONNECTION = range(4)

#: Seconds between two looks whether somebody reads a watch, while there is nothing to write.
_LOOK = 0.5


def run(options: Options, access: Access) -> int:
    """Run the command of the program's arguments.

    :returns: the exit status
    :raises OSError: where standard output cannot be written
    """
    command, verb = options.command, options.verb
    assert command is not None
    assert verb is not None
    if verb.name == "watch":
        return _watch(options, access)
    try:
        if verb.takes_value:
            command = replace(command, value=_value(options))
        if verb.asks and not options.yes and not _agreed(verb.name):
            return _failed("nothing was done", REFUSED)
        if verb.name == "pub":
            _publish(access, command)
            return DONE
        with access.driver() as driver:
            if options.txid is not None:
                driver.join(options.txid)
            answer = commands.run(command, driver)
    except (Malformed, DriverError, OSError) as error:
        return _refused(error)
    if answer.data is not NO_DATA:
        text = output(answer.data, Format(options.form), sys.stdout.isatty())
        sys.stdout.write(text)
    return DONE


def _publish(access: Access, command: Command) -> None:
    from tega.cli import watching

    watching.publish(access, command.target, command.value)


def _watch(options: Options, access: Access) -> int:
    """Print changes until Ctrl-C or SIGTERM, which are its proper end.

    :raises OSError: where standard output cannot be written, or nobody reads it any more
    """
    from tega.cli.watching import changes

    form = Format(options.form)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with closing(changes(options, access, _LOOK)) as found:
            while True:
                try:
                    change = next(found)
                except (DriverError, OSError) as error:
                    return _refused(error)
                if change is not None:
                    sys.stdout.write(change_line(change, form))
                    sys.stdout.flush()
                elif _unread():
                    raise BrokenPipeError
    except KeyboardInterrupt:
        _drop_what_nobody_reads()
        return DONE


def _unread() -> bool:
    """Whether standard output is a pipe whose other end is closed."""
    if not stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_what_nobody_reads() -> None:
    """Let standard output not hold up the end of the program where it cannot be written now."""
    if not select.select([], [sys.stdout], [], 0)[1]:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: Exception) -> int:
    """Tell what went wrong; the exit status for it."""
    status = NO_CONNECTION
    if isinstance(error, Malformed):
        status = USAGE
    elif isinstance(error, DriverError):
        status = REFUSED
    return _failed(refusal(error), status)


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
