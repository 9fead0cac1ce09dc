"""Who is who, and who may do what: read from two YAML files.

``tokens.yaml`` is written by ``tega-server token``; it holds no token, only what checks one.
``access.yaml`` is written by people::

    identities:
      alice: {roles: [operators], tega_ids: [alice, alice-*]}
      agent: {certificate: agent.example.net}
    rules:
    - {who: operators, on: secrets, may: ""}
    - {who: [operators, agent], on: "*", may: rwxsp}
    - {who: anybody, on: inventory, may: r}
    manage: [operators]
    monitor: [prometheus]
    peer: [local1]
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import re2

from tega import strictyaml
from tega.access.rules import Rights, Rule, read_operations, read_path
from tega.access.who import ANYBODY, Who
from tega.errors import Malformed, Unauthorized

#: Everybody who has shown a credential.
KNOWN: Final = "known"

#: Names of identities and roles.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_SCHEME: Final = "bearer "


class Token(msgspec.Struct, forbid_unknown_fields=True):
    """What is kept of a token.

    :ivar sha256: of its text, hexadecimal. A token is as random as its hash, so that no slower one
        is needed
    :ivar made: when, ISO 8601
    """

    sha256: str
    made: str


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    """What ``access.yaml`` says of an identity.

    :ivar tega_ids: which it may go by, ``*`` standing for any text
    :ivar certificate: a name in its client certificate
    """

    roles: list[str] = []
    tega_ids: list[str] | None = None
    certificate: str | None = None


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    who: str | list[str]
    may: str
    on: str = "*"


class _Access(msgspec.Struct, forbid_unknown_fields=True):
    identities: dict[str, Identity | None] = {}
    rules: list[_Rule] = []
    manage: list[str] = []
    monitor: list[str] = []
    peer: list[str] = []


def read_tokens(text: str, where: str) -> dict[str, list[Token]]:
    """The tokens in a file, by identity.

    :param where: the file, for errors
    :raises Malformed: naming what is wrong
    """
    given: dict[str, list[Token]] = _converted(text, dict[str, list[Token]], where)
    for name, tokens in given.items():
        check_name(name, where)
        if not all(re.fullmatch("[0-9a-f]{64}", token.sha256) for token in tokens):
            raise Malformed(f"{where}: {name}: a sha256 has 64 hexadecimal digits")
    return given


def check_name(name: str, where: str) -> str:
    """Refuse what cannot be the name of an identity or role.

    :raises Malformed: naming it
    """
    if not _NAME.fullmatch(name) or name in (ANYBODY, KNOWN):
        raise Malformed(
            f"{where}: {name[:64]!r} is no name: use up to 64 letters, digits, '-' and '_', "
            f"not beginning with those two, and neither {ANYBODY!r} nor {KNOWN!r}"
        )
    return name


def name_in(token: str) -> str | None:
    """The identity that a token is of; None where it is none."""
    name, dot, _ = token.partition(".")
    return name if dot and _NAME.fullmatch(name) else None


def token_in(authorization: str) -> str | None:
    """The token in an ``Authorization`` header; None where it is another kind of credential."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip()


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def digest_in(authorization: str | None) -> str | None:
    """The digest of the token in an ``Authorization`` header; None where it is without one."""
    token = None if authorization is None else token_in(authorization)
    return None if token is None else digest(token)


class Policy:
    """Who is who, and who may do what.

    :param tokens: by identity
    :param access: what ``access.yaml`` holds; None where there is none: whoever is known may do
        everything then, and nobody else anything
    :param where: the file with it, for errors
    :raises Malformed: naming what is wrong in it
    """

    def __init__(
        self, tokens: Mapping[str, list[Token]], access: str | None = None, where: str = ""
    ) -> None:
        given = _converted(access, _Access, where) if access is not None else None
        self._tokens = tokens
        self._identities: dict[str, Identity] = {name: Identity() for name in tokens}
        self.rules: tuple[Rule, ...] = ()
        if given is not None:
            for name, identity in given.identities.items():
                check_name(name, where)
                self._identities[name] = identity or Identity()
        self._check_identities(where)
        self._ids = {name: self._ids_of(name, one) for name, one in self._identities.items()}
        self._certificates = {
            one.certificate: name for name, one in self._identities.items() if one.certificate
        }
        if given is not None:
            self._check_names(given, where)
            self.rules = tuple(
                _rule(number, one, where) for number, one in enumerate(given.rules, 1)
            )
        self._shared: dict[tuple[Rule, ...], Rights] = {}
        self._whos = {name: self._who(name, given) for name in self._identities}
        self.anybody = self._who(None, given)

    def _ids_of(self, name: str, one: Identity) -> _Globs:
        if one.tega_ids is not None:
            return _Globs([name, *one.tega_ids])
        # What NAME-* has by itself is less than what an identity NAME-MORE has.
        longer = [other for other in self._identities if other.startswith(f"{name}-")]
        return _Globs([name, f"{name}-*"], [glob for o in longer for glob in (o, f"{o}-*")])

    def _check_identities(self, where: str) -> None:
        certificates: set[str] = set()
        for name, one in self._identities.items():
            for role in one.roles:
                check_name(role, f"{where}: identity {name}: role")
                if role in self._identities:
                    raise Malformed(f"{where}: identity {name}: the role {role} is an identity")
            for glob in one.tega_ids or ():
                if not re.fullmatch(r"[A-Za-z0-9._*-]{1,255}", glob):
                    raise Malformed(
                        f"{where}: identity {name}: {glob[:64]!r} is no tega id: use letters, "
                        "digits, '-', '_', '.', and '*' for any text"
                    )
            if one.certificate is not None:
                if one.certificate in certificates:
                    raise Malformed(
                        f"{where}: identity {name}: the certificate {one.certificate} is of "
                        "another identity"
                    )
                certificates.add(one.certificate)

    def _check_names(self, given: _Access, where: str) -> None:
        """A misspelt name in a rule must not pass: the rule would count for nobody."""
        roles = {role for one in self._identities.values() for role in one.roles}
        there = self._identities.keys() | roles | {ANYBODY, KNOWN}
        lists = [("manage", given.manage), ("monitor", given.monitor), ("peer", given.peer)]
        lists += [(f"rule {n}", _names(one)) for n, one in enumerate(given.rules, 1)]
        for number, one in enumerate(given.rules, 1):
            if not one.who:
                raise Malformed(
                    f"{where}: rule {number}: who: nobody is named, so it would count for nobody: "
                    f"name identities or roles, {KNOWN!r} or {ANYBODY!r}"
                )
        for what, names in lists:
            for name in names:
                if name not in there:
                    raise Malformed(
                        f"{where}: {what}: {name[:64]!r} is neither an identity nor a role: make a "
                        f"token for it, or name it under identities; there are "
                        + ", ".join(sorted(there))
                    )
                if name == ANYBODY and what in ("manage", "peer"):
                    raise Malformed(f"{where}: {what}: not for anybody: name identities or roles")

    def _who(self, name: str | None, given: _Access | None) -> Who:
        if given is None:
            rights = None if name is not None else self._rights(())
            every = name is not None
            return Who(name or ANYBODY, rights, self, known=every, manage=every, peer=every)
        called = self._called(name)
        rights = self._rights(self.rules_of(name or ANYBODY))
        return Who(
            name or ANYBODY,
            None if rights.unlimited else rights,
            self,
            known=name is not None,
            manage=not called.isdisjoint(given.manage),
            monitor=not called.isdisjoint(given.monitor),
            peer=not called.isdisjoint(given.peer),
        )

    def _called(self, name: str | None) -> set[str]:
        if name is None:
            return {ANYBODY}
        return {ANYBODY, KNOWN, name, *self._identities[name].roles}

    def rules_of(self, name: str) -> tuple[Rule, ...]:
        """The rules that are about an identity, or anybody, in their order."""
        called = self._called(None if name == ANYBODY else name)
        return tuple(rule for rule in self.rules if not called.isdisjoint(rule.who))

    def _rights(self, rules: tuple[Rule, ...]) -> Rights:
        # What is made for one of those with the same rules serves all of them.
        alike = tuple(msgspec.structs.replace(rule, number=0, who=()) for rule in rules)
        made = self._shared.get(alike)
        if made is None:
            made = self._shared[alike] = Rights(rules)
        return made

    # -- who asks -------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The identities, in order."""
        return sorted(self._whos)

    def get(self, name: str) -> Who | None:
        """An identity."""
        return self._whos.get(name)

    def lets_in(self, name: str, token: str | None) -> bool:
        """Whether an identity could still come in as it did.

        :param token: the `digest` of its token; None: it came with a certificate
        """
        if token is None:
            return name in self._certificates.values()
        return any(kept.sha256 == token for kept in self._tokens.get(name, ()))

    def who(self, authorization: str | None, certificate: Iterable[str] = ()) -> Who:
        """Who has shown a credential.

        :param authorization: the header of that name: ``Bearer TOKEN``
        :param certificate: the names in the client certificate
        :raises Unauthorized: where the credential is not valid
        """
        if authorization is not None:
            return self._of_token(authorization)
        for shown in certificate:
            name = self._certificates.get(shown)
            if name is not None:
                return self._whos[name]
        return self.anybody

    def _of_token(self, authorization: str) -> Who:
        token = token_in(authorization)
        if token is None:
            raise Unauthorized("the Authorization header is 'Bearer TOKEN'")
        name = name_in(token)
        shown = digest(token)
        valid = False
        for kept in self._tokens.get(name or "", ()):
            # All are compared, each in constant time: how long it takes tells nothing.
            valid |= hmac.compare_digest(kept.sha256, shown)
        if not valid or name is None:
            raise Unauthorized("the token is not valid: it is misspelt, or was removed")
        return self._whos[name]

    # -- tega ids -------------------------------------------------------------------------------

    def refusal(self, tega_id: str, who: Who) -> str | None:
        """See `TegaIds`."""
        if who.known:
            own = self._ids[who.name]
            if own.match(tega_id):
                return None
            return f"{who.name} may not go by the tega id {tega_id}: it has {own}"
        return self._taken(tega_id, who)

    def speaking(self, tega_id: str, who: Who) -> str | None:
        """See `TegaIds`."""
        if who.known and self._ids[who.name].match(tega_id):
            return None
        return self._taken(tega_id, who)

    def _taken(self, tega_id: str, who: Who) -> str | None:
        for name, ids in self._ids.items():
            if name != who.name and ids.takes(tega_id):
                return f"the tega id {tega_id} is that of {name}"
        return None


class _Globs:
    """Tega ids, with ``*`` standing for any text.

    :param but: what is not among them after all
    """

    def __init__(self, globs: list[str], but: Iterable[str] = ()) -> None:
        self._globs = globs
        self._every = "*" in globs
        self._but = _Globs(list(but)) if but else None
        self._literals = {glob for glob in globs if "*" not in glob}
        self._matchers = [
            re2.compile(".*".join([re2.escape(part) for part in glob.split("*")]))
            for glob in globs
            if "*" in glob and glob != "*"
        ]

    def match(self, tega_id: str) -> bool:
        return self._every or self.takes(tega_id)

    def takes(self, tega_id: str) -> bool:
        """Whether nobody else may have it: one with all tega ids does not take all of them."""
        if self._but is not None and self._but.takes(tega_id):
            return False
        return tega_id in self._literals or any(m.fullmatch(tega_id) for m in self._matchers)

    def __str__(self) -> str:
        return ", ".join(self._globs) or "none"


def _names(rule: _Rule) -> list[str]:
    return [rule.who] if isinstance(rule.who, str) else rule.who


def _rule(number: int, given: _Rule, where: str) -> Rule:
    try:
        read_path(given.on)
        return Rule(number, tuple(_names(given)), given.on, read_operations(given.may))
    except Malformed as error:
        error.message = f"{where}: rule {number}: {error.message}"
        raise


def _converted(text: str, kind: Any, where: str) -> Any:
    try:
        given = strictyaml.loads(text, only_texts=True)
        return msgspec.convert({} if given is None else given, kind)
    except (Malformed, msgspec.ValidationError, RecursionError) as error:
        raise Malformed(f"{where}: {' '.join(str(error).split())}") from None
