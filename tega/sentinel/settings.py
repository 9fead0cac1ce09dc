"""The settings of tega-sentinel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from tega.errors import Malformed
from tega.options import Program, Setting, Settings, boolean, choice, integer, level, path, seconds

#: Where to mirror to, unless something else is said: what needs no server.
DEFAULT_SINK: Final = "sqlite:///mirror.db"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError
    return text


def _access(end: str, where: str) -> tuple[Setting, ...]:
    """With what one end is convinced, and what it must show."""
    of = f"the {end}, if it is tega"
    return (
        Setting(f"{end}-user", None, None, str, "a name",
                f"user at the {end}, if it is etcd"),
        Setting(f"{end}-password", None, None, str, "a password",
                f"password {where}", secret=True),
        Setting(f"{end}-password-file", None, None, path, "a file",
                "file with that password"),
        Setting(f"{end}-token", None, None, str, "NAME.SECRET",
                f"token for {of}", secret=True),
        Setting(f"{end}-token-file", None, None, path, "a file",
                "file with that token; read again for each connection"),
        Setting(f"{end}-ca", None, None, path, "a PEM file",
                f"authorities that may have signed the certificate of the {end}, where it is "
                "etcds:// or tegas://; without it those of the system"),
        Setting(f"{end}-cert", None, None, path, "a PEM file",
                "certificate to show there"),
        Setting(f"{end}-key", None, None, path, "a PEM file",
                "key of that certificate, where it is not in that file too"),
    )  # fmt: skip


TABLE: Final = (
    Setting("source", "s", None, str, "etcd://HOST:PORT/PREFIX or tega://HOST:PORT/PATH, with TLS "
            "etcds:// or tegas://", "what to mirror"),
    Setting("sink", "k", None, str, "an address of SQLAlchemy, or one as a source has",
            f"where to mirror it to; without it and a preset {DEFAULT_SINK}, a file in the "
            "directory that this is run in", secret=True),
    Setting("mapping", "m", None, path, "a YAML file",
            "which rows the keys give; for a SQL database"),
    Setting("preset", None, None, choice("titania"), "titania",
            "mapping, source and sink of devices and pods of titaniadb, from its own variables"),
    Setting("name", "n", "default", _name, "1 to 64 letters, digits, '.', '_' and '-'",
            "name of the checkpoint: sentinels that share a database need one each"),
    Setting("once", None, False, boolean, "true or false",
            "make one full pass, then exit", switch=True),
    Setting("dry-run", None, False, boolean, "true or false",
            "say what a full pass would change, then exit", switch=True),
    Setting("verify", None, False, boolean, "true or false",
            "compare, and exit with status 1 where something differs", switch=True),
    Setting("interval", "i", 30.0, seconds, "seconds over 0",
            "seconds between full passes, where the mapping does not say"),
    Setting("port", "p", None, integer(0, 65535), "0 to 65535",
            "port for /_metrics and /_health; 0: a free one"),
    Setting("address", "a", "127.0.0.1", str, "an IP address or host name",
            "address for that port"),
    Setting("log-format", None, "text", choice("text", "json"), "text, json",
            "how to print what is done"),
    Setting("loglevel", "L", "INFO", level, "DEBUG, INFO, WARNING, ERROR, CRITICAL",
            "least severe messages of the libraries to print"),
    *_access("source", "at the source, if it is etcd"),
    *_access("sink", "at the sink, if it is etcd or a SQL database"),
)  # fmt: skip

PROGRAM: Final = Program(
    "tega-sentinel",
    "Keep tables of a SQL database, or another tree, in step with etcd or tega.",
    "TEGA_SENTINEL_",
    TABLE,
)


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings that hold, from all their sources.

    :raises Malformed: naming setting, source and value, and what would be right
    """
    values = PROGRAM.load(arguments, environment)
    for name in ("source-password", "sink-password", "source-token", "sink-token"):
        if name in values and f"{name}-file" in values:
            raise Malformed(f"give one of {name} and {name}-file")
    for name in ("source-password", "sink-password"):
        file = values.get(f"{name}-file")
        if file is not None:
            try:
                values[name] = file.read_text(encoding="utf-8").rstrip("\n")
            except OSError as error:
                raise Malformed(f"setting {name}-file: {file}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise Malformed(f"setting {name}-file: {file} is no text in UTF-8") from None
    if sum([bool(values.get(mode)) for mode in ("once", "dry-run", "verify")]) > 1:
        raise Malformed("give one of --once, --dry-run and --verify")
    return Settings(TABLE, values)
