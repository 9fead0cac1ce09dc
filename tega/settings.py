"""The settings of a server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tega import options
from tega.driver.proxy import Proxy
from tega.errors import Malformed
from tega.options import Program, Setting, boolean, choice, integer, level, seconds
from tega.paths import check_host, check_tega_id, dotted, parse

#: Where a server listens, and where a global server is looked for, unless told otherwise.
_PORT: Final = 8739
_HOST: Final = "127.0.0.1"


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e9:
        raise ValueError
    return value


def _root(text: str) -> str:
    path = parse(text)
    if len(path) > 1:
        raise Malformed(f"a root is one key, this is a path of {len(path)}")
    return path[0]


def _proxy(text: str) -> str:
    Proxy.parse(text)
    return text


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"https?://[^\s/?#]+", text):
        raise ValueError
    return text


def _directory(text: str) -> Path:
    path = options.path(text)
    if not path.is_dir():
        raise ValueError
    return path


TABLE: tuple[Setting, ...] = (
    Setting("logdir", "d", Path("./var"), options.path, "a directory",
            "directory of the commit log, made if missing"),
    Setting("tegaid", "t", None, check_tega_id, "letters, digits, '-', '_', '.'",
            "this server's tega id; without it a UUID, kept in the directory"),
    Setting("port", "p", _PORT, integer(0, 65535), "0 to 65535",
            "port to listen on; 0: a free one"),
    Setting("address", "a", _HOST, str, "an IP address or host name",
            "address to listen on"),
    Setting("ghost", "H", None, check_host, "an IP address or host name",
            f"host of the global server to connect to; with --gport alone: {_HOST}"),
    Setting("gport", "P", None, integer(1, 65535), "1 to 65535",
            f"port of the global server to connect to; with --ghost alone: {_PORT}"),
    Setting("config", "C", (), _root, "names of roots",
            "roots led by the global server, followed here", many=True),
    Setting("operational", "O", (), _root, "names of roots",
            "roots led by this server, followed by the global one", many=True),
    Setting("proxy", None, None, _proxy, "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT",
            "HTTP proxy to reach the global server through, by CONNECT", secret=True),
    Setting("gtls", None, False, boolean, "true or false",
            "connect to the global server over TLS", switch=True),
    Setting("gca", None, None, options.path, "a PEM file",
            "authorities that may have signed the global server's certificate; without it those "
            "of the system. Means --gtls"),
    Setting("gcert", None, None, options.path, "a PEM file",
            "certificate to show to the global server. Means --gtls"),
    Setting("gkey", None, None, options.path, "a PEM file",
            "key of --gcert, where it is not in that file too"),
    Setting("gtoken-file", None, None, options.path, "a file",
            "token for the global server; read again for each connection"),
    Setting("tls-cert", None, None, options.path, "a PEM file",
            "certificate to show; with it the server speaks TLS, and nothing else"),
    Setting("tls-key", None, None, options.path, "a PEM file",
            "key of --tls-cert, without a pass phrase"),
    Setting("tls-client-ca", None, None, options.path, "a PEM file",
            "clients may show a certificate that these authorities have signed"),
    Setting("extensions", "e", (), _directory, "directories that are there",
            "directories with plugins in their plugins/*.py", many=True),
    Setting("tokens", None, None, options.path, "a file",
            "file with what checks tokens, made by 'tega-server token'; without it tokens.yaml in "
            "the log directory"),
    Setting("access", None, None, options.path, "a file",
            "file with the access rules; without it access.yaml in the log directory"),
    Setting("insecure", None, False, boolean, "true or false",
            "listen beyond loopback without tokens: everybody may do everything then", switch=True),
    Setting("allow-origin", None, (), _origin, "origins, http://HOST:PORT, or *",
            "web pages that may use this server beside its own", many=True),
    Setting("maxlen", "l", 10, integer(0, 1_000_000), "0 to 1000000",
            "old versions that stay readable, for each root"),
    Setting("loglevel", "L", "INFO", level, "DEBUG, INFO, WARNING, ERROR, CRITICAL",
            "least severe messages to print"),
    Setting("log-format", None, "text", choice("text", "json"), "text, json",
            "how messages are printed: lines for people, or one JSON object a line"),
    Setting("sync", None, "always", choice("always", "interval", "never"),
            "always, interval, never",
            "when commits are synced to disk: before each answer, each interval, or never"),
    Setting("sync-interval", None, 1.0, seconds, "seconds over 0",
            "seconds between syncs with --sync interval"),
    Setting("snapshot-size", None, 8 << 20, integer(0, 1 << 50), "bytes, 0 for never",
            "bytes appended to the log after which a snapshot is made"),
    Setting("keep", None, 2, integer(0, 1_000_000), "0 to 1000000",
            "older log segments, each of a snapshot's time, that are kept"),
    Setting("max-depth", None, 64, integer(1, 200), "1 to 200",
            "most keys in a path, and deepest nesting of a value"),
    Setting("max-body", None, 1 << 20, integer(1, 1 << 30), "1 to 1073741824 bytes",
            "most bytes of a request's body, and so of a list or string"),
    Setting("max-url", None, 1 << 16, integer(256, 1 << 17), "256 to 131072 bytes",
            "most bytes of a request's URL"),
    Setting("max-transactions", None, 10_000, integer(1, 10_000_000), "1 to 10000000",
            "most open transactions"),
    Setting("transaction-expiry", None, 600.0, seconds, "seconds over 0",
            "seconds after which an open transaction left alone is forgotten"),
    Setting("resume", None, 4096, integer(0, 10_000_000), "0 to 10000000",
            "newest commits kept in memory for watchers that resume or catch up"),
    Setting("max-subscriptions", None, 10_000, integer(1, 10_000_000), "1 to 10000000",
            "most subscriptions of one session"),
    Setting("max-connections", None, 100_000, integer(1, 10_000_000), "1 to 10000000",
            "most connections; where there are more, those that wait longest for a request go"),
    Setting("max-sessions", None, 100_000, integer(1, 10_000_000), "1 to 10000000",
            "most sessions"),
    Setting("max-requests", None, 1024, integer(2, 1_000_000), "2 to 1000000",
            "most requests of one session under way; past that it is read no further for a while"),
    Setting("max-backlog", None, 1 << 20, integer(1 << 16, 1 << 30), "65536 to 1073741824 bytes",
            "bytes that a client may have still to take; past that it catches up from history"),
    Setting("max-rate", None, 0.0, _rate, "requests a second, 0 for any number",
            "requests that each identity, or each address without one, may make in the long run"),
    Setting("ping-interval", None, 10.0, seconds, "seconds over 0",
            "a session that is silent for so long is pinged"),
    Setting("ping-timeout", None, 30.0, seconds, "seconds over 0",
            "a session that is silent for so long is gone"),
    Setting("rpc-timeout", None, 30.0, seconds, "seconds over 0",
            "a call of a function that takes longer is given up"),
)  # fmt: skip

PROGRAM = Program("tega-server", "Start a tega db server.", "TEGA_", TABLE)


class Settings(options.Settings):
    """The values: one attribute a setting, dashes as underscores."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(TABLE, values)


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings that hold, from all their sources.

    :raises Malformed: naming setting, source and value, and what would be right
    """
    values = PROGRAM.load(arguments, environment)
    _settle_global_server(values)
    _settle_certificates(values)
    return Settings(values)


def _settle_global_server(values: dict[str, Any]) -> None:
    """Let one half of the global server's address do, and check what is shared with it.

    :raises Malformed: for what is about a global server where there is none, and for roots with
        two leaders
    """
    if values.get("ghost") or values.get("gport"):
        values.setdefault("ghost", _HOST)
        values.setdefault("gport", _PORT)
    for name in ("config", "operational"):
        if values.get(name) and "gport" not in values:
            raise Malformed(
                f"setting {name}: there is no global server to share {dotted(values[name][:1])} "
                "with: give -P (--gport), and -H (--ghost) where it is on another host"
            )
    if "gca" in values or "gcert" in values:
        values.setdefault("gtls", True)
    for name in ("gtls", "gtoken-file"):
        if values.get(name) and "gport" not in values:
            raise Malformed(f"setting {name}: there is no global server: give --gport or --ghost")
    for root in values.get("config", ()):
        if root in values.get("operational", ()):
            raise Malformed(
                f"root {dotted((root,))} is in both config and operational: name it in config "
                "where the global server leads it, or in operational where this one does"
            )


def _settle_certificates(values: Mapping[str, Any]) -> None:
    """Check that what belongs together is there.

    :raises Malformed: naming what is missing
    """
    for name, other in (
        ("tls-cert", "tls-key"),
        ("tls-key", "tls-cert"),
        ("tls-client-ca", "tls-cert"),
        ("gkey", "gcert"),
    ):
        if name in values and other not in values:
            raise Malformed(f"setting {name}: it is of no use without {other}: give --{other} too")
