"""Addresses of sources and sinks: ``etcd://HOST:PORT/PREFIX``, ``tega://HOST:PORT/PATH``. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from tega import paths
from tega.errors import Malformed

#: Scheme to port.
_PORTS: Final = {"etcd": 2379, "etcds": 2379, "tega": 8739, "tegas": 8739}


class Address(NamedTuple):
    """A tree of a server.

    :ivar scheme: ``etcd`` or ``tega``, with TLS ``etcds`` or ``tegas``
    :ivar prefix: what is meant of it: a prefix of etcd's keys, a dotted path of tega; empty: all
    """

    scheme: str
    host: str
    port: int
    prefix: bytes

    @property
    def tega(self) -> bool:
        """Whether it is of a tega server."""
        return self.scheme in ("tega", "tegas")

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme.endswith("s")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        shown = self.prefix.decode(errors="backslashreplace")
        if self.tega or (shown and not shown.startswith("/")):
            shown = "/" + shown
        return f"{self.scheme}://{host}:{self.port}{shown}"


def is_tree(url: str) -> bool:
    """Whether an address is one of a tree, and not of a SQL database."""
    return url.partition(":")[0] in _PORTS


def parse(url: str) -> Address:
    """Read the address of a tree.

    :raises Malformed: naming it and what would be right
    """
    right = (
        "right is etcd://HOST:PORT/PREFIX or tega://HOST:PORT/PATH, with TLS etcds:// or tegas://"
    )
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError as error:
        raise Malformed(f"address {url[:100]!r}: {error}; {right}") from None
    if split.username is not None or split.password is not None:
        raise Malformed(
            f"address of {split.hostname}: name and password do not go in here, where others can "
            "read them: use the settings source-user and source-password, or those of the sink, "
            "as variables or in a file"
        )
    if split.scheme not in _PORTS or not split.hostname or split.query or split.fragment:
        raise Malformed(f"address {url[:100]!r}: {right}")
    prefix = _path(split) if split.scheme in ("tega", "tegas") else _prefix(split)
    return Address(split.scheme, split.hostname, port or _PORTS[split.scheme], prefix)


def _prefix(split: SplitResult) -> bytes:
    # Nearly all keys of etcd begin with a slash, as the path of an address does.
    return b"" if split.path in ("", "/") else unquote(split.path).encode()


def _path(split: SplitResult) -> bytes:
    path = paths.from_url(split.path)
    return paths.dotted(path).encode() if path else b""
