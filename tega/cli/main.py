"""``tega-cli``: the prompt, or one command for scripts."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tega.cli import arguments
from tega.cli.arguments import Options
from tega.cli.yamltext import printable
from tega.errors import Malformed

if TYPE_CHECKING:
    from tega.cli.access import Access

#: Exit statuses as a shell has them for a program that SIGINT or SIGPIPE has ended.
INTERRUPTED, BROKEN_PIPE = 130, 141

#: Seconds that completion may wait for the server.
_TAB_TIMEOUT = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tega-cli``.

    :returns: the exit status: 0 done, 1 refused or not found, 2 bad usage, 3 no connection
    """
    _prepare_streams()
    options = arguments.parse(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        print(f"tega-cli: standard output: {error}", file=sys.stderr)
        return 1


def _run(options: Options) -> int:
    # Help and bad usage need not wait for what a connection needs.
    from tega.cli import oneshot
    from tega.cli.access import Access

    try:
        access = Access.of(options, os.environ)
    except Malformed as error:
        print(f"tega-cli: {printable(str(error))}", file=sys.stderr)
        return oneshot.USAGE
    if options.command is None:
        return _interact(options, access)
    return oneshot.run(options, access)


def _interact(options: Options, access: Access) -> int:
    from tega.cli import session
    from tega.cli.board import Board
    from tega.cli.prompt import Prompt

    board = Board()
    live = None
    if options.session:
        from tega.cli.live import Live

        live = Live(access.tega_id, board)
    with access.driver(live) as driver, access.driver(timeout=_TAB_TIMEOUT) as asked:
        prompt = Prompt(session.Asked(asked), board)
        try:
            return 0 if session.interact(driver, prompt) else 1
        finally:
            prompt.close()


def _prepare_streams() -> None:
    """Let no character that comes in or goes out end the program.

    Files and pipes get UTF-8 whatever the locale says. Bytes that are not text come in as
    characters that the readers refuse.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # It was closed when the program was started.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            errors = "surrogateescape" if stream is sys.stdin else "backslashreplace"
            stream.reconfigure(
                errors=errors, encoding=stream.encoding if stream.isatty() else "utf-8"
            )


if __name__ == "__main__":
    sys.exit(main())
