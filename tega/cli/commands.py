"""What each command asks of the server, and its result. Nothing here reads or prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tega import paths
from tega.cli import waiting
from tega.cli.grammar import ALL, Command, help_text
from tega.driver import Driver, TransactionException
from tega.subscriber import SCOPE

#: Most seconds to wait until the server has taken a subscription, and between two looks.
_TAKES: Final = 2.0
_PAUSE: Final = 0.01


class _NoData:
    """What a command gives that gives no data: null is data."""


NO_DATA: Final = _NoData()


@dataclass(frozen=True)
class Answer:
    """The result of a command.

    :param data: a value; `NO_DATA` where there is none
    :param said: what a person is told at the prompt, instead of the data
    """

    data: Any = NO_DATA
    said: str = ""


class CommitRefused(TransactionException):
    """A commit did not go through.

    :param fate: what has become of the transaction: ``rejected``, or ``open`` where it is not known
        whether it was applied
    """

    def __init__(self, cause: TransactionException, txid: str, fate: str) -> None:
        super().__init__(cause.message, cause.status, cause.reason, cause.code, cause.details)
        self.txid = txid
        self.fate = fate


def run(command: Command, driver: Driver) -> Answer:
    """Run a command.

    :param command: any but ``q``
    :raises DriverError: where it is refused
    :raises OSError: where there is no connection, or the answer is lost
    """
    return _HANDLERS[command.name](driver, command)


_Handler = Callable[[Driver, Command], Answer]


def _help(driver: Driver, command: Command) -> Answer:
    return Answer(said=help_text(command.target))


def _get(driver: Driver, command: Command) -> Answer:
    return Answer(driver.get(command.target, command.number, python_dict=True))


def _get_attributes(driver: Driver, command: Command) -> Answer:
    return Answer(driver.get(command.target, command.number, internal=True))


def _get_matches(driver: Driver, command: Command) -> Answer:
    return Answer(driver.get(command.target, python_dict=True, regex_flag=True))


def _put(driver: Driver, command: Command) -> Answer:
    driver.put(command.value, command.number, path=command.target)
    return Answer()


def _put_ephemeral(driver: Driver, command: Command) -> Answer:
    driver.put(command.value, command.number, ephemeral=True, path=command.target)
    return Answer()


def _delete(driver: Driver, command: Command) -> Answer:
    driver.delete(command.target, command.number)
    return Answer()


def _begin(driver: Driver, command: Command) -> Answer:
    txid = driver.begin()
    return Answer(txid, f"txid: {txid} accepted")


def _candidate(driver: Driver, command: Command) -> Answer:
    """The candidate trees under their roots' names; a root that would go is marked so."""
    trees = driver.cand(internal=True)
    return Answer(
        {
            tree["_oid"]: {"_deleted": True} if tree.get("_deleted") else _plain(tree)
            for tree in trees
        }
    )


def _plain(node: Mapping[str, Any]) -> Any:
    """A node of the internal form, without its attributes."""
    if "_value" in node:
        return node["_value"]
    return {key: _plain(child) for key, child in node.items() if not key.startswith("_")}


def _cancel(driver: Driver, command: Command) -> Answer:
    return Answer(said=f"txid: {driver.cancel()} cancelled")


def _commit(driver: Driver, command: Command) -> Answer:
    txid = driver.txid
    try:
        driver.commit()
    except TransactionException as error:
        if txid is None:
            raise
        raise CommitRefused(error, txid, "open" if driver.txid else "rejected") from error
    return Answer(said=f"txid: {txid} commited")


def _rollback(driver: Driver, command: Command) -> Answer:
    assert command.number is not None
    status, reason, _ = driver.rollback(command.target, command.number)
    return Answer(said=f"{status} {reason}")


def _release(driver: Driver, command: Command) -> Answer:
    status, reason, _ = driver.release(command.target)
    return Answer(said=f"{status} {reason}")


def _wait(driver: Driver, command: Command) -> Answer:
    waiting.wait(driver, command)
    return Answer()


def _id(driver: Driver, command: Command) -> Answer:
    return Answer(driver.tega_id)


def _call(driver: Driver, command: Command) -> Answer:
    return Answer(driver.rpc(command.target, *command.args, **command.kwargs)[2])


def _subscribe(driver: Driver, command: Command) -> Answer:
    driver.subscribe(command.target, SCOPE.GLOBAL, command.name == "subr")
    name = _name_at_server(command)
    return _when(driver, lambda mine: name in mine)


def _unsubscribe(driver: Driver, command: Command) -> Answer:
    if command.target == ALL:
        driver.unsubscribe_all()
        return _when(driver, lambda mine: not mine)
    driver.unsubscribe(command.target, command.name == "unsubr")
    name = _name_at_server(command)
    return _when(driver, lambda mine: name not in mine)


def _name_at_server(command: Command) -> str:
    """A subscription's path or pattern as the server tells it."""
    if command.name in ("subr", "unsubr"):
        return command.target.replace(" ", "\\x20")
    return paths.dotted(paths.parse(command.target))


def _when(driver: Driver, taken: Callable[[list[str]], bool]) -> Answer:
    """Wait until the server has taken it, so that what is done next is heard of, or is not.

    :param taken: whether it has, going by what this client subscribes to there
    """
    if not driver.session_ready(0):
        return Answer(said="this will be done when the session is ready")
    until = time.monotonic() + _TAKES
    while not taken(driver.subscribers()[2].get(driver.tega_id, [])):
        if time.monotonic() > until:
            return Answer(said="the server has not taken this yet")
        time.sleep(_PAUSE)
    return Answer()


def _publish(driver: Driver, command: Command) -> Answer:
    driver.publish(command.target, command.value)
    return Answer()


def _asking(verb: str) -> _Handler:
    """A management command whose answer is data."""
    return lambda driver, command: Answer(getattr(driver, verb)()[2])


def _doing(verb: str) -> _Handler:
    """A management command that has nothing to tell but that it is done."""

    def handler(driver: Driver, command: Command) -> Answer:
        status, reason, _ = getattr(driver, verb)()
        return Answer(said=f"{status} {reason}")

    return handler


_HANDLERS: Final[Mapping[str, _Handler]] = {
    "h": _help,
    "get": _get,
    "geta": _get_attributes,
    "getr": _get_matches,
    "put": _put,
    "pute": _put_ephemeral,
    "del": _delete,
    "begin": _begin,
    "cand": _candidate,
    "cancel": _cancel,
    "commit": _commit,
    "rollback": _rollback,
    "release": _release,
    "wait": _wait,
    "id": _id,
    "rpc": _call,
    "sub": _subscribe,
    "subr": _subscribe,
    "unsub": _unsubscribe,
    "unsubr": _unsubscribe,
    "pub": _publish,
    **{
        name: _asking(name)
        for name in (
            "roots",
            "old",
            "ids",
            "channels",
            "subscribers",
            "global",
            "forwarders",
            "plugins",
        )
    },
    **{name: _doing(name) for name in ("ss", "clear", "sync", "reload")},
}
