"""A connection to a server: straight, or through a proxy by HTTP CONNECT (RFC 9110, 9.3.6).

::

    CONNECT global:8739 HTTP/1.1
    Host: global:8739
    Proxy-Authorization: Basic ...           where the proxy wants to know who asks

After an answer of 2xx the connection is one with the server.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tega.driver.causes import cause
from tega.driver.exchange import where
from tega.errors import Malformed

#: Most bytes of the head of a proxy's answer.
_MAX_HEAD: Final = 1 << 14

_HTTP: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(r"HTTP/1\.\d (\d{3}(?: .*)?)", re.DOTALL)

_FORM: Final = "a proxy is written http://host:port or http://user:password@host:port"


class ProxyFailed(ConnectionError):
    """There is no way through the proxy. The message names it."""


@dataclass(frozen=True)
class Proxy:
    """A proxy, and who asks it. As text it is its address; its password is never shown.

    :ivar user: None: it is asked without credentials
    """

    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Read ``http://[user:password@]host:port``; ``%XX`` in user and password is decoded.

        :raises Malformed: where it is none; the message does not quote it, for the password in it
        """
        # `urlsplit` would leave out some control characters in silence.
        if not text.isprintable() or " " in text:
            raise Malformed(f"{_FORM}, without spaces")
        if not text.lower().startswith("http://"):
            raise Malformed(f"{_FORM}: it does not begin with http://")
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
            user = unquote(parts.username or "", errors="strict")
            password = unquote(parts.password or "", errors="strict")
        except ValueError:
            host = port = None
        if not host or not port:
            raise Malformed(f"{_FORM}: host or port is not right")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise Malformed(f"{_FORM}: in a password write / as %2F, ? as %3F, # as %23")
        if ":" in user or not (user + password).isprintable():
            raise Malformed(f"{_FORM}: no colon in the user, no control characters in either")
        return cls(host, port, None if parts.username is None else user, password)

    def __str__(self) -> str:
        return where(self.host, self.port)

    def request(self, host: str, port: int) -> bytes:
        """What asks it for a connection to a server."""
        target = where(host, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.user is not None:
            credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {credentials}")
        return "\r\n".join([*lines, "", ""]).encode()

    async def tunnel(self, made: socket.socket, host: str, port: int) -> None:
        """Let it connect a connection with it to a server.

        :raises ProxyFailed: where it does not
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(made, self.request(host, port))
        answer = bytearray()
        while (end := answer.find(b"\r\n\r\n")) < 0:
            if not _HTTP.startswith(answer[: len(_HTTP)]):
                raise ProxyFailed(f"the proxy {self} speaks no HTTP: {bytes(answer[:64])!r}")
            if len(answer) > _MAX_HEAD:
                raise ProxyFailed(f"the proxy {self} sends headers without end")
            data = await loop.sock_recv(made, 4096)
            if not data:
                raise ProxyFailed(f"the proxy {self} hung up without a whole answer")
            answer += data
        self._check(answer[:end].decode("latin-1").partition("\r\n")[0])
        if len(answer) > end + 4:
            raise ProxyFailed(f"what the proxy {self} leads to is no tega server: it speaks first")

    def _check(self, line: str) -> None:
        """Refuse a status line that is not one of success."""
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise ProxyFailed(f"the proxy {self} speaks no HTTP: {line[:64]!r}")
        status = found[1]
        if status.startswith("2"):
            return
        why = ""
        if status.startswith("407"):
            why = (
                ": it wants credentials, http://user:password@..."
                if self.user is None
                else ": it does not take these credentials"
            )
        shown = "".join(each if each.isprintable() else "?" for each in status[:128])
        raise ProxyFailed(f"the proxy {self} answers {shown}{why}")


async def reach(host: str, port: int, proxy: Proxy | None) -> socket.socket:
    """Connect to a server.

    :raises OSError: where that is not possible; `ProxyFailed` where it is for the proxy
    """
    if proxy is None:
        return await _connect(host, port)
    try:
        made = await _connect(proxy.host, proxy.port)
        try:
            await proxy.tunnel(made, host, port)
            return made
        except BaseException:
            made.close()
            raise
    except ProxyFailed:
        raise
    except OSError as error:
        raise ProxyFailed(f"the proxy {proxy} cannot be used: {cause(error)}") from error


async def _connect(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that takes it."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, _, address in await _addresses(host, port):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await loop.sock_connect(made, address)
            return made
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
    raise failure or OSError(f"{host} has no address")


async def _addresses(host: str, port: int) -> list[Any]:
    try:
        # An address needs no look-up, which would take a thread.
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
