"""What a client shows to a server, and what it wants to be shown: a token, and TLS."""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

from tega.driver.exchange import where
from tega.errors import Malformed
from tega.tls import load_authorities, load_chain

log = logging.getLogger(__name__)

#: Most seconds for a TLS handshake: what does not speak TLS may say nothing at all.
HANDSHAKE: Final = 10.0
SILENT: Final = "no answer to the TLS handshake: it may not speak TLS on that port"

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,255}\.[A-Za-z0-9_-]{1,1024}")

File: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True)
class Tls:
    """TLS with a server.

    :param ca: PEM file with the authorities that may have signed the server's certificate; None:
        those that the system trusts
    :param cert: PEM file with the certificate that this client shows; None: it shows none
    :param key: PEM file with its key; None: it is in `cert` too
    :param server_name: the name that the server's certificate must have; None: the host's
    :param verify: False: take any certificate, and so whoever is on the way. For tests alone
    """

    ca: File | None = None
    cert: File | None = None
    key: File | None = None
    server_name: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """A context that does this.

        :raises Malformed: naming the file that cannot be used, and why
        """
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = self.server_name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is None:
            context.load_default_certs()
        else:
            load_authorities(context, Path(self.ca))
        if self.cert is not None:
            load_chain(context, Path(self.cert), Path(self.key or self.cert))
        elif self.key is not None:
            raise Malformed(f"the key {self.key} is for no certificate: give that as cert")
        return context


class _Context(ssl.SSLContext):
    """A context that may know better than its users what the server is called."""

    server_name: str | None = None

    def wrap_socket(self, *args: Any, server_hostname: Any = None, **options: Any) -> ssl.SSLSocket:
        options["server_hostname"] = self.server_name or server_hostname
        return super().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, server_hostname: Any = None, **options: Any) -> ssl.SSLObject:
        options["server_hostname"] = self.server_name or server_hostname
        return super().wrap_bio(*args, **options)


#: True: verified by what the system trusts; False and None: no TLS.
Security: TypeAlias = "Tls | ssl.SSLContext | bool | None"


@dataclass(frozen=True)
class Credentials:
    """With what a client connects. The token is never shown.

    :ivar token: ``NAME.SECRET``; None: it has none
    :ivar tls: None: without TLS
    """

    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, token: str | None, tls: Security) -> Credentials:
        """Credentials, checked.

        :raises Malformed: for what is no token (it is not shown), and files that cannot be used
        """
        if isinstance(tls, bool):
            tls = Tls() if tls else None
        if isinstance(tls, Tls):
            tls = tls.context()
        if not isinstance(tls, ssl.SSLContext | None):
            raise Malformed(f"tls is {tls!r}: give True, a Tls, or an ssl.SSLContext")
        return cls(None if token is None else _checked(token), tls)

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes with each request."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def new_tega_id(self, kind: str) -> str:
        """A unique tega id, of the token's identity if there is one.

        :param kind: what it begins with otherwise
        """
        name = kind if self.token is None else self.token.partition(".")[0]
        return f"{name}-{uuid4()}"


@dataclass(frozen=True)
class Endpoint:
    """A server, and with what a client connects to it."""

    host: str
    port: int
    credentials: Credentials

    def __str__(self) -> str:
        return where(self.host, self.port)

    @property
    def url(self) -> str:
        """Of what it has."""
        return f"{'http' if self.credentials.tls is None else 'https'}://{self}"

    def warn(self) -> None:
        """Warn, once for each server, of a token that others can read on its way there."""
        credentials = self.credentials
        if credentials.token is not None and credentials.tls is None and not _is_local(self.host):
            _warn(str(self))


@functools.lru_cache
def _warn(server: str) -> None:
    log.warning("the token goes to %s without TLS: whoever is on the way can read it", server)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def read_token(file: Path) -> str:
    """The token that a file holds.

    :raises Malformed: where the file cannot be read, or holds something else
    """
    try:
        return _checked(file.read_text(encoding="utf-8", errors="replace").strip())
    except OSError as error:
        raise Malformed(f"{file} cannot be read: {error.strerror or error}") from None
    except Malformed as error:
        raise Malformed(f"{file}: {error}") from None


def _checked(token: str) -> str:
    """Refuse what is no token, without showing it.

    :raises Malformed: saying what one looks like
    """
    if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise Malformed("the token is not right: it is NAME.SECRET, as tega-server has printed it")
    return token
