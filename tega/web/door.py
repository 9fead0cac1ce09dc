"""Who comes in: credentials, and what browsers say of the page that asks."""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders

from tega.access.keeper import Keeper
from tega.access.rates import Rates
from tega.access.who import Who
from tega.errors import Forbidden, Malformed, OverLimit, Unauthorized

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def address_of(connection: HTTP1Connection) -> str:
    """The address of the client at the other end."""
    return str(getattr(connection.context, "remote_ip", ""))


class Door:
    """Lets requests in, or refuses them.

    A browser lets any page send requests to any server, so what comes from a page of elsewhere is
    refused. A page can also have its own host's name looked up as 127.0.0.1; so where a server on
    loopback asks for no credential, it answers only to names that are this machine's.

    :param origins: pages from there are let in too, ``*``: from anywhere
    :param loopback: whether the server listens on loopback addresses only
    :param rates: how often each may ask
    :param names_of: gives the names in the client certificate of a connection
    """

    def __init__(
        self,
        keeper: Keeper,
        origins: Collection[str],
        loopback: bool,
        rates: Rates,
        names_of: Callable[[HTTP1Connection], list[str]] = lambda connection: [],
    ) -> None:
        self._keeper = keeper
        self._origins = frozenset(origins)
        self._loopback = loopback
        self._names_of = names_of
        hosts = {urlsplit(origin).hostname for origin in origins}
        self._hosts = {"localhost", socket.gethostname().lower(), *hosts}
        self._host_seen = ""
        self._rates = rates

    def admit(self, headers: HTTPHeaders, connection: HTTP1Connection) -> Who:
        """Who asks.

        :raises Forbidden: where a page of elsewhere does
        :raises Unauthorized: where the credential is not valid
        :raises Malformed: where it names two hosts
        """
        host = headers.get("Host", "")
        if "," in host:
            raise Malformed(f"a request is for one host, and this one for {host[:128]!r}")
        if "Origin" in headers:
            self._check_origin(headers["Origin"], host)
        if host != self._host_seen and self._loopback and not self._keeper.on:
            self._check_host(host)
        address = address_of(connection)
        try:
            who = self._keeper.who(headers.get("Authorization"), self._names_of(connection))
        except Unauthorized:
            # Who guesses tokens is no identity, and gets as many guesses as an address has.
            self._limit(address)
            raise
        self._limit(who.counted_as(address))
        return who

    def _limit(self, name: str) -> None:
        """Count a request.

        :param name: the identity, or the address of one who is not known
        :raises OverLimit: where there were too many of late
        """
        late = self._rates.take(name, time.monotonic()) if self._rates.rate else 0.0
        if late:
            late = math.ceil(late * 1000) / 1000
            raise OverLimit(
                f"more than {self._rates.rate:g} requests a second: try again in {late:g} s",
                "rate",
                seconds=late,
            )

    def _check_origin(self, origin: str, host: str) -> None:
        if origin in self._origins or "*" in self._origins:
            return
        try:
            parts = urlsplit(origin)
            if parts.netloc and parts.netloc.lower() == host.lower():
                return
            if self._loopback and parts.hostname in _LOOPBACK:
                return
        except ValueError:
            pass
        raise Forbidden(
            f"a page of {origin[:128]} may not use this server: if it shall, start it with "
            "--allow-origin"
        )

    def _check_host(self, host: str) -> None:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = host
        # Nobody elsewhere can have a name without a dot looked up.
        if "." in name and name not in self._hosts and not name.endswith(".localhost"):
            try:
                ipaddress.ip_address(name.partition("%")[0])
            except ValueError:
                raise Forbidden(
                    f"this server on a loopback address is not called {host[:128]!r}: ask for "
                    "127.0.0.1 or localhost, make a token (tega-server token add NAME), or start "
                    "it with --allow-origin"
                ) from None
        self._host_seen = host
