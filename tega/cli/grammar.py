"""The commands of ``tega-cli``: one table, and how a typed line is read by it.

Help, completion, the one-shot arguments and the documentation come from `VERBS`. Nothing here asks
a server, and nothing typed is evaluated: arguments are literals.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from tega import paths
from tega.errors import Malformed
from tega.util import func_args_kwargs


class Kind(Enum):
    """What an argument is, for reading and for completing it."""

    PATH = "a dotted path"
    PATTERN = r"a regular expression per level, split at '\.'"
    ROOT = "the name of a root"
    CHANNEL = "a channel, which is a dotted path"
    CHANNELS = "a dotted path, or * for all"
    INTEGER = "an integer"
    COMMAND = "a command"


class Where(Enum):
    """Where a command is offered."""

    EVERYWHERE = "everywhere"
    INTERACTIVE = "interactive"
    ONE_SHOT = "one-shot"


@dataclass(frozen=True)
class Argument:
    """One argument of a command, as usage shows it."""

    name: str
    kind: Kind
    optional: bool = False

    def __str__(self) -> str:
        return f"[{self.name}]" if self.optional else self.name


PATH: Final = Argument("PATH", Kind.PATH)
PATTERN: Final = Argument("PATTERN", Kind.PATTERN)
VERSION: Final = Argument("VERSION", Kind.INTEGER, optional=True)


@dataclass(frozen=True)
class Option:
    """An option of a command, at the prompt as in a shell: ``--NAME``, and what belongs to it.

    :param metavar: what belongs to it, as usage shows it; empty: nothing does
    :param read: reads a word of that; raises `Malformed`
    :param many: several words belong to it
    """

    name: str
    help: str
    metavar: str = ""
    read: Callable[[str], Any] = str
    many: bool = False

    def __str__(self) -> str:
        return f"--{self.name} {self.metavar}{'...' * self.many}".rstrip()


class Joins(Enum):
    """What a command has to do with a transaction that was begun before."""

    NOT = "nothing"
    MAY = "it goes into one where one is open"
    MUST = "it needs one"


@dataclass(frozen=True)
class Verb:
    """A command.

    :param name: what is typed
    :param help: one line for people
    :param arguments: in the order in which they are typed
    :param options: typed after the arguments
    :param takes_value: a value follows: on the next lines, or as an argument or on stdin
    :param joins: what it has to do with an open transaction
    :param asks: it destroys, so that a one-shot call on a terminal asks first
    :param live: at the prompt it needs a session
    """

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    aliases: tuple[str, ...] = ()
    takes_value: bool = False
    joins: Joins = Joins.NOT
    asks: bool = False
    live: bool = False
    where: Where = Where.EVERYWHERE

    @property
    def usage(self) -> str:
        """As it is typed at the prompt."""
        return " ".join([self.name, *map(str, self.arguments), *[f"[{o}]" for o in self.options]])

    @property
    def brief(self) -> str:
        """The same without naming its options."""
        return " ".join([self.name, *map(str, self.arguments), *["..."] * bool(self.options)])


@dataclass(frozen=True)
class Command:
    """What is to be done.

    :param name: of the `Verb`
    :param target: a dotted path, a pattern, the name of a root, or a command: as the verb has it
    :param number: a version, or what to roll back to
    :param value: of a put
    :param args: of a call
    :param kwargs: of a call
    :param options: those that are given, by name: words as a tuple where there may be several,
        True where nothing belongs to it
    """

    name: str
    target: str = ""
    number: int | None = None
    value: Any = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


#: In place of a path: all of them.
ALL: Final = "*"

#: How a call is typed at the prompt; one-shot it is ``rpc PATH ARGUMENT...``.
CALL: Final = "PATH(ARGUMENT, NAME=VALUE)"


def parse_seconds(word: str) -> float:
    """Read a time.

    :raises Malformed: for anything else
    """
    if not _SECONDS.fullmatch(word):
        raise Malformed(f"{word[:64]!r} is not a number of seconds")
    return float(word)


_TABLE: Final = (
    Verb(
        "h",
        "help: this list, or one command",
        (Argument("COMMAND", Kind.COMMAND, optional=True),),
        aliases=("help",),
        where=Where.INTERACTIVE,
    ),
    Verb("q", "quit", aliases=("quit",), where=Where.INTERACTIVE),
    Verb("get", "show what is at PATH; VERSION -1 is one before the newest", (PATH, VERSION)),
    Verb("geta", "get with the attributes of every node", (PATH, VERSION)),
    Verb(
        "getr",
        r"show all that matches PATTERN, one regular expression per level, split at '\.'",
        (PATTERN,),
    ),
    Verb(
        "put",
        "replace what is at PATH by a value; only if it has VERSION (-1: only if there is nothing)",
        (PATH, VERSION),
        takes_value=True,
        joins=Joins.MAY,
    ),
    Verb(
        "pute",
        "put an ephemeral value, which goes when the session of the tega id ends",
        (PATH, VERSION),
        takes_value=True,
        joins=Joins.MAY,
        live=True,
    ),
    Verb(
        "del",
        "remove what is at PATH, and parents left empty; only if it has VERSION",
        (PATH, VERSION),
        joins=Joins.MAY,
    ),
    Verb("begin", "begin a transaction: puts and dels go into it"),
    Verb("cand", "show the trees as they would be after the commit", joins=Joins.MUST),
    Verb("cancel", "drop the transaction", joins=Joins.MUST),
    Verb("commit", "apply the transaction, all of it or nothing", joins=Joins.MUST),
    Verb(
        "rollback",
        "make an old version of ROOT its newest; BACKTO -1 is one before the newest",
        (Argument("ROOT", Kind.ROOT), Argument("BACKTO", Kind.INTEGER)),
    ),
    Verb("roots", "the roots and their versions"),
    Verb("old", "the old versions that are kept, by root"),
    Verb("ss", "save a snapshot"),
    Verb("clear", "delete everything, history too", asks=True),
    Verb("sync", "wait until every replicated root has caught up with its leader"),
    Verb(
        "wait",
        "wait until VERSION of ROOT has arrived at every server that has ROOT",
        (Argument("ROOT", Kind.ROOT), Argument("VERSION", Kind.INTEGER)),
        (
            Option("on", "only at these, by tega id", "ID", paths.check_tega_id, many=True),
            Option("all", "at every server, which must be more than the one that is asked"),
            Option("timeout", "give up after so many seconds; 60", "S", parse_seconds),
        ),
    ),
    Verb(
        "release",
        "give ROOT back to the server that is asked: the one that led it is gone for good",
        (Argument("ROOT", Kind.ROOT),),
    ),
    Verb(
        "sub",
        "hear of changes at, below and above PATH, and of messages on that channel",
        (PATH,),
        aliases=("subscribe",),
        live=True,
        where=Where.INTERACTIVE,
    ),
    Verb(
        "subr",
        "hear of all that matches PATTERN, as getr has it",
        (PATTERN,),
        live=True,
        where=Where.INTERACTIVE,
    ),
    Verb(
        "unsub",
        "hear of PATH no more; *: of nothing more, patterns included",
        (Argument("PATH", Kind.CHANNELS),),
        aliases=("unsubscribe",),
        live=True,
        where=Where.INTERACTIVE,
    ),
    Verb(
        "unsubr",
        "hear of PATTERN no more",
        (PATTERN,),
        live=True,
        where=Where.INTERACTIVE,
    ),
    Verb(
        "pub",
        "send a message, a value, to all others that subscribe to CHANNEL",
        (Argument("CHANNEL", Kind.CHANNEL),),
        aliases=("publish",),
        takes_value=True,
        live=True,
    ),
    Verb(
        "watch",
        "print a line for each change at, below and above PATH, until interrupted",
        (PATH,),
        where=Where.ONE_SHOT,
    ),
    Verb("id", "the tega id of this client"),
    Verb("ids", "the tega ids of live sessions and plugins"),
    Verb("channels", "the channels and who subscribes to them"),
    Verb("subscribers", "the subscribers and their channels"),
    Verb("global", "the channels of global scope"),
    Verb("forwarders", "the peers that subscriptions are forwarded to"),
    Verb("plugins", "the plugins and their scopes"),
    Verb("reload", "load the plugins anew"),
    Verb(
        "rpc",
        f"call the function at PATH (at the prompt: {CALL})",
        (PATH,),
        where=Where.ONE_SHOT,
    ),
)

#: Every command by its name, in the order of help.
VERBS: Final[Mapping[str, Verb]] = {verb.name: verb for verb in _TABLE}

#: What may be typed at the prompt, long forms too.
INTERACTIVE: Final[Mapping[str, Verb]] = {
    name: verb
    for verb in _TABLE
    if verb.where is not Where.ONE_SHOT
    for name in (verb.name, *verb.aliases)
}

#: A word ends at a blank outside quotes. One whose quote does not end reaches to the end of the
#: line, where reading it as a path tells what is wrong.
WORD: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\Z)|[^\s"]|"\Z)+')
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def parse(line: str) -> Command:
    """Read a line typed at the prompt.

    :param line: not blank
    :returns: the command; the value of a put is still to come
    :raises Malformed: saying what is wrong with it and how it is typed
    """
    line = line.strip()
    name, *rest = line.split(maxsplit=1)
    verb = INTERACTIVE.get(name)
    return _parse_call(line) if verb is None else _fill(verb, rest[0] if rest else "")


def _parse_call(line: str) -> Command:
    name = line.split(maxsplit=1)[0]
    path, args, kwargs = func_args_kwargs(line) if "(" in line else (line, None, None)
    if args is None or kwargs is None:
        begun = [known for known in INTERACTIVE if known.startswith(name)]
        close = begun or difflib.get_close_matches(name, INTERACTIVE, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ":"
        raise Malformed(f"unknown command {name[:64]!r}{hint} type h for help, {CALL} for a call")
    return Command("rpc", path, args=tuple(args), kwargs=kwargs)


def _fill(verb: Verb, rest: str) -> Command:
    """Read the words after a command's name as its arguments."""
    if any(argument.kind is Kind.PATTERN for argument in verb.arguments):
        words = [rest] if rest else []
    else:
        words = WORD.findall(rest)
    words, options = _split_options(verb, words)
    needed = [argument for argument in verb.arguments if not argument.optional]
    if not len(needed) <= len(words) <= len(verb.arguments):
        later = "; the value goes on the lines after it" if verb.takes_value else ""
        raise Malformed(f"usage: {verb.usage}{later}")
    target, number = "", None
    for argument, word in zip(verb.arguments, words, strict=False):
        if argument.kind is Kind.INTEGER:
            number = parse_integer(argument, word)
        else:
            target = parse_target(argument, word)
    return Command(verb.name, target, number, options=options)


def _split_options(verb: Verb, words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The words before the options, and the options."""
    named = {f"--{option.name}": option for option in verb.options}
    starts = [place for place, word in enumerate(words) if word in named]
    given: dict[str, Any] = {}
    for start, end in zip(starts, [*starts[1:], len(words)], strict=False):
        option, texts = named[words[start]], words[start + 1 : end]
        if len(texts) != bool(option.metavar) and not (option.many and texts):
            raise Malformed(f"usage: {verb.usage}")
        values = tuple([option.read(text) for text in texts])
        given[option.name] = values if option.many else values[0] if values else True
    return words[: starts[0]] if starts else words, given


def parse_integer(argument: Argument, word: str) -> int:
    """Read a version.

    :raises Malformed: for anything else
    """
    if not _INTEGER.fullmatch(word):
        raise Malformed(f"{argument.name} {word[:64]!r} is not an integer")
    return int(word)


def parse_target(argument: Argument, word: str) -> str:
    """Read what a command is about; a root comes back without quotes.

    :raises Malformed: for what cannot be one
    """
    if argument.kind is Kind.COMMAND:
        if word not in INTERACTIVE:
            raise Malformed(f"unknown command {word[:64]!r}: type h for help")
    elif argument.kind is Kind.PATTERN:
        paths.split_pattern(word)
    elif argument.kind is not Kind.CHANNELS or word != ALL:
        path = paths.parse(word)
        if argument.kind is Kind.ROOT:
            if len(path) > 1:
                raise Malformed(f"{word[:64]!r} is not a root: give its name alone, {path[0]!r}")
            return path[0]
    return word


def help_text(name: str = "") -> str:
    """Help for people: on one command, or all of them.

    :param name: of a command that may be typed at the prompt
    """
    verbs = [INTERACTIVE[name]] if name else [v for v in _TABLE if v.where is not Where.ONE_SHOT]
    if name:
        lines = [(verb.usage, verb.help) for verb in verbs]
        lines += [(f"  {option}", option.help) for verb in verbs for option in verb.options]
    else:
        lines = [(verb.brief, verb.help) for verb in verbs]
        lines.append((CALL, "call the function at PATH with literals"))
    width = max(len(usage) for usage, _ in lines)
    text = "\n".join(f"{usage:{width}}  {help}" for usage, help in lines)
    if any(verb.takes_value for verb in verbs):
        text += "\nA value is typed as YAML or JSON on the lines after it, ended by an empty line."
    return text
