"""A server with tokens and rules, some identities, and what none of them but admin may see."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from certificates import Authority
from certificates import flags as tls_flags
from service import Service
from wsclient import WSClient

from tega.access.keeper import add_token

#: Who there is, in the order of the columns of the tables. The last one shows a token that is none.
WHO = ("admin", "op", "reader", "writer", "mon", "nobody", "wrong")

#: Shows a certificate instead of a token, and may do what reader may.
CERT = "cert"

#: op sees and does all but two things; reader reads; writer writes and does not read; mon sees how
#: the server is; whoever comes reads ``motd``.
RULES = """
rules:
- {who: admin, may: rwxsp}
- {who: anybody, on: motd, may: r}
- {who: [op, reader], on: inv.*.secret, may: ""}
- {who: op, on: vault, may: ""}
- {who: op, may: rwxsp}
- {who: reader, on: inv, may: r}
- {who: reader, on: parts.*.open, may: r}
- {who: reader, on: events, may: s}
- {who: writer, on: drop, may: w}
- {who: writer, on: inv.*.state, may: w}
- {who: writer, on: events, may: p}
manage: [admin]
monitor: [mon]
peer: [admin]
"""

#: The same with `CERT`.
CERT_RULES = "identities: {cert: {certificate: agent.example}}" + RULES.replace(
    "op, reader]", "op, reader, cert]"
).replace("who: reader,", "who: [reader, cert],")

#: What there is. Each leaf, and each key that only some may know of, is a mark to look for.
INV = {
    "ne1": {"config": "mk-config", "state": "mk-state", "secret": {"mk-key": "mk-secret"}},
    "ne2": {"config": "mk-config"},
}
TREE: dict[str, Any] = {
    "motd": "welcome",
    "inv": INV,
    "vault": {"mk-vault": "mk-gold"},
    "drop": {"leaf": "mk-leaf", "x": "mk-x", "gone": "mk-gone"},
    "parts": {"p1": {"open": "mk-open", "closed": "mk-closed"}},
}

HIDDEN = ("mk-key", "mk-secret")
VAULT = ("vault", "mk-vault", "mk-gold")
DROP = ("mk-leaf", "mk-x", "mk-gone")

#: Marks that may be in nothing that one is told, but where it has named them itself.
UNSEEN: dict[str, tuple[str, ...]] = {
    "admin": (),
    "op": (*HIDDEN, *VAULT),
    "reader": (*HIDDEN, *VAULT, *DROP, "drop", "mk-closed", "closed"),
    "writer": (*HIDDEN, *VAULT, *DROP, "mk-", "parts"),
    "mon": (*HIDDEN, *VAULT, *DROP, "mk-", "parts", "drop"),
    "nobody": (*HIDDEN, *VAULT, *DROP, "mk-", "parts", "drop", "inv"),
    "wrong": (*HIDDEN, *VAULT, *DROP, "mk-", "parts", "drop", "inv", "welcome"),
}


def tokens_for(directory: Path, *names: str) -> dict[str, str]:
    """Make tokens in a log directory; each by its name."""
    directory.mkdir(exist_ok=True)
    return {name: add_token(directory / "tokens.yaml", name) for name in names}


def leaks(who: str, text: str, *named: str) -> list[str]:
    """The marks in a text that somebody may not see.

    :param named: what that one has sent: what it has named itself tells nothing new
    """
    own = " ".join(named)
    # That is what errors name as an example of a root.
    text = text.replace("/inventory/", "")
    unseen = UNSEEN["reader" if who == CERT else who]
    return [mark for mark in unseen if mark in text and mark not in own]


class Site:
    """The server, with what all tables begin with.

    :param authority: signs the certificates of the server and of `CERT`; None: it speaks no TLS
    """

    _tls: Mapping[str, ssl.SSLContext] = MappingProxyType({})

    def __init__(
        self, directory: Path, rules: str = RULES, *flags: str, authority: Authority | None = None
    ) -> None:
        self.directory = directory
        if authority is not None:
            flags += (*tls_flags(authority.issue("127.0.0.1")), "--tls-client-ca")
            flags += (str(authority.file),)
            self._tls = {
                who: ssl.create_default_context(cafile=authority.file) for who in (*WHO, CERT)
            }
            self._tls[CERT].load_cert_chain(*authority.issue("agent.example"))
        self.tokens = tokens_for(directory, "admin", "op", "reader", "writer", "mon")
        self.tokens["wrong"] = "op." + "x" * 43
        self.rules(rules)
        self.service = Service(directory, "-t", "srv", *flags)
        self.fill()

    def rules(self, text: str) -> None:
        """Write other rules, as an editor does."""
        draft = self.directory / "access.draft"
        draft.write_text(text)
        draft.rename(self.directory / "access.yaml")

    def fill(self) -> None:
        """Put everything back to how it was."""
        # Nobody else may take that away.
        self.ask("op", "DELETE", "/drop/e?tega_id=op-1")
        operations = [{"ope": "PUT", "path": k, "instance": v} for k, v in TREE.items()]
        with self.session("admin", "admin-fills") as admin:
            answer = admin.tx(*operations)
        assert "versions" in answer, answer

    def headers(self, who: str) -> dict[str, str]:
        """What shows who asks."""
        return {"Authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}

    def ask(
        self, who: str, method: str, url: str, body: Any = None, **headers: str
    ) -> tuple[int, str]:
        """The status and the whole text of an answer, headers included."""
        address = ("127.0.0.1", self.service.port)
        if who in self._tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                *address, timeout=30, context=self._tls[who]
            )
        else:
            connection = http.client.HTTPConnection(*address, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        text = None if body is None else json.dumps(body)
        connection.request(method, url, text, {**self.headers(who), **given})
        answer = connection.getresponse()
        found = answer.read().decode()
        connection.close()
        return answer.status, f"{answer.headers}{found}"

    def session(self, who: str, tega_id: str | None = None) -> WSClient:
        """A connection of somebody, with a session where a tega id is given."""
        tls = self._tls.get(who)
        return WSClient(self.service.port, tega_id, tls=tls, **self.headers(who))

    def end(self) -> None:
        """End it; its log must hold no token."""
        status, said = self.service.end()
        assert status == 0
        for token in self.tokens.values():
            assert token.partition(".")[2] not in said
