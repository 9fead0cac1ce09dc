"""The arguments of the program, from the table of commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tega import __version__, paths
from tega.cli import yamltext
from tega.cli.grammar import (
    PATH,
    PATTERN,
    VERBS,
    Argument,
    Command,
    Joins,
    Kind,
    Option,
    Verb,
    Where,
    parse_integer,
    parse_target,
)
from tega.errors import Malformed

_ABOUT = "Ask a tega server. Without a command, the prompt: h shows what it takes."
_EPILOG = f"""\
A value is YAML with the JSON schema (so also JSON), as an argument or on standard input. "--" ends
the options: tega-cli put a -- -x. Exit status: 0 done, 1 refused or not found, 2 bad usage, 3 no
connection. tega db {__version__}"""

_SINCE = re.compile(r"[0-9]{1,18}(@[A-Za-z0-9-]+)?")
_KEYWORD = re.compile(r"[^\W\d]\w*(?==)")


@dataclass(frozen=True)
class Options:
    """What the program was started with.

    :param command: None: the prompt
    :param value: text of the value; None: it comes on standard input
    :param txid: the transaction to go into
    :param yes: do not ask
    :param session: the prompt with a session
    :param regex: what to watch is a pattern
    :param since: watch from there: a sequence number, or one and a life
    :param tls: over TLS; `ca` and `cert`, files, mean that too
    :param token_file: has the token
    """

    address: str
    port: int
    tega_id: str | None
    form: str
    command: Command | None = None
    value: str | None = None
    txid: str | None = None
    yes: bool = False
    session: bool = False
    regex: bool = False
    since: str | None = None
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token_file: str | None = None

    @property
    def secure(self) -> bool:
        """Whether to connect over TLS."""
        return self.tls or self.ca is not None or self.cert is not None

    @property
    def verb(self) -> Verb | None:
        """What the table says of the command."""
        return VERBS[self.command.name] if self.command else None


def parse(arguments: Sequence[str]) -> Options:
    """Read the arguments of the program.

    :raises SystemExit: after help (0), or a usage error (2) that has been printed
    """
    parser = _Parser(
        prog="tega-cli",
        description=_ABOUT,
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=_Wide,
    )
    parser.add_argument("-V", action="version", version=f"tega db {__version__}")
    parser.add_argument(
        "-s",
        dest="session",
        action="store_true",
        help="the prompt with a session: sub, pub, pute and what they bring",
    )
    _add_common(parser, address="127.0.0.1", port=8739, form="yaml", tls=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for verb in VERBS.values():
        if verb.where is not Where.INTERACTIVE:
            _add_verb(commands, verb)
    given = vars(parser.parse_args(arguments))
    if given["command"] == "watch":
        try:
            parse_target(PATTERN if given["regex"] else PATH, given["target"])
        except Malformed as error:
            parser.error(error.message)
    if given["key"] and not given["cert"]:
        parser.error("--key is for no certificate: give --cert too")
    if given["session"] and given["command"]:
        parser.error("-s is for the prompt: give no command")
    return Options(
        given["address"],
        given["port"],
        given["tega_id"],
        given["form"],
        _command(given) if given["command"] else None,
        given.get("value"),
        given.get("txid"),
        given.get("yes", False),
        given["session"],
        given.get("regex", False),
        given.get("since"),
        given["tls"],
        given["ca"],
        given["cert"],
        given["key"],
        given["token_file"],
    )


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=18, width=100)


class _Parser(argparse.ArgumentParser):
    """One whose errors show what was given as a terminal may have it."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: -"):
            message += ' (what is no option goes after "--")'
        super().error(yamltext.printable(message))


def _add_common(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """The options that stand before or behind the command; behind, without defaults."""

    def add(flag: str, dest: str, help: str, **words: Any) -> None:
        default = defaults.get(dest) if defaults else argparse.SUPPRESS
        parser.add_argument(flag, dest=dest, help=help, default=default, **words)

    add("-a", "address", "of the server; 127.0.0.1", metavar="ADDRESS",
        type=_checked(paths.check_host))
    add("-p", "port", "of the server; 8739", metavar="PORT", type=_port)
    add("-t", "tega_id", "who asks; a unique one, of the token's name if there is one",
        metavar="TEGAID", type=_checked(paths.check_tega_id))
    add("-o", "form", "how data is printed; yaml (raw: a string as it is, all else JSON)",
        choices=("yaml", "json", "raw"))
    add("--tls", "tls", "connect over TLS", action="store_true")
    add("--ca", "ca", "PEM file with the authorities that may have signed the server's "
        "certificate; without it those of the system. Means --tls", metavar="FILE")
    add("--cert", "cert", "PEM file with a certificate to show. Means --tls", metavar="FILE")
    add("--key", "key", "PEM file with its key, where --cert has none", metavar="FILE")
    add("--token-file", "token_file", "file with the token; without it the variable TEGA_TOKEN",
        metavar="FILE")  # fmt: skip


def _add_verb(commands: Any, verb: Verb) -> None:
    parser = commands.add_parser(
        verb.name,
        help=verb.help,
        description=verb.help,
        allow_abbrev=False,
        formatter_class=_Wide,
    )
    for argument in verb.arguments:
        if verb.name == "watch":
            # Before its options are read it is not known what it is.
            parser.add_argument("target", metavar=argument.name, help=argument.kind.value)
        elif argument.kind is not Kind.INTEGER:
            _add(parser, "target", argument, _checked(parse_target, argument))
        elif not argument.optional:
            _add(parser, "number", argument, _checked(parse_integer, argument))
        else:
            parser.add_argument(
                f"--{argument.name.lower()}",
                dest="number",
                metavar="N",
                type=_checked(parse_integer, argument),
            )
    for option in verb.options:
        parser.add_argument(
            f"--{option.name}", default=argparse.SUPPRESS, help=option.help, **_words_of(option)
        )
    if verb.takes_value:
        parser.add_argument(
            "value", metavar="VALUE", nargs="?", help="YAML or JSON; without it: standard input"
        )
    if verb.name == "rpc":
        parser.add_argument(
            "args", metavar="ARGUMENT", nargs="*", type=_checked(yamltext.loads), help="YAML"
        )
        parser.add_argument(
            "-k",
            dest="kwargs",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            type=_checked(_keyword),
            help="a named argument, its value YAML",
        )
    if verb.name == "watch":
        parser.add_argument(
            "--regex",
            action="store_true",
            help=f"PATH is {Kind.PATTERN.value}",
        )
        parser.add_argument(
            "--since",
            metavar="N",
            type=_since,
            help="first what has changed since this sequence number; N@LIFE: in that life",
        )
    if verb.joins is not Joins.NOT:
        parser.add_argument(
            "--txid",
            metavar="T",
            required=verb.joins is Joins.MUST,
            help="the transaction that begin has printed",
        )
    if verb.asks:
        parser.add_argument("--yes", action="store_true", help="do not ask")
    _add_common(parser)


def _add(parser: argparse.ArgumentParser, dest: str, argument: Argument, type: Any) -> None:
    parser.add_argument(dest, metavar=argument.name, type=type, help=argument.kind.value)


def _words_of(option: Option) -> dict[str, Any]:
    """How argparse is told what belongs to an option."""
    if not option.metavar:
        return {"action": "store_true"}
    number = {"nargs": "+"} if option.many else {}
    return {"metavar": option.metavar, "type": _checked(option.read), **number}


def _command(given: dict[str, Any]) -> Command:
    options = {
        option.name: tuple(given[option.name]) if option.many else given[option.name]
        for option in VERBS[given["command"]].options
        if option.name in given
    }
    return Command(
        given["command"],
        given.get("target", ""),
        given.get("number"),
        args=tuple(given.get("args", ())),
        kwargs=dict(given.get("kwargs", ())),
        options=options,
    )


def _checked(read: Any, *before: Any) -> Any:
    """A reader whose refusal argparse shows as it is."""

    def convert(text: str) -> Any:
        try:
            return read(*before, text)
        except Malformed as error:
            raise argparse.ArgumentTypeError(error.message) from None

    return convert


def _keyword(text: str) -> tuple[str, Any]:
    name = _KEYWORD.match(text)
    if not name:
        raise Malformed(f"{text[:64]!r} is not NAME=VALUE")
    return name[0], yamltext.loads(text[name.end() + 1 :])


def _since(text: str) -> str:
    if not _SINCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a sequence number")
    return text


def _port(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a port: give 1 to 65535")
    return int(text)
