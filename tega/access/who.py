"""Who asks, and what that one may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from tega import rpc
from tega.access.rules import READ, WORDS, WRITE, Rights
from tega.errors import Forbidden, Malformed, TegaError, Unauthorized
from tega.paths import Path, dotted, parse

#: Who shows no credential.
ANYBODY: Final = "anybody"

#: What a refusal tells of a place that may not be read, instead of why.
_HIDDEN: Final = "something that you may not read is in the way there"
_NOTHING: Final = "nothing that you may read is there"


class TegaIds(Protocol):
    """Says which tega ids are whose."""

    def refusal(self, tega_id: str, who: Who) -> str | None:
        """Why somebody may not go by a tega id; None where that is allowed."""

    def speaking(self, tega_id: str, who: Who) -> str | None:
        """Why a server may not speak for a tega id; None where that is allowed."""


class Who:
    """An identity, or nobody known, with all that it may do.

    :param name: of the identity
    :param rights: what it may do where; None: everything everywhere
    :param tega_ids: says which tega ids it may go by; None: all
    :ivar known: whether it has shown a credential
    :ivar manage: whether it may command the server
    :ivar monitor: whether it may look at the server's own state
    :ivar peer: whether it may be another server
    """

    __slots__ = ("_tega_ids", "known", "manage", "monitor", "name", "peer", "rights", "tega_id")

    def __init__(
        self,
        name: str,
        rights: Rights | None,
        tega_ids: TegaIds | None,
        *,
        known: bool = True,
        manage: bool = False,
        monitor: bool = False,
        peer: bool = False,
    ) -> None:
        self.name = name
        self.known = known
        self.rights = rights
        self._tega_ids = tega_ids
        self.manage = manage
        self.monitor = monitor or manage
        self.peer = peer
        #: What it goes by where it gives no tega id.
        self.tega_id = name if known else "anonymous"

    @property
    def unbound(self) -> bool:
        """Whether it may go by any tega id, and speak for any."""
        return self._tega_ids is None

    @property
    def helpless(self) -> bool:
        """Whether it may do nothing at all."""
        return self.rights is not None and not (
            self.rights.rules or self.manage or self.monitor or self.peer
        )

    def may_stay(self, tega_id: str, peer: bool) -> bool:
        """Whether a session may go on that was let in by what held before.

        :param tega_id: that it goes by; empty while it has none
        :param peer: whether it is another server
        """
        if self.helpless or (peer and not self.peer):
            return False
        return self._tega_ids is None or not tega_id or not self._tega_ids.refusal(tega_id, self)

    def counted_as(self, address: str) -> str:
        """Under which name what it asks for is counted: who is not known, or all alike, by address.

        :param address: where it asks from
        """
        return self.name if self.known and not self.unbound else address

    def called(self, tega_id: str) -> str:
        """What it is called in logs.

        :param tega_id: that it gives; empty for none
        """
        if self.unbound or not tega_id or tega_id == self.name:
            return tega_id or self.tega_id
        return f"{self.name} as {tega_id}"

    # -- where it may do what -------------------------------------------------------------------

    def check(self, operation: str, path: Path) -> None:
        """Refuse an operation on what stands at a path itself.

        :raises Forbidden, Unauthorized: where it is not allowed
        """
        if self.rights is not None and not self.rights.at(path).may(operation):
            raise self.refused(f"{WORDS[operation]} {dotted(path)}", path=dotted(path))

    def check_write(self, path: Path) -> None:
        """Refuse a change of what stands at a path: all that is and could be there goes with it.

        :raises Forbidden, Unauthorized: where it is not allowed
        """
        if self.rights is not None and not self.rights.at(path).everywhere(WRITE):
            raise self.refused(f"write all of {dotted(path)}", path=dotted(path))

    def check_whole(self, name: str) -> None:
        """Refuse to hand out a whole root.

        :raises Forbidden, Unauthorized: where not all of it may be read
        """
        if self.rights is not None and not self.rights.at((name,)).everywhere(READ):
            raise self.refused(f"read all of {dotted((name,))}", path=dotted((name,)))

    def leads(self, name: str) -> bool:
        """Whether it may have all of a root its own way."""
        return self.rights is None or self.rights.at((name,)).everywhere(WRITE)

    def check_sight(self, path: Path, *operations: str) -> None:
        """Refuse what looks at a path, unless something there or below may be seen.

        :raises Forbidden, Unauthorized: where nothing may, whatever stands there
        """
        if self.rights is None:
            return
        place = self.rights.at(path)
        if not any(place.somewhere(operation) for operation in operations):
            raise self.refused(f"{WORDS[operations[0]]} {dotted(path)}", path=dotted(path))

    def sees(self, path: Path) -> bool:
        """Whether it may read something at a path or below, where that is there."""
        return self.rights is None or self.rights.at(path).somewhere(READ)

    def reads(self, path: Path) -> bool:
        """Whether it may read what stands at a path itself."""
        return self.rights is None or self.rights.at(path).may(READ)

    def refused(self, what: str, **details: Any) -> TegaError:
        """The refusal of something: 401 for who is not known, 403 for who is."""
        if self.known:
            return Forbidden(f"{self.name} may not {what}", **details)
        return Unauthorized(f"to {what} takes a credential: send a token", **details)

    # -- whom it speaks for ---------------------------------------------------------------------

    def goes_by(self, tega_id: str) -> str:
        """A tega id that it gives as its own.

        :returns: the id
        :raises Forbidden, Unauthorized: where that belongs to somebody else
        """
        if self._tega_ids is not None:
            self._let(self._tega_ids.refusal(tega_id, self), tega_id)
        return tega_id

    def speaks_for(self, tega_id: str) -> str:
        """A tega id that has a session with the server which asks.

        :returns: the id
        :raises Forbidden, Unauthorized: where that belongs to somebody else
        """
        if self._tega_ids is not None:
            self._let(self._tega_ids.speaking(tega_id, self), tega_id)
        return tega_id

    def key(self, txid: str) -> str:
        """A transaction id that it gives: that of somebody else with the same text is another."""
        return txid if self._tega_ids is None else f"{self.name}/{txid}"

    def _let(self, refusal: str | None, tega_id: str) -> None:
        if refusal is not None:
            kind = Forbidden if self.known else Unauthorized
            raise kind(refusal, tega_id=tega_id)

    def check_functions(
        self, text: bytes, values: Iterable[Any], through_peer: bool = False
    ) -> None:
        """Refuse functions of others: at a place of one's own they could be called by anybody.

        :param text: what is to be put, as it came
        :param values: the same, as JSON has it
        :param through_peer: whether it is put by somebody whom this server speaks for
        :raises Forbidden, Unauthorized: where there are others
        """
        if self._tega_ids is None or not (b"%" in text or b"\\u" in text):
            return
        ask = self._tega_ids.speaking if through_peer else self._tega_ids.refusal
        for found in _texts(values):
            function = rpc.parse_function(found) if found[:1] == "%" else None
            if function is not None:
                refusal = ask(function.owner, self)
                if refusal is not None:
                    raise self.refused(f"put a function of {function.owner} there: {refusal}")

    # -- what it is told ------------------------------------------------------------------------

    def told(self, error: TegaError) -> TegaError:
        """A refusal, without what it would tell of places that may not be read."""
        where = error.details.get("path")
        if self.rights is None or not isinstance(where, str) or error.status in (400, 401, 403):
            return error
        told = (where, error.details.get("ephemeral", where))
        if all(self.rights.at(_path_in(path)).may(READ) for path in told):
            return error
        hidden = _NOTHING if error.status == 404 else _HIDDEN
        return type(error)(f"refused at {where}: {hidden}")


def _path_in(text: str) -> Path:
    try:
        return parse(text)
    except Malformed:
        # It was cut short for people to read.
        return ()


def _texts(values: Iterable[Any]) -> Iterable[str]:
    waiting = list(values)
    while waiting:
        one = waiting.pop()
        if type(one) is str:
            yield one
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)


#: Where there is no access control: may do everything, and goes by any tega id.
UNLIMITED: Final = Who("anonymous", None, None, manage=True, peer=True)
