"""Prints doc/reference.md from the tables that the code itself uses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from tega import errors
from tega.cli.grammar import CALL, VERBS
from tega.options import Program
from tega.sentinel.settings import PROGRAM as SENTINEL
from tega.settings import PROGRAM as SERVER
from tega.web.app import COMMANDS, DOCUMENTS

INTRODUCTION = """# Reference

Made by `scripts/docs` from the tables in the code. Change those, not this file.
"""

REST = """## REST

JSON in and out, UTF-8, on port 8739. A path has one percent-encoded key a segment:
`/routes/10.0.0.0%2F24/metric/`. Booleans in a query are `True`, `true`, `1` or `False`, `false`,
`0`; a parameter that is not known, or given twice, is refused. `tega_id` names who asks. A change
may carry the header `Idempotency-Key`, 1 to 255 characters: sent again with the same key
it gives the first answer and changes nothing. An open transaction's own id does the same for its
commit. The same for programs: `GET /_openapi`, and [openapi.json](openapi.json).

What a command *needs* where there is access control ([security](security.md)): *rights* on the
paths that it is about, to *monitor* or to *manage* the server, or *nothing*.
"""

ERRORS = """## Errors

A refusal has the body `{"error": {"code": "collision", "message": "...", ...}}`. The message says
what was wrong with which path or parameter, and what to do; further members are for programs.
"""

SETTINGS = """## Settings of `tega-server`

A flag goes before a variable, that before the file given with `--settings` (YAML, one `name: value`
a line), that before the default. What is true or false stands alone as a flag. Several values are
separated by colons in a variable, and are a list in the file: `[a, b]`. A value with a colon in it
goes into a flag or the file.
"""

SENTINEL_SETTINGS = """## Settings of `tega-sentinel`

As those of the server. A flag that says `true or false` stands alone on the command line. Passwords
are best given as variables or files: others on the machine can read a command line.
[The sentinel's page](sentinel.md) explains them.
"""

CLI = """## Commands of `tega-cli`

At the prompt, and as `tega-cli COMMAND ...`. Versions are `--version N` there, a transaction across
calls is `--txid T`, a value is an argument or comes from stdin. Exit status: 0; 1 refused or not
found; 2 usage; 3 no connection.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def first_line(thing: Callable[..., Any] | type) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def classes(base: type[errors.TegaError]) -> Iterable[type[errors.TegaError]]:
    """The class and all below it, in the order in which they are written."""
    yield base
    for below in base.__subclasses__():
        yield from classes(below)


def settings(program: Program) -> str:
    """The settings of a program, as a table."""
    return table(
        ("flag", "variable", "default", "right is", "meaning"),
        (
            (
                (f"`-{s.short}` " if s.short else "") + f"`--{s.name}`",
                f"`{program.variable(s)}`",
                "" if s.default in (None, (), False) else f"`{s.default}`",
                s.expects,
                s.help,
            )
            for s in program.table
        ),
    )


def main() -> None:
    """Print the page."""
    print(INTRODUCTION)
    print(REST)
    rows = [
        (method, "/KEY/KEY/...", one.needs.value, first_line(one.handler))
        for method, one in DOCUMENTS.items()
    ]
    for name, one in COMMANDS.items():
        rows.append(
            (", ".join(one.methods), f"/{name}", one.needs.value, first_line(one.handler))
        )
    print(table(("method", "URL", "needs", "what it does"), rows))
    print(ERRORS)
    refusals = [c for c in classes(errors.TegaError) if c is not errors.TegaError]
    print(
        table(
            ("code", "status", "class", "meaning"),
            ((c.code, str(c.status), c.__name__, first_line(c)) for c in refusals),
        )
    )
    print("A collision that refuses a whole transaction at its commit has status 406.\n")
    print(SETTINGS)
    print(settings(SERVER))
    print(SENTINEL_SETTINGS)
    print(settings(SENTINEL))
    print(CLI)
    commands = [(f"`{verb.usage}`", verb.help) for verb in VERBS.values()]
    typed = [*dict.fromkeys(commands), (f"`{CALL}`", "call an RPC")]
    print(table(("command", "what it does"), typed), end="")


if __name__ == "__main__":
    main()
