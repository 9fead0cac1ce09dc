"""The settings of tega-sentinel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from tega.errors import Malformed
from tega.options import Program, Setting, Settings, boolean, choice, integer, level, path, seconds

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError
    return text


TABLE: Final = (
    Setting("source", "s", None, str, "etcd://HOST:PORT/PREFIX, etcds://... or tega://HOST:PORT/PATH",
            "what to mirror"),
    Setting("sink", "k", None, str, "an address of SQLAlchemy, or one as a source has",
            "where to mirror it to", secret=True),
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
    Setting("sink-user", None, None, str, "a name",
            "user at a sink of etcd"),
    Setting("sink-password", None, None, str, "a password",
            "password at the sink", secret=True),
    Setting("sink-password-file", None, None, path, "a file that holds a password",
            "file with the password at the sink"),
    Setting("etcd-user", None, None, str, "a name",
            "user at a source of etcd"),
    Setting("etcd-password", None, None, str, "a password",
            "password at a source of etcd", secret=True),
    Setting("etcd-password-file", None, None, path, "a file that holds a password",
            "file with the password at a source of etcd"),
    Setting("etcd-ca", None, None, path, "a PEM file",
            "certificates that an etcds:// server is checked with, instead of the system's"),
    Setting("etcd-cert", None, None, path, "a PEM file",
            "certificate to show to an etcds:// server"),
    Setting("etcd-key", None, None, path, "a PEM file",
            "key of that certificate"),
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
    for name in ("sink-password", "etcd-password"):
        file = values.get(f"{name}-file")
        if file is not None and name not in values:
            try:
                values[name] = file.read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise Malformed(f"setting {name}-file: {error}") from None
    if sum([bool(values.get(mode)) for mode in ("once", "dry-run", "verify")]) > 1:
        raise Malformed("give one of --once, --dry-run and --verify")
    return Settings(TABLE, values)
