"""Who comes in: credentials, and what browsers say of the page that asks."""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders

from tega.access.keeper import Keeper
from tega.access.rates import Rates
from tega.access.who import Who
from tega.errors import Forbidden, Malformed, OverLimit, Unauthorized

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

#: Caches must not give the answer to one page to another one.
_VARIES: Final = {"Vary": "Origin"}

#: What a browser may send for a page that is let in, and for how many seconds it need not ask.
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "DELETE, GET, POST, PUT",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}


def address_of(connection: HTTP1Connection) -> str:
    """The address of the client at the other end."""
    return str(getattr(connection.context, "remote_ip", ""))


def _is_of(url: str, host: str) -> bool:
    try:
        netloc = urlsplit(url).netloc.lower()
    except ValueError:
        return False
    return bool(netloc) and netloc == host.lower()


def check_page(headers: HTTPHeaders) -> None:
    """Refuse what a page of elsewhere makes a browser get without a word: a picture, a link.

    Whoever uses ``fetch`` is known by its origin, and was let in.

    :raises Forbidden: where it is that
    """
    if "Origin" in headers:
        return
    # Over plain HTTP from another machine, browsers say no more than the page's address.
    site, referer = headers.get("Sec-Fetch-Site"), headers.get("Referer")
    if site not in (None, "same-origin", "none") or (
        site is None and referer is not None and not _is_of(referer, headers.get("Host", ""))
    ):
        raise Forbidden("a page of elsewhere may not do this by a GET: use POST")


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

    def cors(self, headers: HTTPHeaders) -> dict[str, str]:
        """The headers that tell a browser whether the page that asks may have the answer."""
        if not self._lets_in(headers["Origin"], headers.get("Host", "")):
            return _VARIES
        return {
            **_VARIES,
            "Access-Control-Allow-Origin": headers["Origin"],
            "Access-Control-Expose-Headers": "ETag, Tega-Stale",
        }

    def preflight(self, headers: HTTPHeaders) -> dict[str, str]:
        """The headers that answer a browser which asks what it may send for a page.

        It shows no credential with that: whatever it sends then is judged by itself.

        :raises Forbidden: where the page is of elsewhere
        """
        host = headers.get("Host", "")
        self._check_origin(headers.get("Origin", ""), host)
        if self._loopback and not self._keeper.on:
            self._check_host(host)
        return _PREFLIGHT

    def _lets_in(self, origin: str, host: str) -> bool:
        if origin in self._origins or "*" in self._origins:
            return True
        try:
            return _is_of(origin, host) or (
                self._loopback and urlsplit(origin).hostname in _LOOPBACK
            )
        except ValueError:
            return False

    def _check_origin(self, origin: str, host: str) -> None:
        if not self._lets_in(origin, host):
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
