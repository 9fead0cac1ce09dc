"""Settings of programs, each program's in one table: flag, variable, file key, type, default, help.

A flag on the command line goes before an environment variable (``TEGA_MAX_BODY``), that before the
settings file (``max-body:``), that before the default. Help, documentation and checks are made from
the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from tega.errors import Malformed


class Setting(NamedTuple):
    """One setting.

    :ivar read: makes the value of its text; raises `ValueError` or `Malformed` for a wrong one
    :ivar expects: what would be right, for help and errors
    :ivar many: it takes several values, of which each counts once: in a variable separated by
        colons, so that one with a colon in it can only be given as a flag or in a file, as a list
    :ivar secret: errors do not show its value
    :ivar switch: as a flag it stands alone, and means ``true``
    """

    name: str
    short: str | None
    default: Any
    read: Callable[[str], Any]
    expects: str
    help: str
    many: bool = False
    secret: bool = False
    switch: bool = False

    @property
    def attribute(self) -> str:
        """Its name in `Settings`."""
        return self.name.replace("-", "_")


def integer(least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number of a range."""

    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return read


def seconds(text: str) -> float:
    """Reads a length of time."""
    value = float(text)
    if not 0 < value <= 1e9:
        raise ValueError
    return value


def choice(*names: str) -> Callable[[str], str]:
    """Reads one of some words."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return read


def boolean(text: str) -> bool:
    """Reads ``true`` or ``false``."""
    return choice("true", "false")(text.lower()) == "true"


def level(text: str) -> str:
    """Reads the name of a log level."""
    return choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(text.upper())


def path(text: str) -> Path:
    """Reads the path of a file or directory."""
    if not text:
        raise ValueError
    return Path(text)


class Settings:
    """The values of a table: one attribute a setting, dashes as underscores."""

    def __init__(self, table: Sequence[Setting], values: Mapping[str, Any]) -> None:
        for setting in table:
            setattr(self, setting.attribute, values.get(setting.name, setting.default))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no setting {name}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Malformed(f"{message}. See --help")


class Program:
    """The settings of a program.

    :param name: the program
    :param description: what it does, for its help
    :param prefix: what its variables begin with
    """

    def __init__(self, name: str, description: str, prefix: str, table: Sequence[Setting]) -> None:
        self.name = name
        self.description = description
        self.prefix = prefix
        self.table = tuple(table)

    def variable(self, setting: Setting) -> str:
        """The name of the environment variable of a setting."""
        return self.prefix + setting.name.upper().replace("-", "_")

    def parser(self) -> argparse.ArgumentParser:
        """The parser of its command line."""
        made = _Parser(
            prog=self.name,
            description=self.description,
            epilog="Every setting is also read from its variable, and from the file given with "
            "--settings (YAML, one 'name: value' a line): flag over variable over file over "
            "default.",
            allow_abbrev=False,
        )
        made.add_argument("--settings", metavar="FILE", help="YAML file with settings")
        for setting in self.table:
            flags = [f"-{setting.short}"] if setting.short else []
            takes: dict[str, Any] = {"metavar": "VALUE", "nargs": "+" if setting.many else None}
            if setting.switch:
                takes = {"action": "store_const", "const": "true"}
            made.add_argument(
                *flags,
                f"--{setting.name}",
                **takes,
                dest=setting.name,
                help=f"{setting.help}; {setting.expects} ({self.variable(setting)}, "
                f"default: {_shown(setting.default)})".replace("%", "%%"),
            )
        return made

    def load(self, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
        """The values that are given, from all their sources.

        :raises Malformed: naming setting, source and value, and what would be right
        """
        flags = vars(self.parser().parse_args(arguments))
        file = flags.pop("settings") or environment.get(f"{self.prefix}SETTINGS")
        values = self._from_file(Path(file)) if file else {}
        for setting in self.table:
            variable = self.variable(setting)
            if variable in environment:
                text = environment[variable]
                parts = [part for part in text.split(":") if part] if setting.many else text
                values[setting.name] = _read(setting, parts, f"variable {variable}")
            if flags[setting.name] is not None:
                values[setting.name] = _read(setting, flags[setting.name], f"--{setting.name}")
        return values

    def _from_file(self, path: Path) -> dict[str, Any]:
        try:
            # Every scalar as text: each setting reads its own. This loader makes nothing else.
            content = path.read_text(encoding="utf-8")
            given = yaml.load(content, Loader=yaml.BaseLoader)  # noqa: S506
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise Malformed(f"settings file {path}: {error}") from None
        if given is None or given == "":
            return {}
        if not isinstance(given, dict):
            raise Malformed(f"settings file {path}: it must hold 'name: value' lines")
        known = {setting.name: setting for setting in self.table}
        values = {}
        for name, text in given.items():
            if name not in known:
                raise Malformed(
                    f"settings file {path}: no setting {name!r}; there are {', '.join(known)}"
                )
            many = known[name].many
            if many and isinstance(text, str):
                text = [text]
            if not (
                isinstance(text, str)
                or (many and isinstance(text, list) and all(isinstance(part, str) for part in text))
            ):
                number = "a list of values" if many else "one value"
                raise Malformed(
                    f"settings file {path}: {name} takes {number}: {known[name].expects}"
                )
            values[name] = _read(known[name], text, f"file {path}")
        return values


def _shown(value: Any) -> str:
    if value in (None, ()):
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
