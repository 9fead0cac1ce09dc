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
from tega.paths import check_tega_id, dotted, parse

#: Where a server listens, and where a global server is looked for, unless told otherwise.
_PORT: Final = 8739
_HOST: Final = "127.0.0.1"

#: Longer or other text is no name of a host.
_HOSTS = re.compile(r"[^\s/@?#\[\]\\]{1,255}")


class Setting(NamedTuple):
    """One setting.

    :ivar read: makes the value of its text; raises `ValueError` or `Malformed` for a wrong one
    :ivar expects: what would be right, for help and errors
    :ivar many: it takes several values, of which each counts once: in a variable separated by
        colons, so that one with a colon in it can only be given as a flag or in a file, as a list
    :ivar secret: errors do not show its value
    """

    name: str
    short: str | None
    default: Any
    read: Callable[[str], Any]
    expects: str
    help: str
    many: bool = False
    secret: bool = False

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


def _choice(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return read


def _level(text: str) -> str:
    return _choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(text.upper())


def _host(text: str) -> str:
    if not _HOSTS.fullmatch(text):
        raise ValueError
    text.encode("idna")  # A name that cannot be looked up raises UnicodeError, a ValueError.
    return text


def _root(text: str) -> str:
    path = parse(text)
    if len(path) > 1:
        raise Malformed(f"a root is one key, this is a path of {len(path)}")
    return path[0]


def _proxy(text: str) -> str:
    Proxy.parse(text)
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
    Setting("ghost", "H", None, _host, "an IP address or host name",
            f"host of the global server to connect to; with --gport alone: {_HOST}"),
    Setting("gport", "P", None, _integer(1, 65535), "1 to 65535",
            f"port of the global server to connect to; with --ghost alone: {_PORT}"),
    Setting("config", "C", (), _root, "names of roots",
            "roots led by the global server, followed here", many=True),
    Setting("operational", "O", (), _root, "names of roots",
            "roots led by this server, followed by the global one", many=True),
    Setting("proxy", None, None, _proxy, "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT",
            "HTTP proxy to reach the global server through, by CONNECT", secret=True),
    Setting("extensions", "e", (), _directory, "directories that are there",
            "directories with plugins in their plugins/*.py", many=True),
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
    Setting("transaction-expiry", None, 600.0, _seconds, "seconds over 0",
            "seconds after which an open transaction left alone is forgotten"),
    Setting("resume", None, 4096, _integer(0, 10_000_000), "0 to 10000000",
            "newest commits kept in memory for watchers that resume or catch up"),
    Setting("max-subscriptions", None, 10_000, _integer(1, 10_000_000), "1 to 10000000",
            "most subscriptions of one session"),
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
        made.add_argument(
            *flags,
            f"--{setting.name}",
            metavar="VALUE",
            nargs="+" if setting.many else None,
            dest=setting.name,
            help=f"{setting.help}; {setting.expects} ({setting.variable}, "
            f"default: {_shown(setting.default)})".replace("%", "%%"),
        )
    return made


def _shown(value: Any) -> str:
    return "none" if value in (None, ()) else str(value)


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
    return Settings(values)


def _settle_global_server(values: dict[str, Any]) -> None:
    """Let one half of the global server's address do, and check what is shared with it.

    :raises Malformed: for roots without a global server, or with two leaders
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
    for root in values.get("config", ()):
        if root in values.get("operational", ()):
            raise Malformed(
                f"root {dotted((root,))} is in both config and operational: name it in config "
                "where the global server leads it, or in operational where this one does"
            )


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
        # Every scalar as text: each setting reads its own.
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
