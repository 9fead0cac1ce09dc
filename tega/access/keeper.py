"""The files that say who may do what: read, written, and read again when they change."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import yaml

from tega.access.policy import Policy, Token, check_name, digest, read_tokens
from tega.access.who import UNLIMITED, Who
from tega.errors import Malformed, NotFound

log = logging.getLogger(__name__)

#: Random bytes in a token.
_RANDOM: Final = 32

_HEAD: Final = """\
# Written by "tega-server token". A token is shown once, when it is made; this is its SHA-256.
"""


class Keeper:
    """The policy that holds, as the files have it.

    :param tokens: the file with tokens; it need not be there
    :param access: the file with rules; it need not be there, unless it is `named`
    :raises Malformed: where a file is wrong
    """

    def __init__(self, tokens: Path, access: Path, named: bool = False) -> None:
        self.tokens = tokens
        self.access = access
        if named and not access.exists():
            raise Malformed(f"{access}: there is no such file; write it, or leave --access out")
        self._rules: str | None = None
        self._policy: Policy | None = None
        self._seen: object = self._look()
        self._policy = self._read()
        #: Called when another policy holds.
        self.changed: Callable[[], None] = lambda: None

    @property
    def on(self) -> bool:
        """Whether there is any access control."""
        return self._policy is not None

    @property
    def policy(self) -> Policy | None:
        """The policy that holds; None: everybody may do everything."""
        return self._policy

    def who(self, authorization: str | None, certificate: list[str] | None = None) -> Who:
        """Who asks. See `Policy.who`.

        :raises Unauthorized: where the credential is not valid
        """
        if self._policy is None:
            return UNLIMITED
        return self._policy.who(authorization, certificate or ())

    def again(self, who: Who) -> Who | None:
        """The same one, by what holds now; None: its credential is not valid any more."""
        if self._policy is None:
            return UNLIMITED
        return self._policy.again(who)

    def look(self) -> None:
        """Read the files again where they have changed. What is wrong leaves all as it was."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            policy = self._read()
        except (Malformed, OSError) as error:
            log.error("the access rules stay as they were: %s", error)
            return
        self._policy = policy
        log.info("credentials and access rules are read again")
        self.changed()

    def _look(self) -> list[object]:
        seen: list[object] = []
        for file in (self.tokens, self.access):
            try:
                found = file.stat()
            except FileNotFoundError:
                seen.append(None)
            else:
                seen.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return seen

    def _read(self) -> Policy | None:
        tokens = _tokens_in(self.tokens)
        access = _text_of(self.access)
        if self._policy is None:
            if tokens is None and access is None:
                return None
            return self._made(tokens or {}, access)
        # Files that are gone must not open any door.
        if tokens is None:
            log.error("%s is gone: no token is valid any more", self.tokens)
        if access is None and self._rules is not None:
            log.error("%s is gone: the rules stay as they were", self.access)
            access = self._rules
        try:
            return self._made(tokens or {}, access)
        except Malformed as error:
            # A token that was removed must not stay valid for that.
            log.error("the access rules stay as they were: %s", error)
            return self._made(tokens or {}, self._rules)

    def _made(self, tokens: dict[str, list[Token]], access: str | None) -> Policy:
        policy = Policy(tokens, access, str(self.access))
        self._rules = access
        return policy


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"{file}: {error}") from None


def _tokens_in(file: Path) -> dict[str, list[Token]] | None:
    text = _text_of(file)
    return None if text is None else read_tokens(text, str(file))


def list_tokens(file: Path) -> dict[str, list[Token]]:
    """The tokens that a file knows, by identity; none where it is not there.

    :raises Malformed: where it is wrong
    """
    return _tokens_in(file) or {}


def add_token(file: Path, name: str) -> str:
    """Make a token.

    :returns: its text, which is nowhere else
    :raises Malformed: where the name or the file is wrong
    """
    check_name(name, "token")
    tokens = list_tokens(file)
    token = f"{name}.{secrets.token_urlsafe(_RANDOM)}"
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    tokens.setdefault(name, []).append(Token(digest(token), made))
    _write(file, tokens)
    return token


def remove_tokens(file: Path, name: str) -> int:
    """Remove the tokens of an identity, which stays: rules may name it.

    :returns: how many there were
    :raises NotFound: where there is no such identity
    """
    tokens = list_tokens(file)
    if name not in tokens:
        raise NotFound(f"{file}: there is no {name!r}; there are " + (", ".join(tokens) or "none"))
    gone, tokens[name] = tokens[name], []
    _write(file, tokens)
    return len(gone)


def _write(file: Path, tokens: dict[str, list[Token]]) -> None:
    data = {
        name: [{"sha256": one.sha256, "made": one.made} for one in tokens[name]]
        for name in sorted(tokens)
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".new")
    # Readable for its owner only from the first moment on.
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(_HEAD + (yaml.safe_dump(data, sort_keys=False) if data else ""))
        out.flush()
        os.fsync(out.fileno())
    draft.rename(file)
