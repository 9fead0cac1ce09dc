"""``tega-server token`` and ``tega-server may``: credentials, and what they may do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tega.access.keeper import Keeper, add_token, list_tokens, remove_tokens
from tega.access.policy import Policy
from tega.access.rules import OPERATIONS, WORDS, WRITE, Rights
from tega.access.who import ANYBODY
from tega.errors import Malformed, NotFound, TegaError
from tega.paths import dotted, parse

#: The first arguments that make a command of this room out of ``tega-server``.
COMMANDS: Final = ("token", "may")

_YES, _NO, _WRONG = 0, 1, 2


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say, and print what comes of it.

    :returns: the exit status: 0 done or allowed, 1 not allowed, 2 wrong usage
    """
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (TegaError, OSError) as error:
        print(f"tega-server {options.command}: {error}", file=sys.stderr)
        return _WRONG


def _token(options: argparse.Namespace) -> int:
    file: Path = options.tokens or options.logdir / "tokens.yaml"
    if options.what == "list":
        for name, tokens in list_tokens(file).items():
            print(f"{name}: " + (", ".join(f"made {one.made}" for one in tokens) or "no token"))
        return _YES
    if options.name is None:
        raise Malformed(f"{options.what}: whose? Give the name of an identity")
    if options.what == "add":
        print(add_token(file, options.name))
    else:
        print(f"{remove_tokens(file, options.name)} removed: {options.name} has no token now")
    return _YES


def _may(options: argparse.Namespace) -> int:
    keeper = Keeper(
        options.tokens or options.logdir / "tokens.yaml",
        options.access or options.logdir / "access.yaml",
        named=options.access is not None,
    )
    if keeper.policy is None:
        print("yes: there is no access control, for there are neither tokens nor rules")
        return _YES
    if options.operation in ("manage", "monitor", "peer"):
        who = keeper.policy.anybody if options.name == ANYBODY else keeper.policy.get(options.name)
        if who is None:
            raise _no_identity(keeper.policy, options.name)
        allowed = bool(getattr(who, options.operation))
        print(f"{'yes' if allowed else 'no'}: see {options.operation} in {keeper.access}")
        return _YES if allowed else _NO
    if options.operation not in OPERATIONS or len(options.operation) != 1:
        known = ", ".join(f"{letter} ({WORDS[letter]})" for letter in OPERATIONS)
        raise Malformed(f"{options.operation!r}: it is one of {known}, manage, monitor, peer")
    if options.path is None:
        raise Malformed("where? Give a path")
    allowed, why = explain(keeper.policy, options.name, options.operation, options.path)
    print(f"{'yes' if allowed else 'no'}: {why}")
    return _YES if allowed else _NO


def _no_identity(policy: Policy, name: str) -> NotFound:
    there = ", ".join([*policy.names, ANYBODY])
    return NotFound(f"there is no identity {name!r}; there are {there}")


def explain(policy: Policy, name: str, operation: str, text: str) -> tuple[bool, str]:
    """Whether somebody may do something at a path, and which rule says so.

    :param name: of an identity, or ``anybody``
    :raises NotFound: where there is no such identity
    """
    who = policy.anybody if name == ANYBODY else policy.get(name)
    if who is None:
        raise _no_identity(policy, name)
    path = parse(text)
    if who.rights is None and not policy.rules:
        return True, f"there are no rules, so that {name}, who is known, may do everything"
    # Rules of others are shared under their numbers, so that they are sorted out anew.
    rights = Rights(policy.rules_of(name))
    place = rights.at(path)
    says = str(place.rule) if place.rule is not None else f"no rule for {name} covers it"
    if not place.may(operation):
        return False, says
    if operation == WRITE and not place.everywhere(WRITE):
        below = next(
            str(rule) for rule in place.open_rules if WRITE not in rule.may
        )
        return False, f"{says}; but what is below {dotted(path)} goes with it, and there {below}"
    return True, says


def _parser() -> argparse.ArgumentParser:
    files = argparse.ArgumentParser(add_help=False)
    files.add_argument(
        "-d", "--logdir", type=Path, default=Path("./var"), help="the log directory (./var)"
    )
    files.add_argument("--tokens", type=Path, help="the file with tokens (LOGDIR/tokens.yaml)")
    parser = argparse.ArgumentParser(prog="tega-server")
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser(
        "token", parents=[files],
        help="make a token, which is printed once; list whose there are; remove somebody's",
    )  # fmt: skip
    token.add_argument("what", choices=("add", "list", "remove"))
    token.add_argument("name", nargs="?", metavar="NAME", help="of the identity")
    may = commands.add_parser(
        "may", parents=[files],
        help="tell whether NAME may do something somewhere, and which rule says so",
    )  # fmt: skip
    may.add_argument("--access", type=Path, help="the file with rules (LOGDIR/access.yaml)")
    may.add_argument("name", metavar="NAME", help="of an identity, or 'anybody'")
    may.add_argument("operation", metavar="OPERATION", help="r, w, x, s, p, manage, monitor, peer")
    may.add_argument("path", nargs="?", metavar="PATH")
    return parser


_COMMANDS: Final = {"token": _token, "may": _may}
