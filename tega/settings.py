"""The settings of a server, in one table: flag, variable, file key, type, default and help.

A flag on the command line goes before an environment variable (``TEGA_MAX_BODY``), that before the
settings file (``max-body:``), that before the default. Help, documentation and checks are made from
the table.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import yaml

from tega.driver.proxy import Proxy
from tega.errors import Malformed
from tega.paths import check_host, check_tega_id, dotted, parse

#: Where a server listens, and where a global server is looked for, unless told otherwise.
_PORT: Final = 8739
_HOST: Final = "127.0.0.1"


class Setting(NamedTuple):
    """One setting.

    :ivar read: makes the value of its text; raises `ValueError` or `Malformed` for a wrong one
    :ivar expects: what would be right, for help and errors
    :ivar many: it takes several values, of which each counts once: in a variable separated by
        colons, so that one with a colon in it can only be given as a flag or in a file, as a list
    :ivar secret: errors do not show its value
    :ivar flag: it is true or false; on the command line it stands alone, and is true
    """

    name: str
    short: str | None
    default: Any
    read: Callable[[str], Any]
    expects: str
    help: str
    many: bool = False
    secret: bool = False
    flag: bool = False

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return "TEGA_" + self.name.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        """Its name in `Settings`."""
        return self.name.replace("-", "_")


def _integer(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return read


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e9:
        raise ValueError
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e9:
        raise ValueError
    return value


def _choice(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return read


def _level(text: str) -> str:
    return _choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(text.upper())


def _boolean(text: str) -> bool:
    return _choice("true", "false")(text.lower()) == "true"


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


def _path(text: str) -> Path:
    if not text:
        raise ValueError
    return Path(text)


def _directory(text: str) -> Path:
    path = _path(text)
    if not path.is_dir():
        raise ValueError
    return path


TABLE: tuple[Setting, ...] = (
    Setting("logdir", "d", Path("./var"), _path, "a directory",
            "directory of the commit log, made if missing"),
    Setting("tegaid", "t", None, check_tega_id, "letters, digits, '-', '_', '.'",
            "this server's tega id; without it a UUID, kept in the directory"),
    Setting("port", "p", _PORT, _integer(0, 65535), "0 to 65535",
            "port to listen on; 0: a free one"),
    Setting("address", "a", _HOST, str, "an IP address or host name",
            "address to listen on"),
    Setting("ghost", "H", None, check_host, "an IP address or host name",
            f"host of the global server to connect to; with --gport alone: {_HOST}"),
    Setting("gport", "P", None, _integer(1, 65535), "1 to 65535",
            f"port of the global server to connect to; with --ghost alone: {_PORT}"),
    Setting("config", "C", (), _root, "names of roots",
            "roots led by the global server, followed here", many=True),
    Setting("operational", "O", (), _root, "names of roots",
            "roots led by this server, followed by the global one", many=True),
    Setting("proxy", None, None, _proxy, "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT",
            "HTTP proxy to reach the global server through, by CONNECT", secret=True),
    Setting("gtls", None, False, _boolean, "true or false",
            "connect to the global server over TLS", flag=True),
    Setting("gca", None, None, _path, "a PEM file",
            "authorities that may have signed the global server's certificate; without it those "
            "of the system. Means --gtls"),
    Setting("gcert", None, None, _path, "a PEM file",
            "certificate to show to the global server. Means --gtls"),
    Setting("gkey", None, None, _path, "a PEM file",
            "key of --gcert, where it is not in that file too"),
    Setting("gtoken-file", None, None, _path, "a file",
            "token for the global server; read again for each connection"),
    Setting("tls-cert", None, None, _path, "a PEM file",
            "certificate to show; with it the server speaks TLS, and nothing else"),
    Setting("tls-key", None, None, _path, "a PEM file",
            "key of --tls-cert, without a pass phrase"),
    Setting("tls-client-ca", None, None, _path, "a PEM file",
            "clients may show a certificate that these authorities have signed"),
    Setting("extensions", "e", (), _directory, "directories that are there",
            "directories with plugins in their plugins/*.py", many=True),
    Setting("tokens", None, None, _path, "a file",
            "file with what checks tokens, made by 'tega-server token'; without it tokens.yaml in "
            "the log directory"),
    Setting("access", None, None, _path, "a file",
            "file with the access rules; without it access.yaml in the log directory"),
    Setting("insecure", None, False, _boolean, "true or false",
            "listen beyond loopback without tokens, where everybody may do everything", flag=True),
    Setting("allow-origin", None, (), _origin, "origins, http://HOST:PORT, or *",
            "web pages that may use this server beside its own", many=True),
    Setting("maxlen", "l", 10, _integer(0, 1_000_000), "0 to 1000000",
            "old versions that stay readable, for each root"),
    Setting("loglevel", "L", "INFO", _level, "DEBUG, INFO, WARNING, ERROR, CRITICAL",
            "least severe messages to print"),
    Setting("log-format", None, "text", _choice("text", "json"), "text, json",
            "how messages are printed: lines for people, or one JSON object a line"),
    Setting("sync", None, "always", _choice("always", "interval", "never"),
            "always, interval, never",
            "when commits are synced to disk: before each answer, each interval, or never"),
    Setting("sync-interval", None, 1.0, _seconds, "seconds over 0",
            "seconds between syncs with --sync interval"),
    Setting("snapshot-size", None, 4 << 20, _integer(0, 1 << 50), "bytes, 0 for never",
            "bytes appended to the log after which a snapshot is made"),
    Setting("keep", None, 2, _integer(0, 1_000_000), "0 to 1000000",
            "older log segments, each of a snapshot's time, that are kept"),
    Setting("max-depth", None, 64, _integer(1, 200), "1 to 200",
            "most keys in a path, and deepest nesting of a value"),
    Setting("max-body", None, 1 << 20, _integer(1, 1 << 30), "1 to 1073741824 bytes",
            "most bytes of a request's body, and so of a list or string"),
    Setting("max-url", None, 1 << 16, _integer(256, 1 << 17), "256 to 131072 bytes",
            "most bytes of a request's URL"),
    Setting("max-transactions", None, 10_000, _integer(1, 10_000_000), "1 to 10000000",
            "most open transactions"),
    Setting("transaction-expiry", None, 600.0, _seconds, "seconds over 0",
            "seconds after which an open transaction left alone is forgotten"),
    Setting("resume", None, 4096, _integer(0, 10_000_000), "0 to 10000000",
            "newest commits kept in memory for watchers that resume or catch up"),
    Setting("max-subscriptions", None, 10_000, _integer(1, 10_000_000), "1 to 10000000",
            "most subscriptions of one session"),
    Setting("max-connections", None, 100_000, _integer(1, 10_000_000), "1 to 10000000",
            "most connections; where there are more, those that wait longest for a request go"),
    Setting("max-sessions", None, 100_000, _integer(1, 10_000_000), "1 to 10000000",
            "most sessions"),
    Setting("max-requests", None, 1024, _integer(2, 1_000_000), "2 to 1000000",
            "most requests of one session under way; past that it is read no further for a while"),
    Setting("max-backlog", None, 1 << 20, _integer(1 << 16, 1 << 30), "65536 to 1073741824 bytes",
            "bytes that a client may have still to take; past that it catches up from history"),
    Setting("max-rate", None, 0.0, _rate, "requests a second, 0 for any number",
            "requests that each identity, or each address without one, may make in the long run"),
    Setting("ping-interval", None, 10.0, _seconds, "seconds over 0",
            "a session that is silent for so long is pinged"),
    Setting("ping-timeout", None, 30.0, _seconds, "seconds over 0",
            "a session that is silent for so long is gone"),
    Setting("rpc-timeout", None, 30.0, _seconds, "seconds over 0",
            "a call of a function that takes longer is given up"),
)  # fmt: skip


class Settings:
    """The values: one attribute a setting, dashes as underscores."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        for setting in TABLE:
            setattr(self, setting.attribute, values.get(setting.name, setting.default))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no setting {name}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Malformed(f"{message}. See --help")


def parser() -> argparse.ArgumentParser:
    """The parser of the server's command line."""
    made = _Parser(
        prog="tega-server",
        description="Start a tega db server.",
        epilog="Every setting is also read from its variable, and from the file given with "
        "--settings (YAML, one 'name: value' a line): flag over variable over file over default.",
        allow_abbrev=False,
    )
    made.add_argument("--settings", metavar="FILE", help="YAML file with settings")
    for setting in TABLE:
        flags = [f"-{setting.short}"] if setting.short else []
        words: dict[str, Any] = {"metavar": "VALUE", "nargs": "+" if setting.many else None}
        if setting.flag:
            words = {"action": "store_const", "const": "true"}
        made.add_argument(
            *flags,
            f"--{setting.name}",
            dest=setting.name,
            help=f"{setting.help}; {setting.expects} ({setting.variable}, "
            f"default: {shown(setting.default) or 'none'})".replace("%", "%%"),
            **words,
        )
    return made


def shown(default: Any) -> str:
    """A default as it would be given; empty where there is none."""
    if default in (None, ()):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings that hold, from all their sources.

    :raises Malformed: naming setting, source and value, and what would be right
    """
    flags = vars(parser().parse_args(arguments))
    file = flags.pop("settings") or environment.get("TEGA_SETTINGS")
    values = _from_file(Path(file)) if file else {}
    for setting in TABLE:
        if setting.variable in environment:
            text = environment[setting.variable]
            parts = [part for part in text.split(":") if part] if setting.many else text
            values[setting.name] = _read(setting, parts, f"variable {setting.variable}")
        if flags[setting.name] is not None:
            values[setting.name] = _read(setting, flags[setting.name], f"--{setting.name}")
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


def _read(setting: Setting, text: str | list[str], source: str) -> Any:
    if isinstance(text, list):
        return tuple(dict.fromkeys([_read(setting, part, source) for part in text]))
    try:
        return setting.read(text)
    except ValueError as error:
        why = f" ({error})" if isinstance(error, Malformed) else ""
        shown = "the value" if setting.secret else repr(text)
        raise Malformed(
            f"setting {setting.name} ({source}): {shown} is wrong{why}; right is: "
            f"{setting.expects}"
        ) from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        # Every scalar as text: each setting reads its own. This loader makes nothing else.
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise Malformed(f"settings file {path}: {error}") from None
    if given is None or given == "":
        return {}
    if not isinstance(given, dict):
        raise Malformed(f"settings file {path}: it must hold 'name: value' lines")
    known = {setting.name: setting for setting in TABLE}
    values = {}
    for name, text in given.items():
        if name not in known:
            raise Malformed(f"settings file {path}: no setting {name!r}; there are "
                            + ", ".join(known))
        many = known[name].many
        if many and isinstance(text, str):
            text = [text]
        if not (
            isinstance(text, str)
            or (many and isinstance(text, list) and all(isinstance(part, str) for part in text))
        ):
            number = "a list of values" if many else "one value"
            raise Malformed(f"settings file {path}: {name} takes {number}: {known[name].expects}")
        values[name] = _read(known[name], text, f"file {path}")
    return values
