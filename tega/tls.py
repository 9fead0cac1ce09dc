"""TLS from files: what a server and a client both load, and certificates that are renewed.

Nothing here asks for a pass phrase: a key that needs one is refused.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tega.errors import Malformed

log = logging.getLogger(__name__)

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = b"ENCRYPTED"


def load_chain(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Let a context show a certificate.

    :param cert: PEM file with the certificate, and those between it and its authority
    :param key: PEM file with its key; the same one where it holds both
    :raises Malformed: naming the file, and why it cannot be used
    """
    _expect(cert, _CERTIFICATE, "certificate")
    if _ENCRYPTED in _expect(key, _KEY, "private key"):
        raise Malformed(f"{key}: the key needs a pass phrase; store it without one")
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Malformed(f"{key}: the key is not that of the certificate in {cert}") from None
        raise Malformed(f"{cert} or {key} cannot be used: {error.reason or error}") from None


def load_authorities(context: ssl.SSLContext, file: Path) -> None:
    """Let a context trust what some authorities have signed.

    :param file: PEM file with their certificates
    :raises Malformed: naming the file, and why it cannot be used
    """
    _expect(file, _CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise Malformed(f"{file} cannot be used: {error.reason or error}") from None


def _expect(file: Path, mark: bytes, what: str) -> bytes:
    """The content of a file that has something. OpenSSL would not say which of two has not."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Malformed(f"{file} cannot be read: {error.strerror or error}") from None
    if mark not in content:
        raise Malformed(f"{file}: there is no {what} in PEM form in it")
    return content


class Certificates:
    """What a server shows, and whose certificates it takes; read again when the files change.

    :param cert: PEM file with the server's certificate, and those between it and its authority
    :param key: PEM file with its key
    :param client_ca: PEM file with authorities: clients may show certificates that these have
        signed, and none that they have not; None: clients are not asked for any
    :raises Malformed: naming the file that cannot be used, and why
    :ivar context: for new connections; those that are there keep theirs
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._seen = self._look()
        self.context = self._load()

    def renew(self) -> bool:
        """Read the files again if they have changed. While they cannot be used, the old ones count.

        :returns: whether there is a new context
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.context = self._load()
        except Malformed as error:
            log.error("the new certificate is not used, the old one still is: %s", error)
            return False
        log.info("new connections have the new certificate of %s", self._cert)
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        # Nobody resumes sessions that last for days.
        context.num_tickets = 0
        load_chain(context, self._cert, self._key)
        if self._client_ca is not None:
            load_authorities(context, self._client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _look(self) -> list[tuple[int, ...] | None]:
        """What tells a file from the one that it was."""
        files = (self._cert, self._key, self._client_ca)
        return [_identity(file) for file in files if file is not None]


def _identity(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def names_of(certificate: Mapping[str, Any]) -> list[str]:
    """Whom a certificate is for: the common name, then the alternative names (DNS and URI).

    :param certificate: as `ssl.SSLSocket.getpeercert` gives one that was verified; an empty one
        has no names
    """
    common = [
        value
        for attributes in certificate.get("subject", ())
        for name, value in attributes
        if name == "commonName"
    ]
    others = [
        value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")
    ]
    return list(dict.fromkeys(common + others))
